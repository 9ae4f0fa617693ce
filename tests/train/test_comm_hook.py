"""Adding up gradients over processes: how often, how many bytes, and in half precision."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist

from tests.support.repository import REPOSITORY
from tests.support.tiny import ALONE, run_processes, tiny_config
from tests.support.training import records, train_on
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision, ReduceDtype, TrainConfig
from xlmtrain.data.batch import Batch
from xlmtrain.data.loader import StepBatches
from xlmtrain.errors import ConfigError
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.optim.optimizer import make_optimizer
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.text.vocab import PAD
from xlmtrain.train.parallel import parallelize
from xlmtrain.train.step import TrainStep

# Large enough that the gradients, not the protocol's headers, are what is counted; several buckets.
LARGE = {"model.dim": 512, "model.layers": 1, "train.batch_tokens": 512, "train.micro_batch_tokens": 512}
OVERLAP = {"train.overlap_tied_embedding": True}
CUT = {"train.micro_batch_tokens": 16}
HALF = {"train.reduce_dtype": ReduceDtype.half, "train.precision": Precision.bf16}


def measured(data: Path, processes: int, *variants: dict[str, Any]) -> list[dict[str, float]]:
    """What goes over the wire in a step, by ``wire.py``."""
    namespace = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], check=False).returncode:
        pytest.skip("no network namespaces here, in which the bytes are counted")
    paths = [str(REPOSITORY), str(REPOSITORY / "tests")]
    settings = json.dumps([{**LARGE, **OVERLAP, **changes} for changes in variants])
    run = subprocess.run(
        [
            *namespace,
            sys.executable,
            str(REPOSITORY / "tests" / "support" / "wire.py"),
            str(data),
            str(processes),
            settings,
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    )
    return json.loads(run.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_bytes_of_a_step_are_those_of_a_ring(tiny_dataset: Path, processes: int) -> None:
    """Each process sends every gradient 2 (n - 1) / n times (Patarasuk and Yuan 2009), once a step, however many
    micro-batches there are; and a byte for each word, whether it was looked up."""
    whole, cut, half = measured(tiny_dataset, processes, {}, CUT, HALF)
    for found, size in ((whole, 4), (cut, 4), (half, 2)):
        predicted = 2 * (processes - 1) * (found["parameters"] * size + found["vocabulary"])
        print(
            f"{processes} processes, {found['micro_batches']} micro-batches, gradients of {size} bytes: "
            f"{found['reductions']:.0f} reductions, {found['bytes']:,.0f} bytes a step, predicted {predicted:,.0f}"
        )
        assert found["bytes"] == pytest.approx(predicted, rel=0.05)
        assert found["reductions"] == whole["reductions"] >= 1
    assert cut["micro_batches"] > 2 * whole["micro_batches"]


WORDS = 1000
# Words that the micro-batches of each of two processes look up: of the last ones, together, three and <pad>; or all.
FEW = [[[5, 6, 7], [20, 21, PAD]], [[6, 8], [21, 22]]]
ALL = [[[5, 6, 7], [*range(500)]], [[6, 8], [*range(500, WORDS)]]]


def watched(
    distributed: Distributed, data: Path, changes: dict[str, Any], looked_up: list[list[list[int]]]
) -> tuple[list[Any], torch.Tensor, int]:
    """A step with these words: numbers sent and blocks that the backward pass is through with, as they came; the
    embeddings' gradient; and how many numbers the whole gradient has."""
    still = {"model.dropout": 0.0, "model.attention_dropout": 0.0, "model.max_positions": WORDS}
    still["train.micro_batch_tokens"] = 1  # the micro-batches below are not joined
    config = tiny_config("run", data, {**LARGE, **OVERLAP, **still, "model.layers": 2, **changes})
    torch.manual_seed(0)
    model = LanguageModel(config.model, WORDS, 2)
    optimizer = make_optimizer(config.optim, model, distributed.device)
    parallel = parallelize(model, config.train, Precision(config.train.precision), distributed)
    train_step = TrainStep(config, parallel, optimizer, Precision(config.train.precision), distributed)
    seen: list[torch.Tensor] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(model.encoder.token_embeddings.weight.grad.clone()))
    events: list[Any] = []
    for number, block in enumerate(model.encoder.blocks):
        block.register_full_backward_hook(lambda *_, number=number: events.append(f"block {number}"))
    all_reduce = dist.all_reduce

    def sent(tensor: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        events.append(tensor.numel())
        return all_reduce(tensor, *arguments, **options)

    batches = []
    for words in (words for micro_batches in looked_up for words in micro_batches):
        tokens = torch.tensor([words])
        places = torch.arange(tokens.numel())
        batches.append(Batch("mlm", tokens, places[None], 0 * tokens, None, places[:2], places[:2] + 30))
    with mock.patch.object(dist, "all_reduce", sent):
        train_step(StepBatches(0, batches, {"mlm": 1.0}, [], {}), [8.0, 0.0, 0.0])
    return events, seen[0], sum(parameter.numel() for parameter in model.parameters())


def of_each(
    distributed: Distributed, data: Path, changes: dict[str, Any], looked_up: list[list[list[int]]]
) -> tuple[list[Any], torch.Tensor, int]:
    """The same, this process with its words."""
    return watched(distributed, data, changes, [looked_up[distributed.rank]])


@pytest.mark.parametrize(("looked_up", "changes", "tolerance"), [(FEW, {}, 1e-6), (ALL, {}, 1e-6), (FEW, HALF, 2**-7)])
def test_rows_are_sent_as_soon_as_they_are_complete(
    tiny_dataset: Path, tmp_path: Path, looked_up: list[list[list[int]]], changes: dict[str, Any], tolerance: float
) -> None:
    """Those that no last micro-batch looks up before any block's gradients are there; and nothing twice."""
    dim, late = LARGE["model.dim"], len({PAD, *looked_up[0][-1], *looked_up[1][-1]})
    _, alone, size = watched(ALONE, tiny_dataset, {**changes, "train.reduce_dtype": ReduceDtype.fp32}, looked_up)
    for events, found, _ in run_processes(2, of_each, tmp_path, tiny_dataset, changes, looked_up):
        backward = events[events.index(WORDS) + 1 :]  # from where they have begun to agree on the rows
        assert backward[:2] == [(WORDS - late) * dim, "block 1"]
        assert backward.index("block 0") < len(backward) - 1
        assert backward[-1] == late * dim
        assert sum(event for event in backward if isinstance(event, int)) == size
        assert (found - alone).abs().max() <= tolerance * alone.abs().max()


def trained(distributed: Distributed, *configs: Config) -> list[str]:
    """Runs, one after the other."""
    return [train_on(distributed, config).status for config in configs]


def test_the_hook_trains_as_plain_ddp_does(tiny_dataset: Path, tmp_path: Path) -> None:
    """Several micro-batches, dropout, padding; Adam makes rounding of the sums visible, so not bit for bit."""
    changes = {"model.dropout": 0.1, "train.micro_batch_tokens": 32, "train.steps": 10}
    plain, hooked = (
        tiny_config(tmp_path / str(on), tiny_dataset, {**changes, "train.overlap_tied_embedding": on})
        for on in (False, True)
    )
    assert run_processes(2, trained, tmp_path, plain, hooked) == [["done", "done"]] * 2
    for one, other in zip(records(plain.run), records(hooked.run), strict=True):
        assert other == pytest.approx(one, rel=1e-4)


def test_compressed_gradients_train_as_well(tiny_dataset: Path, tmp_path: Path) -> None:
    """The losses differ, as the gradients are rounded, by no more than that of bf16 from fp32."""
    half = {"train.precision": Precision.bf16, "train.steps": 30}
    whole, compressed = (
        tiny_config(tmp_path / dtype.value, tiny_dataset, {**half, "train.reduce_dtype": dtype})
        for dtype in ReduceDtype
    )
    assert run_processes(2, trained, tmp_path, whole, compressed) == [["done", "done"]] * 2
    losses = [
        [one["train/loss"] for one in records(config.run) if "train/loss" in one] for config in (whole, compressed)
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def refused(distributed: Distributed, config: Config) -> str:
    """The error that it ends with."""
    with pytest.raises(ConfigError) as caught:
        train_on(distributed, config)
    return str(caught.value)


def test_the_hook_is_off_by_default() -> None:
    assert not TrainConfig().overlap_tied_embedding


def test_nothing_to_compress_to(tiny_dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset, {"train.reduce_dtype": ReduceDtype.half})
    for message in run_processes(2, refused, tmp_path, config):
        assert "train.reduce_dtype=half: with train.precision=fp32 there is no smaller format" in message
    assert not (tmp_path / "run").exists()
