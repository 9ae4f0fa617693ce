"""Run directories: read as a bundle, averaged over checkpoints, and written from a bundle of any format."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from enum import Enum
from pathlib import Path
from typing import Any

import torch

from xlmtrain.config.load import from_json
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.old_names import current_settings
from xlmtrain.config.prepare import TextConfig
from xlmtrain.config.schema import flatten
from xlmtrain.data.format import Header, open_verified
from xlmtrain.errors import CheckpointError, ConfigError, DataError, damage_as
from xlmtrain.interop.bundle import PretrainedBundle, Provenance, trained_causally
from xlmtrain.metrics.energy import DeviceEnergy
from xlmtrain.metrics.loggers import read_records
from xlmtrain.runtime.atomic_io import read_json, write_json
from xlmtrain.runtime.typed_json import typed
from xlmtrain.text.bpe import read_codes, write_codes
from xlmtrain.text.tokenizer_json import SPECIAL_TOKENS, TokenizerVocab
from xlmtrain.text.vocab import Vocab
from xlmtrain.train.checkpoint import CheckpointManager, checkpoint_path
from xlmtrain.train.checkpoint_io import STATE, Checkpoint, averaged_weights, read_checkpoint


class CheckpointChoice(str, Enum):
    """Choice of a checkpoint: best by the metric (last if none is marked), last, or the averaged weights of last."""

    best = "best"
    last = "last"
    average = "average"


def read_run(path: Path, checkpoint: CheckpointChoice = CheckpointChoice.best) -> PretrainedBundle:
    """Read a run directory, or a single checkpoint inside one.

    Raises CheckpointError if there is no intact checkpoint, DataError as :func:`open_verified`.
    """
    run, found = _open_checkpoint(path, checkpoint)
    settings = current_settings(read_json(run / "config.json"))
    header, vocab = open_verified(run)
    if "model" not in settings:
        raise CheckpointError(f"{run / 'config.json'}: does not say what kind of model it is")
    with damage_as(CheckpointError, f"{run}: incomplete or damaged"):
        provenance = _provenance(run, found, settings, header)
        return PretrainedBundle(
            config=from_json(ModelConfig, settings["model"]),
            weights=found.model,
            **text_fields(run, header, vocab),
            provenance=provenance,
            causal=bool(settings.get("causal", trained_causally(settings))),  # stored by write_run only
        )


def text_fields(directory: Path, header: Header, vocab: Vocab) -> dict[str, Any]:
    """Return the fields of a bundle that :func:`write_text` wrote."""
    return {
        "languages": header.languages,
        "vocab": vocab,
        "text": TextConfig() if isinstance(vocab, TokenizerVocab) else typed(TextConfig, header.text, "text"),
        "codes": read_codes(directory / "codes") if (directory / "codes").exists() else [],
    }


def _open_checkpoint(path: Path, checkpoint: CheckpointChoice) -> tuple[Path, Checkpoint]:
    """Return the run directory and the chosen checkpoint; ``path`` itself if it is a checkpoint."""
    averaged = checkpoint is CheckpointChoice.average
    if (path / "manifest.json").is_file():
        run, found = path.resolve().parents[1], read_checkpoint(path, optimizer=averaged)
    else:
        run, manager = path, CheckpointManager(path / "checkpoints", keep_last=1)
        best = manager.best_step() if checkpoint is CheckpointChoice.best else None
        latest = manager.latest(averaged) if best is None else read_checkpoint(manager.path(best), optimizer=False)
        if latest is None:
            raise CheckpointError(f"{path}: no checkpoint yet")
        found = latest
    if not averaged:
        return run, found
    if not (weights := averaged_weights(found)):
        raise CheckpointError(f"{found.path}: has no averaged weights; training with average.kind=ema keeps them")
    return run, replace(found, model=found.model | weights)


def _provenance(run: Path, found: Checkpoint, settings: dict[str, Any], header: Header) -> Provenance:
    step = typed(int, found.state["progress"]["step"], "progress.step")
    spent, environment = found.state["progress"], {}
    with suppress(CheckpointError, LookupError, TypeError, ValueError):  # the run may have gone on
        newest = max(CheckpointManager(run / "checkpoints", keep_last=1).steps())
        later = read_json(checkpoint_path(run / "checkpoints", newest) / STATE)["progress"]
        spent = {"seconds": typed(float, later["seconds"]), "energy": later["energy"]}
    with suppress(CheckpointError):
        environment = read_json(run / "environment.json")
    return Provenance(
        source=str(found.path),
        step=step,
        settings=settings,
        corpora={name: {"sentences": c.sentences, "tokens": c.tokens} for name, c in header.corpora.items()},
        metrics=_metrics(run / "metrics.jsonl", step),
        files={name: corpus.sources for name, corpus in header.corpora.items()},
        seconds=typed(float, spent.get("seconds", 0.0), "progress.seconds"),
        energy=typed(list[DeviceEnergy], spent.get("energy", []), "progress.energy"),
        software=", ".join(f"{name} {environment[name]}" for name in ("xlmtrain", "torch") if name in environment),
    )


def seed_metrics(paths: Sequence[str], own: Provenance) -> list[dict[str, float]]:
    """Return the metrics of the best checkpoints of other runs, each of which differs from ``own`` in its seed alone.

    Raises ConfigError for a run that differs in other settings, has the seed of another one, or was not evaluated.
    """
    seeds, found = {own.settings.get("seed")}, []
    for path in paths:
        settings = current_settings(read_json(Path(path) / "config.json"))
        theirs, ours = flatten(settings), flatten(own.settings)
        keys = (theirs.keys() | ours.keys()) - {"run", "seed", "train.overwrite"}
        if odd := sorted(key for key in keys if theirs.get(key) != ours.get(key)):
            raise ConfigError(f"seeds={path}: differs from the model in more than its seed: {', '.join(odd)}")
        if settings.get("seed") in seeds:
            raise ConfigError(f"seeds={path}: has the seed {settings.get('seed')}, as another run")
        seeds.add(settings.get("seed"))
        manager = CheckpointManager(Path(path) / "checkpoints", keep_last=1)
        step = manager.best_step()
        metrics = _metrics(Path(path) / "metrics.jsonl", max(manager.steps(), default=0) if step is None else step)
        if own.metrics.keys() - metrics.keys():
            raise ConfigError(f"seeds={path}: lacks metrics that the model has; let the run end, or leave it out")
        found.append(metrics)
    return found


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

    Settings that are numbers are kept: evaluation takes lengths and masks from them. Raises DataError as
    :func:`write_vocab`.
    """
    step = bundle.provenance.step
    own = {"model": asdict(bundle.config), "causal": bundle.causal, "imported": True}
    write_json(directory / "config.json", {**bundle.provenance.public()["settings"], **own})
    write_text(bundle, directory)
    state = {"progress": {"step": step}}
    CheckpointManager(directory / "checkpoints", keep_last=1).save(step, bundle.weights, {}, state)


def write_text(bundle: PretrainedBundle, directory: Path) -> None:
    """Write vocabulary, codes and text settings, or the tokenizer. Raises DataError as :func:`write_vocab`."""
    write_vocab(bundle.vocab, directory, bundle.provenance.source)
    if bundle.codes:
        write_codes(bundle.codes, directory / "codes")
    text = {SPECIAL_TOKENS: bundle.vocab.names} if isinstance(bundle.vocab, TokenizerVocab) else asdict(bundle.text)
    Header.of(directory, bundle.vocab, bundle.languages, text, {}).write(directory)


def write_vocab(vocab: Vocab, directory: Path, source: str) -> None:
    """Write ``vocab``, or the tokenizer that it belongs to.

    Raises DataError, which names ``source``, for a vocabulary that the file format cannot hold.
    """
    if isinstance(vocab, TokenizerVocab):
        vocab.write_to(directory)
        return
    vocab.write(directory / "vocab")
    try:
        intact = Vocab.read(directory / "vocab").fingerprint == vocab.fingerprint
    except DataError:
        intact = False
    if not intact:
        raise DataError(
            f"{source}: its vocabulary cannot be kept; it needs words, without white space, by falling counts"
        )
