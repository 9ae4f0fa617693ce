"""The formats of saved models: those that are written, and the detection of those that are read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from xlmtrain.config.prepare import TextConfig
from xlmtrain.config.validate import CheckedSettings
from xlmtrain.errors import CheckpointError, ConfigError
from xlmtrain.interop.bundle import FinetunedBundle, PretrainedBundle
from xlmtrain.interop.finetuned import is_finetuned, read_finetuned
from xlmtrain.interop.hf.model import read_hf_folder
from xlmtrain.interop.run import CheckpointChoice, read_run
from xlmtrain.interop.xlm.conversion import read_xlm_checkpoint
from xlmtrain.runtime.atomic_io import read_json
from xlmtrain.text.bpe import read_codes


class ExportFormat(str, Enum):
    """Run directory; Hugging Face folder; folder of sentence-transformers; ONNX graphs; file of the original XLM;
    word2vec text; TensorBoard's projector."""

    run = "run"
    hf = "hf"
    sentence_transformers = "sentence-transformers"
    onnx = "onnx"
    xlm = "xlm"
    vectors = "vectors"
    projector = "projector"


@dataclass
class ModelOptions(CheckedSettings):
    """The settings with which a command is given its model."""

    model: str = "???"
    """A run directory, one of its checkpoints, a Hugging Face folder, or a .pth file of the original XLM."""

    checkpoint: CheckpointChoice = CheckpointChoice.best
    """Of a run directory: its best checkpoint, its last, or the averaged weights of its last."""

    codes: str | None = None
    """For a .pth file: the BPE codes of its data, in fastBPE's format, with which it reads raw text."""


def read_model(
    path: str | Path,
    checkpoint: CheckpointChoice = CheckpointChoice.best,
    codes: str | Path | None = None,
    text: TextConfig | None = None,
) -> PretrainedBundle:
    """Read a run directory, one of its checkpoints, a Hugging Face folder, or a ``.pth`` file of the original XLM.

    A decoder is read if there is one. ``checkpoint``: of a run directory. ``codes`` (a file) and ``text``: for ``.pth``
    files, which have no codes, and text settings only if they were exported here; the other formats have their own.
    Raises CheckpointError if ``path`` is none of these, a fine-tuned model, or damaged.
    """
    bundle = read_any_model(path, checkpoint, codes, text)
    if isinstance(bundle, FinetunedBundle):
        raise CheckpointError(f"{path}: a fine-tuned model; use it by xlmtrain predict or xlmtrain.load_finetuned")
    return bundle


def read_finetuned_model(path: str | Path) -> FinetunedBundle:
    """Read a directory of ``xlmtrain finetune``, one of its seeds, or a Hugging Face folder of a classifier.

    Raises CheckpointError if ``path`` is none of these, or damaged.
    """
    bundle = read_any_model(path)
    if not isinstance(bundle, FinetunedBundle):
        raise CheckpointError(f"{path}: a language model, which was not fine-tuned; expected the run of a fine-tuning")
    return bundle


def read_any_model(
    path: str | Path,
    checkpoint: CheckpointChoice = CheckpointChoice.best,
    codes: str | Path | None = None,
    text: TextConfig | None = None,
) -> PretrainedBundle | FinetunedBundle:
    """Read a model that may be fine-tuned; arguments as for :func:`read_model`."""
    bundle: PretrainedBundle | FinetunedBundle
    path = Path(path)
    if path.is_file():
        bundle = read_xlm_checkpoint(path, read_codes(codes) if codes is not None else [], text)
    elif path.exists() and (codes is not None or text is not None):
        raise ConfigError(f"{path}: has its own codes and text settings; codes= and others are for .pth files")
    elif is_finetuned(path):
        bundle = read_finetuned(path)
    elif (path / "checkpoints").is_dir() or (path / "manifest.json").is_file():
        bundle = read_run(path, checkpoint)
    elif (path / "config.json").is_file() and "model_type" in read_json(path / "config.json"):
        bundle = read_hf_folder(path)
    else:
        found = "no model in it" if path.is_dir() else "no such file or directory"
        expected = "a run directory, one of its checkpoints, a Hugging Face folder, or a .pth file of the original XLM"
        raise CheckpointError(f"{path}: {found}; expected {expected}")
    bundle.check()
    return bundle
