"""What a GPU computes with, forced on a CPU: the same loss and gradients, by calls that its fast kernels take."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from xlmtrain.config.model import ModelConfig
from xlmtrain.config.train import Precision, TrainConfig
from xlmtrain.data.batch import Batch
from xlmtrain.errors import ConfigError
from xlmtrain.model.kernels import dispatch
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.precision import choose_precision, make_scaler
from xlmtrain.text.vocab import PAD

WORDS, ROWS, LENGTH, HEADS = 300, 4, 24, 4
CUDA = torch.device("cuda", 0)
VOLTA, AMPERE, HOPPER = (7, 0), (8, 0), (9, 0)
KINDS = ("whole", "padded", "causal")


def small_model(p: float) -> LanguageModel:
    torch.manual_seed(0)
    config = ModelConfig(dim=32, layers=2, heads=HEADS, max_positions=LENGTH, dropout=p, attention_dropout=p)
    return LanguageModel(config, WORDS, 2)


def batch_of(kind: str) -> Batch:
    random = torch.Generator().manual_seed(1)
    tokens = torch.randint(14, WORDS, (ROWS, LENGTH), generator=random)
    lengths = torch.tensor([LENGTH, 20, 5, 2]) if kind == "padded" else None
    if lengths is not None:
        tokens[torch.arange(LENGTH) >= lengths[:, None]] = PAD
    places = torch.randperm(ROWS * LENGTH, generator=random)
    index = places[(tokens.flatten() != PAD)[places]][:13].sort().values
    positions = torch.arange(LENGTH).expand(ROWS, LENGTH)
    languages = torch.randint(2, (ROWS, 1), generator=random).expand(ROWS, LENGTH)
    objective = "clm" if kind == "causal" else "tlm"
    return Batch(objective, tokens, positions, languages, lengths, index, tokens.flatten()[index].roll(1))


def force_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "use_cpu_kernels", lambda _: False)


def loss_and_gradients(model: LanguageModel, batch: Batch, half: bool) -> dict[str, torch.Tensor]:
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        loss = model(batch)
    (1.5 * loss).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert len(found) == len(list(model.parameters()))
    return {"loss": loss.detach(), **found}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("half", "tolerance"), [(False, 2e-6), (True, 0.03)])
def test_loss_and_gradients_are_the_cpus(
    monkeypatch: pytest.MonkeyPatch, kind: str, half: bool, tolerance: float
) -> None:
    model, batch = small_model(0.0), batch_of(kind)
    own = loss_and_gradients(model, batch, half)
    force_references(monkeypatch)
    other = loss_and_gradients(model, batch, half)
    assert own["loss"].item() == pytest.approx(other["loss"].item(), rel=1e-6 if not half else 1e-3)
    largest = max(value.norm().item() for value in other.values())
    for name, value in other.items():
        assert (own[name] - value).norm() <= tolerance * value.norm() + 1e-6 * largest, name


@pytest.mark.parametrize("kind", KINDS)
def test_attention_is_one_call_that_the_fast_kernels_take(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Flash attention takes no mask, the memory-efficient kernel, which is Volta's, takes one and dropout.

    What it asks for: four dimensions, numbers of a head side by side, their count a multiple of 8, the same for all,
    no mask with ``is_causal``, a mask that can be expanded to all heads and queries and whose keys are side by side.
    """
    calls: list[dict[str, Any]] = []

    def record(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: Any) -> torch.Tensor:
        calls.append({"qkv": (q, k, v), **options})
        return product(q, k, v, **options)

    product = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    force_references(monkeypatch)
    with torch.autocast("cpu", torch.float16):
        small_model(0.1)(batch_of(kind)).backward()
    assert len(calls) == 2  # a layer
    for call in calls:
        for x in call["qkv"]:
            assert x.shape == (ROWS, HEADS, LENGTH, 8)
            assert x.dtype == torch.float16
            assert x.stride(-1) == 1
            assert all(stride % 8 == 0 for stride in x.stride()[:-1])
        mask = call["attn_mask"]
        assert call["dropout_p"] == 0.1
        assert call["is_causal"] == (kind == "causal")
        assert (mask is not None) == (kind == "padded")
        if mask is not None:
            assert mask.shape == (ROWS, 1, 1, LENGTH)
            assert mask.dtype == torch.bool
            assert mask.stride(-1) == 1
            q, k, v = (torch.empty_like(x, device="meta") for x in call["qkv"])
            bias = torch.empty(mask.shape, dtype=q.dtype, device="meta").expand(ROWS, HEADS, LENGTH, LENGTH)
            kernel = torch.ops.aten._scaled_dot_product_efficient_attention
            assert kernel(q, k, v, bias, True, dropout_p=0.1)[0].shape == q.shape


@pytest.mark.parametrize(
    ("capability", "expected"), [(VOLTA, Precision.fp16), (AMPERE, Precision.bf16), (HOPPER, Precision.bf16)]
)
def test_number_format_follows_the_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: Precision
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100-SXM2-32GB")
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    assert choose_precision(Precision.auto, CUDA) is expected
    assert make_scaler(TrainConfig(), expected, CUDA).is_enabled() == (expected is Precision.fp16)
    for wanted in (Precision.fp16, Precision.fp32):
        assert choose_precision(wanted, CUDA) is wanted
    if capability >= AMPERE:
        assert choose_precision(Precision.bf16, CUDA) is Precision.bf16
        return
    with pytest.raises(ConfigError, match=r"train\.precision=bf16: Tesla V100-SXM2-32GB has no bf16; take fp16"):
        choose_precision(Precision.bf16, CUDA)
