"""The settings of training: every key, its type, its meaning. Values are in ``configs/``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, make_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

from xlmtrain.config.families import PARTS, Family, Parts
from xlmtrain.config.phases import given, phases_of
from xlmtrain.config.piecewise import parse_points, value_at
from xlmtrain.config.validate import (
    ABOVE_ZERO,
    NOT_NEGATIVE,
    SHARE,
    SHARE_ABOVE_ZERO,
    SHARE_BELOW_ONE,
    CheckedSettings,
    problems_of,
    ranged,
)


class Activation(str, Enum):
    """Non-linearity of the feed-forward layers; ``gelu`` is the exact (erf) form."""

    gelu = "gelu"
    relu = "relu"


class Schedule(str, Enum):
    """Learning rate after its linear warm-up."""

    constant = "constant"
    inverse_sqrt = "inverse_sqrt"
    linear = "linear"
    cosine = "cosine"


class OptimizerName(str, Enum):
    """``adamw``; or ``muon``: Muon for the blocks' matrices, AdamW for all else."""

    adamw = "adamw"
    muon = "muon"


class FusedAdam(str, Enum):
    """Library of the fused Adam kernel; both give the same step."""

    torch = "torch"
    apex = "apex"


class Precision(str, Enum):
    """Number format of matrix products; weights and optimizer state are always fp32."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Pooling(str, Enum):
    """Sentence vector from hidden states: their mean over all tokens, delimiters included, or the first token's."""

    mean = "mean"
    first = "first"


class Device(str, Enum):
    """Device to train on."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@dataclass
class ModelConfig:
    """Transformer encoder; the defaults are those of xlm-mlm-ende-1024."""

    dim: int = ranged(1024, ABOVE_ZERO)
    """Width of the hidden states."""

    layers: int = ranged(6, ABOVE_ZERO)
    """Number of Transformer blocks."""

    heads: int = ranged(8, ABOVE_ZERO)
    """Number of attention heads; must divide ``dim``."""

    max_positions: int = ranged(512, ABOVE_ZERO)
    """Longest sequence in tokens; the size of the position table, if there is one."""

    dropout: float = ranged(0.1, SHARE)
    """Dropout probability after the embeddings, the attention and the feed-forward layers."""

    attention_dropout: float = ranged(0.1, SHARE)
    """Dropout probability of the attention weights."""

    activation: Activation = Activation.gelu
    """Non-linearity of the feed-forward layers, gated in modernbert."""

    sinusoidal_positions: bool = False
    """Use fixed sinusoidal position embeddings instead of learned ones."""

    language_embeddings: bool = True
    """Add a learned embedding of the token's language to every token. Families other than xlm start with zeros, and
    are exported with the vector of one language each."""

    tie_embeddings: bool = True
    """Share one matrix between the token embeddings and the output layer."""

    share_encoder_decoder_embeddings: bool = False
    """Share the token embeddings between the encoder and the decoder of a translation model. The original XLM does
    not."""

    family: Family = Family.xlm
    """Architecture: ``xlm``, or that of BERT, RoBERTa and XLM-R, or ModernBERT, which Hugging Face's classes load."""

    ffn_dim: int = ranged(0, NOT_NEGATIVE)
    """Width inside the feed-forward layers; 0: four times ``dim``, the only one of XLM."""

    norm_eps: float = ranged(1e-12, ABOVE_ZERO)
    """Added to the variance in norms; RoBERTa and ModernBERT have 1e-5."""

    token_types: int = ranged(2, ABOVE_ZERO)
    """bert, roberta: rows of the table of token types. All tokens have type 0."""

    global_every: int = ranged(3, ABOVE_ZERO)
    """modernbert: every so many blocks, from the first on, attends to all positions, the others to nearby ones."""

    local_attention: int = ranged(128, ABOVE_ZERO)
    """modernbert: the nearby positions, half of them on each side."""

    rope_theta: float = ranged(160000.0, ABOVE_ZERO)
    """modernbert: base of the rotary positions where all positions are attended to."""

    local_rope_theta: float = ranged(10000.0, ABOVE_ZERO)
    """modernbert: base of the rotary positions where only nearby ones are."""

    @property
    def parts(self) -> Parts:
        """The parts of the family."""
        return PARTS[self.family]

    @property
    def ffn_width(self) -> int:
        """Width inside the feed-forward layers."""
        return self.ffn_dim or 4 * self.dim

    @property
    def block_weights(self) -> int:
        """Number of weights in the matrices of a block."""
        return (4 * self.dim + (3 if self.parts.gated else 2) * self.ffn_width) * self.dim

    def problems(self) -> Iterator[str]:
        """Yield values that exclude each other."""
        if self.family is Family.xlm and (self.ffn_width, self.norm_eps) != (4 * self.dim, 1e-12):
            yield "ffn_dim, norm_eps: fixed in the family xlm; leave them out, or choose another model.family"
        if self.family is not Family.xlm and self.sinusoidal_positions:
            yield f"sinusoidal_positions: not in the family {self.family.value}"
        if self.parts.rotary and self.heads > 0 and self.dim // self.heads % 2:
            yield f"heads: rotary positions need an even size of heads, not {self.dim // self.heads}"
        if self.heads > 0 and self.dim % self.heads:
            yield f"heads: {self.heads} does not divide model.dim={self.dim}"
        if self.sinusoidal_positions and self.dim % 2:
            yield f"dim: {self.dim} is odd, which model.sinusoidal_positions cannot use"


@dataclass
class InitConfig:
    """Initial weights; random by default. Used when a run begins, not when it resumes."""

    pretrained: str | None = None
    """Model to start from: a run directory, one of its checkpoints, a Hugging Face folder, or a ``.pth`` file of the
    original XLM. The data must have the model's vocabulary, and only languages that the model knows."""

    encoder: str | None = None
    """Model to start the encoder of a translation model from, in the formats of ``pretrained``. If that model has a
    decoder, only its encoder is used."""

    decoder: str | None = None
    """Model to start the decoder from, in the same formats. If that model has a decoder, that one is used. What a
    language model lacks, attention to the source and its norms, stays random."""

    word_vectors: list[str] = field(default_factory=list)
    """Files of word vectors for the token embeddings, in word2vec text format with ``model.dim`` numbers per word. For
    a word in several files, the last file is used."""

    @property
    def models(self) -> list[str]:
        """All models to start from."""
        return [path for path in (self.pretrained, self.encoder, self.decoder) if path is not None]

    def problems(self) -> Iterator[str]:
        """Yield values that exclude each other."""
        if self.pretrained is not None and len(self.models) > 1:
            yield "pretrained: sets encoder and decoder; remove it, or remove init.encoder and init.decoder"


@dataclass
class MaskConfig:
    """Masking for MLM and TLM."""

    prob: float = ranged(0.15, SHARE_ABOVE_ZERO)
    """Share of tokens that are selected as prediction targets."""

    mask_token_prob: float = ranged(0.8, SHARE)
    """Share of the selected tokens that are replaced by ``<mask>``."""

    random_token_prob: float = ranged(0.1, SHARE)
    """Share of the selected tokens that are replaced by a random token. The others are left unchanged."""

    inverse_frequency_exponent: float = ranged(0.0, NOT_NEGATIVE)
    """Tokens are selected with weight count^-exponent, so frequent tokens are selected less often. 0: all tokens alike;
    the paper used 0.5."""

    def problems(self) -> Iterator[str]:
        """Yield values that exclude each other."""
        total = self.mask_token_prob + self.random_token_prob
        if total > 1 + 1e-9:
            yield f"mask_token_prob: its sum with mask.random_token_prob is {total}, more than 1"


@dataclass
class NoiseConfig:
    """Noise of the source in denoising; the defaults are those of the published unsupervised translation."""

    shuffle_distance: float = ranged(3.0, NOT_NEGATIVE)
    """How far words are shuffled: two words d apart swap their order with probability (k - d)^2 / (2 k^2) for k =
    shuffle_distance, if d < k, and no word moves by k positions or more. 0: no shuffling; otherwise above 1."""

    drop_prob: float = ranged(0.1, SHARE_BELOW_ONE)
    """Probability that a word is dropped. A sentence keeps at least one word."""

    blank_prob: float = ranged(0.1, SHARE_BELOW_ONE)
    """Probability that a word is replaced by ``<mask>``, each of its subwords by one."""

    whole_words: bool = False
    """Move, drop and blank whole words. Off: each subword for itself, as in the original XLM."""

    def problems(self) -> Iterator[str]:
        """Yield values that exclude each other."""
        if 0 < self.shuffle_distance <= 1:
            moves = f"shuffle_distance: {self.shuffle_distance} moves no word"
            yield f"{moves}; give 0 or a number above 1, the distance of neighbours"


@dataclass
class BackTranslationConfig:
    """Search for the translations that back-translation trains on. Each has at most 1.3 times the tokens of its
    sentence and 5 more, as in the original XLM."""

    beam: int = ranged(1, ABOVE_ZERO)
    """Width of the beam search. 1: the most probable token at each place, as in the original XLM."""

    temperature: float | None = ranged(None, ABOVE_ZERO)
    """Draw each token from the model's distribution, sharper below 1 and flatter above, instead of searching."""

    def problems(self) -> Iterator[str]:
        """Yield values that exclude each other."""
        if self.temperature is not None and self.beam > 1:
            yield f"temperature: draws tokens; with bt.beam={self.beam} the most probable ones are searched for"


OBJECTIVES = ("mlm", "tlm", "clm", "mt", "dae", "bt")
"""The keys of ``data`` that have weights. Metrics of a step are in this order."""

SEQ2SEQ_OBJECTIVES = ("mt", "dae", "bt")
"""The objectives of the decoder, which reads a source."""


@dataclass
class DataConfig:
    """Training data: the mixture of objectives and languages, and the sizes of sequences and sub-batches."""

    path: str = "???"
    """Directory of a prepared data set, made by ``xlmtrain prepare`` or ``xlmtrain import``."""

    mlm: dict[str, float] = field(default_factory=dict)
    """Weight of masked language modelling per language, e.g. ``{en: 1, de: 1}``."""

    tlm: dict[str, float] = field(default_factory=dict)
    """Weight of translation language modelling per pair, e.g. ``{de-en: 1}``."""

    clm: dict[str, float] = field(default_factory=dict)
    """Weight of causal language modelling per language, e.g. ``{en: 1}``."""

    mt: dict[str, float] = field(default_factory=dict)
    """Weight of translation per direction, e.g. ``{de-en: 1, en-de: 1}``: a decoder predicts the second language from
    the first. Both directions read the pair ``de-en``."""

    dae: dict[str, float] = field(default_factory=dict)
    """Weight of denoising per language, e.g. ``{en: 1, de: 1}``: the decoder restores a sentence from a noisy copy of
    it, with the noise of ``noise``."""

    bt: dict[str, float] = field(default_factory=dict)
    """Weight of back-translation per direction, e.g. ``{de-en: 1, en-de: 1}``. ``de-en`` reads English text: the model
    translates it into German, with its weights of that step, and learns to translate the result back."""

    loss_weight: dict[str, str] = field(default_factory=dict)
    """Factor of an objective's loss, 1 where none is given: a number, or a piecewise-linear function of the step like
    ``{dae: "0:1,100000:0.1,300000:0"}``, the original XLM's lambda, of a phase from its start on. An objective is not
    sampled while its factor is 0."""

    sampling_alpha: float = ranged(0.7, SHARE)
    """Each sub-batch is sampled from one objective and one language or pair. An objective's probability is proportional
    to the sum of its weights; within it, a language's to weight x sentences^alpha. 1: corpus sizes count fully; 0: only
    the weights count."""

    sequence_length: int = ranged(256, ABOVE_ZERO)
    """Tokens in a sequence of MLM or CLM, which is a window of the running text of one language."""

    sub_batch_tokens: int = ranged(8192, ABOVE_ZERO)
    """Tokens in a sub-batch, padding included, of both sides in translation and denoising; back-translation counts its
    text twice, as its translations have yet to be made. All sequences of a sub-batch have one objective and one
    language or pair. A global batch consists of a whole number of sub-batches, which are distributed over the
    processes."""

    max_sentence_length: int = ranged(100, ABOVE_ZERO)
    """TLM and the objectives of the decoder leave out sentences of more tokens than this, delimiters not counted, and
    pairs with such a side."""

    @property
    def weights(self) -> dict[str, dict[str, float]]:
        """The weights above 0 by objective and key, objectives without any left out."""
        found = {name: {key: w for key, w in getattr(self, name).items() if w > 0} for name in OBJECTIVES}
        return {name: by_key for name, by_key in found.items() if by_key}

    @property
    def seq2seq_share(self) -> float:
        """Share of the sub-batches that a decoder is trained on."""
        shares = {name: sum(by_key.values()) for name, by_key in self.weights.items()}
        return sum(shares.get(name, 0.0) for name in SEQ2SEQ_OBJECTIVES) / sum(shares.values())

    @property
    def reads_sentences(self) -> bool:
        """True if an objective reads sentences, not running text alone."""
        return any(name in self.weights for name in ("tlm", *SEQ2SEQ_OBJECTIVES))

    @property
    def longest_row(self) -> int:
        """Most tokens of a row, both sides counted."""
        return max(self.sequence_length, 2 * (self.max_sentence_length + 2) if self.reads_sentences else 0)

    def loss_factor(self, objective: str, step: int) -> float:
        """Return the factor of the loss of ``objective`` at ``step``, from 0."""
        return value_at(self.loss_weight.get(objective, "1"), step)

    def problems(self) -> Iterator[str]:
        """Yield values that exclude each other."""
        length, sub_batch = self.sequence_length, self.sub_batch_tokens
        if 0 < length < 3:
            yield f"sequence_length: {length} leaves no token between the first and the last"
        if {"mlm", "clm"} & self.weights.keys() and length > 0 and sub_batch % length:
            yield f"sub_batch_tokens: {sub_batch} is no multiple of data.sequence_length={length}"
        if self.reads_sentences and sub_batch < 2 * (self.max_sentence_length + 2):
            yield f"sub_batch_tokens: {sub_batch} cannot hold one pair of data.max_sentence_length each"
        weights = {f"{name}.{key}": w for name in OBJECTIVES for key, w in getattr(self, name).items()}
        for key, weight in weights.items():
            if not 0 <= weight < math.inf:
                yield f"{key}: {weight} is no weight; give a number from 0 up"
        if not self.weights:
            yield f"mlm: nothing to train on; give {', '.join(f'data.{name}' for name in OBJECTIVES)} a weight"
        yield from self._loss_weight_problems()

    def _loss_weight_problems(self) -> Iterator[str]:
        steps = {0}
        for name, text in self.loss_weight.items():
            if not isinstance(text, str):
                return  # CheckedSettings complains
            try:
                steps |= {step for step, _ in parse_points(text)}
            except ValueError as error:
                yield f"loss_weight.{name}: {text} is not like 0.5 or 0:1,100000:0.1,300000:0: {error}"
                return
            if name not in OBJECTIVES:
                yield f"loss_weight.{name}: is none of {', '.join(OBJECTIVES)}"
        for step in sorted(steps) if self.weights else []:
            if not any(self.loss_factor(name, step) for name in self.weights):
                yield f"loss_weight: all objectives have the factor 0 at step {step}; nothing is left to train on"
                return


@dataclass
class OptimConfig:
    """Adam with decoupled weight decay, or Muon with it, and the learning rate as a function of the step."""

    name: OptimizerName = OptimizerName.adamw
    """``muon``: torch's Muon (Jordan et al. 2024) for the matrices of the blocks, AdamW for embeddings, output layer,
    norms and biases. Its updates are as large as AdamW's (Liu et al. 2025), so ``lr`` and ``weight_decay`` are for
    both."""

    momentum: float = ranged(0.95, SHARE_BELOW_ONE)
    """Muon's decay rate of the running sum of the gradient, with Nesterov's correction."""

    lr: float = ranged(1e-4, ABOVE_ZERO)
    """Peak learning rate."""

    schedule: Schedule = Schedule.inverse_sqrt
    """Learning rate after the warm-up: constant; ``inverse_sqrt`` falls towards 0; ``linear`` and ``cosine`` fall to
    ``min_lr``."""

    warmup_steps: int = ranged(4000, NOT_NEGATIVE)
    """Steps of linear warm-up."""

    warmup_init_lr: float = ranged(1e-7, NOT_NEGATIVE)
    """Learning rate of the first step of the warm-up."""

    min_lr: float = ranged(0.0, NOT_NEGATIVE)
    """Learning rate at the end of the linear and cosine schedules."""

    decay_steps: int = ranged(0, NOT_NEGATIVE)
    """Steps of the linear and cosine schedules from the peak to ``min_lr``; 0: until the last step, or the phase that
    begins another schedule."""

    beta1: float = ranged(0.9, SHARE_BELOW_ONE)
    """Decay rate of Adam's running mean of the gradient."""

    beta2: float = ranged(0.999, SHARE_BELOW_ONE)
    """Decay rate of Adam's running mean of the squared gradient."""

    eps: float = ranged(1e-8, ABOVE_ZERO)
    """Added to Adam's denominator, after its bias correction (as in torch; the original XLM added it before, which
    matters only in the first steps)."""

    weight_decay: float = ranged(0.0, NOT_NEGATIVE)
    """Decoupled weight decay of the blocks' matrices; biases, norms, embeddings and output layer have none."""

    clip_grad_norm: float = ranged(5.0, NOT_NEGATIVE)
    """Largest norm of the gradient; a larger one is scaled down to it. 0: no clipping."""

    fused: FusedAdam = FusedAdam.torch
    """``torch``: torch's fused AdamW. ``apex``: FusedAdam of NVIDIA apex (CUDA only)."""

    def problems(self) -> Iterator[str]:
        """Yield values that exclude each other."""
        if self.name is OptimizerName.muon and self.fused is FusedAdam.apex:
            yield "fused: apex does not work with optim.name=muon; set optim.fused=torch"


class AverageKind(str, Enum):
    """Average of the weights: none; ``ema``: exponential; ``uniform``: all steps alike."""

    none = "none"
    ema = "ema"
    uniform = "uniform"


@dataclass
class AverageConfig:
    """An average of the weights, kept beside those that are trained. It is validated as ``average/...``, saved in the
    checkpoints, and exported with ``checkpoint=average``."""

    kind: AverageKind = AverageKind.none
    """``ema``: exponential moving average. ``uniform``: the mean over all steps after ``start``. Either takes as much
    memory as the weights."""

    decay: float = ranged(0.999, SHARE_BELOW_ONE)
    """Share of the EMA that stays at each step; 0.999 averages about the last 1,000 steps."""

    start: int = ranged(0, NOT_NEGATIVE)
    """Steps before the first one that is averaged."""


class Sharding(str, Enum):
    """Weights on each process: all of them; a shard of all processes; or a shard of the processes of its host."""

    none = "none"
    full = "full"
    hybrid = "hybrid"


class ReduceDtype(str, Enum):
    """Number format of gradients in the all-reduce: fp32, or that of the matrix products (bf16 or fp16)."""

    fp32 = "fp32"
    half = "half"


class OnNonFinite(str, Enum):
    """Response to a non-finite gradient: end the run, or skip the step, at most ten in a row."""

    stop = "stop"
    skip = "skip"


class OnSpike(str, Enum):
    """Response to a loss spike: log it, or also skip the step."""

    log = "log"
    skip = "skip"


class Requeue(str, Enum):
    """Restart of a job that a signal ended."""

    never = "never"
    slurm = "slurm"


@dataclass
class TrainConfig:
    """Length of the run, batch, precision, checkpoints, and what to do about faults."""

    steps: int = ranged(100000, ABOVE_ZERO)
    """Optimizer steps of the run; with ``phases``, of each phase that does not say."""

    batch_tokens: int = ranged(65536, ABOVE_ZERO)
    """Global batch in tokens, padding included, over all processes and accumulated micro-batches; a multiple of
    ``data.sub_batch_tokens``."""

    micro_batch_tokens: int = ranged(0, NOT_NEGATIVE)
    """Tokens of a micro-batch, the part of the batch that a device computes in one pass; the gradient is accumulated.
    0: one sub-batch. Lower it if memory is short; the result stays the same, except for the dropout masks."""

    label_smoothing: float = ranged(0.0, SHARE_BELOW_ONE)
    """Share of each target of translation and denoising that is spread over the vocabulary (Szegedy et al. 2016); 0.1
    is usual. Validation is without it."""

    precision: Precision = Precision.auto
    """``auto``: bf16 on GPUs and CPUs that have it (CPUs with AVX512-BF16 or AMX), fp16 with dynamic loss scaling on
    older GPUs (Volta), fp32 on other CPUs."""

    device: Device = Device.auto
    """``auto``: CUDA where there is one."""

    compile: bool = False
    """Compile each block with torch.compile, which takes a minute at the start. For GPUs; no gain on CPUs."""

    sharding: Sharding = Sharding.none
    """Split weights, gradients and optimizer state across processes (FSDP2), for models that do not fit on one device.
    ``full``: across all processes. ``hybrid``: across those of each host, with less traffic between hosts. Checkpoints
    do not depend on it."""

    reduce_dtype: ReduceDtype = ReduceDtype.fp32
    """Number format in which gradients are summed over the processes. ``half``: bf16 or fp16, as ``train.precision``
    says, which halves the traffic."""

    overlap_tied_embedding: bool = False
    """With ``model.tie_embeddings`` and without sharding: send the gradient of the embeddings early in the backward
    pass, but for the rows of the tokens looked up, instead of all of it at the end. Experimental: measured over gloo
    only, never over NCCL."""

    initial_loss_scale: float = ranged(65536.0, ABOVE_ZERO)
    """First loss scale of fp16; halved on overflow, doubled after ``loss_scale_window`` steps without one."""

    loss_scale_window: int = ranged(2000, ABOVE_ZERO)
    """Steps without overflow after which the loss scale of fp16 is doubled."""

    min_loss_scale: float = ranged(1.0, ABOVE_ZERO)
    """Training stops when an overflow would lower the loss scale of fp16 below this."""

    log_every: int = ranged(10, ABOVE_ZERO)
    """Steps between records of metrics."""

    save_every: int = ranged(1000, ABOVE_ZERO)
    """Steps between checkpoints."""

    keep_last: int = ranged(2, ABOVE_ZERO)
    """Number of last checkpoints to keep, besides the best one."""

    keep_every: int = ranged(0, NOT_NEGATIVE)
    """Also keep the checkpoints of steps that are a multiple of this; 0: none."""

    on_non_finite: OnNonFinite = OnNonFinite.stop
    """Response to a loss or gradient that is not finite: end the run, or skip the step, at most ten in a row. With fp16
    an overflow lowers the loss scale instead."""

    on_spike: OnSpike = OnSpike.log
    """Response to a loss that is more than 6 standard deviations above the mean of the 128 steps before it: log it, or
    also skip the step. ``skip`` makes every step wait for the device."""

    replica_check_every: int = ranged(1000, NOT_NEGATIVE)
    """Steps between checks that all processes have the same weights; every checkpoint is preceded by one, too.
    0: no checks."""

    hang_timeout: float = ranged(600.0, ABOVE_ZERO)
    """Seconds without progress after which a process prints its stack and ends with exit code 6. It must exceed the
    longest step, evaluation batch or reading of a checkpoint."""

    requeue: Requeue = Requeue.never
    """``slurm``: a job that a signal ended is queued again with ``scontrol requeue``."""

    overwrite: bool = False
    """Delete the run in this directory and start from step 0, instead of resuming it. Give it only once: with it, the
    same command starts over again."""

    def problems(self) -> Iterator[str]:
        """Yield values that exclude each other."""
        if self.save_every > 0 and self.keep_every % self.save_every:
            yield f"keep_every: {self.keep_every} is no multiple of train.save_every={self.save_every}"
        if self.sharding is not Sharding.none and self.overlap_tied_embedding:
            yield f"overlap_tied_embedding: has no effect with train.sharding={self.sharding.value}"


def column_problems(columns: Sequence[str]) -> Iterator[str]:
    """Yield why ``columns`` cannot describe a table of labelled text. Empty is right."""
    counts = {name: columns.count(name) for name in ("label", "text", "language", "_")}
    if columns and (
        sum(counts.values()) < len(columns)
        or (counts["label"], counts["language"] > 1) != (1, False)
        or counts["text"] not in (1, 2)
    ):
        yield f"columns: {list(columns)}; give label once, text once or twice, and _ for every other column"


@dataclass
class ZeroShotProbeConfig:
    """Labelled text in the formats of ``xlmtrain finetune``: lines of a label and one or two texts, separated by tabs,
    or tables like those of XNLI, PAWS-X and GLUE."""

    train: dict[str, str] = field(default_factory=dict)
    """Language -> file to train the probe on, e.g. ``{en: train.en.tsv}``."""

    test: dict[str, str] = field(default_factory=dict)
    """Language -> file to test the probe on, e.g. ``{en: test.en.tsv, de: test.de.tsv}``. At least one language must
    not be in ``train``."""

    columns: list[str] = field(default_factory=list)
    """As ``task.columns`` of ``xlmtrain finetune``."""

    def problems(self) -> Iterator[str]:
        """Yield values that exclude each other."""
        yield from column_problems(self.columns)
        if bool(self.train) != bool(self.test):
            yield "train: train and test are needed together; one of them is missing"


@dataclass
class EvaluateConfig:
    """Evaluation during training."""

    every: int = ranged(1000, NOT_NEGATIVE)
    """Steps between evaluations. 0: only before the first and after the last step."""

    batch_tokens: int = ranged(8192, ABOVE_ZERO)
    """Tokens in a forward pass on running text (MLM, CLM)."""

    pairs_per_batch: int = ranged(32, ABOVE_ZERO)
    """Sentence pairs in a forward pass (TLM, cloze on parallel text). They are padded to the same length, and their
    masks are drawn together, so the metrics depend on this number."""

    max_tokens: int = ranged(0, NOT_NEGATIVE)
    """Tokens to read of each validation set. 0: all."""

    max_pairs: int = ranged(0, NOT_NEGATIVE)
    """Validation pairs on which to measure cross-lingual transfer; 1,000 suffice, 0 measures none. Cloze on parallel
    text: words of one side are masked, and predicted without (``valid/cloze_mono_acc``) and with the translation
    (``valid/cloze_parallel_acc``). Bitext retrieval, P@1: each sentence's translation is searched among all of them, by
    the sentence vectors of every layer (``valid/retrieval_acc``; the best layer is chosen on these pairs, so it is
    optimistic)."""

    round_trip: int = ranged(0, NOT_NEGATIVE)
    """Validation sentences of each language to translate there and back, by greedy search; 0: none. Their BLEU against
    what they were, ``valid/round_trip_bleu``, needs no pairs. A model that copies its source has 100, so
    ``valid/de-en_copied_share`` belongs beside it: the share of the translations' words that are in their source."""

    bilingual_lexicon: str | None = None
    """File of words and their translations, e.g. ``en-de.tsv``, in the formats of ``xlmtrain evaluate``. They are
    searched in the embedding table: bilingual lexicon induction, ``bli/en-de_csls_p1``."""

    zero_shot_probe: ZeroShotProbeConfig = field(default_factory=ZeroShotProbeConfig)
    """Zero-shot classification, e.g. ``{train: {en: train.en.tsv}, test: {de: test.de.tsv}}``: a linear probe is
    trained on the hidden states of some languages and tested on others (``valid/zero_shot_acc``). The model's weights
    are not changed. Compare with the accuracy before the first step, which comes from shared surface forms."""

    metric: str = "valid/mlm_ppl"
    """Metric that selects the best checkpoint and decides on early stopping. ``..._ppl``: lower is better;
    ``..._acc``, ``..._bleu``: higher is better."""

    patience: int = ranged(0, NOT_NEGATIVE)
    """Stop training after this many evaluations in a row without a new best. 0: never."""

    sample_predictions: int = ranged(4, NOT_NEGATIVE)
    """Masked sequences per validation set to show in TensorBoard, with the model's predictions."""

    def problems(self) -> Iterator[str]:
        """Yield values that exclude each other."""
        if not self.metric.endswith(("_ppl", "_acc", "_bleu")):
            yield f"metric: {self.metric} does not end in _ppl, _acc or _bleu"


def _changes(name: str, section: type, *settings: str) -> type:
    """Return the dataclass ``name`` of some ``settings`` of a section, all None: unchanged."""
    types = get_type_hints(section)
    made = make_dataclass(name, [(key, types[key] | None, None) for key in settings])
    made.__module__, made.__doc__ = __name__, f"Changes of {section.__name__}; None: as before."
    return made


_LENGTHS = ("sequence_length", "sub_batch_tokens", "max_sentence_length")
DataChanges = _changes("DataChanges", DataConfig, *OBJECTIVES, "loss_weight", "sampling_alpha", *_LENGTHS)
MaskChanges = _changes("MaskChanges", MaskConfig, *get_type_hints(MaskConfig))
OptimChanges = _changes(
    "OptimChanges", OptimConfig, "lr", "min_lr", "schedule", "warmup_steps", "warmup_init_lr", "decay_steps"
)
TrainChanges = _changes("TrainChanges", TrainConfig, "batch_tokens")


@dataclass
class PhaseConfig:
    """Part of a run: its name, its length, and what it changes of the settings of the phase before."""

    name: str = "???"
    """Name in the log, the metrics and the report."""

    steps: int | None = ranged(None, ABOVE_ZERO)
    """Length in optimizer steps; ``train.steps`` if neither ``steps`` nor ``tokens`` is given."""

    tokens: int | None = ranged(None, ABOVE_ZERO)
    """Length in tokens, padding included, rounded up to whole steps."""

    data: DataChanges = field(default_factory=DataChanges)  # type: ignore[valid-type]
    """Changes of ``data``. An objective's weights are replaced as a whole; ``mlm: {}`` switches MLM off."""

    mask: MaskChanges = field(default_factory=MaskChanges)  # type: ignore[valid-type]
    """Changes of ``mask``. Validation masks as the settings outside the phases say, so that its figures compare."""

    optim: OptimChanges = field(default_factory=OptimChanges)  # type: ignore[valid-type]
    """Changes of ``optim``. ``lr`` and ``min_lr`` scale the schedule that is under way; any other begins a new one
    here, with the warm-up and the ``decay_steps`` that this phase gives, 0 by default."""

    train: TrainChanges = field(default_factory=TrainChanges)  # type: ignore[valid-type]
    """Changes of ``train``."""

    def problems(self) -> Iterator[str]:
        """Yield values that exclude each other."""
        if self.steps is not None and self.tokens is not None:
            yield f"tokens: {self.tokens} and steps={self.steps} are two lengths; give one"
        if not self.name:
            yield "name: empty; give the phase a name"


@dataclass
class Config(CheckedSettings):
    """A training run."""

    run: str = "???"
    """Run directory. The same command again resumes the run in it."""

    seed: int = ranged(0, NOT_NEGATIVE)
    """Every random choice follows from it."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""

    init: InitConfig = field(default_factory=InitConfig)
    """Its first weights."""

    data: DataConfig = field(default_factory=DataConfig)
    """The text."""

    mask: MaskConfig = field(default_factory=MaskConfig)
    """Masking of MLM and TLM."""

    noise: NoiseConfig = field(default_factory=NoiseConfig)
    """Noise of denoising."""

    bt: BackTranslationConfig = field(default_factory=BackTranslationConfig)
    """Translations of back-translation."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimizer."""

    average: AverageConfig = field(default_factory=AverageConfig)
    """Averaged weights."""

    train: TrainConfig = field(default_factory=TrainConfig)
    """The run's size."""

    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """Validation."""

    phases: list[PhaseConfig] = field(default_factory=list)
    """Phases of the run, one after the other, e.g. ``[{name: clm, steps: 1000, data: {clm: {en: 1}, mlm: {}}}, ...]``.
    Each changes settings of the phase before, the first those above. Nothing else of a run changes over time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        phases_of(self)  # raises ConfigError, too

    def problems(self) -> Iterator[str]:
        """Yield values that exclude each other."""
        data, positions, train = self.data, self.model.max_positions, self.train
        names = [phase.name for phase in self.phases]
        for number, phase in enumerate(self.phases):
            yield from problems_of(phase, f"phases[{number}].")
            if names.index(phase.name) < number:
                yield f"phases[{number}].name: {phase.name} is the name of another phase, too"
        if ".." in Path(self.run).parts:
            yield f"run: {self.run} leads out of a directory with ..; give its path from / on"
        if data.sequence_length > positions:
            yield f"data.sequence_length: {data.sequence_length} exceeds model.max_positions={positions}"
        if data.reads_sentences and data.max_sentence_length + 2 > positions:
            yield (
                f"data.max_sentence_length: {data.max_sentence_length} and two delimiters exceed "
                f"model.max_positions={positions}"
            )
        if data.sub_batch_tokens > 0 and train.batch_tokens % data.sub_batch_tokens:
            multiple = f"data.sub_batch_tokens={data.sub_batch_tokens}"
            yield f"train.batch_tokens: {train.batch_tokens} is no multiple of {multiple}"
        if self.model.family is not Family.xlm and data.weights.keys() & set(SEQ2SEQ_OBJECTIVES):
            yield f"model.family: {self.model.family.value} has no decoder, which data.mt, data.dae and data.bt need"
        if train.overlap_tied_embedding and data.weights.keys() & set(SEQ2SEQ_OBJECTIVES):
            yield "train.overlap_tied_embedding: does not work with data.mt, data.dae and data.bt"
        if train.sharding is not Sharding.none and "bt" in data.weights:
            yield "train.sharding: does not work with data.bt, which needs all weights on each process"
        if train.sharding is not Sharding.none and self.evaluate.round_trip:
            yield "train.sharding: does not work with evaluate.round_trip, which needs all weights on each process"
        if train.sharding is not Sharding.none and self.optim.fused is FusedAdam.apex:
            sharding = train.sharding.value
            yield f"train.sharding: {sharding} does not work with optim.fused=apex; set optim.fused=torch"
        if train.sharding is not Sharding.none and self.optim.name is OptimizerName.muon:
            yield "train.sharding: does not work with optim.name=muon, which needs whole matrices on each process"


def config_as_json(config: Any) -> dict[str, Any]:
    """Return a dataclass of settings as plain JSON values."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return values


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Return settings, a dataclass or nested mappings, as plain values by key path."""
    result: dict[str, Any] = {}
    for key, value in (vars(settings) if is_dataclass(settings) else settings).items():
        if is_dataclass(value) or isinstance(value, Mapping):
            result |= flatten(value, f"{prefix}{key}.")
        elif key == "phases":
            phases = [given(config_as_json(phase) if is_dataclass(phase) else phase) for phase in value]
            result |= {key: phases} if phases else {}
        else:
            result[prefix + key] = value.value if isinstance(value, Enum) else value
    return result
