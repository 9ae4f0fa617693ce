"""A global batch is the same however it is distributed and cut."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.tiny import tiny_config
from xlmtrain.data.batch import Batch
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader, StepBatches
from xlmtrain.data.sampling import SamplerState
from xlmtrain.data.sources import cut_both_by_tokens
from xlmtrain.errors import ConfigError
from xlmtrain.text.vocab import SPECIALS

ALL = {"data.clm": {"de": 1.0}, "data.mt": {"de-en": 1.0, "en-de": 1.0}, "data.dae": {"en": 1.0}}


def loader(data: Path, changes: dict[str, Any] | None = None, rank: int = 0, world_size: int = 1) -> Loader:
    return Loader(tiny_config("run", data, {**ALL, **(changes or {})}), Dataset(data), rank, world_size)


def steps(made: Loader, count: int) -> list[StepBatches]:
    sampler_state, data = made.sampler.initial_state(), []
    for step in range(count):
        data.append(made.make(step, sampler_state))
        sampler_state = data[-1].sampler_state
    return data


def rows_of(batches: list[Batch]) -> list[tuple[Any, ...]]:
    """Every row of the batches, in their order: what it reads, and what it is to predict where."""
    rows = []
    for batch in batches:
        length = batch.tokens.shape[1]
        for row, tokens in enumerate(batch.tokens.tolist()):
            mine = batch.target_index // length == row
            places = (batch.target_index[mine] % length).tolist()
            size = length if batch.lengths is None else int(batch.lengths[row])
            numbers = (tokens, batch.positions[row].tolist(), batch.languages[row].tolist(), places)
            source = batch.source
            read = [] if source is None else [source.tokens[row], source.languages[row], source.positions[row]]
            if source is not None:
                whole = torch.tensor(source.tokens.shape[1])
                read.append(whole[None] if source.lengths is None else source.lengths[row : row + 1])
            lists = (*numbers, batch.targets[mine].tolist(), *(one.tolist() for one in read))
            rows.append((batch.objective, batch.name, size, *(tuple(each) for each in lists)))
    return rows


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_out_the_same_global_batches(tiny_dataset: Path, world_size: int) -> None:
    whole = steps(loader(tiny_dataset), 12)
    parts = [steps(loader(tiny_dataset, rank=rank, world_size=world_size), 12) for rank in range(world_size)]
    for step, alone in enumerate(whole):
        mine = [part[step] for part in parts]
        assert all(part.sampler_state == alone.sampler_state for part in mine)
        assert all(part.sub_batches == alone.sub_batches for part in mine)
        assert all(part.shares == alone.shares for part in mine)
        dealt = [mine[i % world_size].batches[i // world_size] for i in range(4)]
        assert rows_of(dealt) == rows_of(alone.batches)
        assert (
            [batch.rng_key for batch in dealt]
            == [batch.rng_key for batch in alone.batches]
            == [(i, 0) for i in range(4)]
        )


@pytest.mark.parametrize("size", [1, 16, 33, 64])
def test_micro_batches_are_the_same_rows_in_the_same_order(tiny_dataset: Path, size: int) -> None:
    whole = steps(loader(tiny_dataset), 8)
    cut = steps(loader(tiny_dataset, {"train.micro_batch_tokens": size}), 8)
    for a, b in zip(whole, cut):
        assert rows_of(a.batches) == rows_of(b.batches)
        assert len({batch.rng_key for batch in b.batches}) == len(b.batches)
        assert all(batch.padded_tokens <= max(size, batch.padded_tokens // len(batch.tokens)) for batch in b.batches)
    if size <= 16:
        assert sum(len(data.batches) for data in cut) > 2 * sum(len(data.batches) for data in whole)


@pytest.mark.parametrize("size", [128, 150, 1000])
def test_small_sub_batches_are_put_together(tiny_dataset: Path, size: int) -> None:
    """The same rows with the same masks, in fewer batches; the sub-batch of a row is then no longer known."""
    whole = steps(loader(tiny_dataset), 8)
    joined = steps(loader(tiny_dataset, {"train.micro_batch_tokens": size}), 8)
    for a, b in zip(whole, joined):
        ours, theirs = ([(row[0], *row[2:]) for row in rows_of(data.batches)] for data in (a, b))
        assert sorted(ours) == sorted(theirs)
        assert all(batch.padded_tokens <= size for batch in b.batches)
        assert len({batch.rng_key for batch in b.batches}) == len(b.batches)
        assert (a.sub_batches, a.shares, a.sampler_state) == (b.sub_batches, b.shares, b.sampler_state)
    assert sum(len(data.batches) for data in joined) < 0.95 * sum(len(data.batches) for data in whole)


def test_a_global_batch_has_its_size(tiny_dataset: Path) -> None:
    for data in steps(loader(tiny_dataset), 8):
        assert len(data.batches) == 4
        for batch in data.batches:
            assert batch.padded_tokens == 64 if batch.objective in ("mlm", "clm") else batch.padded_tokens <= 64
        assert sum(data.shares.values()) == pytest.approx(1.0)
        counted = Counter(batch.objective for batch in data.batches)
        assert {objective: share * 4 for objective, share in data.shares.items() if share} == dict(counted)


def test_prefetching_gives_the_same_and_goes_on_anywhere(tiny_dataset: Path) -> None:
    made = loader(tiny_dataset)
    expected = [rows_of(data.batches) for data in steps(made, 10)]
    ahead = list(made.steps(0, 10, made.sampler.initial_state()))
    assert [data.step for data in ahead] == list(range(10))
    assert [rows_of(data.batches) for data in ahead] == expected
    later = list(loader(tiny_dataset).steps(6, 10, ahead[5].sampler_state))
    assert [rows_of(data.batches) for data in later] == expected[6:]
    assert list(made.steps(10, 10, made.sampler.initial_state())) == []


def test_prefetching_stops_when_nobody_reads_on(tiny_dataset: Path) -> None:
    data = loader(tiny_dataset)
    reading = data.steps(0, 1000, data.sampler.initial_state())
    next(reading)
    reading.close()  # type: ignore[attr-defined]  # would hang, or go on to step 1000, if the thread did not learn of it


def test_seed_changes_everything(tiny_dataset: Path) -> None:
    a, b = (steps(loader(tiny_dataset, {"seed": seed}), 4) for seed in (0, 1))
    assert all(rows_of(x.batches) != rows_of(y.batches) for x, y in zip(a, b))


@pytest.mark.parametrize("world_size", [3, 8])
def test_uneven_shares_are_refused(tiny_dataset: Path, world_size: int) -> None:
    with pytest.raises(ConfigError) as caught:
        loader(tiny_dataset, {"train.batch_tokens": 64 * 6 if world_size == 8 else 256}, 0, world_size)
    tokens, sub_batches, allowed = (384, 6, "1, 2, 3, 6") if world_size == 8 else (256, 4, "1, 2, 4")
    assert str(caught.value) == (
        f"train.batch_tokens={tokens} is {sub_batches} sub-batches of data.sub_batch_tokens=64, which {world_size} "
        f"processes cannot share evenly; take one of {allowed} processes or another batch size"
    )


def test_a_damaged_id_is_found_before_the_model_sees_it(own_dataset: Path) -> None:
    ids = np.fromfile(own_dataset / "train.de.ids", "<u2")
    ids[np.flatnonzero(ids != 1)[5]] = 999
    ids.tofile(own_dataset / "train.de.ids")
    made = loader(own_dataset, {"data.tlm": {}, "data.mlm": {"de": 1.0}})
    *good, last = made.steps(0, 40, made.sampler.initial_state())
    assert len(good) < 39
    assert all(step.batches and step.error is None for step in good)
    assert last.batches == []
    assert re.search(r"[mc]lm\.de, epoch 0, sub-batch \d+: id 999 in row \d, position \d+, but .* 54", str(last.error))


def test_masks_are_new_in_every_epoch(tiny_dataset: Path) -> None:
    without = {name: {} for name in ("data.tlm", "data.clm", "data.mt", "data.dae")}
    made = loader(tiny_dataset, {**without, "data.mlm": {"de": 1.0}})
    component = made.sampler.components[0]
    sampler_state: SamplerState = {"mlm.de": (3, 2)}
    first, again = made.make(7, sampler_state), made.make(7, sampler_state)
    assert rows_of(first.batches) == rows_of(again.batches)
    assert first.sub_batches[0] == ("mlm.de", 3, 2)
    other = made.make(7, {"mlm.de": (4, 2)})
    assert not torch.equal(first.batches[0].target_index, other.batches[0].target_index)
    assert component.source.sub_batch_count(0) > 4


def test_both_directions_read_the_pairs_and_denoising_its_own_sentences(tiny_dataset: Path) -> None:
    """Every English word of the pairs is the German one plus 20. Noise differs between sub-batches and epochs."""
    noise = {"data.mlm": {}, "data.clm": {}, "data.tlm": {}, "noise.drop_prob": 0.0, "noise.blank_prob": 0.0}
    made = loader(tiny_dataset, noise)
    seen: dict[str, list[list[int]]] = {}
    for data in steps(made, 40):
        assert data.tokens <= data.padded_tokens == sum(batch.padded_tokens for batch in data.batches)
        for batch in data.batches:
            assert batch.source is not None
            translated = {"mt.de-en": 20, "mt.en-de": -20, "dae.en": 0}[batch.name.partition(",")[0]]
            languages = {20: (0, 1), -20: (1, 0), 0: (1, 1)}[translated]
            for row, tokens in enumerate(batch.source.tokens.tolist()):
                sides = (tokens, batch.tokens[row].tolist())
                source, target = ([token for token in side if token >= len(SPECIALS)] for side in sides)
                source = [token + translated for token in source]
                assert (source if translated else sorted(source)) == (target if translated else sorted(target))
                assert (int(batch.source.languages[row, 0]), int(batch.languages[row, 0])) == languages
                if not translated:
                    seen.setdefault(str(target), []).append(source)
    assert any(len({str(source) for source in noisy}) > 1 for noisy in seen.values())


def test_sides_of_like_length_come_together() -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(3, 40, 5000)
    lengths = np.stack([np.clip(target + rng.integers(-6, 7, 5000), 3, 60), target])
    order = np.lexsort((np.where(target % 2, lengths[0], -lengths[0]), target))
    bounds = cut_both_by_tokens(lengths[:, order], 1000)
    assert (bounds[0], bounds[-1]) == (0, 5000)
    parts = [lengths[:, order[a:b]] for a, b in pairwise(bounds)]
    padded = [part.shape[1] * part.max(axis=1).sum() for part in parts]
    assert all(0 < size <= 1000 for size in padded)
    assert lengths.sum() / sum(padded) > 0.9
    following = np.append(bounds[1:-1], 0)[:-1]
    assert all(
        (len(part[0]) + 1) * np.maximum(part.max(axis=1), lengths[:, order[after]]).sum() > 1000
        for part, after in zip(parts, following)
    )
