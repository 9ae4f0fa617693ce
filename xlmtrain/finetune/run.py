"""The directory of a fine-tuning, and its seeds one after the other.

config.json   the settings, and what was learned from: model and data      log.txt   what was printed
results.json  the labels, and for each seed and language the scores
seed-0/       metrics.jsonl  tensorboard/  result.json  checkpoints/  (see train/checkpoint.py)
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from xlmtrain import __version__
from xlmtrain.config.finetune import FinetuneConfig
from xlmtrain.config.schema import flatten
from xlmtrain.errors import ConfigError, UserError
from xlmtrain.evaluate.classification_data import Encoded, encode, labels_of, read_examples
from xlmtrain.finetune.loop import Finetuning
from xlmtrain.finetune.scores import Scores
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.runtime.atomic_io import read_json, write_json
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.lock import lock_directory
from xlmtrain.runtime.logging import log_to_file
from xlmtrain.runtime.output_paths import (
    DirectoryKind,
    check_directory,
    check_output_path,
    check_replaceable,
    clear_directory,
)
from xlmtrain.runtime.precision import choose_precision
from xlmtrain.runtime.signals import StopRequest
from xlmtrain.train.run_dir import RUN

log = logging.getLogger(__name__)
SPLITS = ("train", "valid", "test")
FINETUNING = DirectoryKind(
    name="a fine-tuning",
    header="config.json",
    keys=frozenset({"run", "init", "task", "seeds", "train"}),
    files=(
        *("config.json", "log.txt", "results.json", ".*.tmp", "seed-*/", "seed-*/result.json"),
        *(f"seed-*/{file}" for file in RUN.files),
    ),
)
# What may differ when a fine-tuning goes on; with any other change its results would be of two kinds.
_MAY_CHANGE = ("run", "init", "seeds", "task.train", "task.valid", "task.test", "train.device", "train.overwrite")


def finetune(
    config: FinetuneConfig, saved: PretrainedBundle, distributed: Distributed, stop: StopRequest
) -> dict[str, list[Scores]] | None:
    """Language of ``task.test`` -> the scores of each seed; None if a signal came first.

    Everything is read, and so checked, before the directory is touched. Raises ConfigError if the directory belongs to
    another fine-tuning, DataError for files that are not as they should be.
    """
    if config.train.batch_size < distributed.world_size:
        raise ConfigError(f"train.batch_size={config.train.batch_size}: less than {distributed.world_size} processes")
    precision = choose_precision(config.train.precision, distributed.device)
    labels, splits = _read(config, saved)
    for line in _summary(labels, splits):
        log.info(line)
    begun = _settings(config, saved, splits)
    distributed.assert_same(flatten(begun), "settings, model or data")
    with _Directory(config, begun, distributed) as path:
        results = []
        for seed in config.seeds:
            place = path / f"seed-{seed}"
            if (place / "result.json").is_file():
                results.append(read_json(place / "result.json"))
                continue
            if distributed.is_main:
                place.mkdir(exist_ok=True)
            training = Finetuning(
                config=config,
                seed=seed,
                directory=place,
                saved=saved,
                labels=len(labels),
                splits=splits,
                distributed=distributed,
                precision=precision,
                stop=stop,
            )
            result = training.run()
            if result is None:
                return None
            if distributed.is_main:
                write_json(place / "result.json", result)
            results.append(result)
        if distributed.is_main:
            write_json(path / "results.json", {"labels": labels, "seeds": results})
    return {language: [Scores(**result["test"][language]) for result in results] for language in config.task.test}


def _read(config: FinetuneConfig, saved: PretrainedBundle) -> tuple[list[str], dict[str, dict[str, Encoded]]]:
    examples = {
        split: {
            language: read_examples(Path(path), language, f"task.{split}.{language}")
            for language, path in getattr(config.task, split).items()
        }
        for split in SPLITS
    }
    labels = labels_of({f"task.{split}.{lang}": e for split, files in examples.items() for lang, e in files.items()})
    learned = {example.label for file in examples["train"].values() for example in file}
    if unknown := [label for label in labels if label not in learned]:
        log.warning("never learned, so never right: %s", ", ".join(unknown))
    text, positions, most = saved.pipeline(), saved.config.max_positions, config.task.max_tokens
    return labels, {
        split: encode("task", files, text, saved.languages, positions, labels, most)
        for split, files in examples.items()
    }


def _summary(labels: Sequence[str], splits: Mapping[str, Mapping[str, Encoded]]) -> list[str]:
    sizes = "; ".join(
        f"{split} " + ", ".join(f"{language} {len(file.ids):,}" for language, file in files.items())
        for split, files in splits.items()
        if files
    )
    return [f"{len(labels)} labels", f"examples: {sizes}"]


def _settings(
    config: FinetuneConfig, saved: PretrainedBundle, splits: Mapping[str, Mapping[str, Encoded]]
) -> dict[str, Any]:
    """The settings as plain JSON values, and checksums of what the paths in them stand for."""
    weights, text = hashlib.sha256(), hashlib.sha256()
    for name in sorted(saved.weights):
        weights.update(np.ascontiguousarray(saved.weights[name].float().cpu().numpy()).view(np.uint8).data)
    for split, files in splits.items():
        for language, file in files.items():
            text.update(f"{split} {language}".encode())
            for array in (*file.ids, file.labels):
                text.update(np.ascontiguousarray(array).view(np.uint8).data)
    return {
        **json.loads(json.dumps(asdict(config))),
        "xlmtrain": __version__,
        "model_sha256": weights.hexdigest(),
        "data_sha256": text.hexdigest(),
    }


class _Directory:
    """Made or reopened by the main process, and held by it for the length of a context."""

    def __init__(self, config: FinetuneConfig, begun: dict[str, Any], distributed: Distributed) -> None:
        self.path = Path(config.run)
        problem: UserError | None = None
        self._lock: TextIO | None = None
        if distributed.is_main:
            try:
                self._open(config, begun)
            except UserError as error:
                problem = error
        failed = distributed.all_reduce_sum([float(problem is not None)])[0] > 0
        if problem is not None:
            raise problem
        if failed:
            raise ConfigError(f"run={self.path}: rank 0 cannot use this directory, and says why")

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()

    def _open(self, config: FinetuneConfig, begun: dict[str, Any]) -> None:
        files = [path for split in SPLITS for path in getattr(config.task, split).values()]
        check_output_path("run", config.run, [config.init.pretrained, *files])
        if config.train.overwrite:
            check_replaceable("run", self.path, FINETUNING)
        else:
            check_directory("run", self.path, FINETUNING)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"run={self.path}: cannot make the directory ({error.strerror})") from None
        self._lock = lock_directory(self.path)
        before = self.path / "config.json"
        if config.train.overwrite:
            clear_directory("run", self.path, FINETUNING)
        elif before.is_file():
            old, new = flatten(read_json(before)), flatten(begun)
            changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
            refused = [f"{key}: {old.get(key)} -> {new.get(key)}" for key in changed if not _may_change(key)]
            if refused:
                raise ConfigError(
                    f"run={self.path}: a fine-tuning is in this directory that began otherwise:\n  "
                    + "\n  ".join(refused)
                    + "\ngive the old values to resume it, another run=..., or train.overwrite=true to replace it"
                )
        write_json(before, begun)
        log_to_file(self.path / "log.txt")


def _may_change(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in _MAY_CHANGE)
