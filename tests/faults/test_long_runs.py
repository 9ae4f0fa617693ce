"""What a run of many steps and several starts leaves behind: curves, memory, open files, speed and time left."""

from __future__ import annotations

import math
import os
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator  # what TensorBoard shows
from tensorboard.util.tensor_util import make_ndarray

from tests.faults.test_kills import kill_at_random
from tests.support.fault_table import Tries
from tests.support.starts import Forked, finish, last_step, settings
from tests.support.training import records, train_alone
from xlmtrain.data.loader import StepBatches
from xlmtrain.evaluate.validator import Validator
from xlmtrain.metrics import timer
from xlmtrain.report.run_data import RunData
from xlmtrain.train.async_checkpoint import AsyncCheckpointer
from xlmtrain.train.step import TrainStep

SEED = 47


@pytest.mark.row(47, slow=1, full=5)
def test_curves_of_a_run_that_was_killed(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """Five kills a run. TensorBoard's reader and the report: each step once, with the value in metrics.jsonl."""
    rng, steps, points = random.Random(SEED), 400, 0
    for number in range(tries.count):
        with tries.attempt(f"run {number}, seed {SEED}"):
            config = settings(tmp_path / f"run{number}", tiny_dataset, steps)
            for _ in range(5):
                with Forked(config) as start:
                    kill_at_random(start, rng, 30)
            finish(config)
            written = [path for path in (start.run / "tensorboard").rglob("*") if path.is_file()]
            assert {path.parent for path in written} == {start.run / "tensorboard"}  # one run to TensorBoard
            board = EventAccumulator(str(start.run / "tensorboard"), size_guidance={"tensors": 0})
            board.Reload()
            shown = {name: board.Tensors(name) for name in board.Tags()["tensors"]}
            timed = records(config.run, timed=True)
            samples = {name for name in shown if name.endswith("text_summary")}
            assert shown.keys() - samples == {name for record in timed for name in record} - {"step"}
            for name in shown.keys() - samples:
                curve = [(event.step, float(make_ndarray(event.tensor_proto))) for event in shown[name]]
                expected = [(r["step"], r[name]) for r in timed if name in r]
                assert [step for step, _ in curve] == [step for step, _ in expected], name
                assert dict(curve) == pytest.approx(dict(expected)), name
                points += len(curve)
            assert [event.step for event in shown["train/loss"]] == list(range(1, steps + 1))
            report = {f"samples/{name}/text_summary": found for name, found in RunData(start.run).samples.items()}
            assert report.keys() == samples
            for name, found in report.items():
                assert [event.step for event in shown[name]] == list(range(0, steps + 1, 10)), name
                assert [step for step, _ in found] == list(range(0, steps + 1, 10)), name
    tries.figure(f"{points:,} points on curves")


@pytest.mark.row(48, full=20_000)
def test_many_steps(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """Memory and open files of the process, ninety times after the first tenth of the run, which warms it up."""
    steps = tries.count
    often = {"train__save_every": steps // 50, "evaluate__every": steps // 20, "train__log_every": 10}
    small = {"model__dim": 16, "train__batch_tokens": 64, "evaluate__max_tokens": 200}
    config = settings(tmp_path / "run", tiny_dataset, steps, **often, **small)
    seen: list[tuple[int, int]] = []
    with tries.attempt(f"{steps} steps"), Forked(config) as start:
        place = Path(f"/proc/{start.processes[0].pid}")
        for step in range(steps // 10, steps, steps // 100):
            start.until(lambda step=step: last_step(start.run) >= step, f"step {step}", pause=0.05)  # type: ignore[misc]
            with suppress(OSError):  # it has just ended
                pages = int((place / "statm").read_text(encoding="utf-8").split()[1])
                seen.append((pages * os.sysconf("SC_PAGESIZE"), len(os.listdir(place / "fd"))))
        assert start.wait() == [0]
        assert len(seen) > 80
        third = len(seen) // 3
        memory = [median(size for size, _ in part) for part in (seen[:third], seen[-third:])]
        files = [min(count for _, count in part) for part in (seen[:third], seen[-third:])]  # of a save not counted
        growth = memory[1] / memory[0] - 1
        tries.figure(f"memory grew by {growth:.1%} of {memory[0] / 1e6:.0f} MB, {files[1]} open files")
        assert growth <= 0.02
        assert files[0] == files[1]


class Clock:
    """Seconds that pass only in steps, evaluations and saves; the time of day may jump."""

    def __init__(self, step: Callable[[int], float], evaluation: float = 0.0, save: float = 0.0) -> None:
        self.step, self.evaluation, self.save = step, evaluation, save
        self.passed, self.boot, self.jump = 0.0, 5.0, 0.0

    def monotonic(self) -> float:
        """As ``time.monotonic``."""
        return self.boot + self.passed

    def time(self) -> float:
        """As ``time.time``."""
        return 1.7e9 + self.passed + self.jump

    @contextmanager
    def running(self) -> Iterator[None]:
        """The program goes by this clock."""

        def passing(kind: type, name: str, seconds: Callable[[Any], float]) -> Any:
            original = getattr(kind, name)

            def call(itself: Any, *arguments: Any) -> Any:
                self.passed += seconds(arguments[0])
                return original(itself, *arguments)

            return mock.patch.object(kind, name, call)

        with (
            mock.patch.object(timer, "time", self),
            passing(TrainStep, "__call__", lambda data: self.step(data.step + 1)),
            passing(Validator, "__call__", lambda model: self.evaluation),
            passing(AsyncCheckpointer, "save", lambda step: self.save),
        ):
            yield


YEAR = 365 * 86400.0
LENGTH = 12


@dataclass
class Story:
    """What happens to the clock: how long steps take, and what has changed when the run goes on after ``stops``."""

    name: str
    step: Callable[[int], float] = lambda step: 2.0
    evaluation: float = 0.0
    save: float = 0.0
    jump: tuple[int, float] = (0, 0.0)
    stops: tuple[int, ...] = ()
    tokens: bool = True


STORIES = [
    Story("the time of day is put back a year", jump=(7, -YEAR)),
    Story("the machine sleeps for an hour in a step", step=lambda step: 3600.0 if step == 5 else 2.0),
    Story("long evaluations and saves", evaluation=1000.0, save=500.0),
    Story("resumed on another machine, ten times as fast", step=lambda s: 2.0 if s <= 6 else 0.2, stops=(6,)),
    Story("the time of day is ten years ahead", jump=(3, 10 * YEAR)),
    Story("a clock that stands still", step=lambda step: 0.0),
    Story("a clock that stands still half of the run", step=lambda step: float(step > 6)),
    Story("nothing to train on", tokens=False),
    Story("resumed three times", stops=(1, 5, 11), evaluation=30.0),
    Story("all at once", lambda s: float(s % 3), 77.0, 5.0, (4, -YEAR), (5, 8)),
]


@pytest.mark.row(49, quick=3, slow=5, full=10)
def test_clocks(tries: Tries, tiny_dataset: Path, tmp_path: Path, xlmtrain_log: pytest.LogCaptureFixture) -> None:
    """Speed and time left are those of the steps alone, of all starts; never negative, never no number."""
    for number, story in enumerate(STORIES[: tries.count]):
        with tries.attempt(story.name):
            config = settings(tmp_path / f"run{number}", tiny_dataset, LENGTH)
            clock = Clock(story.step, story.evaluation, story.save)

            def step(at: int, clock: Clock = clock, story: Story = story) -> float:
                clock.jump += story.jump[1] * (at == story.jump[0])
                return story.step(at)

            clock.step = step
            xlmtrain_log.clear()
            empty = mock.PropertyMock(return_value=0.0)
            with (
                clock.running(),
                nullcontext() if story.tokens else mock.patch.object(StepBatches, "tokens", empty),
            ):
                for before, after in pairwise((0, *story.stops, LENGTH)):
                    train_alone(config, stop_after=after - before if after < LENGTH else 10**6)
                    clock.boot -= clock.passed  # the machine was started again, a day later
                    clock.jump += 86400.0
            figures = [record for record in records(config.run, timed=True) if "train/loss" in record]
            assert [record["step"] for record in figures] == list(range(1, LENGTH + 1))
            spent, tokens, remaining = 0.0, 0.0, {}
            for record in figures:
                took, grown = story.step(record["step"]), record["progress/tokens"] - tokens
                spent, tokens = spent + took, tokens + grown
                assert record["progress/seconds"] == pytest.approx(spent)
                assert record["speed/tokens_per_second"] == pytest.approx(grown / took if took else 0.0)
                assert all(math.isfinite(value) and value >= 0 for value in record.values())
                remaining[record["step"]] = timer.duration(spent / record["step"] * (LENGTH - record["step"]))
            shown = re.findall(r"step (\d+)/\d+ \| ETA (\d+:\d\d:\d\d) \| ", xlmtrain_log.text, re.MULTILINE)
            assert {int(at): left for at, left in shown} == remaining
            assert remaining[LENGTH] == "0:00:00"
