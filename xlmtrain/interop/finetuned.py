"""The directories of ``xlmtrain finetune``: read for prediction and export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xlmtrain.config.evaluate import Pooling
from xlmtrain.config.finetune import TaskKind
from xlmtrain.config.load import from_json
from xlmtrain.config.model import ModelConfig
from xlmtrain.data.format import open_verified
from xlmtrain.errors import CheckpointError, damage_as
from xlmtrain.interop.bundle import FinetunedBundle, Provenance
from xlmtrain.interop.run import text_fields
from xlmtrain.runtime.atomic_io import read_json
from xlmtrain.runtime.typed_json import typed
from xlmtrain.train.checkpoint import CheckpointManager
from xlmtrain.train.checkpoint_io import read_checkpoint

RESULT = "result.json"


def is_finetuned(path: Path) -> bool:
    """Return whether this is a directory of ``xlmtrain finetune``, or that of one of its seeds."""
    run = path.parent if path.name.startswith("seed-") else path
    config = run / "config.json"
    return config.is_file() and "seeds" in read_json(config)


def read_finetuned(path: Path) -> FinetunedBundle:
    """Read a seed's directory, or that of the best seed on the validation text; without one, of the first seed.

    Raises CheckpointError if no seed has ended its training, or a file is missing or damaged.
    """
    run = path.parent if path.name.startswith("seed-") else path
    results = {place: read_json(place / RESULT) for place in _seeds(path) if (place / RESULT).is_file()}
    if not results:
        raise CheckpointError(f"{path}: no seed has ended its training; the same command continues it")
    settings = read_json(run / "config.json")
    with damage_as(CheckpointError, f"{run}: incomplete or damaged"):
        if "labels" not in settings:
            raise ValueError("config.json does not have the labels; fine-tune again with this version")
        best = max(results, key=lambda place: typed(float, results[place].get("best", 0.0), "best"))
        step = typed(int, results[best]["best_step"], "best_step")
        found = read_checkpoint(CheckpointManager(best / "checkpoints", keep_last=1).path(step), optimizer=False)
        task = settings["task"]
        return FinetunedBundle(
            config=from_json(ModelConfig, settings["model"]),
            weights=found.model,
            **text_fields(run, *open_verified(run)),
            provenance=Provenance(str(best), step, settings, metrics=_metrics(results[best])),
            kind=TaskKind(task["kind"]),
            labels=typed(list[str], settings["labels"], "labels"),
            pooling=Pooling(settings["train"]["pooling"]),
            max_tokens=typed(int, task["max_tokens"], "task.max_tokens"),
            pair=from_json(ModelConfig, settings["model"]).parts.classifier.pair,
        )


def _seeds(path: Path) -> list[Path]:
    if path.name.startswith("seed-"):
        return [path]
    return sorted(path.glob("seed-*"), key=lambda place: int(place.name.partition("-")[2]))


def _metrics(result: dict[str, Any]) -> dict[str, float]:
    """Return ``test/LANGUAGE_METRIC`` -> value in %."""
    return {
        f"test/{language}_{name}": value
        for language, scores in result["test"].items()
        for name, value in scores["metrics"].items()
    }
