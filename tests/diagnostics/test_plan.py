"""Estimates against what can be counted here, and against what others have published."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.support.programs import Call
from xlmtrain.config.load import compose
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.phases import phases_of, total_tokens
from xlmtrain.config.train import Sharding
from xlmtrain.diagnostics.memory import parameter_count
from xlmtrain.diagnostics.plan import Cluster, estimate_step, make_plan, orthogonalization_flops, touched_vocab_share
from xlmtrain.metrics.flops import gpu_named

RELEASED = ModelConfig()
PARAMETERS, VOCAB = 142_422_203, 64_699


def cluster(gpu: str, gpus: int = 1, network: float = 0.0) -> Cluster:
    found = gpu_named(gpu)
    assert found is not None
    return Cluster(found, gpus, network=network)


# Model, tokens of a step on each GPU, sequence length, vocabulary, share of positions that are predicted; tokens/s.
PUBLISHED = [
    ("V100", ModelConfig(layers=24), 8192, 128, 30522, 0.15, 28.7e3),
    ("A100", ModelConfig(layers=24), 32768, 128, 30522, 0.15, 74e3),
    ("A100", ModelConfig(dim=768, layers=12), 65536, 1024, 50368, 1.0, 156e3),
    ("A100", ModelConfig(dim=1024, layers=24), 65536, 1024, 50368, 1.0, 64.8e3),
    ("H100", ModelConfig(dim=1536, layers=24, heads=12), 65536, 512, 50368, 1.0, 83.7e3),
    ("H100", ModelConfig(dim=2048, layers=24, heads=16), 65536, 512, 50368, 1.0, 52.3e3),
]


@pytest.mark.parametrize(("gpu", "model", "tokens", "length", "vocab", "scored", "published"), PUBLISHED)
def test_speed_is_near_published_ones(
    gpu: str, model: ModelConfig, tokens: int, length: int, vocab: int, scored: float, published: float
) -> None:
    """BERT-large of NVIDIA's DeepLearningExamples, MPT of llm-foundry; see benchmarks/plan.md."""
    parameters = 12 * model.dim**2 * model.layers + vocab * model.dim
    time = estimate_step(model, parameters, vocab, length, scored, tokens, 1, cluster(gpu))
    ratio = tokens / time.total / published
    print(f"{gpu} {model.layers} x {model.dim}: {tokens / time.total:,.0f}, published {published:,.0f}: {ratio:.2f}")
    assert 0.75 < ratio < 1.05


def released(cluster: Cluster, tokens: int, gradient_bytes: int = 4, micro_batches: int = 1) -> float:
    return estimate_step(
        RELEASED, PARAMETERS, VOCAB, 256, 0.15, tokens, micro_batches, cluster, gradient_bytes
    ).scaling  # fmt: skip


def test_scaling() -> None:
    """Eight V100 of a host 97 % (NVIDIA, BERT-large, with accumulation); over hosts the network counts."""
    large = ModelConfig(layers=24)
    eight = estimate_step(large, 335_000_000, 30522, 128, 0.15, 65536, 8, cluster("V100", 8), 2).scaling
    assert 0.96 < eight < 1.0
    fast, slow = (released(cluster("V100", 64, network), 8192) for network in (400, 100))
    assert slow < fast < released(cluster("V100", 8), 8192) < released(cluster("V100"), 8192) == 1.0
    assert released(cluster("V100", 64), 8192) < released(cluster("V100", 64), 8192, gradient_bytes=2)
    assert released(cluster("V100", 64), 8192) < released(cluster("V100", 64), 32768, micro_batches=4)
    assert released(cluster("V100", 64, 100), 16384, 2, micro_batches=2) >= 0.9


def test_touched_rows() -> None:
    """Sub-batches of 8,192 tokens against counts (benchmarks/plan.md); with tied embeddings, only these rows wait."""
    counted = {1: 0.036, 8: 0.182, 16: 0.283, 32: 0.418, 64: 0.581, 128: 0.750, 256: 0.890}
    for sub_batches, share in counted.items():
        assert touched_vocab_share(8192 * sub_batches, 60_562) == pytest.approx(share, abs=0.02)
    tied, untied = (
        estimate_step(
            replace(RELEASED, tie_embeddings=tie), PARAMETERS, VOCAB, 256, 0.15, 16384, 2, cluster("V100", 64)
        )
        for tie in (True, False)
    )
    assert tied.comm == untied.comm
    assert tied.exposed_comm < untied.exposed_comm


def test_a_decoder_is_planned_for(call: Call) -> None:
    config = compose("config", ["experiment=umt_ende"])
    assert parameter_count(config, VOCAB, 2) == 310_047_094
    printed = call("plan", "experiment=umt_ende", "vocab_size=64699", "gpu=V100", "gpus=8")
    assert "8 x V100, 310,047,094 parameters, 4,000 tokens a step on each" in printed
    assert printed.endswith("The time in which back-translation translates is not counted.\n")


EXPERIMENT = "experiment=mlm_ende_1024"


def test_tool(call: Call) -> None:
    printed = call("plan", EXPERIMENT, "vocab_size=64699", "gpu=V100", "gpus=64", "price=2")
    assert "64 x V100, 142,422,203 parameters, 8,192 tokens a step on each, 8,192 per micro-batch" in printed
    hours = int(printed.split(" GPU hours")[0].split()[-1].replace(",", ""))
    assert f"{2 * hours:,}"[:-1] in printed.split("GPU hours, ")[1]
    assert len(call("plan", EXPERIMENT, "vocab_size=64699").splitlines()) == 14


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["data.path=nowhere"], "data.path=nowhere is not prepared yet"),
        (["vocab_size=100", "gpu=TPU"], "gpu: TPU: known are H200, H100, A100, V100"),
        (["vocab_size=100", "gpus=0"], "gpus: 0 is not above 0"),
    ],
)
def test_refused(call: Call, arguments: list[str], complaint: str) -> None:
    assert complaint in call("plan", EXPERIMENT, *arguments, code=2)


def test_sharded_weights(call: Call) -> None:
    """In a host they cost little; over a slow network ``full`` pays for every micro-batch, ``hybrid`` much less."""
    seconds = {
        (gpus, how): estimate_step(
            RELEASED, PARAMETERS, VOCAB, 256, 0.15, 16384, 2, cluster("V100", gpus), 4, how
        ).exposed_comm
        for gpus in (8, 64)
        for how in Sharding
    }
    assert seconds[8, Sharding.full] == seconds[8, Sharding.hybrid] == 0.0
    assert seconds[64, Sharding.full] > seconds[64, Sharding.hybrid]
    printed = call("plan", EXPERIMENT, "vocab_size=64699", "gpu=V100", "gpus=64", "train.sharding=full")
    assert "weights 0.0, gradients 0.0, optimizer state 0.0" in printed


def test_phases_are_added_up_and_the_largest_needs_the_memory() -> None:
    config = compose("config", ["experiment=phases_small", "train.micro_batch_tokens=0"])
    plan = make_plan(config, 3000, cluster("H100"))
    each = [make_plan(phase.settings, 3000, cluster("H100")) for phase in phases_of(config)]
    assert plan.total_tokens == sum(one.total_tokens for one in each) == total_tokens(phases_of(config)) == 512_000
    assert plan.days == pytest.approx(sum(one.days for one in each))
    assert plan.memory.total == max(one.memory.total for one in each) > min(one.memory.total for one in each)
    assert make_plan(config, 3000, cluster("H100"), total_tokens=1_024_000).days == pytest.approx(2 * plan.days)


def test_every_token_of_clm_is_a_target() -> None:
    masked, causal = (
        make_plan(compose("config", ["experiment=mlm_ende_1024", *changes]), VOCAB, cluster("A100", 8))
        for changes in ([], ["data.mlm={de: 0, en: 0}", "data.clm={de: 1, en: 1}"])
    )
    assert causal.memory.logits == pytest.approx(masked.memory.logits / 0.15)
    assert causal.time.computing > 1.5 * masked.time.computing


def test_muon_keeps_one_moment_and_computes_more() -> None:
    """Its arithmetic is what torch counts in a step of one matrix; the embeddings are Adam's."""
    adam, muon = (
        make_plan(compose("config", ["experiment=mlm_ende_1024", f"optim.name={name}"]), VOCAB, cluster("A100", 8))
        for name in ("adamw", "muon")
    )
    matrices = 6 * 12 * 1024**2
    assert adam.memory.optimizer_state - muon.memory.optimizer_state == 4 * matrices
    assert muon.time.computing == adam.time.computing
    shapes = [(3072, 1024), (1024, 1024), (4096, 1024), (1024, 4096)]
    flops = 6 * sum(map(orthogonalization_flops, shapes))
    assert muon.time.optimizer - adam.time.optimizer == pytest.approx(flops / 0.68 / 312e12)
    matrix = torch.nn.Parameter(torch.randn(24, 72))
    matrix.grad = torch.randn(24, 72)
    with FlopCounterMode(display=False) as counter:
        torch.optim.Muon([matrix]).step()
    assert orthogonalization_flops(matrix.shape) == counter.get_total_flops()
