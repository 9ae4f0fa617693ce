"""The run directory: everything that a run leaves behind, and enough of the data to use the model without it.

config.json         the settings, complete          status.json     running, done, preempted or failed: why, who, when
environment.json    versions, device, processes      log.txt         the log
metrics.jsonl       all metrics, one record per line   tensorboard/    the same as curves
dataset.json codes vocab   copies from the prepared data; or tokenizer.json token_counts
checkpoints/        see train/checkpoint.py
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import torch

from xlmtrain import __version__
from xlmtrain.config.old_names import current_settings
from xlmtrain.config.schema import Config, config_as_json, flatten
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.format import TEXT_FILES
from xlmtrain.errors import ConfigError, UserError
from xlmtrain.metrics.energy import cpu_name
from xlmtrain.runtime.atomic_io import read_json, sync_file, write_json
from xlmtrain.runtime.device import device_name
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.failpoints import failpoint
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
from xlmtrain.train.checkpoint import CheckpointManager
from xlmtrain.train.checkpoint_io import FILES
from xlmtrain.train.resume_policy import RESUME_POLICY, ResumePolicy, code_fingerprint, past_changes
from xlmtrain.train.state import SelectionState

log = logging.getLogger(__name__)

_REPLACED = ("config.json", "environment.json", "status.json", "metrics.jsonl", "dataset.json", *TEXT_FILES)
RUN = DirectoryKind(
    name="a training run",
    header="config.json",
    keys=frozenset({"run", "model", "data", "optim", "train"}),
    files=(
        *("log.txt", "report.html", ".failed-rank-*"),
        *(name for file in _REPLACED for name in (file, f".{file}.tmp")),
        *("tensorboard/", "tensorboard/events.out.tfevents.*", "tensorboard/projector/*", "tensorboard/projector/*/*"),
        *("checkpoints/", "checkpoints/best.json", "checkpoints/.best.json.tmp"),
        *("checkpoints/step-[0-9]*/", "checkpoints/.step-[0-9]*/"),
        *(f"checkpoints/{step}/{name}" for step in ("step-[0-9]*", ".step-[0-9]*") for name in FILES),
    ),
)


def open_run(config: Config, dataset: Dataset, distributed: Distributed) -> RunDirectory:
    """Return the directory of a pretraining run. Raises ConfigError as :class:`RunDirectory`."""
    inputs: list[str | Path] = [dataset.path, *config.init.word_vectors, *config.init.models]
    return RunDirectory(RUN, RESUME_POLICY, config_as_json(config), distributed, inputs, dataset)


class RunDirectory:
    """The directory of one run. The main process writes it; the others only know its path.

    As a context it keeps ``status.json`` (``failed`` if an exception passes through), runs the watchdog, and releases
    the lock at the end.
    """

    def __init__(
        self,
        kind: DirectoryKind,
        policy: ResumePolicy,
        settings: dict[str, Any],
        distributed: Distributed,
        inputs: Sequence[str | Path],
        dataset: Dataset | None = None,
    ) -> None:
        """Create or reopen the directory ``settings["run"]``. Collective: returns when it is complete on the disk.

        ``settings``: stored as ``config.json``; ``train.overwrite`` and ``train.hang_timeout`` count here. ``inputs``:
        paths that the run reads. ``dataset``: copied, and must be the same at a resume. Raises ConfigError if the
        directory belongs to a run with other settings or other data, or another process holds it.
        """
        failpoint("open")
        self.path, self._kind, self._policy, self._dataset = Path(settings["run"]), kind, policy, dataset
        self.is_main, self._rank = distributed.is_main, distributed.rank
        self.state: SelectionState | None = None
        """Progress of the run, once it is known."""
        self._warned = False
        self._lock: TextIO | None = None
        self.watchdog = Watchdog(settings["train"]["hang_timeout"], partial(self.status, "running"), self._failed)
        distributed.run_on_all(lambda: self._open(settings, inputs, distributed) if self.is_main else None)

    def _open(self, settings: dict[str, Any], inputs: Sequence[str | Path], distributed: Distributed) -> None:
        overwrite = settings["train"]["overwrite"]
        check_output_path("run", settings["run"], inputs)
        (check_replaceable if overwrite else check_directory)("run", self.path, self._kind)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with ExitStack() as until_filled:
                lock = until_filled.enter_context(lock_directory(self.path))
                self._fill(settings, overwrite, distributed)
                until_filled.pop_all()
            self._lock = lock
        except OSError as error:  # a full disk, for example
            raise ConfigError(f"run={self.path}: cannot be used ({error})") from error

    def _fill(self, settings: dict[str, Any], overwrite: bool, distributed: Distributed) -> None:
        sync_file(self.path.absolute().parent)
        changes: list[str] = []
        if overwrite:
            clear_directory("run", self.path, self._kind)
        else:
            changes = self._changes(settings)
        write_json(self.path / "config.json", settings)  # first: it identifies the directory
        log_to_file(self.path / "log.txt")
        for change in changes:
            log.info("setting changed since the last start: %s", change)
        for name in ("dataset.json", *TEXT_FILES):
            # There is one kind of them, and imported data may lack codes.
            if self._dataset is not None and (self._dataset.path / name).exists():
                copy = self.path / f".{name}.tmp"
                shutil.copyfile(self._dataset.path / name, copy)
                sync_file(copy)
                os.replace(copy, self.path / name)
        write_json(self.path / "environment.json", _environment(distributed))
        for note in self.path.glob(".failed-rank-*"):
            note.unlink(missing_ok=True)
        self.status("running")

    def __enter__(self) -> RunDirectory:
        self.watchdog.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.watchdog.stop()
        if error is not None:
            self._failed(f"{type(error).__name__}: {error}", alone=isinstance(error, UserError))
        if self._lock is not None:
            self._lock.close()

    def end(self, status: str, reason: str) -> None:
        """Stop the watchdog and write the final status."""
        self.watchdog.stop()
        self.status(status, reason)

    def status(self, status: str, reason: str = "") -> None:
        """Write ``status.json``: ``running``, ``done``, ``preempted`` or ``failed``, the reason, process and time."""
        if not self.is_main:
            return
        content = {
            "status": status,
            "reason": reason,
            "step": self.state.step if self.state else None,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        }
        try:
            write_json(self.path / "status.json", content)
        except OSError as error:  # a full disk does not end a run for that
            if not self._warned:
                log.warning("status.json is not up to date: %s", error)
            self._warned = True

    def _failed(self, reason: str, alone: bool = False) -> None:
        """Write ``reason`` to ``status.json``; other processes than the main one leave it in a file for that.

        The main process often fails only because another one has ended, whose reason is the true one. It puts the
        others' reasons first, unless ``alone``: its own reason is the cause.
        """
        if not self.is_main:
            with suppress(OSError):
                self.path.joinpath(f".failed-rank-{self._rank}").write_text(reason, encoding="utf-8")
            return
        for note in [] if alone else sorted(self.path.glob(".failed-rank-*")):
            with suppress(OSError):
                reason = f"rank {note.name.rpartition('-')[2]}: {note.read_text(encoding='utf-8')}\n{reason}"
        self.status("failed", reason)

    def _changes(self, settings: dict[str, Any]) -> list[str]:
        """Return how ``settings`` differ from those the run began with, one line per key.

        Raises ConfigError if one of them may not change, or the data is another.
        """
        if not (self.path / "config.json").is_file():
            return []
        stored = current_settings(read_json(self.path / "config.json"))
        old = flatten(stored)
        if "imported" in old:
            raise ConfigError(
                f"run={self.path}: an imported model is in this directory; start from it with "
                f"init.pretrained={self.path} and give the run another directory"
            )
        lines, refused = self._policy.compare(old, flatten(settings))
        if stored.get("phases") or settings.get("phases"):
            done = CheckpointManager(self.path / "checkpoints", keep_last=1).steps()
            refused += past_changes(stored, settings, max(done, default=0))
        copy = self.path / "dataset.json"  # missing if the first start was killed early
        if self._dataset is not None and copy.is_file():
            fingerprint, current = read_json(copy).get("fingerprint", "none"), self._dataset.fingerprint
            if fingerprint != current:
                refused.append(f"the data: fingerprint {fingerprint[:12]} -> {current[:12]}")
        if refused:
            raise ConfigError(
                f"run={self.path}: this directory holds a run with other settings:\n  "
                + "\n  ".join(refused)
                + "\ngive the old values to resume it, another run=... for a new run, or train.overwrite=true to "
                "replace it"
            )
        return lines


def _environment(distributed: Distributed) -> dict[str, Any]:
    device = distributed.device
    return {
        "xlmtrain": __version__,
        "code": code_fingerprint(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "device": cpu_name() if device.type == "cpu" else device_name(device),
        "processes": distributed.world_size,
        "threads": torch.get_num_threads(),
    }
