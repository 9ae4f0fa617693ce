"""A run directory as a saved model, and a model of another format as a run directory."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

from xlmtrain.config.load import from_json
from xlmtrain.config.old_names import current_settings
from xlmtrain.config.prepare import TextConfig
from xlmtrain.config.schema import ModelConfig
from xlmtrain.data.format import Header, fingerprint, id_dtype
from xlmtrain.errors import CheckpointError, DataError
from xlmtrain.interop.bundle import PretrainedBundle, Provenance
from xlmtrain.metrics.loggers import read_records
from xlmtrain.runtime.atomic_io import read_json, sha256_of, write_json
from xlmtrain.text.bpe import read_codes, write_codes
from xlmtrain.text.vocab import Vocab
from xlmtrain.train.checkpoint import CheckpointManager
from xlmtrain.train.checkpoint_io import read_checkpoint


class CheckpointChoice(str, Enum):
    """A run's best checkpoint by its metric (its last if there is no best), or its last."""

    best = "best"
    last = "last"


def is_run(path: Path) -> bool:
    """Whether ``path`` is a run directory, or one of a run's checkpoints."""
    return (path / "checkpoints").is_dir() or (path / "manifest.json").is_file()


def read_run(path: Path, which: CheckpointChoice = CheckpointChoice.best) -> PretrainedBundle:
    """The model of a run directory, or of the one checkpoint of it that ``path`` is.

    Raises CheckpointError if there is no sound checkpoint, DataError if its vocabulary is missing or damaged.
    """
    run, checkpoint = path, None
    if (path / "manifest.json").is_file():
        run, checkpoint = path.resolve().parents[1], read_checkpoint(path, optimizer=False)
    else:
        store = CheckpointManager(run / "checkpoints", keep_last=1)
        best = store.best_step() if which is CheckpointChoice.best else None
        checkpoint = (
            store.latest(optimizer=False) if best is None else read_checkpoint(store.path(best), optimizer=False)
        )
    if checkpoint is None:
        raise CheckpointError(f"{run}: no checkpoint yet")
    settings, header, vocab = (
        current_settings(read_json(run / "config.json")),
        Header.read(run),
        Vocab.read(run / "vocab"),
    )
    if vocab.fingerprint != header.vocab_fingerprint:
        raise DataError(f"{run / 'vocab'}: is not the vocabulary that the run was trained with; put that one back")
    if "model" not in settings:
        raise CheckpointError(f"{run / 'config.json'}: does not say what kind of model it is")
    step = checkpoint.state["progress"]["step"]
    sizes = {name: {"sentences": c.sentences, "tokens": c.tokens} for name, c in header.corpora.items()}
    return PretrainedBundle(
        config=from_json(ModelConfig, settings["model"]),
        languages=header.languages,
        vocab=vocab,
        weights=checkpoint.model,
        text=TextConfig(**header.text),
        codes=read_codes(run / "codes") if (run / "codes").exists() else [],
        history=Provenance(str(checkpoint.path), step, settings, sizes, _figures(run / "metrics.jsonl", step)),
    )


def write_run(model: PretrainedBundle, directory: Path) -> None:
    """Fill ``directory`` with what a run leaves behind, as if it had trained the model: enough to use it, to evaluate
    it and to start another run from it (``init.pretrained``).

    Raises DataError for a vocabulary that cannot be kept in a file: with white space in a word, or rising counts.
    """
    write_json(directory / "config.json", {"model": asdict(model.config), "imported": model.history.source})
    model.vocab.write(directory / "vocab")
    try:
        kept = Vocab.read(directory / "vocab").fingerprint == model.vocab.fingerprint
    except DataError:
        kept = False
    if not kept:
        raise DataError(
            f"{model.history.source}: a run cannot keep its vocabulary; it needs words without white space, by falling "
            "counts"
        )
    codes_sha256 = ""
    if model.codes:
        write_codes(model.codes, directory / "codes")
        codes_sha256 = sha256_of(directory / "codes")
    text = asdict(model.text)
    Header(
        languages=model.languages,
        dtype=id_dtype(len(model.vocab)).name,
        vocab_size=len(model.vocab),
        vocab_fingerprint=model.vocab.fingerprint,
        text=text,
        fingerprint=fingerprint(model.vocab.fingerprint, codes_sha256, text, {}),
        corpora={},
    ).write(directory)
    state: dict[str, Any] = {"progress": {"step": model.history.step}}
    CheckpointManager(directory / "checkpoints", keep_last=1).save(model.history.step, model.weights, {}, state)


def _figures(metrics: Path, step: int) -> dict[str, float]:
    """The figures of the last evaluation up to ``step``."""
    records = read_records(metrics) if metrics.is_file() else []
    for record in reversed(records):
        found = {key: value for key, value in record.items() if key.startswith("valid/")}
        if found and record["step"] <= step:
            return found
    return {}
