"""What to do when the device has too little memory is said, and the run goes on from where it was when it is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.tiny import tiny_config
from tests.support.training import records, status, train_alone
from xlmtrain.errors import DeviceOutOfMemory
from xlmtrain.runtime import failpoints
from xlmtrain.runtime.oom import explain_oom

SAME_DROPOUT: dict[str, Any] = {"model.dropout": 0.0, "model.attention_dropout": 0.0}


@pytest.mark.parametrize(
    ("at_once", "pair", "advice"),
    [
        (0, 10, "train.micro_batch_tokens=32 computes"),  # of a sub-batch of 64
        (4096, 10, "train.micro_batch_tokens=2048 computes"),
        (40, 10, "train.micro_batch_tokens=24 computes"),
        (24, 10, "train.sharding=full shares"),
    ],
)
def test_the_advice_is_half_until_a_pair_would_not_fit(tmp_path: Path, at_once: int, pair: int, advice: str) -> None:
    changes = {"train.micro_batch_tokens": at_once, "data.max_sentence_length": pair}
    with pytest.raises(DeviceOutOfMemory) as caught:
        with explain_oom(tiny_config(tmp_path, tmp_path, changes)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of 1 GiB")
    assert f"(CUDA out of memory. Tried to allocate 2.00 GiB): {advice}" in str(caught.value)
    assert f"for {at_once or 64:,} tokens at once" in str(caught.value)


def test_other_errors_are_what_they_were(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="something else"), explain_oom(tiny_config(tmp_path, tmp_path)):
        raise RuntimeError("something else")


def test_a_run_that_is_short_of_memory_goes_on_with_smaller_parts(tiny_dataset: Path, tmp_path: Path) -> None:
    """The advice taken, its losses are those of the run that had enough memory from the start, up to rounding."""
    config = tiny_config(tmp_path / "run", tiny_dataset, SAME_DROPOUT)
    failpoints.arm("step:8:0:oom", rank=0)
    with pytest.raises(DeviceOutOfMemory, match=r"train\.micro_batch_tokens=32 computes the same batches") as caught:
        train_alone(config)
    assert caught.value.exit_code == 7
    assert status(config.run) == {"status": "failed", "reason": f"MemoryShortage: {caught.value}"}
    failpoints.arm(None, rank=0)
    config.train.micro_batch_tokens = 32
    assert train_alone(config).status == "done"
    straight = tiny_config(tmp_path / "straight", tiny_dataset, SAME_DROPOUT)
    train_alone(straight)
    losses, expected = ([r["train/loss"] for r in records(c.run) if "train/loss" in r] for c in (config, straight))
    assert losses == pytest.approx(expected, rel=1e-4)
