"""Stage ``tokenize``: the raw lines of a shard -> cleaned and tokenized text.

Memory is bounded by the size of a shard.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from xlmtrain.config.prepare import CleanConfig, TextConfig
from xlmtrain.errors import DataError
from xlmtrain.prepare.artifacts import ArtifactStore
from xlmtrain.prepare.raw_files import Chunk, RawText, read_chunks
from xlmtrain.prepare.shard_raw import CHUNK_BYTES, bad_lines, digest, shard_file
from xlmtrain.prepare.token_shards import write_tokenized
from xlmtrain.prepare.tokenizer_artifact import stored_vocab
from xlmtrain.text.filters import line_checks
from xlmtrain.text.moses import MAX_TOKEN_CHARS
from xlmtrain.text.tokenizer import LINE_END, Tokenizer
from xlmtrain.text.tokenizer_json import TokenizerVocab, tokenizer_errors
from xlmtrain.text.word_ids import WordIds, splits_at_spaces

try:
    import sentencepiece
except ImportError:
    sentencepiece = None  # type: ignore[assignment]

CACHED_WORDS = 1 << 19
"""Words that a tokenizer remembers."""


class LineTokenizer(Protocol):
    """Raw lines -> token numbers; ``words``: the token of each number, the line end first."""

    words: list[str]

    def evict(self) -> None:
        """Free memory. Token numbers returned before are then invalid."""

    def numbers(self, text: str) -> np.ndarray:
        """Return the token numbers of lines that each end with a newline, int32, ``LINE_END`` after every line."""


class IdTokenizer:
    """Raw lines -> ids of a tokenizer: token number n is the id n - 1, and its word is the id as text.

    A sentencepiece model encodes itself: it is faster, and a few divisions of equal probability are its own choice.
    Where the tokenizer allows it, each distinct word is encoded once.
    """

    def __init__(self, vocab: TokenizerVocab) -> None:
        """Raise DataError if the package sentencepiece is needed and missing."""
        self._tokenizer, self._processor, self._words = vocab.tokenizer, None, None
        if vocab.source:
            require_sentencepiece()
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=vocab.source)
        elif splits_at_spaces(vocab.content, vocab.tokenizer):
            self._words = WordIds(vocab.tokenizer, self._encode)
        self.words = ["\n", *map(str, range(len(vocab)))]
        # Other processes encode other shards.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    def evict(self) -> None:
        """Do nothing: token numbers stay valid."""

    def numbers(self, text: str) -> np.ndarray:
        """Return the ids + 1 of lines, as :class:`LineTokenizer`; a line of white space has none.

        Raises DataError for a line that the tokenizer cannot encode.
        """
        if self._words is not None:
            return self._words.numbers(text)
        ids = self._encode(text.split("\n")[:-1])
        ends = np.cumsum(np.fromiter(map(len, ids), np.int64, len(ids)) + 1) - 1
        numbers: np.ndarray = np.full(int(ends[-1]) + 1, LINE_END, np.int32)
        is_token = np.ones(len(numbers), bool)
        is_token[ends] = False
        numbers[is_token] = np.fromiter(chain.from_iterable(ids), np.int32, len(numbers) - len(ids)) + 1
        return numbers

    def _encode(self, lines: list[str]) -> Sequence[Sequence[int]]:
        lines = [line if line and not line.isspace() else "" for line in lines]
        with tokenizer_errors("tokenizer: cannot encode the text", "; an unknown token, for example, is missing in it"):
            if self._processor is not None:
                ids: list[list[int]] = self._processor.encode(lines, out_type=int, num_threads=1)
                return ids
            return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(lines, add_special_tokens=False)]


def require_sentencepiece() -> None:
    """Raise DataError, saying how to install it, if the sentencepiece package is missing."""
    if sentencepiece is None:
        raise DataError("tokenizer: a .model needs the sentencepiece package: pip install 'xlmtrain[sentencepiece]'")


def tokenize(
    store: ArtifactStore,
    out: Path,
    raw: str,
    shard: int,
    split: str,
    languages: list[str],
    text: dict[str, Any],
    clean: dict[str, Any],
    sample: list[float],
    tokenizer: str | None = None,
    documents: bool = False,
) -> dict[str, Any]:
    """Clean and tokenize a shard; the files are described in :mod:`xlmtrain.prepare.token_shards`.

    ``raw``: key of an artifact. ``sample``: for each language the fraction of the text whose words are counted for BPE
    training, empty if this is not training text; ``{language}.sampled`` has one byte a sentence, 1 if it is counted.
    ``tokenizer``: key of the artifact with a tokenizer to use in place of Moses' rules. ``documents``: keep blank
    lines, as sentences without words. In the result, ``cut`` are the pieces of full length of words that were too long.
    """
    tokenizers: list[LineTokenizer]
    if tokenizer is None:
        tokenizers = [_tokenizer(json.dumps(text), language) for language in languages]
    else:
        tokenizers = [_id_tokenizer(stored_vocab(store, tokenizer))] * len(languages)
    for line_tokenizer in tokenizers:
        line_tokenizer.evict()  # here only: token numbers stay valid for the whole shard
    checks = list(line_checks(CleanConfig(**clean), languages))
    paths = tuple(shard_file(store.path("shard", raw), shard, language) for language in languages)
    cut, dropped = 0, Counter[str]()
    kept: list[list[np.ndarray]] = [[np.empty(0, np.int32)] for _ in languages]
    sampled: list[list[np.ndarray]] = [[np.empty(0, bool)] for _ in languages]
    for chunk in read_chunks(RawText(split, tuple(languages), paths), CHUNK_BYTES, is_own=True):
        bad = bad_lines(chunk, checks)
        if documents:
            bad = {index: reason for index, reason in bad.items() if chunk.lines[0][index].strip()}
        chunk = chunk.without(bad)
        if not chunk.lines[0]:
            dropped.update(bad.values())
            continue
        borders = np.array([documents and not line.strip() for line in chunk.lines[0]])
        numbers, empty, too_long = _tokenize_chunk(tokenizers, chunk, text["max_tokens"], borders)
        dropped.update([*bad.values(), *["empty"] * (empty + int(borders.sum())), *["max_tokens"] * too_long])
        left = len(chunk.lines[0]) - empty - too_long
        text_line = int(borders.argmin())
        for side, side_numbers in enumerate(numbers):
            kept[side].append(side_numbers)
            # Sampled by content, so independent of the file's path and of the text before it.
            is_sampled = bool(sample) and digest(chunk.lines[side][text_line]) < sample[side] * 2**64
            sampled[side].append(np.full(left, is_sampled))
    for side, (language, line_tokenizer) in enumerate(zip(languages, tokenizers)):
        text_numbers, words = np.concatenate(kept[side]), line_tokenizer.words
        written = write_tokenized(out, language, words, text_numbers)
        cut += int(np.isin(text_numbers, [number for number in written if len(words[number]) == MAX_TOKEN_CHARS]).sum())
        if sample:
            np.concatenate(sampled[side]).tofile(out / f"{language}.sampled")
    return {"dropped": dict(dropped), "cut": cut}


@lru_cache(maxsize=8)
def _tokenizer(text: str, language: str) -> Tokenizer:
    """Return a tokenizer, kept for the next shards because building it and filling its caches takes time."""
    return Tokenizer(language, TextConfig(**json.loads(text)), CACHED_WORDS)


@lru_cache(maxsize=1)
def _id_tokenizer(vocab: TokenizerVocab) -> IdTokenizer:
    """Return a tokenizer, kept for the next shards with the words that it has seen."""
    return IdTokenizer(vocab)


def _tokenize_chunk(
    tokenizers: Sequence[LineTokenizer], chunk: Chunk, max_tokens: int, borders: np.ndarray
) -> tuple[list[np.ndarray], int, int]:
    """Return the token numbers of each language, and how many lines were empty and too long, which are left out.

    ``borders``: (lines,) bool, empty lines to keep.
    """
    numbers = [
        tokenizer.numbers(b"\n".join([*lines, b""]).decode()) for tokenizer, lines in zip(tokenizers, chunk.lines)
    ]
    lengths = np.array([np.diff(np.flatnonzero(side == LINE_END), prepend=-1) for side in numbers])  # with LINE_END
    empty = (lengths.min(axis=0) == 1) & ~borders
    too_long = ~empty & (lengths.max(axis=0) - 1 > (max_tokens or np.inf))
    if (bad := empty | too_long).any():
        numbers = [side[np.repeat(~bad, some)] for side, some in zip(numbers, lengths)]
    return numbers, int(empty.sum()), int(too_long.sum())
