"""Model sizes and batches that are compared, the suites of systems, and synthetic text of a given vocabulary size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xlmtrain.config.data import DataConfig
from xlmtrain.config.families import Family
from xlmtrain.config.model import InitConfig, ModelConfig
from xlmtrain.config.optim import OptimConfig, Schedule
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision, TrainConfig
from xlmtrain.data.format import CorpusHeader, CorpusWriter, Header, id_dtype
from xlmtrain.text.vocab import EOS, SPECIALS, Vocab

LANGUAGES = ("de", "en")
_LONGEST_SENTENCE = 50


@dataclass(frozen=True)
class Workload:
    """A model and its global batch: ``rows`` of ``length`` tokens, or sentences of as many tokens with their sources.

    ``objective``: mlm, mt or bt. ``init``: run whose weights all systems begin with; None: random ones.
    """

    dim: int
    layers: int
    heads: int
    vocab_size: int
    rows: int
    length: int
    objective: str = "mlm"
    family: Family = Family.xlm
    init: str | None = None

    @property
    def title(self) -> str:
        """Return the shape of the model and of a batch."""
        layers = f"{self.layers} x" if self.objective == "mlm" else f"{self.layers} + {self.layers} x"
        what = self.family.value if self.family is not Family.xlm else self.objective
        return f"{what}, {layers} {self.dim}, {self.rows} x {self.length} tokens a step"

    @property
    def model(self) -> ModelConfig:
        """Return the settings of the model. Families other than XLM have no dropout, as ModernBERT has it elsewhere."""
        model = ModelConfig(dim=self.dim, layers=self.layers, heads=self.heads, max_positions=self.length)
        if self.family is Family.xlm:
            return model
        plain = replace(model, dropout=0.0, attention_dropout=0.0, language_embeddings=False)
        return replace(plain, family=self.family, norm_eps=1e-5)


@dataclass(frozen=True)
class SystemSpec:
    """Class of a training program and its module, its precision, and use of torch.compile.

    ``shuffled``: it trains on pairs in random order instead of on our batches.
    """

    module: str
    class_name: str
    precision: Precision
    compiled: bool
    shuffled: bool

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of the matrix products."""
        return {Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}.get(self.precision, torch.float32)


_PROGRAMS = {
    "ours": ("benchmarks.ours", "OurSystem"),
    "hf-loop": ("benchmarks.hf_loop", "HfLoopSystem"),
    "hf-trainer": ("benchmarks.hf_trainer", "HfTrainerSystem"),
    "xlm": ("benchmarks.xlm_baseline", "XlmSystem"),
    "plain-mt": ("benchmarks.plain_translation", "PlainTranslationSystem"),
    "shuffled-mt": ("benchmarks.plain_translation", "PlainTranslationSystem"),
}
SYSTEMS = {
    f"{name}-{precision.value}{'-compiled' if compiled else ''}": SystemSpec(
        *place, precision, compiled, name == "shuffled-mt"
    )
    for name, place in _PROGRAMS.items()
    for precision in (Precision.fp32, Precision.bf16, *([Precision.fp16] if name == "ours" else []))
    for compiled in ((False,) if name in ("xlm", "plain-mt", "shuffled-mt") else (False, True))
}


@dataclass(frozen=True)
class Suite:
    """Systems to compare on one workload.

    ``first_steps``: steps before the first round. In each of the ``rounds`` every system takes ``warmup`` steps that do
    not count and ``steps`` that do. ``sentences``: size of the synthetic text, for each language.
    """

    workload: Workload
    systems: tuple[str, ...]
    rounds: int
    steps: int
    warmup: int = 0
    first_steps: int = 2
    sentences: int = 8000


def _gpu_suite(rows: int, systems: tuple[str, ...], layers: int = 6, steps: int = 10) -> Suite:
    workload = Workload(1024, layers, 8, 64000, rows, 256)
    return Suite(workload, systems, rounds=10, steps=steps, warmup=2, first_steps=10, sentences=100_000)


_OURS = ("ours-bf16", "ours-bf16-compiled")
_PEERS = ("hf-trainer-bf16", "hf-loop-bf16")
_CPU = ("ours-fp32", "ours-bf16", "hf-loop-fp32", "hf-loop-bf16", "hf-trainer-fp32", "hf-trainer-bf16", "xlm-fp32")
_MT = ("ours-fp32", "ours-bf16", "plain-mt-fp32", "plain-mt-bf16")
_SHUFFLED = ("shuffled-mt-fp32", "shuffled-mt-bf16")
_MODERN = ("ours-fp32", "ours-bf16", "hf-trainer-fp32", "hf-trainer-bf16")
_COMPILED_PEERS = ("hf-trainer-bf16-compiled", "hf-loop-bf16-compiled")
_PRECISIONS = ("ours-bf16", "ours-fp16", "ours-bf16-compiled", "ours-fp16-compiled", "ours-fp32")
SUITES = {
    "tiny": Suite(Workload(32, 2, 2, 300, 4, 16), _CPU, rounds=3, steps=2),
    "cpu-128": Suite(Workload(128, 2, 2, 9000, 32, 32), _CPU, rounds=9, steps=8),
    "cpu-256": Suite(Workload(256, 6, 8, 30000, 16, 128), _CPU, rounds=9, steps=1),
    "cpu-1024": Suite(Workload(1024, 6, 8, 64000, 4, 256), _CPU, rounds=4, steps=1),
    "mt-tiny": Suite(Workload(32, 2, 2, 300, 8, 64, "mt"), _MT + _SHUFFLED, rounds=3, steps=2),
    "mt-256": Suite(Workload(256, 3, 4, 8000, 16, 128, "mt"), _MT + _SHUFFLED, rounds=9, steps=2),
    "bt-tiny": Suite(Workload(32, 2, 2, 300, 8, 64, "bt"), _MT, rounds=3, steps=2),
    "bt-256": Suite(Workload(256, 3, 4, 8000, 8, 256, "bt"), _MT, rounds=9, steps=2),
    "modern-tiny": Suite(Workload(32, 3, 2, 300, 4, 16, family=Family.modernbert), _MODERN, rounds=3, steps=2),
    "modernbert-256": Suite(Workload(256, 6, 8, 30000, 16, 128, family=Family.modernbert), _MODERN, rounds=9, steps=1),
    "gpu-8k": _gpu_suite(32, _PEERS + _OURS, steps=30),
    "gpu-16k": _gpu_suite(64, _PEERS + _OURS),
    "gpu-32k": _gpu_suite(128, _PEERS + _OURS + _COMPILED_PEERS),
    "gpu-12layers": _gpu_suite(128, _OURS, layers=12),
    "gpu-precisions": _gpu_suite(32, _PRECISIONS, steps=30),
}


def settings(workload: Workload, data: Path, precision: Precision, compiled: bool = False) -> Config:
    """Return the settings of MLM on both languages, or of translation or back-translation in both directions.

    With a constant learning rate, and XLM's with the default dropout of 0.1.
    """
    tokens = workload.rows * workload.length
    keys = LANGUAGES if workload.objective == "mlm" else ("-".join(LANGUAGES), "-".join(LANGUAGES[::-1]))
    weights: dict[str, Any] = {workload.objective: dict.fromkeys(keys, 1.0)}
    return Config(
        run="none",
        model=workload.model,
        init=InitConfig(encoder=workload.init, decoder=workload.init),
        data=DataConfig(
            path=str(data),
            **weights,
            sequence_length=workload.length,
            sub_batch_tokens=tokens,
            max_sentence_length=_LONGEST_SENTENCE,
        ),
        optim=OptimConfig(schedule=Schedule.constant, warmup_steps=0),
        train=TrainConfig(batch_tokens=tokens, precision=precision, compile=compiled),
    )


def write_synthetic_text(directory: Path, vocab_size: int, sentences: int, pairs: bool = False) -> Path:
    """Write prepared text of independent words with Zipf's frequencies, 25 per sentence on average, for each language.

    ``pairs``: the sentences of the languages are pairs of equal lengths. Returns ``directory``.
    """
    rng = np.random.default_rng(0)
    words = vocab_size - len(SPECIALS)
    vocab = Vocab((f"w{i}", 10**8 // (i + 1)) for i in range(words))
    directory.mkdir(parents=True)
    vocab.write(directory / "vocab")
    corpora: dict[str, CorpusHeader] = {}
    frequencies = 1.0 / np.arange(1, words + 1)
    for language in LANGUAGES:
        name = f"train.{'-'.join(LANGUAGES)}.{language}" if pairs else f"train.{language}"
        with CorpusWriter(directory, name, id_dtype(vocab_size)) as writer:
            lengths = (np.random.default_rng(1) if pairs else rng).integers(2, _LONGEST_SENTENCE, sentences)
            ids = len(SPECIALS) + rng.choice(words, size=int(lengths.sum()), p=frequencies / frequencies.sum())
            ids[np.cumsum(lengths) - 1] = EOS
            writer.append(ids, lengths)
            corpora[name] = writer.finish(["synthetic"])
    Header.of(directory, vocab, list(LANGUAGES), {}, corpora).write(directory)
    return directory
