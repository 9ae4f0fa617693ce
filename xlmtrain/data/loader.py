"""The training data of this process, step by step, made ahead in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from xlmtrain.config.schema import Config
from xlmtrain.data.batch import Batch, MaskedBatch, concat, make_batch, next_token_targets, split
from xlmtrain.data.dataset import Dataset, check_ids
from xlmtrain.data.masking import Masker
from xlmtrain.data.sampling import OBJECTIVES, Sampler, SamplerState, SubBatch, make_tasks
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.runtime.rng import generator


@dataclass
class GlobalBatchShard:
    """This process's part of one global batch.

    ``shares``: objective -> share of the global batch's draws. ``draws``: all of the batch, as (task, epoch, draw).
    ``cursors``: where the data stands after this step. ``error``: why there is no data, all else being empty.
    """

    step: int
    batches: list[Batch]
    shares: dict[str, float]
    draws: list[tuple[str, int, int]]
    cursors: SamplerState
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


_AT_ONCE = 8192
_Made = tuple[SubBatch, MaskedBatch]


class Loader:
    """Makes the global batches and takes this process's share of them: draw i goes to process i modulo ``world_size``.

    What is in a global batch depends on the settings and the step alone: not on the number of processes, nor on how
    draws are cut into micro-batches. Raises ConfigError if the draws cannot be shared out evenly.
    """

    def __init__(self, config: Config, dataset: Dataset, rank: int = 0, world_size: int = 1) -> None:
        draws = config.train.batch_tokens // config.data.sub_batch_tokens
        if draws % world_size:
            allowed = ", ".join(str(n) for n in range(1, draws + 1) if draws % n == 0)
            raise ConfigError(
                f"train.batch_tokens={config.train.batch_tokens} is {draws} draws of data.sub_batch_tokens="
                f"{config.data.sub_batch_tokens}, which {world_size} processes cannot share evenly; "
                f"take one of {allowed} processes or another batch size"
            )
        self.sampler = Sampler(
            make_tasks(config.data, dataset, config.seed), config.data.sampling_alpha, draws, config.seed
        )
        self._seed, self._rank, self._world_size = config.seed, rank, world_size
        self._sub_batch_tokens = config.data.sub_batch_tokens
        self._share_tokens = config.train.batch_tokens // world_size
        self._micro_batch_tokens = config.train.micro_batch_tokens or config.data.sub_batch_tokens
        self._vocab_size = len(dataset.vocab)
        self._mask = Masker(config.mask, dataset.vocab.counts)

    def make(self, step: int, cursors: SamplerState) -> GlobalBatchShard:
        """The data of ``step`` (from 0) from where ``cursors`` stand."""
        draws, after = self.sampler.plan(step, cursors)
        made = [(draw, self._exercise(draw)) for draw in draws[self._rank :: self._world_size]]
        batches = [batch for group in self._groups(made) for batch in self._batches(group)]
        shares = {o: sum(draw.task.objective == o for draw in draws) / len(draws) for o in OBJECTIVES}
        return GlobalBatchShard(step, batches, shares, [(d.task.name, d.epoch, d.draw) for d in draws], after)

    def steps(self, first: int, last: int, cursors: SamplerState) -> Iterator[GlobalBatchShard]:
        """The steps ``first`` to ``last - 1``, made while those before them are computed with. The last one is without
        data, but with the error, if it cannot be made."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader") as thread:
            ahead = thread.submit(self._some, first, last, cursors) if first < last else None
            while ahead is not None:
                some = ahead.result()
                end, ahead = some[-1], None
                if end.step + 1 < last and end.error is None:
                    ahead = thread.submit(self._some, end.step + 1, last, end.cursors)
                yield from some

    def _some(self, first: int, last: int, cursors: SamplerState) -> list[GlobalBatchShard]:
        """As many steps from ``first`` on as have about ``_AT_ONCE`` tokens: small ones one by one find nothing of
        theirs in the processor's caches."""
        some: list[GlobalBatchShard] = []
        for step in range(first, min(last, first + max(1, _AT_ONCE // self._share_tokens))):
            try:
                some.append(self.make(step, cursors))
            except DataError as error:
                some.append(GlobalBatchShard(step, [], {}, [], cursors, error))
                break
            cursors = some[-1].cursors
        return some

    def _exercise(self, draw: SubBatch) -> MaskedBatch:
        """One draw, masked as a whole."""
        rows = draw.task.source.rows(draw.epoch, draw.draw)
        check_ids(rows.tokens, self._vocab_size, draw.name)
        if draw.task.objective == "clm":
            return next_token_targets(rows)
        rng = generator(self._seed, "mask", draw.task.name, draw.epoch, draw.draw)
        return MaskedBatch(rows, *self._mask(rows, rng))

    def _groups(self, made: list[_Made]) -> list[list[_Made]]:
        """Draws smaller than a micro-batch, put together up to its size where their rows are of one kind and length."""
        if self._micro_batch_tokens <= self._sub_batch_tokens:
            return [[each] for each in made]
        groups: dict[tuple[str, int], list[list[_Made]]] = {}
        for draw, exercise in made:
            alike = groups.setdefault((draw.task.objective, exercise.inputs.shape[1]), [[]])
            filled = sum(other.inputs.size for _, other in alike[-1])
            if filled and filled + exercise.inputs.size > self._micro_batch_tokens:
                alike.append([])
            alike[-1].append((draw, exercise))
        return [group for alike in groups.values() for group in alike]

    def _batches(self, group: list[_Made]) -> Iterator[Batch]:
        """The micro-batches of some draws; their name and key are the first draw's."""
        draw, whole = group[0][0], concat([exercise for _, exercise in group])
        at_once = max(1, self._micro_batch_tokens // whole.inputs.shape[1])
        for part, exercise in enumerate(split(whole, at_once)):
            yield make_batch(draw.task.objective, *exercise, draw.name, (draw.number, part))
