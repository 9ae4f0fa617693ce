"""Faults at random, one after the other: between them the same command is given again, and that is all."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.test_kills import PHASES
from tests.faults.test_stops import fake_scontrol
from tests.support.fault_table import Tries
from tests.support.starts import Forked, finish, half_written, ids, last_step, pause, resumed_from, settings
from tests.support.training import checkpoint, records, state
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Requeue
from xlmtrain.errors import CheckpointError
from xlmtrain.runtime.watchdog import EXIT_HUNG
from xlmtrain.train.checkpoint import CheckpointManager
from xlmtrain.train.checkpoint_io import verify_checkpoint

SEED = 50
END = 40
"""Steps before the last at which a run is let alone: so many a fault may take."""
FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


class Chaos:
    """A run and what befalls it: the methods whose names have the fault's number in the table.

    Each is a start of the same command that ends before the run does. ``gaps``: figures could not be written once.
    """

    def __init__(self, config: Config, rng: random.Random, said: Path) -> None:
        self.config, self.rng, self.said = config, rng, said
        self.steps = config.train.steps
        self.run, self.gaps = Path(config.run), False
        self.store = CheckpointManager(self.run / "checkpoints", 2)

    def intact(self) -> list[int]:
        """The steps of which there is an intact checkpoint."""
        found = []
        for step in self.store.steps():
            try:
                verify_checkpoint(self.store.path(step))
            except CheckpointError:
                continue
            found.append(step)
        return found

    def start(self, fault: str = "", timeout: float = 60.0) -> Forked:
        """The command, as a job of SLURM's."""
        config = replace(self.config, train=replace(self.config.train, hang_timeout=timeout))
        return Forked(config, 2, fault, SLURM_JOB_ID="50", PATH=f"{self.said.parent}:{os.environ['PATH']}")

    def some_steps(self, start: Forked) -> None:
        """Wait until the run has got on."""
        start.until_step(max(last_step(self.run), resumed_from(start)) + self.rng.randint(1, 8))
        pause(self.rng, 0.05)

    def stop(self, start: Forked, number: int = signal.SIGTERM, ranks: list[int] | None = None) -> None:
        """Ask to stop: that is obeyed, with a checkpoint of the last step."""
        start.signal(number, ranks)
        assert start.wait() == [128 + number] * 2, start.printed()[-3000:]
        assert self.gaps or last_step(self.run) == self.intact()[-1]

    def stop_after_steps(self, fault: str = "", said: str = "", number: int = signal.SIGTERM) -> None:
        """A start that says ``said`` because of the fault, goes on all the same, and is asked to stop."""
        with self.start(fault) as start:
            start.until(lambda: said in start.printed(), said)
            self.some_steps(start)
            self.stop(start, number)

    def pass_over(self, change: str) -> None:
        """The newest checkpoint is damaged: the start goes on from the one before."""
        *_, before, newest = self.intact()
        file = self.store.path(newest) / self.rng.choice(FILES)
        content = bytearray(file.read_bytes())
        place = self.rng.randrange(len(content))
        content[place] ^= 1 << self.rng.randrange(8)
        file.write_bytes(content if change == "flip" else content[:place])
        with self.start() as start:
            start.until(lambda: resumed_from(start) > 0, "resume")
            assert resumed_from(start) == before
            start.until_step(before + self.rng.randint(1, 8))
            self.stop(start)

    def fault_1(self) -> None:
        """SIGKILL of all."""
        with self.start() as start:
            kind = self.rng.random()
            if kind < 0.2:
                pause(self.rng, 1.0)
                return
            self.some_steps(start)
            if kind < 0.6:
                start.until(lambda: half_written(self.run), "a save", pause=0.0002)
                pause(self.rng, 0.004)

    def fault_2(self) -> None:
        """SIGKILL in a phase of a save."""
        point = self.rng.choice(list(PHASES.values())).partition(":")[0]
        with self.start(f"{point}:{self.rng.randint(1, 2)}:0:kill") as start:
            assert start.wait()[0] == -signal.SIGKILL

    def fault_4(self) -> None:
        """SIGTERM."""
        self.stop_after_steps()

    def fault_5(self) -> None:
        """SIGTERM to one rank."""
        with self.start() as start:
            self.some_steps(start)
            self.stop(start, ranks=[self.rng.randrange(2)])

    def fault_6(self) -> None:
        """SIGUSR1 by SLURM."""
        self.said.unlink(missing_ok=True)
        self.stop_after_steps(number=signal.SIGUSR1)
        assert self.said.read_text(encoding="utf-8") == "rank 0\nrequeue\n50\n"

    def fault_7(self) -> None:
        """Ctrl-C, until it is over."""
        with self.start() as start:
            self.some_steps(start)
            deadline = time.monotonic() + 30
            while start.alive:
                assert time.monotonic() < deadline, "it goes on"
                start.signal(signal.SIGINT)
                pause(self.rng, 0.1)

    def fault_8(self) -> None:
        """An exception on one rank."""
        with self.start(f"step:{self.rng.randint(1, 9)}:{self.rng.randrange(2)}:raise") as start:
            assert start.wait() == [1, 1]

    def fault_9(self) -> None:
        """A rank that is stopped; the other ends, and whoever launched them ends this one."""
        rank = self.rng.randrange(2)
        with self.start(f"step:{self.rng.randint(1, 9)}:{rank}:stop", timeout=6.0) as start:
            start.until_stopped(rank)
            start.until(lambda: not start.processes[1 - rank].is_alive(), "end of the other")
            assert start.processes[1 - rank].exitcode == EXIT_HUNG

    def fault_16(self) -> None:
        """The disk is full in a save, once."""
        point = self.rng.choice(["save-open", "save-write", "save-sync"])
        self.stop_after_steps(f"{point}:1:0:enospc", "not written")

    def fault_17(self) -> None:
        """The disk is full for figures, once or a few times."""
        self.gaps = True
        self.stop_after_steps(f"metrics:{self.rng.randint(2, 4)}-4:0:enospc", "metrics are missing")

    def fault_18(self) -> None:
        """A flipped bit."""
        self.pass_over("flip")

    def fault_19(self) -> None:
        """A file that was cut."""
        self.pass_over("cut")

    def fault_20(self) -> None:
        """No checkpoint is intact, until somebody puts them back."""
        files = [self.store.path(step) / FILES[0] for step in self.intact()]
        contents = [file.read_bytes() for file in files]
        for file in files:
            file.write_bytes(b"")
        with self.start() as start:
            assert start.wait() == [4, 4]
        for file, content in zip(files, contents):
            file.write_bytes(content)

    def fault_21(self) -> None:
        """Storage errs twice in a row."""
        point = self.rng.choice(["save-open", "save-sync", "save-rename"])
        self.stop_after_steps(f"{point}:1-2:0:{self.rng.choice(['eio', 'erofs', 'estale'])}", "trying again in 3 s")

    def fault_26(self) -> None:
        """NaN on one rank."""
        with self.start(f"loss:{self.rng.randint(1, 16)}:{self.rng.randrange(2)}:nan") as start:
            assert start.wait() == [5, 5]

    def as_if_nothing_had_been(self, whole: Path) -> None:
        """The end: the run ``whole`` to the last bit."""
        with self.start() as start:
            assert start.wait() == [0, 0], start.printed()[-3000:]
        for name in FILES[:2]:
            ours, theirs = (checkpoint(run, self.steps) / name for run in (self.run, whole))
            assert ours.read_bytes() == theirs.read_bytes(), name
        assert state(self.run, self.steps) == state(whole, self.steps)
        assert [ids(self.run, rank) for rank in (0, 1)] == [ids(whole, rank) for rank in (0, 1)]
        mine, all_of_it = records(self.run), records(whole)
        assert [record for record in all_of_it if record in mine] == mine
        assert self.gaps or mine == all_of_it


FAULTS = [1, 2, 4, 5, 6, 7, 8, 9, 16, 17, 18, 19, 20, 21, 26]
NEED_TWO = (18, 19, 20)
"""Faults of checkpoints, of which there must be two."""


@pytest.mark.row(50, slow=4, full=200)
def test_all_of_it_at_random(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """Each fault as often as the others, in an order that chance has made; one run after the other."""
    steps = 300 if tries.count > 10 else 100
    whole = settings(tmp_path / "straight", tiny_dataset, steps)
    finish(whole, 2)
    rng, said, begun = random.Random(SEED), fake_scontrol(tmp_path), time.monotonic()
    struck: Counter[int] = Counter()
    deck: list[int] = []
    runs = 0
    while sum(struck.values()) < tries.count:
        config = settings(tmp_path / f"run{runs}", tiny_dataset, steps, train__requeue=Requeue.slurm)
        chaos, runs = Chaos(config, rng, said), runs + 1
        while last_step(chaos.run) < steps - END and sum(struck.values()) < tries.count:
            intact = chaos.intact()
            deck = deck or rng.sample(FAULTS, len(FAULTS))
            fault = next((fault for fault in deck if len(intact) > 1 or fault not in NEED_TWO), 1)
            if fault in deck:
                deck.remove(fault)
            struck[fault] += 1
            with tries.attempt(f"seed {SEED}, fault {fault} in run {runs} after step {last_step(chaos.run)}"):
                getattr(chaos, f"fault_{fault}")()
                assert chaos.intact()[-1:] >= intact[-1 - (fault in NEED_TWO[:2]) :][:1], "it went back"
        with tries.attempt(f"seed {SEED}, the end of run {runs}"):
            chaos.as_if_nothing_had_been(Path(whole.run))
    minutes = (time.monotonic() - begun) / 60
    rows = ", ".join(map(str, sorted(struck)))
    tries.figure(f"seed {SEED}: {minutes:.0f} minutes of rows {rows}, over {runs} runs of {steps} steps")
