"""The settings of fine-tuning (``tools/finetune.py``); the values are in ``configs/finetune.yaml``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from xlmtrain.config.schema import Device, OptimConfig, Pooling, Precision
from xlmtrain.errors import ConfigError


class SelectionMetric(str, Enum):
    """Share of the examples that are labelled right, or the mean of the labels' F1."""

    accuracy = "accuracy"
    f1 = "f1"


@dataclass
class PretrainedConfig:
    """The pretrained model."""

    pretrained: str = "???"
    """A run directory, one of its checkpoints, a Hugging Face folder, or a ``.pth`` file of the original program."""

    codes: str | None = None
    """For a ``.pth`` file: the BPE codes of its data, in fastBPE's format."""


@dataclass
class TaskConfig:
    """Labelled text. A file is tab-separated, plain or compressed: ``label, text`` or ``label, text, text`` in every
    line, or a table with a header, as XNLI and PAWS-X are published (of a column ``language`` only the rows of the
    language count)."""

    train: dict[str, str] = field(default_factory=dict)
    """Language -> file to learn from, e.g. ``{en: train.en.tsv}``. Of several languages all examples are mixed."""

    valid: dict[str, str] = field(default_factory=dict)
    """Language -> file that the best weights and early stopping go by, e.g. ``{en: dev.en.tsv}``; without any the last
    weights are taken. A language that is not to be seen before the test must not be here either."""

    test: dict[str, str] = field(default_factory=dict)
    """Language -> file to be judged on, e.g. ``{en: test.en.tsv, de: test.de.tsv}``."""

    max_tokens: int = 256
    """Longest text in subwords, longer ones are cut; a pair's two together have at most twice as many, and never more
    than the model has positions."""


@dataclass
class FinetuneTrainConfig:
    """How long, which layers, how precise."""

    epochs: float = 5.0
    """Passes over the training examples."""

    batch_size: int = 8
    """Examples in a step, over all processes."""

    layers: list[int] | None = None
    """Which layers learn: 0 the embeddings, 1 the first block, and so on; null all of them, ``[]`` the classification
    head alone. The head always learns."""

    pooling: Pooling = Pooling.first
    """What the head reads of a text's last hidden states: the first, as in the paper, or their mean."""

    dropout: float = 0.1
    """Dropout in the model while it learns, and before the head."""

    precision: Precision = Precision.auto
    """``auto``: bf16 where the hardware has it, else fp16 with dynamic loss scaling on GPUs, fp32 on CPUs."""

    device: Device = Device.auto
    """``auto``: CUDA where there is one."""

    log_every: int = 50
    """Steps between lines of metrics."""

    overwrite: bool = False
    """Begin anew in a run directory that has results, deleting them."""


@dataclass
class EvalConfig:
    """Validation while the model learns."""

    every: int = 0
    """Steps between evaluations; 0: once an epoch."""

    metric: SelectionMetric = SelectionMetric.accuracy
    """What the best weights and early stopping go by, as a mean over the languages of ``task.valid``."""

    patience: int = 0
    """Stop after this many evaluations in a row without a new best; 0: never."""


@dataclass
class FinetuneConfig:
    """A classifier from a pretrained model: learned on some languages, tested on any that the model knows."""

    run: str = "???"
    """Directory of the results. The same command again resumes."""

    init: PretrainedConfig = field(default_factory=PretrainedConfig)
    """What it is made of."""

    seeds: list[int] = field(default_factory=lambda: [0])
    """One training each: the head's first weights, the order of the examples and the dropout follow from it. The
    result is their mean and deviation."""

    task: TaskConfig = field(default_factory=TaskConfig)
    """What is learned."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimizer."""

    train: FinetuneTrainConfig = field(default_factory=FinetuneTrainConfig)
    """The training of each seed."""

    evaluate: EvalConfig = field(default_factory=EvalConfig)
    """Validation."""

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ConfigError("in the settings of fine-tuning:\n  " + "\n  ".join(problems))

    def _problems(self) -> Iterator[str]:
        train, optim = self.train, self.optim
        for key, value in (
            ("task.max_tokens", self.task.max_tokens),
            ("train.epochs", train.epochs),
            ("train.batch_size", train.batch_size),
            ("train.log_every", train.log_every),
            ("optim.lr", optim.lr),
            ("optim.eps", optim.eps),
        ):
            if value <= 0:
                yield f"{key}: {value} is not above 0"
        for key, value in (
            ("evaluate.every", self.evaluate.every),
            ("evaluate.patience", self.evaluate.patience),
            ("optim.warmup_steps", optim.warmup_steps),
            ("optim.weight_decay", optim.weight_decay),
            ("optim.clip_grad_norm", optim.clip_grad_norm),
        ):
            if value < 0:
                yield f"{key}: {value} is negative"
        for key, value in (
            ("optim.beta1", optim.beta1),
            ("optim.beta2", optim.beta2),
            ("train.dropout", train.dropout),
        ):
            if not 0 <= value < 1:
                yield f"{key}: {value} is not from 0 up to 1"
        if not self.task.train:
            yield "task.train: nothing to learn from; give a file for a language"
        if not self.task.test:
            yield "task.test: nothing to be judged on; give a file for a language"
        if self.evaluate.patience and not self.task.valid:
            yield "evaluate.patience: needs task.valid to go by"
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            yield f"seeds: {self.seeds}; give different numbers from 0 up"
