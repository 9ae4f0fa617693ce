"""Compare the speed of data preparation with other ways to the same ids, on one thread, in CPU-seconds.

    python -m benchmarks.data en=news.en de=news.de
    python -m benchmarks.data en=a.en en=b.en de=a.de megabytes=20

The others are sacremoses line by line, and fastBPE's ``apply`` with a dictionary. Every measurement is a process of its
own, all take turns, and a ratio is the median of the rounds, smallest and largest. Files may be compressed.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from sacremoses import MosesPunctNormalizer, MosesTokenizer

from xlmtrain.config.load import parse_options
from xlmtrain.config.prepare import BpeConfig, PrepareConfig, SplitConfig, TextConfig
from xlmtrain.config.validate import ABOVE_ZERO, CheckedSettings, ranged
from xlmtrain.prepare.encode_stage import BpeEncoder
from xlmtrain.prepare.pipeline import prepare
from xlmtrain.prepare.raw_files import RawText, read_chunks
from xlmtrain.prepare.tokenize_stage import CACHED_WORDS
from xlmtrain.runtime.program import user_errors
from xlmtrain.text.bpe import Bpe
from xlmtrain.text.tokenizer import Tokenizer
from xlmtrain.text.vocab import EOS, UNK, Vocab

CHUNK_BYTES = 1 << 18
TOKENS_AT_ONCE = 1 << 17


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
    """Number of BPE codes to learn from the sample."""

    def problems(self) -> Iterator[str]:
        if not self.en and not self.de:
            yield "en: give text with en=FILE and de=FILE"


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

    def prepare(self, output: str, bpe: BpeConfig) -> None:
        """Run this package's preparation on the raw text."""
        train = SplitConfig(mono={language: [str(self.path("raw", language))] for language in self.languages})
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            prepare(PrepareConfig(output=str(self.directory / output), train=train, bpe=bpe, workers=1, overwrite=True))


def our_data_set(sample: Sample) -> None:
    """Turn raw text into a finished data set with given codes, checksums and statistics included."""
    sample.prepare("again", BpeConfig(codes=str(sample.directory / "prepared" / "codes")))


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


PARTS = (our_data_set, our_tokens, sacremoses_tokens, our_ids, fastbpe_ids)


def cpu_seconds(part: Callable[[Sample], None], sample: Sample) -> float:
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
    """Learn codes and vocabulary from the sample, and write its tokens: as text, and as numbers of distinct words."""
    sample.prepare("prepared", BpeConfig(merges=merges))
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
    files = {language: getattr(options, language) for language in ("de", "en") if getattr(options, language)}
    rounds: list[dict[str, float]] = []
    with TemporaryDirectory() as directory:
        sample = Sample(Path(directory), tuple(files))
        megabytes = write_sample(sample, files, options.megabytes)
        learn(sample, options.merges)
        for number in range(options.rounds):
            rounds.append({})
            for part in PARTS[:: 1 if number % 2 == 0 else -1]:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    rounds[-1][part.__name__] = pool.apply(cpu_seconds, (part, sample))
    print(f"{megabytes:.1f} MB of {', '.join(files)}, {options.merges:,} codes\n")
    print("| MB per CPU-second | ours | other | other's | ratio |\n| --- | ---: | --- | ---: | ---: |")
    for step, other, ours, *others in (
        ("normalize, tokenize", "sacremoses", "our_tokens", "sacremoses_tokens"),
        ("tokens to ids", "fastBPE, dictionary", "our_ids", "fastbpe_ids"),
        ("raw text to ids", "sacremoses, fastBPE, dictionary", "our_data_set", "sacremoses_tokens", "fastbpe_ids"),
    ):
        mine = [times[ours] for times in rounds]
        theirs = [sum(times[name] for name in others) for times in rounds]
        ratios = [b / a for a, b in zip(mine, theirs)]
        print(
            f"| {step} | {megabytes / median(mine):.2f} | {other} | {megabytes / median(theirs):.2f} "
            f"| {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
