"""A data set, settings and processes small enough for tests."""

from __future__ import annotations

import os
import string
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from datetime import timedelta
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from xlmtrain.config.data import BackTranslationConfig, DataConfig, MaskConfig, NoiseConfig
from xlmtrain.config.evaluate import EvaluateConfig
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.optim import AverageConfig, OptimConfig
from xlmtrain.config.schema import Config, DataChanges, MaskChanges, OptimChanges, PhaseConfig, TrainChanges
from xlmtrain.config.train import Precision, TrainConfig
from xlmtrain.data.disk_array import DiskArray
from xlmtrain.data.format import CorpusHeader, CorpusWriter, Header, id_dtype
from xlmtrain.runtime import process_pool
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.text.vocab import EOS, SPECIALS, Vocab

WORDS = 20
"""Words of each language; de's ids come first."""

CPU = torch.device("cpu")
ALONE = Distributed(0, 1, CPU)

_SIZES = {"train": {"de": 120, "en": 60, "de-en": 60}, "valid": {"de": 40, "en": 30, "de-en": 25}}
_BASE: dict[str, Any] = {
    "model.dim": 16,
    "model.layers": 1,
    "model.heads": 2,
    "model.max_positions": 32,
    "data.mlm": {"de": 1.0, "en": 1.0},
    "data.tlm": {"de-en": 1.0},
    "data.sequence_length": 16,
    "data.sub_batch_tokens": 64,
    "data.max_sentence_length": 10,
    "optim.lr": 1e-2,
    "optim.warmup_steps": 5,
    "train.precision": Precision.fp32,  # whatever the machine has
    "train.steps": 20,
    "train.batch_tokens": 256,
    "train.log_every": 1,
    "train.save_every": 5,
    "evaluate.every": 5,
    "evaluate.batch_tokens": 64,
    "evaluate.pairs_per_batch": 8,
}
_SECTIONS = {
    "model": ModelConfig,
    "data": DataConfig,
    "mask": MaskConfig,
    "noise": NoiseConfig,
    "bt": BackTranslationConfig,
    "optim": OptimConfig,
    "average": AverageConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
}


def tiny_config(run: Path | str, data: Path | str, changes: dict[str, Any] | None = None) -> Config:
    """Settings for :func:`write_tiny_dataset`'s data; ``changes``: key path -> value."""
    values = {**_BASE, "data.path": str(data), **(changes or {})}
    known = {f"{name}.{field.name}" for name, section in _SECTIONS.items() for field in fields(section)}
    assert set(values) - known <= {"seed", "phases"}, f"no such settings: {set(values) - known}"
    sections = {
        name: section(**{key.partition(".")[2]: value for key, value in values.items() if key.startswith(f"{name}.")})
        for name, section in _SECTIONS.items()
    }
    return Config(run=str(run), seed=values.get("seed", 0), phases=values.get("phases", []), **sections)


def phase(name: str, steps: int | None = None, tokens: int | None = None, **changes: Any) -> PhaseConfig:
    """A phase; ``changes``: ``mask__prob=0.3``."""
    sections: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        section, _, name_of = key.partition("__")
        sections.setdefault(section, {})[name_of] = value
    kinds = {"data": DataChanges, "mask": MaskChanges, "optim": OptimChanges, "train": TrainChanges}
    return PhaseConfig(name, steps, tokens, **{key: kinds[key](**values) for key, values in sections.items()})


def three_phases() -> list[PhaseConfig]:
    """20 steps: causal; masked, with pairs, more masks and larger batches; longer sequences and a rate that falls."""
    only_mlm = {"data__mlm": {"de": 1.0, "en": 1.0}, "data__clm": {}}
    return [
        phase("causal", 6, data__clm={"de": 1.0, "en": 1.0}, data__mlm={}, data__tlm={}),
        phase(
            "masked", tokens=8 * 512 - 5, **only_mlm, data__tlm={"de-en": 1.0}, mask__prob=0.4, train__batch_tokens=512
        ),
        phase("long", 6, data__sequence_length=32, mask__prob=0.2, data__sampling_alpha=0.0, optim__schedule="linear"),
    ]


def write_tiny_dataset(directory: Path, seed: int = 1) -> Path:
    """Prepared text in which a word says much about the next one, and an English sentence is the German word by word.

    A word is one letter, from a to t in German and from u to N in English. Sentences have up to 12, some have none.
    """
    rng = np.random.default_rng(seed)
    vocab = Vocab([(letter, 4000 // (i + 1)) for i, letter in enumerate(string.ascii_letters[: 2 * WORDS])])
    directory.mkdir()
    vocab.write(directory / "vocab")
    (directory / "codes").write_text("ß ß</w> 1\n", encoding="utf-8")
    corpora: dict[str, CorpusHeader] = {}
    for split, sizes in _SIZES.items():
        for key, count in sizes.items():
            german = [_sentence(rng) for _ in range(count)]
            if key == "de-en":
                corpora[f"{split}.{key}.de"] = write_corpus(directory, f"{split}.{key}.de", german)
                english = [[word + WORDS for word in sentence] for sentence in german]
                corpora[f"{split}.{key}.en"] = write_corpus(directory, f"{split}.{key}.en", english)
            else:
                shift = WORDS if key == "en" else 0
                sentences = [[word + shift for word in sentence] for sentence in german]
                corpora[f"{split}.{key}"] = write_corpus(directory, f"{split}.{key}", sentences)
    write_header(directory, vocab, corpora)
    return directory


def write_corpus(directory: Path, name: str, sentences: list[list[int]]) -> CorpusHeader:
    """One corpus of sentences without EOS."""
    with CorpusWriter(directory, name, id_dtype(1000)) as writer:
        for sentence in sentences:
            writer.append(np.array([*sentence, EOS]), np.array([len(sentence) + 1]))
        return writer.finish([name])


def write_header(directory: Path, vocab: Vocab, corpora: dict[str, CorpusHeader]) -> None:
    """``dataset.json`` of German and English."""
    Header.of(directory, vocab, sorted({name.rpartition(".")[2] for name in corpora}), {}, corpora).write(directory)


def _sentence(rng: np.random.Generator) -> list[int]:
    word, words = int(rng.integers(WORDS)), []
    for _ in range(int(rng.integers(0, 13))):
        words.append(len(SPECIALS) + word)
        word = (3 * word + 1) % WORDS if rng.random() < 0.9 else int(rng.integers(WORDS))
    return words


class NeverStops:
    """What evaluation asks whether to stop; ``asked``: how often it did."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return False


def no_sync(descriptor: int) -> None:
    """Stand in for ``os.fsync`` in tests and the processes that they fork: check the descriptor, and do not wait."""
    os.fstat(descriptor)


# The program's own workers come from the same server, whoever starts it first.
# torch imports the last, with all of sympy, in the first optimizer step: two seconds of each process's life.
process_pool.PRELOADED += ["xlmtrain.evaluate.validator", "xlmtrain.train.loop", "train", "torch._dynamo"]


def forkserver() -> BaseContext:
    """Where processes are forked that have everything imported already."""
    return process_pool.worker_context()


def run_processes(count: int, function: Callable[..., Any], directory: Path, *arguments: Any) -> list[Any]:
    """``function(distributed, *arguments)`` on ``count`` processes that share a gloo group; what each returned.

    ``function`` must be at the top of a module. ``directory``: where the processes find each other.
    """
    meeting = directory / f"meeting-{len(list(directory.iterdir()))}"
    with ProcessPoolExecutor(count, mp_context=forkserver()) as pool:
        jobs = [pool.submit(_run_one, rank, count, meeting, function, arguments) for rank in range(count)]
        return [job.result(timeout=120) for job in jobs]


def _run_one(rank: int, count: int, meeting: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    torch.set_num_threads(1)
    os.fsync = no_sync  # type: ignore[assignment]
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=count, timeout=timedelta(seconds=60)
    )
    distributed = Distributed(rank, count, CPU)
    try:
        return function(distributed, *arguments)
    finally:
        distributed.close()


def stored(numbers: np.ndarray) -> DiskArray:
    """Numbers in a file of which only the reader knows."""
    with tempfile.NamedTemporaryFile() as file:
        numbers.tofile(file.name)
        return DiskArray(Path(file.name), numbers.dtype)
