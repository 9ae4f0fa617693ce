"""Which format a saved model is in."""

from __future__ import annotations

from pathlib import Path

from xlmtrain.config.prepare import TextConfig
from xlmtrain.errors import CheckpointError, ConfigError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.hf.model import is_hugging_face, read_hugging_face
from xlmtrain.interop.run import CheckpointChoice, is_run, read_run
from xlmtrain.interop.xlm.checkpoint import read_original
from xlmtrain.text.bpe import read_codes


def read_model(
    path: str | Path,
    which: CheckpointChoice = CheckpointChoice.best,
    codes: str | Path | None = None,
    text: TextConfig | None = None,
) -> PretrainedBundle:
    """A run directory, one of its checkpoints, a Hugging Face folder, or one of the original program's ``.pth`` files.

    ``which``: of a run's checkpoints. ``codes`` (a file) and ``text`` are for ``.pth`` files, which hold neither; the
    other formats bring their own. Raises CheckpointError if it is none of these, or damaged.
    """
    path = Path(path)
    if path.is_file():
        model = read_original(path, read_codes(codes) if codes is not None else [], text or TextConfig())
    elif path.exists() and (codes is not None or text is not None):
        raise ConfigError(f"{path}: has its own codes and text settings; codes= and others are for .pth files")
    elif is_run(path):
        model = read_run(path, which)
    elif is_hugging_face(path):
        model = read_hugging_face(path)
    else:
        raise CheckpointError(
            f"{path}: {_what_is_there(path)}; expected a run directory, "
            "one of its checkpoints, a Hugging Face folder, or a .pth file of the original program"
        )
    model.check()
    return model


def _what_is_there(path: Path) -> str:
    if (path / "results.json").is_file():
        return "a fine-tuned classifier, whose results are in results.json"
    return "no model in it" if path.is_dir() else "no such file or directory"
