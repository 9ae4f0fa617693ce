"""A pretrained model whose languages are aligned by construction, and a task that is easy to learn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.support.tiny import WORDS
from tests.support.training import NoSignals
from xlmtrain.config.finetune import (
    FinetuneConfig,
    FinetuneEvaluateConfig,
    FinetuneInit,
    FinetuneTrainConfig,
    TaskConfig,
)
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.optim import OptimConfig
from xlmtrain.config.prepare import TextConfig
from xlmtrain.config.train import Precision
from xlmtrain.finetune.finetune import finetune
from xlmtrain.finetune.scores import Scores
from xlmtrain.interop.bundle import PretrainedBundle, Provenance
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.process import StopRequest
from xlmtrain.text.bpe import read_codes
from xlmtrain.text.vocab import SPECIALS, Vocab

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN"  # the words: German ones up to t


def toy_model(tiny_dataset: Path, aligned: bool = True) -> PretrainedBundle:
    """Random weights; ``aligned``: an English word has the vector of the German one, and so has the language."""
    torch.manual_seed(3)
    config = ModelConfig(dim=32, layers=2, heads=2, max_positions=32, dropout=0.0, attention_dropout=0.0)
    vocab = Vocab.read(tiny_dataset / "vocab")
    weights = LanguageModel(config, len(vocab), 2).state_dict()
    if aligned:
        words, languages = weights["encoder.token_embeddings.weight"], weights["encoder.language_embeddings.weight"]
        first = len(SPECIALS)
        words[first + WORDS : first + 2 * WORDS] = words[first : first + WORDS]
        languages[1] = languages[0]
    codes = read_codes(tiny_dataset / "codes")
    return PretrainedBundle(config, ["de", "en"], vocab, weights, TextConfig(), codes, Provenance("toy"))


def write_task(path: Path, language: str, count: int, seed: int, pairs: bool = False) -> Path:
    """Sentences of 2 to 6 words, labelled by which half of the language's words they are of; pairs by the first's."""
    rng = np.random.default_rng(seed)
    shift, half, lines = WORDS if language == "en" else 0, WORDS // 2, []
    for _ in range(count):
        yes = rng.random() < 0.5
        words = rng.integers(half, size=rng.integers(2, 7)) + (0 if yes else half)
        texts = [" ".join(LETTERS[word + shift] for word in words)]
        if pairs:
            texts.append(" ".join(LETTERS[word + shift] for word in rng.integers(WORDS, size=2)))
        lines.append("\t".join(["yes" if yes else "no", *texts]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def toy_config(directory: Path, run: str = "run", **changes: Any) -> FinetuneConfig:
    """Learns English, tests both; ``changes``: fields of the settings' sections by their names."""
    files = {name: directory / f"{name}.tsv" for name in ("train.en", "valid.en", "test.en", "test.de")}
    for number, (name, path) in enumerate(files.items()):
        if not path.exists():
            write_task(path, name[-2:], 160 if number == 0 else 60, number)
    test = {"en": str(files["test.en"]), "de": str(files["test.de"])}
    task = TaskConfig(train={"en": str(files["train.en"])}, test=test)
    config = FinetuneConfig(
        str(directory / run),
        FinetuneInit("toy"),
        task=task,
        optim=OptimConfig(lr=5e-3, warmup_steps=5),
        train=FinetuneTrainConfig(epochs=4, batch_size=16, dropout=0.0, log_every=5, precision=Precision.fp32),
        evaluate=FinetuneEvaluateConfig(),
    )
    for key, value in changes.items():
        if hasattr(config, key):
            config = replace(config, **{key: value})
        else:
            (section,) = (s for s in ("task", "optim", "train", "evaluate") if hasattr(getattr(config, s), key))
            config = replace(config, **{section: replace(getattr(config, section), **{key: value})})
    return config


def run_toy(
    distributed: Distributed, config: FinetuneConfig, saved: PretrainedBundle, stop: StopRequest | None = None
) -> dict[str, list[Scores]] | None:
    """One start of the program."""
    return finetune(config, saved, distributed, stop or NoSignals())


def result(config: FinetuneConfig, seed: int = 0) -> dict[str, Any]:
    """``result.json`` of a seed, without the clock."""
    value = json.loads((Path(config.run) / f"seed-{seed}" / "result.json").read_text(encoding="utf-8"))
    del value["seconds"]
    return value


def weights(config: FinetuneConfig, step: int, seed: int = 0) -> bytes:
    """``model.safetensors`` of a checkpoint."""
    place = Path(config.run) / f"seed-{seed}" / "checkpoints" / f"step-{step:08d}"
    return (place / "model.safetensors").read_bytes()
