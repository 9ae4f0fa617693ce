"""How fast raw text becomes ids, stage by stage, beside other ways to the same: on one thread, in CPU-seconds.

    python tools/bench_data.py en=news.en de=news.de
    python tools/bench_data.py en=a.en en=b.en de=a.de megabytes=20 moses=mosesdecoder/scripts/tokenizer

The others are plain calls of sacremoses, fastBPE's ``apply``, a dictionary of subwords, and with ``moses=`` the Perl
scripts that made the data of the original models. Every measurement is a process of its own, ours and theirs take
turns, and a ratio is the median over the rounds. Files are read as preparation does, also when compressed.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import multiprocessing
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from sacremoses import MosesPunctNormalizer, MosesTokenizer

from xlmtrain.config.load import parse_args, user_errors
from xlmtrain.config.prepare import BpeConfig, PrepareConfig, SplitConfig, TextConfig
from xlmtrain.data.format import CorpusWriter, Header, id_dtype
from xlmtrain.errors import ConfigError
from xlmtrain.prepare.encode_stage import BpeEncoder
from xlmtrain.prepare.pipeline import prepare
from xlmtrain.prepare.raw_files import RawText, read_chunks
from xlmtrain.text.bpe import Bpe
from xlmtrain.text.tokenizer import LINE_END, Tokenizer
from xlmtrain.text.vocab import EOS, UNK, Vocab

CHUNK_BYTES = 1 << 18
SCRIPTS = ("replace-unicode-punctuation", "normalize-punctuation", "remove-non-printing-char", "tokenizer")
ROWS_AT_ONCE = 1 << 17
SENTENCES_AT_ONCE = 5000
# Not measured here: millions of tokens, and megabytes, that the original preprocess.py did in a CPU-second, and
# fastBPE's own program; elsewhere, where the Perl scripts did 2.2 megabytes.
PREPROCESS_TOKENS = 1.26
PREPROCESS_MEGABYTES = 5.15
APPLYBPE_MEGABYTES = 12.8


@dataclass
class BenchData:
    """The settings of this tool."""

    en: list[str] = field(default_factory=list)
    """English text."""

    de: list[str] = field(default_factory=list)
    """German text."""

    megabytes: float = 4.0
    """How much of each language to take, evenly from its files."""

    rounds: int = 3
    """How often to measure everything."""

    merges: int = 30000
    """How many codes to learn, from that text."""

    moses: str | None = None
    """The directory of Moses' scripts (scripts/tokenizer in mosesdecoder); null leaves them out."""

    def __post_init__(self) -> None:
        if not self.en and not self.de:
            raise ConfigError("give text with en=FILE and de=FILE")
        if self.megabytes <= 0 or self.rounds < 1 or self.merges < 1:
            raise ConfigError("megabytes is more than 0, rounds and merges 1 or more")
        for script in SCRIPTS if self.moses is not None else ():
            if not Path(str(self.moses), f"{script}.perl").is_file():
                raise ConfigError(f"moses={self.moses}: no {script}.perl there")


@dataclass(frozen=True)
class Bench:
    """The text to work on, in ``directory``: ``raw.{language}``, and what :func:`learn` adds."""

    directory: Path
    languages: tuple[str, ...]
    merges: int
    moses: str | None

    def path(self, kind: str, language: str) -> Path:
        """A text of the directory."""
        return self.directory / f"{kind}.{language}"

    def chunks(self, kind: str, language: str) -> Iterator[str]:
        """A text of the directory, some lines at a time, with their ends."""
        for chunk in read_chunks(RawText("train", (language,), (self.path(kind, language),)), CHUNK_BYTES):
            yield b"\n".join([*chunk.lines[0], b""]).decode()

    def numbered(self, language: str) -> tuple[list[str], np.ndarray]:
        """The tokens as numbers of words, and these."""
        table = {"\n": LINE_END}
        numbers = [
            table.setdefault(word, len(table))
            for text in self.chunks("tokens", language)
            for word in text.replace("\n", " \n ").split(" ")
            if word
        ]
        return list(table), np.array(numbers, np.int32)

    @property
    def codes(self) -> Path:
        """Those that were learned."""
        return self.directory / "prepared" / "codes"

    def vocab(self) -> Vocab:
        """The one that was counted."""
        return Vocab.read(self.directory / "prepared" / "vocab")

    def encoder(self) -> BpeEncoder:
        """Of tokens, by codes and vocabulary."""
        return BpeEncoder(self.codes, self.directory / "prepared" / "vocab", id_dtype(len(self.vocab())))

    def settings(self, output: str, bpe: BpeConfig) -> PrepareConfig:
        """Those of a preparation of the raw text."""
        train = SplitConfig(mono={language: [str(self.path("raw", language))] for language in self.languages})
        return PrepareConfig(output=str(self.directory / output), train=train, bpe=bpe, workers=1, overwrite=True)


def clock() -> float:
    """CPU-seconds of this process and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(some.ru_utime + some.ru_stime for some in used)


def write_sample(bench: Bench, files: dict[str, list[str]], megabytes: float) -> None:
    """Write ``raw.{language}``: the first lines of each file, as many bytes of each."""
    for language in bench.languages:
        with bench.path("raw", language).open("wb") as sample:
            for file in files[language]:
                left = megabytes * 1e6 / len(files[language])
                for chunk in read_chunks(RawText("train", (language,), (Path(file),)), CHUNK_BYTES):
                    for line in chunk.lines[0]:
                        if (left := left - len(line) - 1) >= 0:
                            sample.write(line + b"\n")
                    if left < 0:
                        break


def learn(bench: Bench) -> float:
    """Prepare the text, codes learned from it; then write, not counted, its tokens and its subwords, a line each."""
    start = clock()
    prepare(bench.settings("prepared", BpeConfig(merges=bench.merges)))
    seconds = clock() - start
    bpe = Bpe(bench.codes)
    for language in bench.languages:
        tokenizer = Tokenizer(language, TextConfig())
        with bench.path("tokens", language).open("w") as tokens, bench.path("subwords", language).open("w") as subwords:
            for text in bench.chunks("raw", language):
                words = " ".join([tokenizer.words[number] for number in tokenizer.numbers(text).tolist()])
                lines = [line.strip(" ") for line in words.split("\n")[:-1]]
                tokens.writelines(f"{line}\n" for line in lines)
                subwords.writelines(" ".join(line) + "\n" for line in bpe.segment_all(lines))
    return seconds


def our_path(bench: Bench) -> float:
    """Raw text to the finished data set, checksums and statistics included, with given codes."""
    start = clock()
    prepare(bench.settings("again", BpeConfig(codes=str(bench.codes))))
    return clock() - start


def our_tokens(bench: Bench) -> float:
    """Normalize and tokenize."""
    start = clock()
    for language in bench.languages:
        tokenizer = Tokenizer(language, TextConfig())
        for text in bench.chunks("raw", language):
            tokenizer.numbers(text)
    return clock() - start


def sacremoses_tokens(bench: Bench) -> float:
    """The same by sacremoses, a line at a time."""
    start = clock()
    for language in bench.languages:
        normalize, tokenize = MosesPunctNormalizer(language).normalize, MosesTokenizer(language).tokenize
        with bench.path("sacremoses", language).open("w") as file:
            for text in bench.chunks("raw", language):
                for line in text.split("\n")[:-1]:
                    file.write(tokenize(normalize(line), return_str=True, escape=False) + "\n")
    return clock() - start


def perl_tokens(bench: Bench) -> float:
    """The same by Moses' Perl scripts, in a pipe."""
    start = clock()
    for language in bench.languages:
        of_language = ["-l", language]
        options: list[list[str]] = [[], of_language, [], [*of_language, "-no-escape", "-q"]]
        with bench.path("raw", language).open() as raw, bench.path("perl", language).open("w") as file:
            source, running = raw, []
            for script, chosen in zip(SCRIPTS, options):
                command = ["perl", f"{bench.moses}/{script}.perl", *chosen]
                target = file if script == SCRIPTS[-1] else subprocess.PIPE
                running.append(subprocess.Popen(command, stdin=source, stdout=target, stderr=subprocess.DEVNULL))
                source = running[-1].stdout  # type: ignore[assignment]
            ends = [process.wait() for process in running]
            if any(ends):
                raise ConfigError(f"moses={bench.moses}: a script failed; does perl run it?")
    return clock() - start


def our_ids(bench: Bench) -> float:
    """Tokens, as tokenization hands them on, split into subwords and these looked up."""
    texts = [bench.numbered(language) for language in bench.languages]
    encoder = bench.encoder()
    start = clock()
    for words, numbers in texts:
        rows = encoder.rows(words)
        for begin in range(0, len(numbers), ROWS_AT_ONCE):
            encoder.ids(rows[numbers[begin : begin + ROWS_AT_ONCE]])
    return clock() - start


def their_ids(bench: Bench) -> float:
    """The same by fastBPE and a dictionary, a line at a time."""
    bpe, vocab = Bpe(bench.codes), bench.vocab()
    ids = {word: number for number, word in enumerate(vocab.words)}
    start = clock()
    for language in bench.languages:
        for text in bench.chunks("tokens", language):
            for line in bpe.segment_all(text.split("\n")[:-1]):
                np.array([*(ids.get(word, UNK) for word in line), EOS], np.uint16)
    return clock() - start


def our_binarizing(bench: Bench) -> float:
    """Words whose subwords are known to ids on disk, with checksums."""
    encoder, dtype, seconds = bench.encoder(), id_dtype(len(bench.vocab())), 0.0
    for language in bench.languages:
        words, numbers = bench.numbered(language)
        rows = encoder.rows(words)
        start = clock()
        with CorpusWriter(bench.directory, f"bench.{language}", dtype) as writer:
            sentences = np.flatnonzero(numbers == LINE_END) + 1
            for text in np.split(numbers, sentences[SENTENCES_AT_ONCE:-1:SENTENCES_AT_ONCE]):
                ids, ends = encoder.ids(rows[text])
                writer.append(ids, np.diff(ends[text == LINE_END], prepend=0))
        seconds += clock() - start
    return seconds


def dictionary_binarizing(bench: Bench) -> float:
    """Text of subwords to ids in memory, by a dictionary."""
    ids = {word: number for number, word in enumerate(bench.vocab().words)}
    start = clock()
    for language in bench.languages:
        for text in bench.chunks("subwords", language):
            for line in text.split("\n")[:-1]:
                np.array([*(ids.get(word, UNK) for word in line.split(" ")), EOS], np.int32)
    return clock() - start


def measured(part: Callable[[Bench], float], bench: Bench) -> tuple[float, float]:
    """CPU-seconds of a part, and megabytes that its process had resident at most."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (part, bench))


def _measure(part: Callable[[Bench], float], bench: Bench) -> tuple[float, float]:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        seconds = part(bench)
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def same_lines(bench: Bench, kind: str) -> float:
    """Share of the lines whose tokens are ours."""
    pairs = [
        pair
        for language in bench.languages
        for pair in zip(bench.path("tokens", language).open(), bench.path(kind, language).open())
    ]
    return sum(ours.split() == theirs.split() for ours, theirs in pairs) / len(pairs)


def report(bench: Bench, rounds: list[dict[str, float]]) -> Iterator[str]:
    """The lines of the table; ``rounds``: CPU-seconds of each part."""
    megabytes = sum(bench.path("raw", language).stat().st_size for language in bench.languages) / 1e6
    tokens = Header.read(bench.directory / "again").corpora.values()
    subwords = sum(corpus.tokens for corpus in tokens) / 1e6

    def row(name: str, amount: float, ours: str, beside: str, *theirs: str) -> str:
        mine = [one[ours] for one in rounds]
        others = [sum(one[part] for part in theirs) for one in rounds]
        ratios = [other / own for other, own in zip(others, mine)]
        return (
            f"{name:28}{amount / statistics.median(mine):8.2f}  {beside:42}{amount / statistics.median(others):8.2f}"
            f"{statistics.median(ratios):8.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        )

    yield f"{'MB per CPU-second':28}{'ours':>8}  {'beside':42}{'theirs':>8}{'ratio':>8}"
    for kind, name in (("sacremoses", "sacremoses"), ("perl", "Perl")) if bench.moses else (("sacremoses",) * 2,):
        same = f"{name}, {same_lines(bench, kind):.2%} of lines alike"
        yield row("normalize, tokenize", megabytes, "our_tokens", same, f"{kind}_tokens")
        whole = (f"{kind}_tokens", "their_ids")
        yield row("raw text to ids", megabytes, "our_path", f"{name}, fastBPE.apply, dictionary", *whole)
    yield row("tokens to ids", megabytes, "our_ids", "fastBPE.apply, dictionary", "their_ids")
    yield f"{'million ids per CPU-second':28}"
    yield row("binarizing", subwords, "our_binarizing", "dictionary", "dictionary_binarizing")
    speed = subwords / statistics.median(one["our_binarizing"] for one in rounds)
    yield f"{'':38}{'preprocess.py, cited':42}{PREPROCESS_TOKENS:8.2f}{speed / PREPROCESS_TOKENS:8.2f}"
    if bench.moses:
        perl = statistics.median(one["perl_tokens"] for one in rounds) / megabytes
        chain = 1 / (perl + 1 / APPLYBPE_MEGABYTES + 1 / PREPROCESS_MEGABYTES)
        ratio = megabytes / statistics.median(one["our_path"] for one in rounds) / chain
        yield f"raw text to ids beside Perl, and fastBPE's program and preprocess.py as cited: {chain:.2f}, {ratio:.2f}"


def main(argv: list[str]) -> None:
    """Measure, and print the table."""
    options, _ = parse_args(BenchData, argv)
    files = {language: getattr(options, language) for language in ("de", "en") if getattr(options, language)}
    parts = [our_path, our_tokens, sacremoses_tokens, our_ids, their_ids, our_binarizing, dictionary_binarizing]
    if options.moses is not None:
        parts.insert(2, perl_tokens)
    with TemporaryDirectory() as directory:
        bench = Bench(Path(directory), tuple(files), options.merges, options.moses)
        write_sample(bench, files, options.megabytes)
        seconds, resident = measured(learn, bench)
        size = sum(bench.path("raw", language).stat().st_size for language in files) / 1e6
        print(
            f"{size:.1f} MB of {', '.join(files)}; with learning {options.merges:,} codes: {size / seconds:.2f} MB "
            f"per CPU-second, {resident:,.0f} MB resident at most",
            flush=True,
        )
        rounds = []
        for number in range(options.rounds):
            results = {part.__name__: measured(part, bench) for part in parts}
            rounds.append({name: seconds for name, (seconds, _) in results.items()})
            print(f"round {number + 1}: " + ", ".join(f"{n} {s:.2f} s" for n, s in rounds[-1].items()), flush=True)
        print("\n".join(report(bench, rounds)))
        print(f"resident at most with given codes: {results['our_path'][1]:,.0f} MB")


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
