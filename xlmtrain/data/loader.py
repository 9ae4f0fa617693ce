"""The training data of one process, prepared ahead in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from xlmtrain.config.data import OBJECTIVES
from xlmtrain.config.phases import Phase, phase_at, phases_of
from xlmtrain.config.schema import Config
from xlmtrain.data.batch import Batch, NumpyBatch, concat, make_batch, next_token_targets, split
from xlmtrain.data.dataset import Dataset, check_ids
from xlmtrain.data.masking import Masker
from xlmtrain.data.noise import Noise
from xlmtrain.data.sampling import MixtureComponent, Sampler, SamplerState, Sources, SubBatch, make_mixture
from xlmtrain.data.sources import Seq2SeqSource, Source
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.runtime.rng import generator

_CHUNK_TOKENS = 8192
_Masked = tuple[SubBatch, NumpyBatch]


@dataclass
class StepBatches:
    """One process's part of the global batch of a ``step``.

    ``batches``: this process's micro-batches, of one length each. ``shares``: objective -> share of the global batch's
    sub-batches. ``sub_batches``: those of the whole global batch, as (component, epoch, index). ``sampler_state``:
    after this step.
    ``error``: why the data could not be read; the other fields are empty then.
    """

    step: int
    batches: list[Batch]
    shares: dict[str, float]
    sub_batches: list[tuple[str, int, int]]
    sampler_state: SamplerState
    error: DataError | None = None

    @property
    def targets(self) -> list[float]:
        """Number of targets per objective."""
        return [float(sum(len(b.targets) for b in self.batches if b.objective == o)) for o in OBJECTIVES]

    @property
    def padded_tokens(self) -> float:
        """Number of tokens, padding included."""
        return float(sum(batch.padded_tokens for batch in self.batches))

    @property
    def tokens(self) -> float:
        """Number of tokens, without padding."""
        return float(sum(batch.nonpad_tokens for batch in self.batches))


class Loader:
    """Builds this process's part of each global batch: sub-batch i goes to process i modulo ``world_size``.

    A global batch does not depend on the number of processes or the micro-batch size. Raises ConfigError if the number
    of processes does not divide the number of sub-batches of a phase.
    """

    def __init__(self, config: Config, dataset: Dataset, rank: int = 0, world_size: int = 1) -> None:
        self.phases = phases_of(config)
        sources: Sources = {}
        mixtures = [make_mixture(phase.settings.data, dataset, config.seed, sources) for phase in self.phases]
        self._batches = [PhaseBatches(p, m, dataset, rank, world_size) for p, m in zip(self.phases, mixtures)]
        self._recut: dict[int, list[str]] = {}  # first step of a phase -> components whose source is not that before
        latest: dict[str, Source] = {}
        for phase, mixture in zip(self.phases, mixtures):
            self._recut[phase.span.start] = [c.name for c in mixture if latest.get(c.name, c.source) is not c.source]
            latest |= {component.name: component.source for component in mixture}

    @property
    def samplers(self) -> list[Sampler]:
        """The sampler of each phase."""
        return [batches.sampler for batches in self._batches]

    @property
    def sampler(self) -> Sampler:
        """The sampler that a new run begins with."""
        return self._batches[0].sampler

    def make(self, step: int, state: SamplerState) -> StepBatches:
        """Return the data of ``step`` (from 0); ``state``: of the sampler, before the step."""
        return self._at(step).make(step, *self.plan_batch(step, state))

    def plan_batch(self, step: int, state: SamplerState) -> tuple[list[SubBatch], SamplerState]:
        """Return the sub-batches of the global batch of ``step``, and the state after it; arguments as :meth:`make`."""
        sampler = self._at(step).sampler
        return sampler.plan_batch(step, sampler.begin(state, self._recut[step]) if step in self._recut else state)

    def _at(self, step: int) -> PhaseBatches:
        return self._batches[phase_at(self.phases, step).number]

    def steps(self, first: int, last: int, state: SamplerState) -> Iterator[StepBatches]:
        """Yield the data of steps ``first`` to ``last - 1``; later steps are prepared during the computation.

        If data cannot be read, the last item has the error in place of data.
        """
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader") as thread:
            ahead = thread.submit(self._chunk, first, last, state) if first < last else None
            while ahead is not None:
                chunk = ahead.result()
                end, ahead = chunk[-1], None
                if end.step + 1 < last and end.error is None:
                    ahead = thread.submit(self._chunk, end.step + 1, last, end.sampler_state)
                yield from chunk

    def _chunk(self, first: int, last: int, state: SamplerState) -> list[StepBatches]:
        """Return some steps from ``first`` on; several small ones together use the CPU's caches better."""
        chunk: list[StepBatches] = []
        for step in range(first, min(last, first + self._at(first).steps_per_chunk)):
            try:
                chunk.append(self.make(step, state))
            except DataError as error:
                chunk.append(StepBatches(step, [], {}, [], state, error))
                break
            state = chunk[-1].sampler_state
        return chunk


class PhaseBatches:
    """Builds one process's part of the global batches of one ``phase``. Raises ConfigError as :class:`Loader`."""

    def __init__(
        self, phase: Phase, mixture: list[MixtureComponent], dataset: Dataset, rank: int, world_size: int
    ) -> None:
        config = phase.settings
        batch_tokens, self._sub_batch_tokens = config.train.batch_tokens, config.data.sub_batch_tokens
        count = batch_tokens // self._sub_batch_tokens
        if count % world_size:
            allowed = ", ".join(str(n) for n in range(1, count + 1) if count % n == 0)
            raise ConfigError(
                f"{phase.prefix}train.batch_tokens={batch_tokens} is {count} sub-batches of data.sub_batch_tokens="
                f"{self._sub_batch_tokens}, which {world_size} processes cannot share evenly; take one of {allowed} "
                "processes or another batch size"
            )
        self.sampler = Sampler(
            mixture, config.data.sampling_alpha, count, config.seed, phase.loss_factor, phase.translation_step
        )
        self.steps_per_chunk = max(1, _CHUNK_TOKENS * world_size // batch_tokens)
        self._seed, self._rank, self._world_size = config.seed, rank, world_size
        self._micro_batch_tokens = config.micro_batch_tokens
        self._vocab_size = len(dataset.vocab)
        self._mask = Masker(config.mask, dataset.vocab)
        self._noise = Noise(config.noise, dataset.vocab)

    def make(self, step: int, plan: list[SubBatch], after: SamplerState) -> StepBatches:
        """Return the data of ``step``, made of the sub-batches ``plan``; ``after``: of the sampler, after the step."""
        masked = [(sub_batch, self._masked(sub_batch)) for sub_batch in plan[self._rank :: self._world_size]]
        batches = [batch for group in self._groups(masked) for batch in self._micro_batches(group)]
        shares = {o: sum(s.component.objective == o for s in plan) / len(plan) for o in OBJECTIVES}
        return StepBatches(step, batches, shares, [(s.component.name, s.epoch, s.index) for s in plan], after)

    def _masked(self, sub_batch: SubBatch) -> NumpyBatch:
        """Read a sub-batch and mask it, or add noise to it, as a whole: independent of the micro-batch size."""
        component, epoch, index = sub_batch.component, sub_batch.epoch, sub_batch.index
        if isinstance(component.source, Seq2SeqSource):
            source, target = component.source.sides(epoch, index)
            for side in (source, target):
                check_ids(side.tokens, self._vocab_size, sub_batch.name)
            if component.objective == "dae":
                source = self._noise(source, generator(self._seed, "noise", component.name, epoch, index))
            return next_token_targets(target, source)
        sequences = component.source.sequences(epoch, index)
        check_ids(sequences.tokens, self._vocab_size, sub_batch.name)
        if component.objective == "clm":
            return next_token_targets(sequences)
        rng = generator(self._seed, "mask", component.name, epoch, index)
        return NumpyBatch(sequences, *self._mask(sequences, rng))

    def _groups(self, masked: list[_Masked]) -> list[list[_Masked]]:
        """Group small sub-batches of the same objective and length up to the size of a micro-batch."""
        if self._micro_batch_tokens <= self._sub_batch_tokens:
            return [[item] for item in masked]
        groups: dict[tuple[str, tuple[int, int]], list[list[_Masked]]] = {}
        for sub_batch, batch in masked:
            component = sub_batch.component
            # Sentences for back-translation are translated into one language.
            kind = component.name if component.objective == "bt" else component.objective
            alike = groups.setdefault((kind, batch.row_shape), [[]])
            filled = sum(other.padded_tokens for _, other in alike[-1])
            if filled and filled + batch.padded_tokens > self._micro_batch_tokens:
                alike.append([])
            alike[-1].append((sub_batch, batch))
        return [group for alike in groups.values() for group in alike]

    def _micro_batches(self, group: list[_Masked]) -> Iterator[Batch]:
        """Yield the micro-batches of a group, with the name and key of its first sub-batch."""
        first, whole = group[0][0], concat(batch for _, batch in group)
        size = max(1, self._micro_batch_tokens // sum(whole.row_shape))
        for part, batch in enumerate(split(whole, size)):
            yield make_batch(first.component.objective, *batch, name=first.name, rng_key=(first.slot, part))
