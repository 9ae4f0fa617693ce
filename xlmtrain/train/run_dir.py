"""The run directory: everything that a run leaves behind, and enough of the data to use the model without it.

config.json         the settings, complete          status.json     running, done, preempted or failed: why, who, when
environment.json    versions, device, processes      log.txt         what was printed
metrics.jsonl       every figure, a record a line    tensorboard/    the same as curves
dataset.json codes vocab   copies from the prepared data
checkpoints/        see train/checkpoint.py
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import socket
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from xlmtrain import __version__
from xlmtrain.config.old_names import current_settings
from xlmtrain.config.schema import Config, flatten
from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import ConfigError, UserError
from xlmtrain.runtime.atomic_io import read_json, sha256_of, sync_file, write_json
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
from xlmtrain.runtime.watchdog import Watchdog
from xlmtrain.train.state import Progress

log = logging.getLogger(__name__)

_CHECKPOINT_FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json", ".*.tmp")
RUN = DirectoryKind(
    name="a training run",
    header="config.json",
    keys=frozenset({"run", "model", "data", "optim", "train"}),
    files=(
        *("config.json", "environment.json", "status.json", "metrics.jsonl", "log.txt", "report.html"),
        *("dataset.json", "codes", "vocab", ".*.tmp", ".failed-rank-*"),
        *("tensorboard/", "tensorboard/events.out.tfevents.*", "tensorboard/projector/*", "tensorboard/projector/*/*"),
        *("checkpoints/", "checkpoints/best.json", "checkpoints/.best.json.tmp"),
        *("checkpoints/step-*/", "checkpoints/.step-*/"),
        *(f"checkpoints/{step}/{name}" for step in ("step-*", ".step-*") for name in _CHECKPOINT_FILES),
    ),
)

# A run can go on with other values of these; any other change would make it another run.
_MAY_CHANGE = ("run", "data.path", "optim.", "train.", "evaluate.")
_MUST_STAY = (
    "optim.fused",  # apex and torch keep their step counts in different places
    "train.batch_tokens",
    "evaluate.metric",  # and what changes its value: the best so far could not be compared
    "evaluate.max_tokens",
    "evaluate.pairs_per_batch",
    "evaluate.parallel_pairs",
    "evaluate.zero_shot_probe.",
)


def code_fingerprint() -> str:
    """Of the source files of this package."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def config_as_json(config: Config) -> dict[str, Any]:
    """The settings as plain JSON values."""
    return json.loads(json.dumps(asdict(config)))


class RunDirectory:
    """The directory of one run. The main process writes it, the others only know where it is.

    As a context it keeps ``status.json``, ``failed`` if an exception goes through it, and lets go of the lock; and it
    watches over the process, which is to tell ``watch`` that it gets on.
    """

    def __init__(self, config: Config, dataset: Dataset, distributed: Distributed) -> None:
        """Make or reopen it; returns on no process before it is ready on disk.

        Raises ConfigError if it belongs to a run with other settings or other data, or another process holds it.
        """
        self.path = Path(config.run)
        self.is_main, self._rank = distributed.is_main, distributed.rank
        self.progress: Progress | None = None
        """How far the run is, once it is known."""
        self._mute = False
        self.watch = Watchdog(config.train.hang_timeout, self._beat, self._failed)
        problem: UserError | None = None
        if self.is_main:
            try:
                self._open(config, dataset, distributed)
            except UserError as error:
                problem = error
            except OSError as error:  # a full disk, say
                problem = ConfigError(f"run={self.path}: cannot be used ({error})")
        failed = distributed.all_reduce_sum([float(problem is not None)])[0] > 0
        if problem is not None:
            raise problem
        if failed:
            raise ConfigError(f"run={self.path}: rank 0 cannot use this directory, and says why")

    def _open(self, config: Config, dataset: Dataset, distributed: Distributed) -> None:
        inputs: list[str | Path] = [dataset.path, *config.init.word_vectors]
        if config.init.pretrained is not None:
            inputs.append(config.init.pretrained)
        check_output_path("run", config.run, inputs)
        if config.train.overwrite:
            check_replaceable("run", self.path, RUN)
        else:
            check_directory("run", self.path, RUN)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"run={self.path}: cannot make this directory ({error.strerror})") from None
        self._lock = lock_directory(self.path)
        try:
            self._fill(config, dataset, distributed)
        except BaseException:
            self._lock.close()
            raise

    def _fill(self, config: Config, dataset: Dataset, distributed: Distributed) -> None:
        sync_file(self.path.absolute().parent)
        settings = config_as_json(config)
        changes: list[str] = []
        if config.train.overwrite:
            clear_directory("run", self.path, RUN)
        else:
            changes = self._changes(settings, dataset)
        write_json(self.path / "config.json", settings)  # first: it says whose directory this is
        log_to_file(self.path / "log.txt")
        for change in changes:
            log.info("another setting than before, %s", change)
        for name in ("dataset.json", "codes", "vocab"):
            if not (dataset.path / name).exists():
                continue  # imported data may come without codes
            copy = self.path / f".{name}.tmp"
            shutil.copyfile(dataset.path / name, copy)
            sync_file(copy)
            os.replace(copy, self.path / name)
        write_json(self.path / "environment.json", _environment(distributed))
        for remark in self.path.glob(".failed-rank-*"):
            remark.unlink(missing_ok=True)
        self.status("running")

    def __enter__(self) -> RunDirectory:
        self.watch.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.watch.stop()
        if error is not None:
            self._failed(f"{type(error).__name__}: {error}", alone=isinstance(error, UserError))
        if self.is_main:
            self._lock.close()

    def status(self, status: str, reason: str = "") -> None:
        """Write ``status.json``: ``running``, ``done``, ``preempted`` or ``failed``, why, which process and when."""
        if not self.is_main:
            return
        content = {
            "status": status,
            "reason": reason,
            "step": self.progress.step if self.progress else None,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        }
        try:
            write_json(self.path / "status.json", content)
        except OSError as error:  # a full disk does not end a run for that
            if not self._mute:
                log.warning("status.json is not up to date: %s", error)
            self._mute = True

    def _beat(self) -> None:
        self.status("running")

    def _failed(self, reason: str, alone: bool = False) -> None:
        """Leave ``reason`` in ``status.json``. Other processes leave theirs beside it, for the main one to report.

        What ends the main process may be that another one is gone, whose reason is then the true one; unless it stands
        ``alone``.
        """
        if not self.is_main:
            with suppress(OSError):
                self.path.joinpath(f".failed-rank-{self._rank}").write_text(reason, encoding="utf-8")
            return
        for remark in [] if alone else sorted(self.path.glob(".failed-rank-*")):
            with suppress(OSError):
                reason = f"rank {remark.name.rpartition('-')[2]}: {remark.read_text(encoding='utf-8')}\n{reason}"
        self.status("failed", reason)

    def _changes(self, settings: dict[str, Any], dataset: Dataset) -> list[str]:
        """How the settings differ from those the run began with, one line a key."""
        before = self.path / "config.json"
        if not before.is_file():
            return []
        old, new = flatten(current_settings(read_json(before))), flatten(settings)
        if "imported" in old:
            raise ConfigError(
                f"run={self.path}: an imported model is in this directory; start from it with init.pretrained={self.path} "
                "and give the run another directory"
            )
        # A setting that came with a later version and is not made use of is no change.
        keys = [key for key in sorted(old.keys() | new.keys()) if key in old or new[key]]
        changed = [key for key in keys if old.get(key) != new.get(key)]
        lines = {key: f"{key}: {old.get(key)} -> {new.get(key)}" for key in changed}
        # Its best so far cannot depend on an evaluation that an earlier version did not have.
        staying = [k for k in changed if k.startswith(_MUST_STAY) and (k in old or not k.startswith("evaluate."))]
        refused = [lines[key] for key in changed if key in staying or not key.startswith(_MAY_CHANGE)]
        copy = self.path / "dataset.json"  # not there yet if the first start was killed at once
        fingerprint = read_json(copy).get("fingerprint", "none") if copy.is_file() else dataset.fingerprint
        if fingerprint != dataset.fingerprint:
            refused.append(f"the data: fingerprint {fingerprint[:12]} -> {dataset.fingerprint[:12]}")
        if refused:
            raise ConfigError(
                f"run={self.path}: a run is in this directory that began otherwise:\n  " + "\n  ".join(refused) + "\n"
                "give the old values to resume it, another run=... for a new run, or train.overwrite=true to replace it"
            )
        return list(lines.values())


def _environment(distributed: Distributed) -> dict[str, Any]:
    device = distributed.device
    return {
        "xlmtrain": __version__,
        "code": code_fingerprint(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "processes": distributed.world_size,
        "threads": torch.get_num_threads(),
    }
