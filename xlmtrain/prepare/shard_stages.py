"""What is done to one shard, or one corpus, wherever it is done: the stages of preparation as functions.

Each reads earlier parts of the work directory, and fills a directory of its own. Its arguments are plain JSON values
and name everything that its result depends on (see :mod:`xlmtrain.prepare.artifacts`). Memory is bounded by the shard.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from xlmtrain.config.prepare import CleanConfig, TextConfig
from xlmtrain.data.format import CorpusWriter, id_dtype
from xlmtrain.prepare.artifacts import ArtifactStore, BuildTask
from xlmtrain.prepare.dedup import held_out, read_duplicates
from xlmtrain.prepare.raw_files import Chunk, RawText, read_chunks
from xlmtrain.prepare.shard_raw import CHUNK_BYTES, cut, line_digest, read_digests, shard_file
from xlmtrain.prepare.stages import Encoder, TokenizeChunk
from xlmtrain.prepare.token_shards import LINE_END, read_numbers, read_words, write_tokenized, write_word_counts
from xlmtrain.text.bpe import Bpe
from xlmtrain.text.filters import line_checks
from xlmtrain.text.vocab import UNK, Vocab

UNKNOWN_WORDS = 100
"""So many of a corpus are told."""

_UNKNOWN_AT_ONCE = 1 << 16
_LOOKED_AT = 2000
_IDS_AT_ONCE = 1 << 22
_NUMBERS_AT_ONCE = 1 << 17
_NOTHING = np.empty(0, np.int32)
_LENGTH_DTYPE = np.dtype("<i4")


def run_task(directory: Path, task: BuildTask) -> str:
    """Do ``task`` in the work directory unless it is done; returns its key."""
    work = ArtifactStore(directory)
    match task.stage:
        case "cut":
            work.do(task, partial(cut, **task.arguments))
        case "tokenize":
            work.do(task, partial(tokenize, work, **task.arguments))
        case "encode":
            work.do(task, partial(encode, work, **task.arguments))
        case "assemble":
            work.do(task, partial(assemble, work, **task.arguments))
        case stage:
            raise AssertionError(f"no stage {stage} is done shard by shard")
    return task.key


def tokenize(
    work: ArtifactStore,
    out: Path,
    cut: str,
    shard: int,
    split: str,
    languages: list[str],
    text: dict[str, Any],
    clean: dict[str, Any],
    held_out: str | None,
    duplicates: str | None,
    sample: list[float],
) -> dict[str, Any]:
    """Raw lines of a shard -> tokens, as :mod:`xlmtrain.prepare.token_shards` describes.

    ``held_out``, ``duplicates``: parts that say which lines to leave out. ``sample``: for each language the share of
    the text whose words are counted; empty if this is no text to learn from. Returns sentences, words of each language,
    lines dropped by reason, and for text to learn from words counted and the characters that occur.
    """
    make = _tokenizer(json.dumps(text), tuple(languages))
    cleaner = _Cleaner(work.part("cut", cut), shard, languages, CleanConfig(**clean))
    if held_out:
        cleaner.leave_out_held_out(work.part("held_out", held_out))
    if duplicates:
        cleaner.leave_out_duplicates(work.part("duplicates", duplicates))
    paths = tuple(shard_file(work.part("cut", cut), shard, language) for language in languages)
    make.start()
    sentences = 0
    found: list[list[np.ndarray]] = [[_NOTHING] for _ in languages]
    counted: list[list[np.ndarray]] = [[_NOTHING] for _ in languages]
    for chunk in read_chunks(RawText(split, tuple(languages), paths), CHUNK_BYTES):
        if not (chunk := cleaner.cleaned(chunk)).lines[0]:
            continue
        result = make(chunk)
        cleaner.dropped.update(result.dropped)
        sentences += result.sentences
        for side, numbers in enumerate(result.numbers):
            found[side].append(numbers)
            # By content: the same words are counted wherever the file is, and whatever comes before.
            if sample and line_digest(chunk.lines[side][0]) < sample[side] * 2**64:
                counted[side].append(numbers)
    words, running, characters = [], [], set[str]()
    for language, some, chosen in zip(languages, found, counted):
        known, numbers = make.words(language), np.concatenate(some)
        words.append(int(np.count_nonzero(numbers != LINE_END)))
        written = write_tokenized(out, language, known, numbers)
        if sample:
            counts = np.bincount(np.concatenate(chosen), minlength=len(known))[written]
            write_word_counts(out, language, counts)
            running.append(int(counts.sum()))
            characters.update(*(known[number] for number in written))
    return {
        "sentences": sentences,
        "words": words,
        "dropped": {reason: count for reason, count in cleaner.dropped.items() if count},
        "counted": running,
        "characters": "".join(sorted(characters)),
    }


class _Cleaner:
    """Chunks of a shard without the lines that have to go; ``dropped`` counts them by reason."""

    def __init__(self, cut: Path, shard: int, languages: Sequence[str], clean: CleanConfig) -> None:
        self._cut, self._shard, self._languages = cut, shard, languages
        self._checks = list(line_checks(clean, languages))
        self._reasons: dict[int, str] = {}
        self.dropped: Counter[str] = Counter()

    def leave_out_held_out(self, part: Path) -> None:
        """Lines that are in the held-out text, on either side."""
        for language in self._languages:
            found = held_out(part, language, read_digests(self._cut, self._shard, language))
            self._reasons.update(dict.fromkeys(np.flatnonzero(found).tolist(), "overlap"))

    def leave_out_duplicates(self, part: Path) -> None:
        """Lines that were there before."""
        for index in read_duplicates(part, self._cut.name, self._shard).tolist():
            self._reasons.setdefault(index, "duplicate")

    def cleaned(self, chunk: Chunk) -> Chunk:
        """What is left of a chunk."""
        if not self._reasons and not self._checks:
            return chunk
        kept = []
        for index, aligned in enumerate(zip(*chunk.lines)):
            if reason := self._reasons.get(chunk.first - 1 + index) or self._reason(aligned):
                self.dropped[reason] += 1
            else:
                kept.append(aligned)
        return replace(chunk, lines=tuple([aligned[side] for aligned in kept] for side in range(len(chunk.lines))))

    def _reason(self, aligned: Sequence[bytes]) -> str | None:
        if not self._checks:
            return None
        sides = [line.decode() for line in aligned]
        return next((reason for reason, check in self._checks if check(sides)), None)


def encode(
    work: ArtifactStore, out: Path, tokens: str, languages: list[str], codes: str, subwords: str, count: bool
) -> dict[str, Any]:
    """Tokens of a shard -> numbers of subwords, ``{language}.ids``, and the sentences' lengths, ``{language}.lengths``.

    The numbers are those of all subwords that there can be (the part ``subwords``); which of them are words of the
    vocabulary is known when all shards are counted, here in ``counts``, (subwords,) int64, if ``count``.
    """
    encoder, size = _encoder(work.part("codes", codes) / "codes", work.part("subwords", subwords) / "subwords")
    counts = np.zeros(size, np.int64)
    source = work.part("tokenize", tokens)
    for language in languages:
        rows = encoder.rows(read_words(source, language))
        lengths, before = [np.empty(0, np.int64)], 0
        with (out / f"{language}.ids").open("wb") as file:
            for numbers in read_numbers(source, language, _NUMBERS_AT_ONCE):
                ids, ends = encoder.ids(rows[numbers])
                file.write(ids.tobytes())
                lengths.append(before + ends[numbers == LINE_END])
                before += len(ids)
                if count:
                    counts += np.bincount(ids, minlength=size)
        np.diff(np.concatenate(lengths), prepend=0).astype(_LENGTH_DTYPE).tofile(out / f"{language}.lengths")
    if count:
        counts.tofile(out / "counts")
    return {}


def assemble(
    work: ArtifactStore,
    out: Path,
    name: str,
    shards: list[list[str]],
    codes: str,
    subwords: str,
    vocab: str,
    sources: list[str],
) -> dict[str, Any]:
    """The ``shards`` (part, tokens, language) of a corpus one after the other, numbered by the vocabulary:
    ``{name}.ids`` and ``{name}.offsets``.

    Returns the corpus's header, for each shard the numbers of subwords and of unknown ones, and the most frequent words
    with an unknown one in them, with their counts.
    """
    possible = Vocab.read(work.part("subwords", subwords) / "subwords")
    final = Vocab.read(work.part("vocab", vocab) / "vocab")
    dtype = id_dtype(len(final))
    renumbered = np.array([final.id(word) for word in possible.words], dtype)
    counted, unknown = [], []
    unknown_words = _UnknownWords(work.part("codes", codes) / "codes", final)
    with CorpusWriter(out, name, dtype) as writer:
        for part, tokens, language in shards:
            path = work.part("encode", part) / f"{language}.ids"
            lengths = np.fromfile(path.with_suffix(".lengths"), _LENGTH_DTYPE).astype(np.int64)
            places = [np.empty(0, np.int64)]
            begin = 0
            for ids, some in _sentences(path, lengths, id_dtype(len(possible))):
                numbers = renumbered[ids]
                writer.append(numbers, some)
                places.append(begin + np.flatnonzero(numbers == UNK))
                begin += len(numbers)
            writer.end_shard()
            counted.append(begin - len(lengths))
            unknown.append(sum(map(len, places)))
            sentences = np.unique(np.searchsorted(np.cumsum(lengths), np.concatenate(places), side="right"))
            unknown_words.look(work.part("tokenize", tokens), language, sentences)
        header = writer.finish(sources)
    most = unknown_words.counts.most_common(UNKNOWN_WORDS)
    return {"header": asdict(header), "subwords": counted, "unknown": unknown, "unknown_words": most}


class _UnknownWords:
    """Which words have an unknown subword in them; ``counts``: the most frequent ones. Of a shard at most
    ``_LOOKED_AT`` sentences are looked at: all that have one, unless the vocabulary leaves out much of the text."""

    def __init__(self, codes: Path, vocab: Vocab) -> None:
        self._codes, self._vocab = codes, vocab
        self.counts: Counter[str] = Counter()

    def look(self, tokens: Path, language: str, sentences: np.ndarray) -> None:
        """Count those in the given sentences of a tokenized shard, rising numbers."""
        if not len(sentences):
            return
        words = _words_of(tokens, language, sentences[:: -(-len(sentences) // _LOOKED_AT)])
        for word, subwords in zip(words, _bpe(self._codes).segment_all(list(words))):
            if any(self._vocab.id(subword) == UNK for subword in subwords):
                self.counts[word] += words[word]
        if len(self.counts) > _UNKNOWN_AT_ONCE:
            self.counts = Counter(dict(self.counts.most_common(_UNKNOWN_AT_ONCE // 2)))


def _words_of(tokens: Path, language: str, sentences: np.ndarray) -> Counter[str]:
    known, words, before = read_words(tokens, language), Counter[str](), 0
    for numbers in read_numbers(tokens, language, _NUMBERS_AT_ONCE):
        sentence = before + np.cumsum(numbers == LINE_END)
        wanted = numbers[np.isin(sentence, sentences) & (numbers != LINE_END)]
        words.update(known[number] for number in wanted.tolist())
        before = int(sentence[-1])
    return words


def _sentences(path: Path, lengths: np.ndarray, dtype: np.dtype) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The ids in a file and the lengths of their sentences, some millions of ids at a time."""
    ends = np.cumsum(lengths)
    first = 0
    with path.open("rb") as file:
        while first < len(lengths):
            before = int(ends[first - 1]) if first else 0
            last = max(int(np.searchsorted(ends, before + _IDS_AT_ONCE)), first + 1)
            some = lengths[first:last]
            yield np.fromfile(file, dtype, int(some.sum())), some
            first = last


@lru_cache(maxsize=4)
def _tokenizer(text: str, languages: tuple[str, ...]) -> TokenizeChunk:
    """Costly to build, so kept by a process for its next shards."""
    return TokenizeChunk(TextConfig(**json.loads(text)), list(languages))


@lru_cache(maxsize=1)
def _bpe(codes: Path) -> Bpe:
    """The same."""
    return Bpe(codes)


@lru_cache(maxsize=1)
def _encoder(codes: Path, subwords: Path) -> tuple[Encoder, int]:
    """The same; and the number of subwords there can be."""
    size = len(Vocab.read(subwords))
    return Encoder(codes, subwords, id_dtype(size)), size
