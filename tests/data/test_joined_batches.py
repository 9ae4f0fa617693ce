"""Micro-batches of unlike lengths and objectives that are computed as one: the losses and gradients of each."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from xlmtrain.config.families import Family
from xlmtrain.config.model import ModelConfig
from xlmtrain.data import batch as batch_module
from xlmtrain.data.batch import Batch, EncoderInput, join_batches
from xlmtrain.model.kernels import dispatch
from xlmtrain.model.language_model import LanguageModel

WORDS = 60


def make(objective: str, rows: int, length: int, padded: bool = False, targets: int = 7) -> Batch:
    """Return a batch of random tokens; ``padded``: the last row is of three tokens."""
    generator = torch.Generator().manual_seed(rows * length)
    tokens = torch.randint(14, WORDS, (rows, length), generator=generator)
    lengths = torch.full((rows,), length)
    lengths[-1] = 3 if padded else length
    return Batch(
        objective,
        tokens,
        torch.arange(length).expand(rows, length),
        torch.arange(rows)[:, None].expand(rows, length) % 2,
        lengths if padded else None,
        torch.randperm((rows - 1) * length, generator=generator)[:targets].sort().values,
        torch.randint(14, WORDS, (targets,), generator=generator),
        name=f"{objective} of {length}",
    )


def losses(model: LanguageModel, batches: list[Batch], weights: list[float]) -> tuple[list[float], list[torch.Tensor]]:
    """Return the loss of each batch or part, and the gradients of their sum, weighted in order."""
    found = torch.cat([torch.atleast_1d(model(batch)) for batch in batches])[: len(weights)]
    assert len(found) == len(weights)
    (found * torch.tensor(weights)).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    return found.tolist(), gradients


def assert_alike(model: LanguageModel, apart: list[Batch], joined: Batch, weights: list[float]) -> list[float]:
    """Compare losses and gradients of ``apart`` and ``joined``; return the losses."""
    expected, gradients = losses(model, apart, weights)
    found, others = losses(model, [joined], weights)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-6)
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
    return found


@pytest.mark.parametrize("kernels", ["reference", "cpu"])
@pytest.mark.parametrize("family", [Family.xlm, Family.roberta, Family.modernbert])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("filled", [False, True])
def test_each_part_has_its_own_loss_and_gradient(
    monkeypatch: pytest.MonkeyPatch, kernels: str, family: Family, padded: bool, filled: bool
) -> None:
    monkeypatch.setattr(dispatch, "use_cpu_kernels", lambda tensor: kernels == "cpu")
    monkeypatch.setattr(batch_module, "_JOINED_MULTIPLE", 64 if filled else 1)
    torch.manual_seed(0)
    sizes = {} if family is Family.xlm else {"norm_eps": 1e-5, "local_attention": 4, "language_embeddings": False}
    config = ModelConfig(family=family, dim=16, layers=4, heads=2, max_positions=16, **sizes)  # type: ignore[arg-type]
    model = LanguageModel(config, WORDS, 2).eval()
    apart = [make("tlm", 5, 9), make("mlm", 3, 12, padded), make("tlm", 2, 16), make("mlm", 4, 5, targets=0)]
    (joined,) = join_batches(apart, 1000)
    assert joined.tokens.shape == (1, 192 if filled else 133)
    assert joined.targets.tolist() == [target for batch in apart for target in batch.targets.tolist()]
    found = assert_alike(model, apart, joined, [0.3, 2.0, -1.0, 5.0])
    assert len({round(loss, 3) for loss in found}) == 4


def test_causal_parts_look_back_only() -> None:
    torch.manual_seed(0)
    model = LanguageModel(ModelConfig(dim=16, layers=2, heads=2, max_positions=16), WORDS, 2).eval()
    apart = [make("clm", 5, 9), make("clm", 3, 12, padded=True)]
    (joined,) = join_batches(apart, 1000)
    assert_alike(model, apart, joined, [1.0, 2.0])


def test_logits_are_those_of_the_parts() -> None:
    torch.manual_seed(0)
    model = LanguageModel(ModelConfig(dim=16, layers=2, heads=2, max_positions=16), WORDS, 2).eval()
    apart = [make("mlm", 5, 9), make("tlm", 3, 12, padded=True)]
    (joined,) = join_batches(apart, 1000)
    torch.testing.assert_close(
        model.logits(joined), torch.cat([model.logits(batch) for batch in apart]), atol=1e-5, rtol=1e-5
    )


def test_only_what_fits_and_is_alike_is_joined() -> None:
    source = EncoderInput(*(3 * [torch.zeros(2, 4, dtype=torch.int64)]), lengths=None)
    translated = replace(make("mt", 2, 8), source=source)
    batches = [
        make("mlm", 4, 8),
        make("clm", 4, 8),
        make("tlm", 4, 6),
        translated,
        make("mlm", 2, 30),
        make("clm", 1, 9),
    ]
    joined = join_batches(batches, 64)
    assert [[part.objective for part in batch.parts] for batch in joined] == [
        ["mlm", "tlm", "mlm"],
        [],
        ["clm"] * 3,
        [],
    ]
    assert joined[1] is batches[4]
    assert joined[3] is translated
    assert [b.name for b in joined] == ["mlm of 8; tlm of 6", "mlm of 30", "clm of 8; clm of 9", "mt of 8"]
    assert join_batches(batches, 0) == [batches[i] for i in (0, 2, 4, 1, 5, 3)]
    assert sum(batch.nonpad_tokens for batch in joined) == sum(batch.nonpad_tokens for batch in batches) + 8 + 23
