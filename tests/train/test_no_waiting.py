"""A step never waits for the device. It runs here on one that has no numbers to read: torch's fake tensors have shapes,
types and places alone, and what would have the host wait for a number raises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.support.blind_device import make_device
from tests.support.tiny import run_processes, tiny_config
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.data.validation import validation_sets
from xlmtrain.evaluate.perplexity import evaluate_perplexity
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.optim.optimizer import make_optimizer
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.train.monitor import StepMonitor
from xlmtrain.train.parallel import ParallelModel
from xlmtrain.train.state import TrainState
from xlmtrain.train.step import TrainStep

ATEN = torch.ops.aten


class Watchdog(TorchDispatchMode):
    """Lets no copy pass that the host waits for, and notes what types linear layers give."""

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self.mode, self.pinned, self.seen, self.copies = mode, list[torch.Tensor](), set[Any](), 0

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """Stands for Tensor.pin_memory."""
        pinned = self.mode.from_tensor(tensor)
        self.pinned.append(pinned)
        return pinned

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        for one in tree_leaves(result):  # a number alone is the loss scale, for which torch makes an exception on MPS
            if isinstance(one, torch.Tensor) and one.dtype is torch.float64 and one.dim():
                assert one.device.type == "cpu", f"{func} in float64, which MPS does not have"
        if func in (ATEN._to_copy.default, ATEN.copy_.default):
            source = args[1] if func is ATEN.copy_.default else args[0]
            if source.device != result.device:
                self.copies += 1
                assert source.device.type == "cpu", f"{func} to the host"
                assert any(source is one for one in self.pinned), f"{func} of memory that is not pinned"
                assert kwargs.get("non_blocking") or args[2:] == (True,), f"{func} waits"
        if func is ATEN.addmm.default:  # a linear layer
            self.seen.add(result.dtype)
        if func in (ATEN._fused_adamw_.default, ATEN._amp_foreach_non_finite_check_and_unscale_.default):
            self.seen.add(str(func))
        return result


def run_all(_: Distributed, configs: Sequence[Config]) -> list[tuple[set[Any], int]]:
    """Run each of ``configs`` on the device, which a process can register once."""
    device = make_device()
    return [run_steps(config, device) for config in configs]


def run_steps(config: Config, device: torch.device) -> tuple[set[Any], int]:
    """Two steps of MLM and TLM; what :class:`Watchdog` has seen, and how many tensors were copied to the device."""
    alone, precision = Distributed(0, 1, device), config.train.precision
    dataset = Dataset(config.data.path)
    loader = Loader(config, dataset)
    with FakeTensorMode() as mode, Watchdog(mode) as watch, pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "pin_memory", lambda tensor: watch.pin(tensor))
        with device:
            model = LanguageModel(config.model, len(dataset.vocab), len(dataset.languages))
        train_step = TrainStep(
            config, ParallelModel(model), make_optimizer(config.optim, model, device), precision, alone
        )
        assert not StepMonitor(config, train_step, TrainState(loader.sampler.initial_state())).reads_every_step
        for data in loader.steps(0, 2, loader.sampler.initial_state()):
            assert {(batch.objective, batch.lengths is None) for batch in data.batches} >= {
                ("mlm", True),
                ("tlm", False),
            }
            try:
                result = train_step(data, data.targets)
            except DataDependentOutputException as error:  # cannot be sent to the test's process
                raise AssertionError(f"the host waits for {error.func}") from None
        seen, copies = set(watch.seen), watch.copies
        patch.setattr("xlmtrain.evaluate.perplexity.sum_dtype", lambda device: torch.float32)  # as on MPS
        with pytest.raises(DataDependentOutputException):
            evaluate_perplexity(model, validation_sets(config, dataset), precision, alone, lambda: False)
        # Waiting would be noticed: for the figures, and where a spike is not to move the weights.
        with pytest.raises(DataDependentOutputException):
            result.losses.tolist()
        train_step.loss_limit = 1e9
        with pytest.raises(DataDependentOutputException):
            train_step(data, data.targets)
        return seen, copies


def test_a_step_does_not_wait(tiny_dataset: Path, tmp_path: Path) -> None:
    types = {Precision.fp32: torch.float32, Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}
    changes = {"train.batch_tokens": 1024}
    configs = [tiny_config("unused", tiny_dataset, {**changes, "train.precision": precision}) for precision in types]
    (found,) = run_processes(1, run_all, tmp_path, configs)
    loader = Loader(configs[0], Dataset(tiny_dataset))
    batches = [batch for data in loader.steps(0, 2, loader.sampler.initial_state()) for batch in data.batches]
    for (precision, dtype), (seen, copies) in zip(types.items(), found):
        scaled = {"aten._amp_foreach_non_finite_check_and_unscale_.default"} if precision is Precision.fp16 else set()
        assert seen == {dtype, "aten._fused_adamw_.default", *scaled}, precision
        assert copies == sum(5 + (batch.lengths is not None) for batch in batches), precision
