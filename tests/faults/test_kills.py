"""Processes that are killed: all at random, one of them in the midst of a save."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny
from tests.support.fault_table import Tries
from tests.support.starts import (
    SAVE_EVERY,
    Forked,
    digest,
    finish,
    half_written,
    last_step,
    pause,
    resumed_from,
    settings,
    straight,
)
from tests.support.torchrun import Torchrun

SEED = 20
PHASES = {  # of a save: the fault point, and its how manieth passing is in the save of step 10
    "open": "save-open:2",
    "mid-write": "save-write:3",
    "before fsync": "save-sync:2",
    "before rename": "save-rename:2",
    "after rename": "save-renamed:2",
    "before best.json": "save-best:2",
    "mid-prune": "prune:1",
}


def kill_at_random(start: Forked, rng: random.Random, far: int) -> None:
    """SIGKILL to all ranks: at start-up, some steps on, or as soon as a save has begun."""
    kind = rng.random()
    if kind < 0.1:
        pause(rng, 1.0)
    else:
        start.until_step(last_step(start.run) + rng.randint(1, far))
        if kind < 0.5:
            start.until(lambda: half_written(start.run), "a save", pause=0.0002)
            pause(rng, 0.004)
        else:
            pause(rng, 0.1)
    start.kill()


@pytest.mark.row(1, quick=3, slow=20, full=100)
def test_killed_at_random(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """Two ranks; after each kill the same command again, ten kills a run, until it is done."""
    killed_runs(tries, tiny_dataset, tmp_path, 200 if tries.count > 3 else 20)


@pytest.mark.row(1, slow=3, full=100)
def test_killed_at_random_in_phases(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """The same in a run of five phases, whose borders are no multiples of the steps between checkpoints."""
    lengths = [length * (10 if tries.count > 3 else 1) + 1 for length in (3, 4, 6, 3, 4)]
    causal = {"data__clm": {"de": 1.0, "en": 1.0}, "data__mlm": {}, "data__tlm": {}}
    masked = {"data__clm": {}, "data__mlm": {"de": 1.0}, "data__tlm": {"de-en": 1.0}}
    changes: list[dict[str, Any]] = [causal, {**masked, "mask__prob": 0.4}]
    changes += [{"data__sequence_length": 32, "train__batch_tokens": 512}, {**causal, "data__sequence_length": 8}]
    changes += [{**masked, "optim__schedule": "linear", "mask__prob": 0.1}]
    phases = [tiny.phase(f"phase {n}", length, **one) for n, (length, one) in enumerate(zip(lengths, changes))]
    killed_runs(tries, tiny_dataset, tmp_path, sum(lengths), phases=phases)


def killed_runs(tries: Tries, data: Path, tmp_path: Path, steps: int, **changes: Any) -> None:
    """Kill runs of ``steps`` steps, three or ten times each, and compare each with the straight run when it is done."""
    rng, a_run = random.Random(SEED), 10 if tries.count > 3 else 3
    expected = straight(tmp_path, data, steps, **changes)
    torn, lost = 0, [0]
    for number in range(tries.count // a_run):
        config = settings(tmp_path / f"run{number}", data, steps, **changes)
        with tries.attempt(f"run {number}, seed {SEED}", a_run):
            reached = 0
            for _ in range(a_run):
                with Forked(config, 2) as start:
                    kill_at_random(start, rng, max(steps // (a_run + 2), 3))
                if "resumed from" in start.printed(0):
                    lost.append(max(reached - resumed_from(start), 0))
                reached = last_step(start.run)
                torn += half_written(start.run)
            finish(config, 2)
            assert digest(config.run, steps, 2) == expected, "not the model of the run that nobody killed"
    assert max(lost) <= 2 * SAVE_EVERY
    tries.figure(f"{torn} with a half-written checkpoint; at most {max(lost)} steps lost, saved every {SAVE_EVERY}")


@pytest.mark.row(1, full=10)
def test_torchrun_killed_at_random(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """The same under a real torchrun, all of whose processes are killed with it."""
    rng = random.Random(SEED)
    steps, a_run = 60, 5
    expected = straight(tmp_path, tiny_dataset, steps)
    for number in range(tries.count // a_run):
        config = settings(tmp_path / f"run{number}", tiny_dataset, steps)
        with tries.attempt(f"run {number}, seed {SEED}", a_run):
            for _ in range(a_run):
                with Torchrun(config) as start:
                    goal = last_step(start.run) + rng.randint(1, 10)
                    start.until(lambda goal=goal, run=start.run: last_step(run) >= goal, "step")  # type: ignore[misc]
                    pause(rng, 0.2)
                    start.kill()
            finish(config, 2)
            assert digest(config.run, steps, 0) == digest(tmp_path / "straight", steps, 0)
    assert expected
    tries.figure(f"{tries.count} of them by torchrun")


@pytest.mark.row(2, quick=2, slow=14, full=42)
def test_killed_in_each_phase_of_a_save(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """Rank 0, which writes, or rank 1 while rank 0 is held there: an intact checkpoint is left, the run is the same.

    Other tries of the same phase are of another save of the run.
    """
    steps = 25
    expected = straight(tmp_path, tiny_dataset, steps)
    cases = [(phase, rank, later) for later in range(3) for phase in PHASES for rank in (0, 1)]
    for phase, rank, later in random.Random(SEED).sample(cases, len(cases))[: tries.count]:
        with tries.attempt(f"{phase}, rank {rank}, {later}"):
            # Without torchrun, nobody else ends a rank that was stopped while its peer died.
            run = tmp_path / f"{PHASES[phase].split(':')[0]}-{rank}-{later}"
            config = settings(run, tiny_dataset, steps, train__hang_timeout=20)
            point, _, first = PHASES[phase].partition(":")
            place = f"{point}:{int(first) + later * (2 if point == 'save-write' else 1)}"
            with Forked(config, 2, fault=f"{place}:0:{'stop' if rank else 'kill'}") as start:
                if rank:
                    start.until_stopped(0)
                    start.kill([1])
                    start.signal(signal.SIGCONT, [0])
                codes = start.wait()
            assert codes[rank] == -signal.SIGKILL, f"{place} was not reached: {codes}"
            assert codes[1 - rank] != 0
            finish(config, 2)
            assert resumed_from(start) >= SAVE_EVERY
            assert digest(config.run, steps, 2) == expected
