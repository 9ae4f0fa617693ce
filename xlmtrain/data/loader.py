"""The training data of this process, step by step, made one step ahead in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from xlmtrain.config.schema import Config
from xlmtrain.data.batch import Batch, join, make_batch, make_causal_batch
from xlmtrain.data.corpus import Dataset, check_ids
from xlmtrain.data.mask import Masker
from xlmtrain.data.rows import Rows
from xlmtrain.data.sampling import OBJECTIVES, Cursors, Draw, Sampler, make_tasks
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.runtime.random import generator


@dataclass
class StepData:
    """This process's part of one global batch.

    ``shares``: objective -> share of the global batch's draws. ``draws``: all of the batch, as (task, epoch, draw).
    ``cursors``: where the data stands after this step. ``error``: why there is no data, all else being empty.
    """

    step: int
    batches: list[Batch]
    shares: dict[str, float]
    draws: list[tuple[str, int, int]]
    cursors: Cursors
    error: DataError | None = None

    @property
    def targets(self) -> list[float]:
        """Tokens to predict, per objective."""
        return [float(sum(len(b.targets) for b in self.batches if b.objective == o)) for o in OBJECTIVES]

    @property
    def positions(self) -> float:
        """Positions to compute, with padding."""
        return float(sum(batch.tokens.numel() for batch in self.batches))

    @property
    def tokens(self) -> float:
        """Positions that are not padding."""
        return float(sum(batch.unpadded for batch in self.batches))


class Loader:
    """Makes the global batches and takes this process's share of them: draw i goes to process i modulo ``world_size``.

    What is in a global batch depends on the settings and the step alone: not on the number of processes, nor on how
    draws are cut into micro-batches. Raises ConfigError if the draws cannot be shared out evenly.
    """

    def __init__(self, config: Config, dataset: Dataset, rank: int = 0, world_size: int = 1) -> None:
        draws = config.train.batch_tokens // config.data.draw_tokens
        if draws % world_size:
            allowed = ", ".join(str(n) for n in range(1, draws + 1) if draws % n == 0)
            raise ConfigError(
                f"train.batch_tokens={config.train.batch_tokens} is {draws} draws of data.draw_tokens="
                f"{config.data.draw_tokens}, which {world_size} processes cannot share evenly; "
                f"take one of {allowed} processes or another batch size"
            )
        self.sampler = Sampler(
            make_tasks(config.data, dataset, config.seed), config.data.sampling_alpha, draws, config.seed
        )
        self._seed, self._rank, self._world_size = config.seed, rank, world_size
        self._draw_tokens = config.data.draw_tokens
        self._micro_batch_tokens = config.train.micro_batch_tokens or config.data.draw_tokens
        self._vocab_size = len(dataset.vocab)
        self._mask = Masker(config.mask, dataset.vocab.counts)

    def make(self, step: int, cursors: Cursors) -> StepData:
        """The data of ``step`` (from 0) from where ``cursors`` stand."""
        draws, after = self.sampler.plan(step, cursors)
        batches = [batch for draw in draws[self._rank :: self._world_size] for batch in self.batches(draw)]
        if self._micro_batch_tokens > self._draw_tokens:
            batches = list(self._joined(batches))
        shares = {o: sum(draw.task.objective == o for draw in draws) / len(draws) for o in OBJECTIVES}
        return StepData(step, batches, shares, [(d.task.name, d.epoch, d.draw) for d in draws], after)

    def batches(self, draw: Draw) -> list[Batch]:
        """One draw, masked as a whole and cut into micro-batches."""
        name = f"{draw.task.name}, epoch {draw.epoch}, draw {draw.draw}"
        rows = draw.task.source.rows(draw.epoch, draw.draw)
        check_ids(rows.tokens, self._vocab_size, name)
        if draw.task.objective == "clm":
            return [make_causal_batch(part, name, (draw.number, i)) for i, (part, _) in enumerate(self._cut(rows))]
        rng = generator(self._seed, "mask", draw.task.name, draw.epoch, draw.draw)
        inputs, selected = self._mask(rows, rng)
        return [
            make_batch(draw.task.objective, part, inputs[place], selected[place], name, (draw.number, i))
            for i, (part, place) in enumerate(self._cut(rows))
        ]

    def steps(self, first: int, last: int, cursors: Cursors) -> Iterator[StepData]:
        """The steps ``first`` to ``last - 1``, each made while the one before it is computed with. The last one
        is without data, but with the error, if it cannot be made."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader") as thread:
            ahead = thread.submit(self.make, first, cursors) if first < last else None
            for step in range(first, last):
                assert ahead is not None
                try:
                    data = ahead.result()
                except DataError as error:
                    yield StepData(step, [], {}, [], cursors, error)
                    return
                if step + 1 < last:
                    ahead = thread.submit(self.make, step + 1, data.cursors)
                cursors = data.cursors
                yield data

    def _cut(self, rows: Rows) -> Iterator[tuple[Rows, slice]]:
        count, length = rows.tokens.shape
        at_once = max(1, self._micro_batch_tokens // length)
        for start in range(0, count, at_once):
            place = slice(start, start + at_once)
            yield Rows(rows.tokens[place], rows.positions[place], rows.languages[place], rows.lengths[place]), place

    def _joined(self, batches: list[Batch]) -> Iterator[Batch]:
        """Small batches put together up to the size of a micro-batch, where their rows are of one kind and length."""
        groups: dict[tuple[str, int], list[Batch]] = {}
        for batch in batches:
            groups.setdefault((batch.objective, batch.tokens.shape[1]), []).append(batch)
        for group in groups.values():
            rows = 0
            waiting: list[Batch] = []
            for batch in group:
                if waiting and (rows + len(batch.tokens)) * batch.tokens.shape[1] > self._micro_batch_tokens:
                    yield join(waiting)
                    rows, waiting = 0, []
                rows += len(batch.tokens)
                waiting.append(batch)
            yield join(waiting)
