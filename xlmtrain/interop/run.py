"""Run directories: read as a bundle, averaged over checkpoints, and written from a bundle of any format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from enum import Enum
from pathlib import Path
from typing import Any

import torch

from xlmtrain.config.load import from_json
from xlmtrain.config.old_names import current_settings
from xlmtrain.config.prepare import TextConfig
from xlmtrain.config.schema import ModelConfig
from xlmtrain.data.format import Header, fingerprint, id_dtype
from xlmtrain.errors import CheckpointError, DataError
from xlmtrain.interop.bundle import PretrainedBundle, Provenance, trained_causally
from xlmtrain.metrics.loggers import read_records
from xlmtrain.runtime.atomic_io import read_json, sha256_of, write_json
from xlmtrain.text.bpe import read_codes, write_codes
from xlmtrain.text.vocab import Vocab
from xlmtrain.train.checkpoint import CheckpointManager
from xlmtrain.train.checkpoint_io import Checkpoint, read_checkpoint


class CheckpointChoice(str, Enum):
    """A run's best checkpoint by its metric (its last if none is marked best), or its last."""

    best = "best"
    last = "last"


def is_run(path: Path) -> bool:
    """Return True for a run directory and for a checkpoint inside one."""
    return (path / "checkpoints").is_dir() or (path / "manifest.json").is_file()


def read_run(path: Path, checkpoint: CheckpointChoice = CheckpointChoice.best) -> PretrainedBundle:
    """Read a run directory, or a single checkpoint inside one.

    Raises CheckpointError if there is no intact checkpoint, DataError if the vocabulary is missing or damaged.
    """
    run, found = _open_checkpoint(path, checkpoint)
    settings = current_settings(read_json(run / "config.json"))
    header, vocab = Header.read(run), Vocab.read(run / "vocab")
    if vocab.fingerprint != header.vocab_fingerprint:
        raise DataError(f"{run / 'vocab'}: is not the vocabulary that the run was trained with; put that one back")
    if "model" not in settings:
        raise CheckpointError(f"{run / 'config.json'}: does not say what kind of model it is")
    step = found.state["progress"]["step"]
    sizes = {name: {"sentences": c.sentences, "tokens": c.tokens} for name, c in header.corpora.items()}
    return PretrainedBundle(
        config=from_json(ModelConfig, settings["model"]),
        languages=header.languages,
        vocab=vocab,
        weights=found.model,
        text=TextConfig(**header.text),
        codes=read_codes(run / "codes") if (run / "codes").exists() else [],
        provenance=Provenance(str(found.path), step, settings, sizes, _metrics(run / "metrics.jsonl", step)),
        causal=bool(settings.get("causal", trained_causally(settings))),  # stored by write_run only
    )


def _open_checkpoint(path: Path, checkpoint: CheckpointChoice) -> tuple[Path, Checkpoint]:
    """Return the run directory and the chosen checkpoint; ``path`` itself if it is a checkpoint."""
    if (path / "manifest.json").is_file():
        return path.resolve().parents[1], read_checkpoint(path, optimizer=False)
    manager = CheckpointManager(path / "checkpoints", keep_last=1)
    best = manager.best_step() if checkpoint is CheckpointChoice.best else None
    if best is not None:
        return path, read_checkpoint(manager.path(best), optimizer=False)
    latest = manager.latest(optimizer=False)
    if latest is None:
        raise CheckpointError(f"{path}: no checkpoint yet")
    return path, latest


def _metrics(file: Path, step: int) -> dict[str, float]:
    """Return the validation metrics of the last evaluation up to ``step``."""
    for record in reversed(read_records(file) if file.is_file() else []):
        found = {key: value for key, value in record.items() if key.startswith("valid/")}
        if found and record["step"] <= step:
            return found
    return {}


def average_checkpoints(paths: Sequence[Path]) -> PretrainedBundle:
    """Average the weights of several checkpoints in float64, with equal weights (Izmailov et al. 2018).

    Everything else is taken from the last one. Raises CheckpointError if one is damaged or of another shape.
    """
    sums: dict[str, torch.Tensor] = {}
    for path in paths:
        bundle = read_run(path)
        shapes = {name: weight.shape for name, weight in bundle.weights.items()}
        if sums and shapes != {name: weight.shape for name, weight in sums.items()}:
            raise CheckpointError(f"{path}: its weights are not those of {paths[0]}")
        for name, weight in bundle.weights.items():
            sums[name] = weight.double() if name not in sums else sums[name] + weight
    mean = {name: (total / len(paths)).to(bundle.weights[name].dtype) for name, total in sums.items()}
    source = f"the mean of {', '.join(str(path) for path in paths)}"
    return replace(bundle, weights=mean, provenance=replace(bundle.provenance, source=source))


def write_run(bundle: PretrainedBundle, directory: Path) -> None:
    """Write a run directory without training state: for use, evaluation and as ``init.pretrained`` of another run.

    Raises DataError for a vocabulary that the file format cannot hold: white space in a word, or increasing counts.
    """
    source = bundle.provenance.source
    settings = {"model": asdict(bundle.config), "causal": bundle.causal, "imported": source}
    write_json(directory / "config.json", settings)
    bundle.vocab.write(directory / "vocab")
    try:
        intact = Vocab.read(directory / "vocab").fingerprint == bundle.vocab.fingerprint
    except DataError:
        intact = False
    if not intact:
        raise DataError(
            f"{source}: a run cannot keep its vocabulary; it needs words without white space, by falling counts"
        )
    codes_sha256 = ""
    if bundle.codes:
        write_codes(bundle.codes, directory / "codes")
        codes_sha256 = sha256_of(directory / "codes")
    text = asdict(bundle.text)
    Header(
        languages=bundle.languages,
        dtype=id_dtype(len(bundle.vocab)).name,
        vocab_size=len(bundle.vocab),
        vocab_fingerprint=bundle.vocab.fingerprint,
        text=text,
        fingerprint=fingerprint(bundle.vocab.fingerprint, codes_sha256, text, {}),
        corpora={},
    ).write(directory)
    step = bundle.provenance.step
    state: dict[str, Any] = {"progress": {"step": step}}
    CheckpointManager(directory / "checkpoints", keep_last=1).save(step, bundle.weights, {}, state)
