"""What is trained: the sizes that are compared, their settings, and made-up text of the right vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xlmtrain.config.schema import Config, DataConfig, ModelConfig, OptimConfig, Precision, Schedule, TrainConfig
from xlmtrain.data.format import CorpusHeader, CorpusWriter, Header, fingerprint, id_dtype
from xlmtrain.text.vocab import EOS, SPECIALS, Vocab

LANGUAGES = ("de", "en")
_LONGEST = 50


@dataclass(frozen=True)
class Shape:
    """A model and its batch: ``rows`` of ``length`` tokens a step."""

    dim: int
    layers: int
    heads: int
    vocab_size: int
    rows: int
    length: int


SHAPES = {
    "D": Shape(256, 6, 8, 30000, 16, 128),
    "T": Shape(1024, 6, 8, 64000, 4, 256),
    "tiny": Shape(32, 2, 2, 300, 4, 16),
    # For GPUs: by the tokens of a step.
    "T8k": Shape(1024, 6, 8, 64000, 32, 256),
    "T16k": Shape(1024, 6, 8, 64000, 64, 256),
    "T32k": Shape(1024, 6, 8, 64000, 128, 256),
    "L32k": Shape(1024, 12, 8, 64000, 128, 256),
}


def settings(shape: Shape, data: Path, precision: Precision, compiled: bool = False) -> Config:
    """MLM on both languages, a constant rate; all else is the default, dropout 0.1 among it."""
    tokens = shape.rows * shape.length
    return Config(
        run="none",
        model=ModelConfig(dim=shape.dim, layers=shape.layers, heads=shape.heads, max_positions=shape.length),
        data=DataConfig(
            path=str(data), mlm=dict.fromkeys(LANGUAGES, 1.0), sequence_length=shape.length, sub_batch_tokens=tokens
        ),
        optim=OptimConfig(schedule=Schedule.constant, warmup_steps=0),
        train=TrainConfig(batch_tokens=tokens, precision=precision, compile=compiled),
    )


def write_text(directory: Path, vocab_size: int, sentences: int = 8000) -> Path:
    """Prepared text of both languages whose words are as frequent as Zipf has it, in no order: so many sentences of
    each, of 25 tokens on average."""
    rng = np.random.default_rng(0)
    words = vocab_size - len(SPECIALS)
    vocab = Vocab((f"w{i}", 10**8 // (i + 1)) for i in range(words))
    directory.mkdir(parents=True)
    vocab.write(directory / "vocab")
    corpora: dict[str, CorpusHeader] = {}
    chances = 1.0 / np.arange(1, words + 1)
    for language in LANGUAGES:
        with CorpusWriter(directory, f"train.{language}", id_dtype(vocab_size)) as writer:
            lengths = rng.integers(2, _LONGEST, sentences)
            ids = len(SPECIALS) + rng.choice(words, size=int(lengths.sum()), p=chances / chances.sum())
            ids[np.cumsum(lengths) - 1] = EOS
            writer.append(ids, lengths)
            corpora[f"train.{language}"] = writer.finish(["made up"])
    mark = fingerprint(vocab.fingerprint, "", {}, corpora)
    Header(list(LANGUAGES), id_dtype(vocab_size).str, vocab_size, vocab.fingerprint, {}, mark, corpora).write(directory)
    return directory
