"""What a step asks of a GPU, counted on a device without numbers: kernels to launch, bytes that they read and write.

The planner reckons with these counts. Attention is one kernel forward and one backward here, as on a GPU, and clipping
and the optimizer take all weights at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.support.blind_device import make_device
from tests.support.tiny import run_processes, tiny_config
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.diagnostics.plan import ELEMENTWISE_BYTES, LAUNCHES_PER_BLOCK, OTHER_LAUNCHES
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.optim.optimizer import make_optimizer
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.train.parallel import ParallelModel
from xlmtrain.train.step import TrainStep

WIDTH = 128
LAYERS = (1, 3)
TOKENS = (512, 2048)
_PRODUCTS = ("aten.mm.default", "aten.addmm.default")


class Attention(torch.autograd.Function):
    """Two operations of the shapes of attention's, forward and backward."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(q, k, v)
        return torch.ops.aten.lerp(q, k, v)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        q, k, v = ctx.saved_tensors
        return torch.ops.aten.lerp(q, k, v), k, v


class Counter(TorchDispatchMode):
    """Counts the kernels of a step and the bytes of those that are neither products nor attention."""

    def __init__(self) -> None:
        super().__init__()
        self.launches, self.bytes = 0, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = {id(one): one for one in tree_leaves((args, kwargs, result)) if isinstance(one, torch.Tensor)}
        if not func.is_view and func.namespace == "aten" and any(t.device.type != "cpu" for t in tensors.values()):
            self.launches += 1
            if str(func) not in (*_PRODUCTS, "aten.lerp.Tensor"):
                self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        return result


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **_: Any) -> torch.Tensor:
    """Stands for scaled_dot_product_attention, under autocast."""
    result: torch.Tensor = Attention.apply(*(x.to(torch.bfloat16) for x in (q, k, v)))
    return result


def count_all(_: Distributed, configs: Sequence[Config]) -> list[tuple[int, int]]:
    """Return launches and bytes of a step of each of ``configs``."""
    device = make_device()
    return [count(config, device) for config in configs]


def count(config: Config, device: torch.device) -> tuple[int, int]:
    dataset = Dataset(config.data.path)
    loader = Loader(config, dataset)
    with FakeTensorMode() as mode, pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "pin_memory", lambda tensor: mode.from_tensor(tensor))  # a method, so no partial
        patch.setattr("torch.nn.functional.scaled_dot_product_attention", attention)
        patch.setattr("torch.nn.utils.clip_grad._has_foreach_support", lambda *_: True)  # fake tensors have none
        with device:
            model = LanguageModel(config.model, len(dataset.vocab), len(dataset.languages))
        optimizer = make_optimizer(config.optim, model, device)
        step = TrainStep(config, ParallelModel(model), optimizer, Precision.bf16, Distributed(0, 1, device))
        first, second = loader.steps(0, 2, loader.sampler.initial_state())
        step(first, first.targets)  # the optimizer makes its state
        with Counter() as counter:
            step(second, second.targets)
        return counter.launches, counter.bytes


def test_the_planner_reckons_with_what_a_step_launches(tiny_dataset: Path, tmp_path: Path) -> None:
    fixed = {"model.dim": WIDTH, "data.tlm": {}, "model.dropout": 0.1, "model.attention_dropout": 0.1}
    configs = [
        tiny_config(
            "unused",
            tiny_dataset,
            {**fixed, "model.layers": layers, "train.batch_tokens": tokens, "data.sub_batch_tokens": tokens},
        )
        for layers in LAYERS
        for tokens in TOKENS
    ]
    (found,) = run_processes(1, count_all, tmp_path, configs)
    (few, few_bytes), (few_again, few_bytes_again), (many, many_bytes), (_, many_bytes_again) = found
    assert few == few_again, "launches do not depend on the tokens"
    per_block = (many - few) / (LAYERS[1] - LAYERS[0])
    growth = (many_bytes_again - many_bytes) - (few_bytes_again - few_bytes)
    per_position = growth / ((TOKENS[1] - TOKENS[0]) * (LAYERS[1] - LAYERS[0]) * WIDTH)
    print(f"{per_block:.0f} launches per block and {few - LAYERS[0] * per_block:.0f} more of a micro-batch")
    print(f"{per_position:.0f} bytes per position, layer and unit of width")
    assert per_block == pytest.approx(LAUNCHES_PER_BLOCK, rel=0.1)
    assert few - LAYERS[0] * per_block == pytest.approx(OTHER_LAUNCHES, rel=0.1)
    assert 0.6 * ELEMENTWISE_BYTES < per_position < ELEMENTWISE_BYTES
