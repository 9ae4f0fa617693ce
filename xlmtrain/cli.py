"""The command line: ``xlmtrain COMMAND ...``, the same as ``python -m xlmtrain`` and ``torchrun ... -m xlmtrain``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from xlmtrain import __version__
from xlmtrain.errors import ConfigError, did_you_mean
from xlmtrain.runtime.program import user_errors


class Command(NamedTuple):
    """``module``: of ``xlmtrain.commands``, with a function ``main(argv)``. ``summary``: one line for the help."""

    module: str
    summary: str


COMMANDS = {
    "demo": Command("demo", "prepare the sample corpus, pretrain a small model on it, write a report"),
    "download": Command("download", "download public corpora, or the codes and vocabulary of the released model"),
    "prepare": Command("prepare", "turn raw text into ids on disk, with BPE codes and a vocabulary"),
    "show-data": Command("show_data", "show a prepared data set, or the training batches of a step"),
    "plan": Command("plan", "estimate memory, time and cost of a run on a cluster"),
    "doctor": Command("doctor", "check machine, data and settings before a run, and try its first steps"),
    "train": Command("train", "pretrain a model, or resume a run"),
    "report": Command("report", "write a report on runs: one HTML file, and a summary on the terminal"),
    "evaluate": Command("evaluate", "measure perplexity, cloze, retrieval, lexicon induction, zero-shot transfer"),
    "fill-mask": Command("fill_mask", "predict the subwords at <mask>"),
    "finetune": Command("finetune", "fine-tune a model on labelled text"),
    "predict": Command("predict", "predict labels of texts or words with a fine-tuned model"),
    "translate": Command("translate", "translate raw text"),
    "export": Command("export", "convert a model to another format"),
    "import": Command("import_data", "convert binarized data of the original XLM"),
    "checkpoint": Command("checkpoint", "list, verify, average or delete the checkpoints of a run"),
    "prepare-shards": Command("prepare_shards", "run a share of a preparation, as an array task of Slurm"),
    "completion": Command("completion", "print a script with which bash completes commands and settings"),
}
"""Every command, in the order in which a project needs them."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command ``argv[0]`` with the arguments that follow it, and end the process with its exit code."""
    name, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    with user_errors():
        if name in ("--help", "-h"):
            print(usage())
        elif name == "--version":
            print(f"xlmtrain {__version__}")
        elif name not in COMMANDS:
            raise ConfigError(f"{name}: no such command{did_you_mean(name, COMMANDS)}; xlmtrain --help lists them")
        else:
            # Before torch is loaded: on shared cores a spinning OpenMP thread keeps its neighbour from working.
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
            sys.exit(load_command(name).main(arguments))


def load_command(name: str) -> Any:
    """Return the module of a command, imported only now: torch takes seconds, and not every command needs it."""
    return importlib.import_module(f"xlmtrain.commands.{COMMANDS[name].module}")


def usage() -> str:
    """Return the help: a line for each command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    head = ["usage: xlmtrain COMMAND [key=value ...]", ""]
    return "\n".join([*head, *lines, "", "xlmtrain COMMAND --help explains a command and its settings."])
