"""Batches of a run in phases: those of each phase's settings, on any number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.data.test_loader import rows_of
from tests.support.tiny import phase, three_phases, tiny_config
from xlmtrain.config.schema import PhaseConfig
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader, StepBatches
from xlmtrain.errors import ConfigError


def loader(data: Path, phases: Sequence[PhaseConfig], rank: int = 0, world_size: int = 1) -> Loader:
    return Loader(tiny_config("run", data, {"phases": list(phases)}), Dataset(data), rank, world_size)


def read(made: Loader, first: int = 0, last: int = 20) -> list[StepBatches]:
    return list(made.steps(first, last, made.sampler.initial_state()))


def test_each_phase_has_its_batches(tiny_dataset: Path) -> None:
    steps = read(loader(tiny_dataset, three_phases()))
    objectives = [{batch.objective for one in span for batch in one.batches} for span in (steps[:6], steps[6:])]
    assert objectives == [{"clm"}, {"mlm", "tlm"}]
    for span, tokens, length in ((steps[:6], 256, 16), (steps[6:14], 512, 16), (steps[14:], 512, 32)):
        windows = [batch for one in span for batch in one.batches if batch.objective != "tlm"]
        assert {batch.tokens.shape[1] for batch in windows} == {length}
        assert {len(one.sub_batches) for one in span} == {tokens // 64}
    for span, prob in ((steps[6:14], 0.4), (steps[14:], 0.2)):
        masked = [batch for one in span for batch in one.batches if batch.objective == "mlm"]
        share = sum(len(b.targets) for b in masked) / sum(b.tokens.numel() - len(b.tokens) for b in masked)
        assert share == pytest.approx(prob, abs=0.05)


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_the_same_batches(tiny_dataset: Path, world_size: int) -> None:
    whole = read(loader(tiny_dataset, three_phases()))
    parts = [read(loader(tiny_dataset, three_phases(), rank, world_size)) for rank in range(world_size)]
    for step, alone in enumerate(whole):
        mine = [part[step] for part in parts]
        assert all((one.sampler_state, one.sub_batches) == (alone.sampler_state, alone.sub_batches) for one in mine)
        dealt = [mine[i % world_size].batches[i // world_size] for i in range(len(alone.batches))]
        assert rows_of(dealt) == rows_of(alone.batches)


def test_text_is_read_on_where_it_is_cut_alike_and_from_the_next_epoch_where_not(tiny_dataset: Path) -> None:
    changes = {"optim__lr": 1e-3, "data__sampling_alpha": 0.7}
    plain = read(loader(tiny_dataset, []))
    cut_alike = read(loader(tiny_dataset, [phase("a", 7), phase("b", 13, **changes)]))
    for one, other in zip(plain, cut_alike):
        assert (one.sub_batches, one.sampler_state) == (other.sub_batches, other.sampler_state)
        assert rows_of(one.batches) == rows_of(other.batches)
    away = phase("b", 3, data__mlm={}, data__sequence_length=32)
    back = phase("c", 10, data__mlm={"de": 1.0, "en": 1.0})
    steps = read(loader(tiny_dataset, [phase("a", 7), away, back]))
    epoch, index = steps[6].sampler_state["mlm.de"]
    assert index > 0
    assert steps[9].sampler_state["mlm.de"] == (epoch, index)
    first = next(one for step in steps[10:] for one in step.sub_batches if one[0] == "mlm.de")
    assert first == ("mlm.de", epoch + 1, 0)
    pairs = [one[1:] for step in steps for one in step.sub_batches if one[0] == "tlm.de-en"]
    assert len(set(pairs)) == len(pairs)  # the pairs are cut alike in all three: none is read twice


def test_a_batch_that_the_processes_cannot_share_is_named_with_its_phase(tiny_dataset: Path) -> None:
    with pytest.raises(ConfigError, match=r"^phases\[1\]\.train\.batch_tokens=192 is 3 sub-batches"):
        loader(tiny_dataset, [phase("a", 5), phase("b", 5, train__batch_tokens=192)], 0, 2)
