"""Preparation, the whole job: raw text -> tokens -> codes -> vocabulary -> ids on disk."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from xlmtrain.config.prepare import PrepareConfig
from xlmtrain.errors import DataError
from xlmtrain.text.binarize import HEADER, CorpusHeader, CorpusWriter, Header, corpus_name, fingerprint, id_dtype
from xlmtrain.text.bpe import Bpe, balanced_counts, learn_bpe, read_codes, require_fastbpe, write_codes
from xlmtrain.text.parallel import Progress, ordered_map, worker_count
from xlmtrain.text.report import FileReport, Report
from xlmtrain.text.sources import Chunk, Extent, Source, check_aligned, examine, find_sources, read_chunks
from xlmtrain.text.stages import EncodeChunk, TokenChunk, TokenizeChunk, read_tokens
from xlmtrain.text.vocab import Vocab

RAW_CHUNK_BYTES = 1 << 18
TOKEN_CHUNK_BYTES = 1 << 20
SEGMENT_WORDS = 1 << 16


def prepare(config: PrepareConfig) -> Report:
    """Make ``config.output`` (its layout: see :mod:`xlmtrain.text.binarize`), with ``codes``, ``vocab`` and
    ``report.json`` in it. Stages are announced on stdout.

    The directory appears when all is complete; until then everything is beside it under a temporary name, which goes
    away on any error. Raises DataError for what is wrong with the text, the codes, the vocabulary or the output.
    """
    output = Path(os.path.abspath(config.output))
    _check_output(output, config.overwrite)
    require_fastbpe()
    if config.bpe.codes is not None:
        read_codes(config.bpe.codes)
    vocab = None
    if config.vocab.path is not None:
        vocab = Vocab.read(config.vocab.path, config.vocab.max_size, config.vocab.min_count)
    sources = find_sources(config)
    with _complete_or_absent(output) as directory:
        job = _Job(config, sources, directory)
        total_bytes = job.examine()
        word_counts = job.tokenize(total_bytes)
        job.make_codes(word_counts)
        vocab = vocab or job.count_vocab(word_counts)
        vocab.write(directory / "vocab")
        corpora = job.binarize(len(vocab))
        job.write_header(vocab, corpora)
        report = Report(job.reports, len(vocab), len(read_codes(directory / "codes")), job.notes)
        report.write(directory / "report.json")
        shutil.rmtree(job.tokens)
    return report


class _Job:
    """The stages, in order. They share the list of sources and the directory that is being filled; tokenized text is
    kept in its subdirectory ``tokens`` meanwhile."""

    def __init__(self, config: PrepareConfig, sources: list[Source], directory: Path) -> None:
        self._config = config
        self._sources = sources
        self._directory = directory
        self._workers = worker_count(config.workers)
        self._languages = sorted({language for source in sources for language in source.languages})
        self._reports_of = [
            [FileReport(s.split, language, s.pair, str(path)) for language, path in zip(s.languages, s.paths)]
            for s in sources
        ]
        self.notes: list[str] = []
        self.tokens = directory / "tokens"
        self.tokens.mkdir()

    @property
    def reports(self) -> list[FileReport]:
        """One for each file, in the order of the sources."""
        return [report for sides in self._reports_of for report in sides]

    def examine(self) -> int:
        """Read every file once, so that what is wrong shows before the long work; returns the bytes of raw text."""
        paths = list(dict.fromkeys(path for source in self._sources for path in source.paths))
        extents = {}
        with Progress("examine", len(paths), "files") as progress:
            for path, extent in zip(paths, ordered_map(_make_examine, paths, self._workers)):
                extents[path] = extent
                progress.advance(1)
        for source in self._sources:
            check_aligned(source, extents)
        return sum(extents[path].bytes for source in self._sources for path in source.paths)

    def tokenize(self, total_bytes: int) -> dict[str, Counter[str]]:
        """Write the tokenized text of every file; returns the training text's word counts per language."""
        word_counts: dict[str, Counter[str]] = {language: Counter() for language in self._languages}
        make = partial(TokenizeChunk, self._config.text, self._languages)
        with Progress("tokenize", total_bytes, "B") as progress:
            for result in ordered_map(make, self._raw_chunks(), self._workers):
                source = self._sources[result.source]
                for side, language in enumerate(source.languages):
                    with self._token_file(result.source, side).open("ab") as file:
                        file.write(result.text[side])
                    if source.split == "train":
                        word_counts[language].update(result.word_counts[side])
                    report = self._reports_of[result.source][side]
                    report.lines += result.lines
                    report.sentences += result.sentences
                    report.dropped = {reason: report.dropped[reason] + n for reason, n in result.dropped.items()}
                progress.advance(result.size)
        self._check_not_empty()
        return word_counts

    def make_codes(self, word_counts: dict[str, Counter[str]]) -> None:
        """Copy the given codes, or learn them."""
        path = self._directory / "codes"
        if self._config.bpe.codes is not None:
            shutil.copyfile(self._config.bpe.codes, path)
            return
        merges = self._config.bpe.merges
        balanced = balanced_counts(word_counts, self._config.bpe.balance_alpha)
        with Progress("learn codes", merges, "codes") as progress:
            codes = learn_bpe(balanced, merges, lambda learned: progress.advance(1))
        if len(codes) < merges:
            self.notes.append(f"only {len(codes)} codes learned, not bpe.merges={merges}: every word is one symbol now")
        write_codes(codes, path)

    def count_vocab(self, word_counts: dict[str, Counter[str]]) -> Vocab:
        """The vocabulary of the training text: each distinct word is segmented once."""
        bpe = Bpe(self._directory / "codes")
        words = sum(word_counts.values(), Counter[str]())
        counts: Counter[str] = Counter()
        distinct = list(words)
        with Progress("count vocabulary", len(distinct), "words") as progress:
            for start in range(0, len(distinct), SEGMENT_WORDS):
                batch = distinct[start : start + SEGMENT_WORDS]
                for word, subwords in zip(batch, bpe.segment_all(batch)):
                    for subword in subwords:
                        counts[subword] += words[word]
                progress.advance(len(batch))
        return Vocab.from_counts(counts, self._config.vocab.max_size, self._config.vocab.min_count)

    def binarize(self, vocab_size: int) -> dict[str, CorpusHeader]:
        """Write the ids of every corpus; returns their headers by name."""
        dtype = id_dtype(vocab_size)
        names = [[corpus_name(s.split, language, s.pair) for language in s.languages] for s in self._sources]
        files: dict[str, list[str]] = {}
        for source, sides in zip(self._sources, names):
            for name, path in zip(sides, source.paths):
                files.setdefault(name, []).append(path.name)
        total = sum(path.stat().st_size for path in self.tokens.iterdir())
        make = partial(EncodeChunk, self._directory / "codes", self._directory / "vocab", dtype)
        with ExitStack() as stack:
            writers = {name: stack.enter_context(CorpusWriter(self._directory, name, dtype)) for name in files}
            progress = stack.enter_context(Progress("binarize", total, "B"))
            for result in ordered_map(make, self._token_chunks(), self._workers):
                writers[names[result.source][result.side]].append(result.ids, result.lengths)
                report = self._reports_of[result.source][result.side]
                report.words += result.words
                report.subwords += len(result.ids) - len(result.lengths)
                report.unknown += result.unknown
                progress.advance(result.size)
            return {name: writer.finish(files[name]) for name, writer in writers.items()}

    def write_header(self, vocab: Vocab, corpora: dict[str, CorpusHeader]) -> None:
        """Write ``dataset.json``."""
        codes_sha256 = hashlib.sha256((self._directory / "codes").read_bytes()).hexdigest()
        text = asdict(self._config.text)
        Header(
            languages=self._languages,
            dtype=id_dtype(len(vocab)).name,
            vocab_size=len(vocab),
            vocab_fingerprint=vocab.fingerprint,
            text=text,
            fingerprint=fingerprint(vocab.fingerprint, codes_sha256, text, corpora),
            corpora=corpora,
        ).write(self._directory)

    def _raw_chunks(self) -> Iterator[Chunk]:
        for index, source in enumerate(self._sources):
            yield from read_chunks(index, source, RAW_CHUNK_BYTES)

    def _token_chunks(self) -> Iterator[TokenChunk]:
        for index, source in enumerate(self._sources):
            for side in range(len(source.languages)):
                path = self._token_file(index, side)
                if path.exists():
                    yield from read_tokens(index, side, path, TOKEN_CHUNK_BYTES)

    def _token_file(self, index: int, side: int) -> Path:
        return self.tokens / f"{index:06d}.{self._sources[index].languages[side]}"

    def _check_not_empty(self) -> None:
        for total in Report(self.reports, 0, 0).totals():
            if not total.sentences:
                raise DataError(f"{total.file}: none of its {total.lines} lines can be used; dropped: {total.dropped}")


def _make_examine() -> Callable[[Path], Extent]:
    return examine


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.exists() and not output.is_symlink():
        return
    if not overwrite:
        raise DataError(f"{output}: exists already; choose another output, or replace it with overwrite=true")
    if not output.is_dir() or (any(output.iterdir()) and not (output / HEADER).is_file()):
        raise DataError(f"{output}: is no prepared data set, so overwrite=true does not touch it; choose another")


@contextmanager
def _complete_or_absent(output: Path) -> Iterator[Path]:
    """A new directory that takes the name ``output`` when the block ends well, and is removed otherwise."""
    directory = output.with_name(f".{output.name}.partial-{os.getpid()}")
    try:
        directory.mkdir(parents=True)
        yield directory
        replaced = output.with_name(f".{output.name}.replaced-{os.getpid()}")
        if output.exists():
            output.rename(replaced)
        directory.rename(output)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{error.filename or output}: {error.strerror}; nothing was prepared") from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)
