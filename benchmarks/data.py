"""Compare the speed of data preparation with other ways to the same ids, on one thread, in CPU-seconds.

    python -m benchmarks.data en=news.en de=news.de
    python -m benchmarks.data en=a.en en=b.en de=a.de megabytes=20

The others are sacremoses line by line, fastBPE's ``apply`` with a dictionary, and ``encode_batch_fast`` of Hugging
Face's tokenizers, if they are installed, in one thread. Every measurement is a process of its own, all take turns, and
a ratio is the median of the rounds, smallest and largest. Files may be compressed.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAYON_NUM_THREADS", "1")  # encode_batch_fast

import contextlib
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from sacremoses import MosesPunctNormalizer, MosesTokenizer

from benchmarks.comparison import Comparison, print_comparisons
from benchmarks.metrics import print_environment
from xlmtrain.config.load import parse_options
from xlmtrain.config.prepare import (
    BpeConfig,
    NewTokenizerConfig,
    PrepareConfig,
    SplitConfig,
    TextConfig,
    TokenizerModel,
)
from xlmtrain.config.validate import ABOVE_ZERO, CheckedSettings, ranged
from xlmtrain.prepare.encode_stage import BpeEncoder
from xlmtrain.prepare.pipeline import prepare
from xlmtrain.prepare.raw_files import RawText, read_chunks
from xlmtrain.prepare.tokenize_stage import CACHED_WORDS
from xlmtrain.runtime.program import user_errors
from xlmtrain.text.bpe import Bpe
from xlmtrain.text.tokenizer import Tokenizer
from xlmtrain.text.tokenizer_json import TOKENIZER_FILE
from xlmtrain.text.vocab import EOS, UNK, Vocab

try:
    import tokenizers
except ImportError:
    tokenizers = None  # type: ignore[assignment,unused-ignore]

CHUNK_BYTES = 1 << 18
MIN_MERGES = 300
TOKENS_AT_ONCE = 1 << 17


Part = Callable[["Sample"], None]
"""Work on a sample, timed in a process of its own."""


@dataclass
class DataOptions(CheckedSettings):
    """The settings of this program."""

    en: list[str] = field(default_factory=list)
    """English text, one argument for each file."""

    de: list[str] = field(default_factory=list)
    """German text, one argument for each file."""

    megabytes: float = ranged(4.0, ABOVE_ZERO)
    """Size of the sample of each language, taken evenly from its files."""

    rounds: int = ranged(3, ABOVE_ZERO)
    """Number of measurements of each way."""

    merges: int = ranged(30000, ABOVE_ZERO)
    """Number of BPE codes, and of entries of Hugging Face tokenizers, to learn from the sample."""

    def problems(self) -> Iterator[str]:
        if not self.en and not self.de:
            yield "en: give text with en=FILE and de=FILE"
        if self.merges < MIN_MERGES:
            yield f"merges: {self.merges} is less than {MIN_MERGES}, which a tokenizer of bytes needs"


@dataclass(frozen=True)
class Sample:
    """Text files ``{kind}.{language}`` in ``directory``: ``raw``, ``tokens`` by us, ``sacremoses`` tokens."""

    directory: Path
    languages: tuple[str, ...]

    def path(self, kind: str, language: str) -> Path:
        """Return the path of a text."""
        return self.directory / f"{kind}.{language}"

    def chunks(self, kind: str, language: str) -> Iterator[str]:
        """Yield a text, some whole lines at a time."""
        with self.path(kind, language).open(encoding="utf-8", newline="\n") as file:
            while lines := file.readlines(CHUNK_BYTES):
                yield "".join(lines)

    def prepare(self, output: str, **settings: Any) -> None:
        """Run this package's preparation on the raw text, in one process."""
        train = SplitConfig(mono={language: [str(self.path("raw", language))] for language in self.languages})
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            prepare(PrepareConfig(str(self.directory / output), train, workers=1, overwrite=True, **settings))


def our_data_set(sample: Sample) -> None:
    """Turn raw text into a finished data set with given codes, checksums and statistics included."""
    sample.prepare("again", bpe=BpeConfig(codes=str(sample.directory / "prepared" / "codes")))


def our_tokens(sample: Sample) -> None:
    """Normalize and tokenize."""
    for language in sample.languages:
        tokenizer = Tokenizer(language, TextConfig(), CACHED_WORDS)
        for text in sample.chunks("raw", language):
            tokenizer.numbers(text)


def sacremoses_tokens(sample: Sample) -> None:
    """Normalize and tokenize by sacremoses, line by line."""
    for language in sample.languages:
        normalize, tokenize = MosesPunctNormalizer(language).normalize, MosesTokenizer(language).tokenize
        with sample.path("sacremoses", language).open("w", encoding="utf-8") as file:
            for text in sample.chunks("raw", language):
                for line in text.split("\n")[:-1]:
                    file.write(tokenize(normalize(line), return_str=True, escape=False) + "\n")


def our_ids(sample: Sample) -> None:
    """Turn tokens, numbered as tokenization leaves them, into ids."""
    place = sample.directory / "prepared"
    encoder = BpeEncoder(place / "codes", place / "vocab")
    for language in sample.languages:
        rows = encoder.rows(json.loads(sample.path("words", language).read_text(encoding="utf-8")))
        numbers = np.fromfile(sample.path("numbers", language), np.int32)
        for begin in range(0, len(numbers), TOKENS_AT_ONCE):
            encoder.ids(rows[numbers[begin : begin + TOKENS_AT_ONCE]])


def fastbpe_ids(sample: Sample) -> None:
    """Turn tokens into ids by fastBPE and a dictionary, line by line."""
    bpe = Bpe(sample.directory / "prepared" / "codes")
    ids = {word: number for number, word in enumerate(Vocab.read(sample.directory / "prepared" / "vocab").tokens)}
    for language in sample.languages:
        for text in sample.chunks("tokens", language):
            for line in bpe.segment_all(text.split("\n")[:-1]):
                np.array([*(ids.get(word, UNK) for word in line), EOS], np.uint16)


def our_tokenizer_data_set(sample: Sample, model: TokenizerModel) -> None:
    """Turn raw text into a finished data set with a given Hugging Face tokenizer."""
    sample.prepare("again", tokenizer=str(sample.directory / model.value))


def library_tokenizer_ids(sample: Sample, model: TokenizerModel) -> None:
    """Turn raw text into ids by the Hugging Face tokenizer alone, many lines at a time."""
    tokenizer = tokenizers.Tokenizer.from_file(str(sample.directory / model.value / TOKENIZER_FILE))
    for language in sample.languages:
        for text in sample.chunks("raw", language):
            for encoding in tokenizer.encode_batch_fast(text.split("\n")[:-1], add_special_tokens=False):
                np.array(encoding.ids, np.uint16)


@dataclass(frozen=True)
class Way:
    """The same ``work`` done by ``ours``, and by the ``others``, one after the other; ``peer`` names them."""

    work: str
    peer: str
    ours: Part
    others: tuple[Part, ...]


WAYS = (
    Way("normalize, tokenize", "sacremoses", our_tokens, (sacremoses_tokens,)),
    Way("tokens to ids", "fastBPE, dictionary", our_ids, (fastbpe_ids,)),
    Way("raw text to ids", "sacremoses, fastBPE, dictionary", our_data_set, (sacremoses_tokens, fastbpe_ids)),
)
TOKENIZER_WAYS = tuple(
    Way(
        f"raw text to ids, {model.value} tokenizer",
        "encode_batch_fast",
        partial(our_tokenizer_data_set, model=model),
        (partial(library_tokenizer_ids, model=model),),
    )
    for model in TokenizerModel
)


def cpu_seconds(part: Part, sample: Sample) -> float:
    """Return the CPU-seconds of one part, run in this process and its children."""
    start = sum(os.times()[:4])
    part(sample)
    return sum(os.times()[:4]) - start


def write_sample(sample: Sample, files: dict[str, list[str]], megabytes: float) -> float:
    """Write ``raw.{language}`` from the first lines of each file; return the size in MB."""
    for language in sample.languages:
        with sample.path("raw", language).open("wb") as raw:
            for file in files[language]:
                left = megabytes * 1e6 / len(files[language])
                for chunk in read_chunks(RawText("train", (language,), (Path(file),)), CHUNK_BYTES):
                    for line in chunk.lines[0]:
                        if (left := left - len(line) - 1) >= 0:
                            raw.write(line + b"\n")
                    if left < 0:
                        break
    return sum(sample.path("raw", language).stat().st_size for language in sample.languages) / 1e6


def learn(sample: Sample, merges: int) -> None:
    """Learn codes, vocabulary and tokenizers from the sample; write its tokens, as text and as numbers of words."""
    sample.prepare("prepared", bpe=BpeConfig(merges=merges))
    if tokenizers is not None:
        for model in TokenizerModel:
            sample.prepare(model.value, new_tokenizer=NewTokenizerConfig(model, merges))
    for language in sample.languages:
        tokenizer, numbers = Tokenizer(language, TextConfig(), CACHED_WORDS), []
        with sample.path("tokens", language).open("w", encoding="utf-8") as file:
            for text in sample.chunks("raw", language):
                numbers.append(tokenizer.numbers(text))
                words = [tokenizer.words[number] for number in numbers[-1].tolist()]
                file.writelines(line.strip(" ") + "\n" for line in " ".join(words).split("\n")[:-1])
        np.concatenate(numbers).astype(np.int32).tofile(sample.path("numbers", language))
        sample.path("words", language).write_text(json.dumps(tokenizer.words), encoding="utf-8")


def main(argv: list[str]) -> None:
    """Measure, and print the table."""
    options = parse_options(DataOptions, argv)
    print_environment(torch.device("cpu"))
    print_comparisons(compare(options))


def compare(options: DataOptions) -> Iterator[Comparison]:
    """Yield the speeds of each way, in MB of raw text."""
    files = {language: getattr(options, language) for language in ("de", "en") if getattr(options, language)}
    ways = WAYS if tokenizers is None else WAYS + TOKENIZER_WAYS
    parts = list(dict.fromkeys(part for way in ways for part in (way.ours, *way.others)))
    seconds: dict[Part, list[float]] = {part: [] for part in parts}
    with TemporaryDirectory() as directory:
        sample = Sample(Path(directory), tuple(files))
        megabytes = write_sample(sample, files, options.megabytes)
        learn(sample, options.merges)
        for number in range(options.rounds):
            for part in parts[:: 1 if number % 2 == 0 else -1]:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                    seconds[part].append(process.submit(cpu_seconds, part, sample).result())
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    for way in ways:
        ours = [megabytes / one for one in seconds[way.ours]]
        theirs = [megabytes / sum(round_) for round_ in zip(*(seconds[part] for part in way.others))]
        yield Comparison(f"{way.work}, {megabytes:.1f} MB", "MB", ours, way.peer, theirs)


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
