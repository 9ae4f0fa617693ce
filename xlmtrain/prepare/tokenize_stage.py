"""Stage ``tokenize``: the raw lines of a shard -> cleaned and tokenized text, with word counts for BPE training.

The arguments of a stage are JSON values that name everything its result depends on
(:mod:`xlmtrain.prepare.artifacts`). Memory is bounded by the size of a shard.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from xlmtrain.config.prepare import CleanConfig, TextConfig
from xlmtrain.prepare.artifacts import ArtifactStore
from xlmtrain.prepare.dedup import is_held_out, read_duplicates
from xlmtrain.prepare.raw_files import Chunk, RawText, read_chunks
from xlmtrain.prepare.shard_raw import CHUNK_BYTES, line_digest, read_digests, shard_file
from xlmtrain.prepare.token_shards import write_tokenized, write_word_counts
from xlmtrain.text.filters import line_checks
from xlmtrain.text.tokenizer import LINE_END, Tokenizer


def tokenize(
    store: ArtifactStore,
    out: Path,
    raw: str,
    shard: int,
    split: str,
    languages: list[str],
    text: dict[str, Any],
    clean: dict[str, Any],
    held_out: str | None,
    duplicates: str | None,
    sample: list[float],
) -> dict[str, Any]:
    """Clean and tokenize a shard; the files are described in :mod:`xlmtrain.prepare.token_shards`.

    ``raw``, ``held_out``, ``duplicates``: keys of the artifacts with the raw lines and with the lines to drop.
    ``sample``: for each language the fraction of the text whose words are counted; empty if this is not training text.
    Returns sentences, words per language, lines dropped by reason, and for training text the number of words counted
    and the characters that occur.
    """
    tokenizers = [_tokenizer(json.dumps(text), language) for language in languages]
    cleaner = _Cleaner(store.path("shard", raw), shard, languages, CleanConfig(**clean))
    if held_out:
        cleaner.drop_held_out(store.path("held_out", held_out))
    if duplicates:
        cleaner.drop_duplicates(store.path("duplicates", duplicates))
    paths = tuple(shard_file(store.path("shard", raw), shard, language) for language in languages)
    for tokenizer in tokenizers:
        tokenizer.evict()  # here only: token numbers stay valid for the whole shard
    sentences = 0
    kept: list[list[np.ndarray]] = [[np.empty(0, np.int32)] for _ in languages]
    sampled: list[list[np.ndarray]] = [[np.empty(0, np.int32)] for _ in languages]
    for chunk in read_chunks(RawText(split, tuple(languages), paths), CHUNK_BYTES):
        if not (chunk := cleaner.clean(chunk)).lines[0]:
            continue
        numbers, dropped = _tokenize_chunk(tokenizers, chunk, text["max_tokens"])
        cleaner.dropped.update(dropped)
        sentences += len(chunk.lines[0]) - sum(dropped.values())
        for side, some in enumerate(numbers):
            kept[side].append(some)
            # Sampled by content, so independent of the file's path and of the text before it.
            if sample and line_digest(chunk.lines[side][0]) < sample[side] * 2**64:
                sampled[side].append(some)
    words, counted, characters = [], [], set[str]()
    for side, (language, tokenizer) in enumerate(zip(languages, tokenizers)):
        known, all_numbers = tokenizer.words, np.concatenate(kept[side])
        words.append(int(np.count_nonzero(all_numbers != LINE_END)))
        written = write_tokenized(out, language, known, all_numbers)
        if sample:
            counts = np.bincount(np.concatenate(sampled[side]), minlength=len(known))[written]
            write_word_counts(out, language, counts)
            counted.append(int(counts.sum()))
            characters.update(*(known[number] for number in written))
    return {
        "sentences": sentences,
        "words": words,
        "dropped": {reason: count for reason, count in cleaner.dropped.items() if count},
        "counted": counted,
        "characters": "".join(sorted(characters)),
    }


@lru_cache(maxsize=8)
def _tokenizer(text: str, language: str) -> Tokenizer:
    """Return a tokenizer, kept for the next shards because building it and filling its caches takes time."""
    return Tokenizer(language, TextConfig(**json.loads(text)))


def _tokenize_chunk(
    tokenizers: Sequence[Tokenizer], chunk: Chunk, max_tokens: int
) -> tuple[list[np.ndarray], dict[str, int]]:
    """Return the token numbers of each language, and the lines dropped by reason; of a pair both sides are dropped."""
    numbers = [
        tokenizer.numbers(b"\n".join([*lines, b""]).decode()) for tokenizer, lines in zip(tokenizers, chunk.lines)
    ]
    lengths = np.array([np.diff(np.flatnonzero(side == LINE_END), prepend=-1) for side in numbers])  # with LINE_END
    empty = lengths.min(axis=0) == 1
    too_long = ~empty & (lengths.max(axis=0) - 1 > (max_tokens or np.inf))
    if (bad := empty | too_long).any():
        numbers = [side[np.repeat(~bad, some)] for side, some in zip(numbers, lengths)]
    return numbers, {"empty": int(empty.sum()), "too_long": int(too_long.sum())}


class _Cleaner:
    """Removes lines from the chunks of a shard; ``dropped`` counts them by reason."""

    def __init__(self, raw: Path, shard: int, languages: Sequence[str], clean: CleanConfig) -> None:
        self._raw, self._shard, self._languages = raw, shard, languages
        self._checks = list(line_checks(clean, languages))
        self._reasons: dict[int, str] = {}
        self.dropped: Counter[str] = Counter()

    def drop_held_out(self, held_out: Path) -> None:
        """Drop lines that are in the held-out text, on either side."""
        for language in self._languages:
            found = is_held_out(held_out, language, read_digests(self._raw, self._shard, language))
            self._reasons.update(dict.fromkeys(np.flatnonzero(found).tolist(), "overlap"))

    def drop_duplicates(self, duplicates: Path) -> None:
        """Drop lines that repeat an earlier line."""
        for index in read_duplicates(duplicates, self._raw.name, self._shard).tolist():
            self._reasons.setdefault(index, "duplicate")

    def clean(self, chunk: Chunk) -> Chunk:
        """Return the chunk without the lines to drop."""
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
