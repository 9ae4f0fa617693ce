"""The global batches do not depend on the processes, nor on how they are cut."""

from __future__ import annotations

import random
import re
import signal
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest

from tests.support.fault_table import Tries
from tests.support.starts import Forked, finish, ids, last_step, settings
from tests.support.training import records
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.errors import ConfigError


def figures(run: Path | str) -> dict[int, dict[str, Any]]:
    """Step -> its figures of training."""
    return {record["step"]: record for record in records(run) if "train/loss" in record}


def assert_same_losses(run: Path | str, other: Path | str) -> float:
    """Within 1e-5; returns the largest relative difference."""
    ours, theirs = figures(run), figures(other)
    assert ours.keys() == theirs.keys()
    worst = max(abs(ours[step]["train/loss"] / theirs[step]["train/loss"] - 1) for step in ours)
    assert worst <= 1e-5, f"losses differ by {worst:.1e}"
    return worst


@pytest.mark.row(11, slow=3, full=12)
def test_resume_with_other_numbers_of_processes(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """Stopped three times in a run, and gone on with another number each time."""
    steps = 200 if tries.count > 3 else 60
    whole = settings(tmp_path / "straight", tiny_dataset, steps)
    finish(whole, 1)
    worst, rng = 0.0, random.Random(11)
    chains = [(2, 4, 1, 2), (1, 2, 4, 1), (4, 2, 1, 4), (2, 1, 4, 2)]
    for chain in chains[: tries.count // 3]:
        with tries.attempt(f"{chain} processes", 3):
            config = settings(tmp_path / "-".join(map(str, chain)), tiny_dataset, steps)
            for number, (ranks, after) in enumerate(pairwise(chain), start=1):
                with Forked(config, ranks) as start:
                    start.until_step(steps * number // 4 + rng.randint(-9, 9))
                    start.signal(signal.SIGTERM)
                    start.wait()
                assert last_step(config.run) < steps, f"it was over before {after} could take over"
            finish(config, chain[-1])
            assert ids(config.run, tokens=False) == ids(whole.run, tokens=False)
            worst = max(worst, assert_same_losses(config.run, whole.run))
    tries.figure(f"losses differ by {worst:.0e} at most")


@pytest.mark.row(12, quick=2, slow=8, full=20)
def test_other_micro_batches_and_processes(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """Without dropout, which is drawn for what is computed at once."""
    still = {"model__dropout": 0.0, "model__attention_dropout": 0.0, "evaluate__every": 0}
    whole = settings(tmp_path / "straight", tiny_dataset, 8, **still)
    finish(whole, 1)
    cases = list(product((1, 2, 4), (16, 32, 48, 64, 128, 200, 1000)))[-tries.count :]
    for ranks, size in cases:
        with tries.attempt(f"{ranks} processes, micro-batches of {size} tokens"):
            changes = {**still, "train__micro_batch_tokens": size}
            config = settings(tmp_path / f"{ranks}-{size}", tiny_dataset, 8, **changes)
            finish(config, ranks)
            assert ids(config.run, tokens=False) == ids(whole.run, tokens=False)
            assert_same_losses(config.run, whole.run)


@pytest.mark.row(13, quick=60, slow=60, full=60)
def test_a_batch_that_the_processes_cannot_share(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """One to fifteen processes and four batch sizes: refused before anything is written, or shared evenly."""
    dataset = Dataset(tiny_dataset)
    for ranks, sub_batches in product(range(1, 16), (1, 4, 6, 12)):
        with tries.attempt(f"{sub_batches} sub-batches, {ranks} processes"):
            config = settings(tmp_path / "run", tiny_dataset, 1, train__batch_tokens=64 * sub_batches)
            if sub_batches % ranks == 0:
                assert Loader(config, dataset, 0, ranks).sampler is not None
                continue
            allowed = ", ".join(str(n) for n in range(1, sub_batches + 1) if sub_batches % n == 0)
            message = (
                f"train.batch_tokens={64 * sub_batches} is {sub_batches} sub-batches of data.sub_batch_tokens=64, "
                f"which {ranks} processes "
                f"cannot share evenly; take one of {allowed} processes or another batch size"
            )
            with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
                Loader(config, dataset, 0, ranks)
