"""Prepare the sample corpus, pretrain a small model on it, write a report, and fill a mask: minutes on a CPU.

    xlmtrain demo              in the directory xlmtrain-demo
    xlmtrain demo DIRECTORY    in another one

The same command again continues after an interruption.
"""

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from xlmtrain.commands.prepare import SAMPLE, copy_sample
from xlmtrain.config.load import parse_args
from xlmtrain.errors import ConfigError
from xlmtrain.runtime.device import best_device, usable_cores
from xlmtrain.runtime.output_paths import check_output_path

_PREPARE = ("prepare", "corpus=sample")
_TRAIN = ("train", "experiment=quickstart")
_REPORT = ("report", "run=runs/quickstart")
_TRANSLATION = ("translation=My sister is buying fresh bread.", "translation_lang=en")
_FILL_MASK = ("fill-mask", "model=runs/quickstart", "lang=de", "Meine <mask> kauft frisches Brot.", *_TRANSLATION)


@dataclass
class DemoOptions:
    """This command has no settings; its argument is the directory."""


def main(argv: list[str]) -> None:
    """Run the commands of a first project in its directory, each as a process of its own."""
    _, others = parse_args(DemoOptions, argv)
    if len(others) > 1 or any(word.startswith("-") for word in others):
        raise ConfigError(f"not understood: {' '.join(others)}; give one directory")
    directory = Path(others[0] if others else "xlmtrain-demo")
    check_output_path("directory", others[0] if others else directory)
    copy_sample(directory / SAMPLE)
    if not (directory / "prepared/sample").exists():
        _run(directory, _PREPARE)
    for words in (_TRAIN, _REPORT, _FILL_MASK):
        _run(directory, words)
    print(f"\nOpen {directory / 'runs/quickstart/report.html'}; every command above also works in {directory}.")


def training_processes() -> int:
    """Return the number of processes for the quickstart: one for each GPU or core, but 1, 2 or 4, as a batch has four
    sub-batches."""
    kind = best_device()
    available = usable_cores() if kind == "cpu" else torch.get_device_module(kind).device_count()
    return max(processes for processes in (1, 2, 4) if processes <= max(available, 1))


def _run(directory: Path, words: tuple[str, ...]) -> None:
    """Show and run one command, training in several processes. Ends this process, too, if it fails."""
    processes = training_processes() if words[0] == "train" else 1
    launcher, module = ["xlmtrain"], ["xlmtrain"]
    if processes > 1:
        settings = ["--standalone", f"--nproc-per-node={processes}", "-m", "xlmtrain"]
        launcher, module = ["torchrun", *settings], ["torch.distributed.run", *settings]
    print(f"\n$ {shlex.join([*launcher, *words])}", flush=True)
    done = subprocess.run([sys.executable, "-m", *module, *words], cwd=directory, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
