"""The settings of fine-tuning (``tools/finetune.py``); the values are in ``configs/finetune.yaml``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from xlmtrain.config.schema import Device, OptimConfig, Pooling, Precision
from xlmtrain.errors import ConfigError


class SelectionMetric(str, Enum):
    """Share of correctly labelled examples, or the mean F1 over the labels."""

    accuracy = "accuracy"
    f1 = "f1"


@dataclass
class FinetuneInit:
    """Model to start from."""

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
    """Training files by language, e.g. ``{en: train.en.tsv}``. Examples of several languages are mixed."""

    valid: dict[str, str] = field(default_factory=dict)
    """Validation files by language, e.g. ``{en: dev.en.tsv}``, to select the best weights and to stop early. Without
    any, the last weights are tested. For a zero-shot result, leave the tested language out."""

    test: dict[str, str] = field(default_factory=dict)
    """Test files by language, e.g. ``{en: test.en.tsv, de: test.de.tsv}``."""

    max_tokens: int = 256
    """Longest text in subwords, longer ones are cut; a pair's two together have at most twice as many, and never more
    than the model has positions."""


@dataclass
class FinetuneTrainConfig:
    """Length of the training, layers, precision."""

    epochs: float = 5.0
    """Passes over the training examples."""

    batch_size: int = 8
    """Examples in a step, over all processes."""

    layers: list[int] | None = None
    """Layers to train: 0 the embeddings, 1 the first block, and so on; null all of them, ``[]`` only the
    classification head. The head is always trained."""

    pooling: Pooling = Pooling.first
    """Input of the head: the last hidden state of the first token, as in the paper, or the mean of all."""

    dropout: float = 0.1
    """Dropout in the model during training, and before the head."""

    precision: Precision = Precision.auto
    """``auto``: bf16 where the hardware has it, else fp16 with dynamic loss scaling on GPUs, fp32 on CPUs."""

    device: Device = Device.auto
    """``auto``: CUDA where there is one."""

    log_every: int = 50
    """Steps between lines of metrics."""

    hang_timeout: float = 600.0
    """Seconds without progress after which a process prints its stack and ends with exit code 6. It must exceed the
    longest step, evaluation batch or reading of a checkpoint."""

    overwrite: bool = False
    """Delete the results in the run directory and start again."""


@dataclass
class FinetuneEvaluateConfig:
    """Validation during training."""

    every: int = 0
    """Steps between evaluations; 0: once an epoch."""

    metric: SelectionMetric = SelectionMetric.accuracy
    """Metric that selects the best weights and stops early, as a mean over the languages of ``task.valid``."""

    patience: int = 0
    """Stop after this many evaluations in a row without a new best; 0: never."""


@dataclass
class FinetuneConfig:
    """Fine-tune a pretrained model as a classifier on some languages, and test it on any of the model's languages."""

    run: str = "???"
    """Directory of the results. The same command again resumes."""

    init: FinetuneInit = field(default_factory=FinetuneInit)
    """The pretrained model."""

    seeds: list[int] = field(default_factory=lambda: [0])
    """One training per seed, which sets the head's initial weights, the order of the examples and the dropout. The
    result is their mean and standard deviation."""

    task: TaskConfig = field(default_factory=TaskConfig)
    """Labelled text."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimizer."""

    train: FinetuneTrainConfig = field(default_factory=FinetuneTrainConfig)
    """The training of each seed."""

    evaluate: FinetuneEvaluateConfig = field(default_factory=FinetuneEvaluateConfig)
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
            ("train.hang_timeout", train.hang_timeout),
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
            yield "task.train: no training file; give one for a language"
        if not self.task.test:
            yield "task.test: no test file; give one for a language"
        if self.evaluate.patience and not self.task.valid:
            yield "evaluate.patience: needs task.valid"
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            yield f"seeds: {self.seeds}; give different numbers from 0 up"
