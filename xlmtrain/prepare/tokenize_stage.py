"""Stage ``tokenize``: the raw lines of a shard -> cleaned and tokenized text.

Memory is bounded by the size of a shard.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from xlmtrain.config.prepare import CleanConfig, TextConfig
from xlmtrain.prepare.artifacts import ArtifactStore
from xlmtrain.prepare.raw_files import Chunk, RawText, read_chunks
from xlmtrain.prepare.shard_raw import CHUNK_BYTES, shard_file
from xlmtrain.prepare.token_shards import write_tokenized
from xlmtrain.text.filters import Check, line_checks
from xlmtrain.text.moses import MAX_TOKEN_CHARS
from xlmtrain.text.tokenizer import LINE_END, Tokenizer

CACHED_WORDS = 1 << 19
"""Words that a tokenizer remembers."""


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
) -> dict[str, Any]:
    """Clean and tokenize a shard; the files are described in :mod:`xlmtrain.prepare.token_shards`.

    ``raw``: key of an artifact. ``sample``: for each language the fraction of the text whose words are counted for BPE
    training, empty if this is not training text; ``{language}.sampled`` has one byte a sentence, 1 if it is counted.
    In the result, ``cut`` are the pieces of full length of words that were too long.
    """
    tokenizers = [_tokenizer(json.dumps(text), language) for language in languages]
    for tokenizer in tokenizers:
        tokenizer.evict()  # here only: token numbers stay valid for the whole shard
    checks = list(line_checks(CleanConfig(**clean), languages))
    paths = tuple(shard_file(store.path("shard", raw), shard, language) for language in languages)
    cut, dropped = 0, Counter[str]()
    kept: list[list[np.ndarray]] = [[np.empty(0, np.int32)] for _ in languages]
    sampled: list[list[np.ndarray]] = [[np.empty(0, bool)] for _ in languages]
    for chunk in read_chunks(RawText(split, tuple(languages), paths), CHUNK_BYTES, is_own=True):
        bad = _bad_lines(chunk, checks)
        chunk = chunk.without(bad)
        if not chunk.lines[0]:
            dropped.update(bad.values())
            continue
        numbers, empty, too_long = _tokenize_chunk(tokenizers, chunk, text["max_tokens"])
        dropped.update([*bad.values(), *["empty"] * empty, *["max_tokens"] * too_long])
        left = len(chunk.lines[0]) - empty - too_long
        for side, some in enumerate(numbers):
            kept[side].append(some)
            # Sampled by content, so independent of the file's path and of the text before it.
            is_sampled = bool(sample) and _digest(chunk.lines[side][0]) < sample[side] * 2**64
            sampled[side].append(np.full(left, is_sampled))
    for side, (language, tokenizer) in enumerate(zip(languages, tokenizers)):
        text_numbers, words = np.concatenate(kept[side]), tokenizer.words
        written = write_tokenized(out, language, words, text_numbers)
        cut += int(np.isin(text_numbers, [number for number in written if len(words[number]) == MAX_TOKEN_CHARS]).sum())
        if sample:
            np.concatenate(sampled[side]).tofile(out / f"{language}.sampled")
    return {"dropped": dict(dropped), "cut": cut}


def _digest(line: bytes) -> int:
    """Return 64 bits that depend on a line without white space at its ends."""
    return int.from_bytes(hashlib.blake2b(line.strip(), digest_size=8).digest(), "little")


@lru_cache(maxsize=8)
def _tokenizer(text: str, language: str) -> Tokenizer:
    """Return a tokenizer, kept for the next shards because building it and filling its caches takes time."""
    return Tokenizer(language, TextConfig(**json.loads(text)), CACHED_WORDS)


def _bad_lines(chunk: Chunk, checks: Sequence[tuple[str, Check]]) -> dict[int, str]:
    """Return the indices in a chunk of the lines to drop, with reasons."""
    bad = {}
    for index, aligned in enumerate(zip(*chunk.lines) if checks else ()):
        sides = [line.decode() for line in aligned]
        if reason := next((reason for reason, check in checks if check(sides)), None):
            bad[index] = reason
    return bad


def _tokenize_chunk(
    tokenizers: Sequence[Tokenizer], chunk: Chunk, max_tokens: int
) -> tuple[list[np.ndarray], int, int]:
    """Return the token numbers of each language, and how many lines were empty and too long, which are left out."""
    numbers = [
        tokenizer.numbers(b"\n".join([*lines, b""]).decode()) for tokenizer, lines in zip(tokenizers, chunk.lines)
    ]
    lengths = np.array([np.diff(np.flatnonzero(side == LINE_END), prepend=-1) for side in numbers])  # with LINE_END
    empty = lengths.min(axis=0) == 1
    too_long = ~empty & (lengths.max(axis=0) - 1 > (max_tokens or np.inf))
    if (bad := empty | too_long).any():
        numbers = [side[np.repeat(~bad, some)] for side, some in zip(numbers, lengths)]
    return numbers, int(empty.sum()), int(too_long.sum())
