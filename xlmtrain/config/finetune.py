"""The settings of fine-tuning (``xlmtrain finetune``); the values are in ``configs/finetune.yaml``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from xlmtrain.config.evaluate import Pooling, column_problems
from xlmtrain.config.optim import OptimConfig, OptimizerName
from xlmtrain.config.train import Device, Precision
from xlmtrain.config.validate import ABOVE_ZERO, NOT_NEGATIVE, SHARE_BELOW_ONE, CheckedSettings, ranged


class TaskKind(str, Enum):
    """One of several labels for a text or a pair of texts; a number for it; any number of labels for it, separated by
    commas; or a label for every word."""

    classification = "classification"
    regression = "regression"
    multilabel = "multilabel"
    tokens = "tokens"


class SelectionMetric(str, Enum):
    """Metrics in %. ``accuracy``: correct labels, of several labels all; ``f1``: mean F1 over the labels; ``micro_f1``:
    F1 over all decisions; ``binary_f1``: of two labels, F1 of the second in alphabetical order, as GLUE counts it;
    ``matthews``, ``pearson``, ``spearman``: correlations; ``entity_f1``: F1 over entities in the tags B-, I- and O."""

    accuracy = "accuracy"
    f1 = "f1"
    micro_f1 = "micro_f1"
    binary_f1 = "binary_f1"
    matthews = "matthews"
    pearson = "pearson"
    spearman = "spearman"
    entity_f1 = "entity_f1"


KIND_METRICS = {
    TaskKind.classification: (
        SelectionMetric.accuracy,
        SelectionMetric.f1,
        SelectionMetric.matthews,
        SelectionMetric.binary_f1,
    ),
    TaskKind.regression: (SelectionMetric.pearson, SelectionMetric.spearman),
    TaskKind.multilabel: (SelectionMetric.f1, SelectionMetric.micro_f1, SelectionMetric.accuracy),
    TaskKind.tokens: (SelectionMetric.accuracy, SelectionMetric.f1, SelectionMetric.entity_f1),
}
"""Metrics of each kind of task, the default of ``evaluate.metric`` first."""


@dataclass
class FinetuneInit:
    """Model to start from."""

    pretrained: str = "???"
    """A run directory, one of its checkpoints, a Hugging Face folder, or a ``.pth`` file of the original XLM."""

    codes: str | None = None
    """For a ``.pth`` file: the BPE codes of its data, in fastBPE's format."""


@dataclass
class TaskConfig:
    """Labelled text. A file is tab-separated, plain or compressed: ``label, text`` or ``label, text, text`` in every
    line, or a table with a header, as XNLI, PAWS-X and GLUE are published (of a column ``language`` only the rows of
    the language count). ``kind=tokens`` reads a word in every line and an empty line after every sentence: CoNLL's
    files (the first column the word, the last one its label) and CoNLL-U (its column UPOS)."""

    kind: TaskKind = TaskKind.classification
    """What is predicted."""

    train: dict[str, str] = field(default_factory=dict)
    """Training files by language, e.g. ``{en: train.en.tsv}``. Examples of several languages are mixed."""

    valid: dict[str, str] = field(default_factory=dict)
    """Validation files by language, e.g. ``{en: dev.en.tsv}``, to select the best weights and to stop early. Without
    any, the last weights are tested. For a zero-shot result, leave the tested language out."""

    test: dict[str, str] = field(default_factory=dict)
    """Test files by language, e.g. ``{en: test.en.tsv, de: test.de.tsv}``; a second file of a language has a name
    behind it, ``en/mismatched``."""

    columns: list[str] = field(default_factory=list)
    """Content of each column of all files, if it is another: ``label``, ``text`` (twice for pairs), ``language``, and
    ``_`` for a column that is not used, e.g. ``[text, label, _]``."""

    max_tokens: int = ranged(256, ABOVE_ZERO)
    """Longest text in subwords, longer ones are cut; a pair's two together have at most twice as many, and never more
    than the model has positions."""

    folder: str | None = None
    """Directory of a published data set, for the presets ``task=glue_cola`` and so on, which name its files."""

    def problems(self) -> Iterator[str]:
        yield from column_problems(self.columns)
        if self.kind is TaskKind.tokens and (self.columns.count("text") > 1 or "language" in self.columns):
            yield f"columns: {self.columns}; kind=tokens has one text, the word, and no language"


@dataclass
class FinetuneTrainConfig:
    """Length of the training, layers, precision."""

    epochs: float = ranged(5.0, ABOVE_ZERO)
    """Passes over the training examples."""

    batch_size: int = ranged(8, ABOVE_ZERO)
    """Examples in a step, over all processes."""

    layers: list[int] | None = None
    """Layers to train: 0 the embeddings, 1 the first block, and so on; null all of them, ``[]`` only the
    classification head. The head is always trained."""

    pooling: Pooling = Pooling.first
    """Input of the head: the last hidden state of the first token, as in the paper, or the mean of all."""

    dropout: float = ranged(0.1, SHARE_BELOW_ONE)
    """Dropout in the model during training, and before the head."""

    precision: Precision = Precision.auto
    """``auto``: bf16 where the hardware has it, else fp16 with dynamic loss scaling on GPUs, fp32 on CPUs."""

    device: Device = Device.auto
    """``auto``: CUDA where there is one."""

    log_every: int = ranged(50, ABOVE_ZERO)
    """Steps between lines of metrics."""

    hang_timeout: float = ranged(600.0, ABOVE_ZERO)
    """Seconds without progress after which a process prints its stack and ends with exit code 6. It must exceed the
    longest step, evaluation batch or reading of a checkpoint."""

    overwrite: bool = False
    """Delete the results in the run directory and start again."""


@dataclass
class FinetuneEvaluateConfig:
    """Validation during training."""

    every: int = ranged(0, NOT_NEGATIVE)
    """Steps between evaluations; 0: once an epoch."""

    metric: SelectionMetric | None = None
    """Metric that selects the best weights and stops early, as a mean over the languages of ``task.valid``. null:
    accuracy; f1 for ``multilabel``, pearson for ``regression``, entity_f1 for tags B-, I- and O."""

    patience: int = ranged(0, NOT_NEGATIVE)
    """Stop after this many evaluations in a row without a new best; 0: never."""


@dataclass
class FinetuneConfig(CheckedSettings):
    """Fine-tune a pretrained model for a task in some languages, and test it in any of the model's languages."""

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

    def problems(self) -> Iterator[str]:
        if not self.task.train:
            yield "task.train: no training file; give one for a language"
        if not self.task.test:
            yield "task.test: no test file; give one for a language"
        metric, known = self.evaluate.metric, KIND_METRICS[self.task.kind]
        if metric is not None and metric not in known:
            names = ", ".join(metric.value for metric in known)
            yield f"evaluate.metric: {metric.value}; task.kind={self.task.kind.value} has {names}"
        if self.task.kind is TaskKind.tokens and self.train.pooling is Pooling.mean:
            yield "train.pooling: mean; kind=tokens predicts from the first subword of each word"
        if self.evaluate.patience and not self.task.valid:
            yield "evaluate.patience: needs task.valid"
        if self.optim.name is OptimizerName.muon:
            yield "optim.name: muon is for pretraining; set optim.name=adamw"
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            yield f"seeds: {self.seeds}; give different numbers from 0 up"
