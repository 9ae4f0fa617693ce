"""Memory against what autograd keeps, and models that it cannot hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from xlmtrain.config.load import compose
from xlmtrain.config.model import ModelConfig
from xlmtrain.data.batch import Batch, EncoderInput
from xlmtrain.diagnostics.memory import check_model_size, estimate_memory, parameter_count
from xlmtrain.errors import ConfigError
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.model.translation_model import TranslationModel

RELEASED = ModelConfig()
PARAMETERS, VOCAB = 142_422_203, 64_699


def kept_bytes(
    config: ModelConfig, vocab_size: int, rows: int, length: int, targets: int, translates: bool = False
) -> int:
    """What autograd keeps of a forward pass in bf16, weights left out."""
    model = (TranslationModel if translates else LanguageModel)(config, vocab_size, 2)
    weights = {tuple(parameter.shape)[::way] for parameter in model.parameters() for way in (1, -1)}
    tokens = torch.randint(14, vocab_size, (rows, length))
    index = torch.arange(targets)
    positions = torch.arange(length).expand(rows, length).contiguous()
    batch = Batch("mlm", tokens, positions, 0 * tokens, None, index, index + 14)
    if translates:
        batch = replace(batch, objective="mt", source=EncoderInput(tokens, positions, 0 * tokens, None))
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tuple(tensor.shape) not in weights:  # neither they nor their copies in bf16
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        loss = model(batch)
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("translates", [False, True])
def test_activations_are_what_autograd_keeps(monkeypatch: pytest.MonkeyPatch, translates: bool) -> None:
    """A block's share, from two and four of them; attention as on a GPU, without a matrix of its weights."""
    monkeypatch.setattr("xlmtrain.model.kernels.dispatch.use_cpu_kernels", lambda x: False)
    rows, length = 6, 64  # no matrix of these has the shape of a weight
    positions = rows * length * (1 + translates)  # with the sources
    sizes = {}
    for layers in (2, 4):
        config = ModelConfig(dim=256, layers=layers, heads=4, max_positions=64, dropout=0.0, attention_dropout=0.0)
        sizes[layers] = (
            kept_bytes(config, 1000, rows, length, 64, translates),
            estimate_memory(config, 0, 1000, positions, 64, translates=translates).activations,
        )
    counted, estimated = (sizes[4][i] - sizes[2][i] for i in (0, 1))
    assert counted == pytest.approx(estimated, rel=0.1)


def test_a_decoder_keeps_more() -> None:
    alone, both = (estimate_memory(RELEASED, PARAMETERS, VOCAB, 4000, 2000, translates=way) for way in (False, True))
    assert 1.1 < both.activations / alone.activations < 1.3


def test_sharded_memory() -> None:
    one, sharded = (estimate_memory(RELEASED, PARAMETERS, VOCAB, 8192, 1229, shards) for shards in (1, 8))
    assert sharded.weights == one.weights / 8
    assert sharded.optimizer_state == one.optimizer_state / 8
    assert sharded.activations == one.activations
    assert one.weights + one.gradients + one.optimizer_state == 16 * PARAMETERS
    # 64 x 256 tokens per micro-batch fit a V100
    assert estimate_memory(RELEASED, PARAMETERS, VOCAB, 16384, 0.15 * 16384).total < 32e9


def test_a_model_that_the_memory_cannot_hold_is_refused_before_it_is_built() -> None:
    config = compose("config", ["experiment=mlm_ende_1024", "model.layers=100000", "run=r"])
    with pytest.raises(
        ConfigError, match=r"model.layers=100000 .* at least 1,258.. billion weights.* 16.0 GB are there"
    ):
        check_model_size(config, VOCAB, 16 * 10**9, 1)
    config.model.layers = 6
    check_model_size(config, VOCAB, 16 * 10**9, 1)
    too_small = int(12 * PARAMETERS * 0.99)
    with pytest.raises(ConfigError, match=r"with gradient and optimizer state 1.7 GB on each of 1 device"):
        check_model_size(config, VOCAB, too_small, 1)
    check_model_size(config, VOCAB, too_small, 2)


@pytest.mark.parametrize("shared", [False, True])
def test_no_model_that_fits_is_refused(shared: bool) -> None:
    changes = ["init.encoder=null", "init.decoder=null", f"model.share_encoder_decoder_embeddings={shared}"]
    config = compose("config", ["experiment=mt_ende", *changes])
    check_model_size(config, 64_000, 12 * parameter_count(config, 64_000, 2), 1)
    with pytest.raises(ConfigError):
        check_model_size(config, 64_000, 10 * parameter_count(config, 64_000, 2), 1)
