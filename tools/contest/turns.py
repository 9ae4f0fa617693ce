"""Training a turn at a time: the batches to train on, and what a turn of steps with them costs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import nn

from contest.clock import clock_of
from contest.syncs import SyncWatch
from xlmtrain.data.loader import GlobalBatchShard


@dataclass(frozen=True)
class Order:
    """The next turn: ``lead`` steps that do not count, then ``steps`` that do, watched for waiting if ``watch``."""

    lead: int
    steps: int
    watch: bool = False


@dataclass(frozen=True)
class End:
    """There are no more turns; what a checkpoint costs is to be measured with so many ``saves``, unless 0."""

    saves: int


@dataclass
class Turn:
    """Some optimizer steps with their batches: ``cost`` and its parts, ``wall``, ``waited`` for batches, in seconds.

    ``cost`` and its parts are the clock's seconds. ``other``: gradients cleared, learning rate set, batches handed
    over. Clipping is a part of ``backward``. ``losses``: of each step, per target. ``peak_mb``: the most memory so far.
    ``syncs``: what was watched for.
    """

    cost: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    optimizer: float = 0.0
    other: float = 0.0
    wall: float = 0.0
    waited: float = 0.0
    tokens: float = 0.0
    targets: float = 0.0
    losses: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    syncs: dict[str, Any] = field(default_factory=dict)


class Turns:
    """The batches to train on, as long as there are turns to take.

    Whoever trains goes through them, one optimizer step each, and says :meth:`done` after each; that returns when it is
    his turn again. He may ask for a batch before he is done with the last one.
    """

    def __init__(self, connection: Connection, steps: Iterator[GlobalBatchShard], device: torch.device) -> None:
        self.over = False
        """Whether there are no more turns."""
        self.end = End(0)
        self._connection, self._steps, self._clock = connection, steps, clock_of(device)
        self._syncs = SyncWatch(device)
        self._given: deque[GlobalBatchShard] = deque()
        self._next_turn()

    def __iter__(self) -> Iterator[GlobalBatchShard]:
        while not self.over:
            asked = time.perf_counter()
            data = next(self._steps)
            self._turn.waited += time.perf_counter() - asked
            self._given.append(data)
            yield data

    def watch(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Tell the parts of a step by when ``module`` and ``optimizer`` are called."""
        module.register_forward_pre_hook(lambda *_: self._ends("other"))
        module.register_forward_hook(lambda *_: self._ends("forward"))
        optimizer.register_step_pre_hook(lambda *_: self._ends("backward"))
        optimizer.register_step_post_hook(lambda *_: self._ends("optimizer"))

    def done(self, loss: torch.Tensor) -> None:
        """A step is done; ``loss``: its mean per target, on the device."""
        data = self._given.popleft()
        self._turn.tokens += data.tokens
        self._turn.targets += sum(data.targets)
        self._losses.append(loss)
        self._left -= 1
        if self._left == self._order.steps:
            self._begin()
        if self._left == 0:
            self._end()
            self._clock.release()
            self._next_turn()

    def _next_turn(self) -> None:
        order = self._connection.recv()
        if isinstance(order, End):
            self.over, self.end = True, order
            return
        self._order: Order = order
        self._left = order.lead + order.steps
        self._begin()

    def _begin(self) -> None:
        self._clock.settle()
        self._turn, self._losses, self._marks = Turn(), list[torch.Tensor](), list[tuple[str, Any]]()
        if self._order.watch and self._left == self._order.steps:
            self._syncs.start()
        self._wall = time.perf_counter()
        self._ends("")

    def _ends(self, phase: str) -> None:
        self._marks.append((phase, self._clock.mark()))

    def _end(self) -> None:
        self._ends("other")
        turn, clock = self._turn, self._clock
        if self._order.watch:
            turn.syncs = self._syncs.stop()
        clock.settle()
        turn.wall = time.perf_counter() - self._wall
        for (_, begin), (phase, end) in zip(self._marks, self._marks[1:]):
            setattr(turn, phase, getattr(turn, phase) + clock.seconds(begin, end))
        turn.cost = clock.seconds(self._marks[0][1], self._marks[-1][1])
        turn.losses = [float(loss) for loss in self._losses]
        turn.peak_mb = clock.peak_megabytes()
        self._connection.send(turn)
