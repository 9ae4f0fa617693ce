"""Preparation, the whole job: raw text -> tokens -> codes -> vocabulary -> ids on disk."""

from __future__ import annotations

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
from xlmtrain.runtime.files import sha256_of
from xlmtrain.text.binarize import HEADER, CorpusHeader, CorpusWriter, Header, corpus_name, fingerprint, id_dtype
from xlmtrain.text.bpe import Bpe, balanced_counts, learn_bpe, read_codes, require_fastbpe, write_codes
from xlmtrain.text.files import Chunk, Extent, RawText, check_aligned, examine, find_texts, read_chunks
from xlmtrain.text.parallel import ordered_map, worker_count
from xlmtrain.text.progress import ProgressBar
from xlmtrain.text.stages import EncodeChunk, TokenChunk, TokenizeChunk, read_tokens
from xlmtrain.text.statistics import FileStatistics, Statistics
from xlmtrain.text.tokenizer import has_rules
from xlmtrain.text.vocab import Vocab

RAW_CHUNK_BYTES = 1 << 18
TOKEN_CHUNK_BYTES = 1 << 20
SEGMENT_WORDS = 1 << 16


def prepare(config: PrepareConfig) -> Statistics:
    """Make ``config.output`` (its layout: see :mod:`xlmtrain.text.binarize`), with ``codes``, ``vocab`` and
    ``statistics.json`` in it. Stages are announced on stdout.

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
    texts = find_texts(config)
    with _complete_or_absent(output) as directory:
        job = _Job(config, texts, directory)
        total_bytes = job.examine()
        word_counts = job.tokenize(total_bytes)
        job.make_codes(word_counts)
        vocab = vocab or job.count_vocab(word_counts)
        vocab.write(directory / "vocab")
        corpora = job.binarize(len(vocab))
        job.write_header(vocab, corpora)
        statistics = Statistics(job.statistics, len(vocab), len(read_codes(directory / "codes")), job.notes)
        statistics.write(directory / "statistics.json")
        shutil.rmtree(job.tokens)
    return statistics


class _Job:
    """The stages, in order. They share the list of raw texts and the directory that is being filled; tokenized text is
    kept in its subdirectory ``tokens`` meanwhile."""

    def __init__(self, config: PrepareConfig, texts: list[RawText], directory: Path) -> None:
        self._config = config
        self._texts = texts
        self._directory = directory
        self._workers = worker_count(config.workers)
        self._languages = sorted({language for text in texts for language in text.languages})
        self._statistics_of = [
            [FileStatistics(t.split, language, t.pair, str(path)) for language, path in zip(t.languages, t.paths)]
            for t in texts
        ]
        self.notes = [
            f"language {language}: Moses' tokenizer has no rules for it, the English ones were used"
            for language in self._languages
            if not has_rules(language)
        ]
        self.tokens = directory / "tokens"
        self.tokens.mkdir()

    @property
    def statistics(self) -> list[FileStatistics]:
        """Those of each file, in the order of the raw texts."""
        return [file for sides in self._statistics_of for file in sides]

    def examine(self) -> int:
        """Read every file once, so that what is wrong shows before the long work; returns the bytes of raw text."""
        paths = list(dict.fromkeys(path for text in self._texts for path in text.paths))
        extents = {}
        with ProgressBar("examine", len(paths), "files") as progress:
            for path, extent in zip(paths, ordered_map(_make_examine, paths, self._workers)):
                extents[path] = extent
                progress.advance(1)
        for text in self._texts:
            check_aligned(text, extents)
        return sum(extents[path].bytes for text in self._texts for path in text.paths)

    def tokenize(self, total_bytes: int) -> dict[str, Counter[str]]:
        """Write the tokenized text of every file; returns the training text's word counts per language."""
        word_counts: dict[str, Counter[str]] = {language: Counter() for language in self._languages}
        make = partial(TokenizeChunk, self._config.text, self._languages)
        with ProgressBar("tokenize", total_bytes, "B") as progress:
            for result in ordered_map(make, self._raw_chunks(), self._workers):
                text = self._texts[result.index]
                for side, language in enumerate(text.languages):
                    with self._token_file(result.index, side).open("ab") as file:
                        file.write(result.text[side])
                    if text.split == "train":
                        word_counts[language].update(result.word_counts[side])
                    counts = self._statistics_of[result.index][side]
                    counts.lines += result.lines
                    counts.sentences += result.sentences
                    counts.dropped = {reason: counts.dropped[reason] + n for reason, n in result.dropped.items()}
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
        with ProgressBar("learn codes", merges, "codes") as progress:
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
        with ProgressBar("count vocabulary", len(distinct), "words") as progress:
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
        names = [[corpus_name(t.split, language, t.pair) for language in t.languages] for t in self._texts]
        files: dict[str, list[str]] = {}
        for text, sides in zip(self._texts, names):
            for name, path in zip(sides, text.paths):
                files.setdefault(name, []).append(path.name)
        total = sum(path.stat().st_size for path in self.tokens.iterdir())
        make = partial(EncodeChunk, self._directory / "codes", self._directory / "vocab", dtype)
        with ExitStack() as stack:
            writers = {name: stack.enter_context(CorpusWriter(self._directory, name, dtype)) for name in files}
            progress = stack.enter_context(ProgressBar("binarize", total, "B"))
            for result in ordered_map(make, self._token_chunks(), self._workers):
                writers[names[result.index][result.side]].append(result.ids, result.lengths)
                counts = self._statistics_of[result.index][result.side]
                counts.words += result.words
                counts.subwords += len(result.ids) - len(result.lengths)
                counts.unknown += result.unknown
                progress.advance(result.size)
            return {name: writer.finish(files[name]) for name, writer in writers.items()}

    def write_header(self, vocab: Vocab, corpora: dict[str, CorpusHeader]) -> None:
        """Write ``dataset.json``."""
        codes_sha256 = sha256_of(self._directory / "codes")
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
        for index, text in enumerate(self._texts):
            yield from read_chunks(index, text, RAW_CHUNK_BYTES)

    def _token_chunks(self) -> Iterator[TokenChunk]:
        for index, text in enumerate(self._texts):
            for side in range(len(text.languages)):
                path = self._token_file(index, side)
                if path.exists():
                    yield from read_tokens(index, side, path, TOKEN_CHUNK_BYTES)

    def _token_file(self, index: int, side: int) -> Path:
        return self.tokens / f"{index:06d}.{self._texts[index].languages[side]}"

    def _check_not_empty(self) -> None:
        for total in Statistics(self.statistics, 0, 0).totals():
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
