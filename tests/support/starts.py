"""Starts of the program whose processes can be killed, stopped and signalled: forked ones.

They (``Forked``) come from a server that has imported everything once, find each other on 127.0.0.1 as
under torchrun, and are processes of their own, with the program's exit codes.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import random
import re
import signal
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from tests.support.programs import free_port
from tests.support.tiny import forkserver, no_sync, tiny_config
from tests.support.training import records
from xlmtrain.commands.train import run as main
from xlmtrain.config.schema import Config
from xlmtrain.data.loader import StepBatches
from xlmtrain.runtime.program import user_errors
from xlmtrain.train.loop import TrainingLoop

SAVE_EVERY = 5
PATIENCE = 120.0
"""Seconds after which a run that does not end has hung: machines that run tests may be busy."""


def settings(run: Path, data: Path, steps: int, **changes: Any) -> Config:
    """Checkpoints often, evaluation now and then, dropout on; some 20,000 parameters. ``changes``: ``train__x=...``."""
    given = {key.replace("__", "."): value for key, value in changes.items()}
    base = {"model.dim": 32, "train.save_every": SAVE_EVERY, "evaluate.every": 2 * SAVE_EVERY, "train.steps": steps}
    return tiny_config(run, data, {**base, **given})


def straight(directory: Path, data: Path, steps: int, ranks: int = 2, **changes: Any) -> str:
    """The digest of the run that nothing befalls."""
    config = settings(directory / "straight", data, steps, **changes)
    if not Path(config.run).exists():
        finish(config, ranks)
    return digest(config.run, steps, ranks)


class Forked:
    """One start of ``train.py`` on ``ranks`` processes, forked, with more ``variables`` in their environment.

    ``fault``: XLMT_FAULT. ``configs``: settings of single ranks that differ from the others'. ``before``: what each
    rank does first, given its number.
    What the ranks print goes to ``<run>.<rank>.err``; the ids of what they train on to ``<run>.<rank>.ids``.
    """

    def __init__(
        self,
        config: Config,
        ranks: int = 1,
        fault: str = "",
        configs: dict[int, Config] | None = None,
        before: Callable[[int], None] | None = None,
        **variables: str,
    ) -> None:
        self.config, self.ranks = config, ranks
        self.run = Path(config.run)
        environment = {
            "WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "XLMT_FAULT": fault,
            "CUDA_VISIBLE_DEVICES": "",
            **variables,
        }
        self._logs = [self.run.with_name(f"{self.run.name}.{rank}.err") for rank in range(ranks)]
        self._begins = [log.stat().st_size if log.exists() else 0 for log in self._logs]
        context = forkserver()
        self.processes = [
            context.Process(
                target=_rank,
                args=(
                    (configs or {}).get(rank, config),
                    {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    before,
                ),
            )
            for rank in range(ranks)
        ]
        for process in self.processes:
            process.start()

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    @property
    def alive(self) -> bool:
        """Whether any process still is."""
        return any(process.is_alive() for process in self.processes)

    def signal(self, number: int, ranks: Sequence[int] | None = None) -> None:
        """Send a signal to all ranks, or to ``ranks``."""
        for rank in range(self.ranks) if ranks is None else ranks:
            process = self.processes[rank]
            with suppress(ProcessLookupError):  # it ended in this moment
                if process.is_alive() and process.pid:
                    os.kill(process.pid, number)

    def kill(self, ranks: Sequence[int] | None = None) -> None:
        """SIGKILL, and wait until they are gone."""
        self.signal(signal.SIGKILL, ranks)
        for rank in range(self.ranks) if ranks is None else ranks:
            self.processes[rank].join(PATIENCE)

    def wait(self, timeout: float = PATIENCE) -> list[int]:
        """Each rank's exit code. Raises AssertionError if one does not end in time."""
        deadline = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(deadline - time.monotonic(), 0.0))
        hung = [rank for rank, process in enumerate(self.processes) if process.is_alive()]
        if hung:
            self.signal(signal.SIGUSR2)  # where does it stand?
            time.sleep(1)
            self.kill()
            raise AssertionError(f"rank {hung} did not end within {timeout:.0f} s: {self.printed()[-3000:]}")
        return [process.exitcode or 0 for process in self.processes]

    def until(self, happened: Callable[[], bool], what: str, pause: float = 0.002) -> None:
        """Wait until ``happened()``. Raises AssertionError if the processes end before, or it takes too long."""
        deadline = time.monotonic() + PATIENCE
        while not happened():
            if not self.alive:
                raise AssertionError(f"ended before {what}: {self.printed()}")
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"no {what} within {PATIENCE:.0f} s: {self.printed()}")
            time.sleep(pause)

    def until_step(self, step: int) -> None:
        """Wait until the figures of ``step`` are written."""
        self.until(lambda: last_step(self.run) >= step, f"step {step}")

    def until_stopped(self, rank: int) -> None:
        """Wait until a fault has stopped ``rank`` (SIGSTOP)."""
        self.until(lambda: process_state(self.processes[rank].pid) == "T", f"stop of rank {rank}")

    def printed(self, rank: int | None = None) -> str:
        """What one rank, or all, have printed since this start began."""
        ranks = range(self.ranks) if rank is None else (rank,)
        files = [(self._logs[rank], self._begins[rank]) for rank in ranks if self._logs[rank].exists()]
        return "".join(file.read_bytes()[begin:].decode(errors="replace") for file, begin in files)


def finish(config: Config, ranks: int = 1, fault: str = "") -> Forked:
    """A start that must end well by itself."""
    with Forked(config, ranks, fault) as start:
        codes = start.wait()
        assert codes == [0] * ranks, f"{codes}: {start.printed()[-3000:]}"
    return start


def _rank(config: Config, environment: dict[str, str], before: Callable[[int], None] | None) -> None:
    """One process of the program."""
    os.environ.update(environment)
    if before is not None:
        before(int(environment["RANK"]))
    name = f"{Path(config.run).name}.{environment['RANK']}"
    errors = Path(config.run).with_name(f"{name}.err").open("a", encoding="utf-8")
    os.dup2(errors.fileno(), 2)
    sys.stderr = errors
    faulthandler.register(signal.SIGUSR2, file=errors)
    torch.set_num_threads(1)
    os.fsync = no_sync  # type: ignore[assignment]
    _record_ids(Path(config.run).with_name(f"{name}.ids"))
    with user_errors():
        main(config)


def _record_ids(path: Path) -> None:
    """Note of every step what it is made of: the sub-batches of the global batch, a sum over this rank's tokens."""
    stream = path.open("a", encoding="utf-8")
    original = TrainingLoop._step

    def noted(loop: TrainingLoop, data: StepBatches) -> Any:
        tokens = 0
        for batch in data.batches:
            tokens = zlib.crc32(batch.tokens.numpy().tobytes(), tokens)
        if data.error is None:
            stream.write(json.dumps([data.step, data.sub_batches, tokens]) + "\n")
            stream.flush()
        return original(loop, data)

    TrainingLoop._step = noted  # type: ignore[method-assign, assignment]


def ids(run: Path | str, rank: int = 0, tokens: bool = True) -> dict[int, Any]:
    """Step -> what it was made of on ``rank``, over all starts. Raises AssertionError if starts differ."""
    run, found = Path(run), {}
    for line in run.with_name(f"{run.name}.{rank}.ids").read_text(encoding="utf-8").splitlines():
        if not line.endswith("]"):
            continue  # cut by a kill
        step, sub_batches, summed = json.loads(line)
        value = [sub_batches, summed] if tokens else sub_batches
        assert found.setdefault(step, value) == value, f"step {step} was made of other batches after a resume"
    return found


def digest(run: Path | str, step: int, ranks: int = 1) -> str:
    """SHA-256 over a checkpoint (weights, optimizer state, progress) and the records (step, batch, loss) of the run."""
    path = Path(run) / "checkpoints" / f"step-{step:08d}"
    total = hashlib.sha256()
    for name in ("model.safetensors", "optimizer.safetensors"):
        total.update((path / name).read_bytes())
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    del state["progress"]["seconds"], state["progress"]["energy"]
    found = [state, records(run), *(sorted(ids(run, rank).items()) for rank in range(ranks))]
    total.update(json.dumps(found, sort_keys=True).encode())
    return total.hexdigest()


def last_step(run: Path | str) -> int:
    """The last step whose figures are written, 0 without any."""
    try:
        with (Path(run) / "metrics.jsonl").open("rb") as stream:
            stream.seek(max(stream.seek(0, os.SEEK_END) - 4096, 0))
            lines = stream.read().splitlines()
        return max((int(json.loads(line)["step"]) for line in lines[1:] if line.endswith(b"}")), default=0)
    except OSError:
        return 0


def resumed_from(start: Forked) -> int:
    """The step that the newest start began at."""
    found = re.findall(r"resumed from .*step-(\d+)", start.printed(0))
    return int(found[-1]) if found else 0


def half_written(run: Path) -> bool:
    """Whether a checkpoint is being written, or was when a kill came."""
    return any((run / "checkpoints").glob(".step-*.partial"))


def descendants(pid: int) -> list[int]:
    """The processes that ``pid`` started, and those that they did."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text(encoding="utf-8").split():
            found += [int(child), *descendants(int(child))]
    return found


def pause(rng: random.Random, longest: float) -> None:
    """Wait for a random while: the moment of a kill."""
    time.sleep(rng.random() * longest)


def process_state(pid: int | None) -> str:
    """The letter of the process's state in /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return ""
