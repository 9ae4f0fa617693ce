"""Stage ``tokenize``: the raw lines of a shard -> cleaned and tokenized text, with word counts for BPE training.

Memory is bounded by the size of a shard.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
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
from xlmtrain.text.filters import Check, line_checks
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

    ``raw``, ``held_out``, ``duplicates``: keys of artifacts. ``sample``: for each language the fraction of the text
    whose words are counted for BPE training, and the characters listed; empty if this is not training text.
    """
    tokenizers = [_tokenizer(json.dumps(text), language) for language in languages]
    for tokenizer in tokenizers:
        tokenizer.evict()  # here only: token numbers stay valid for the whole shard
    known_lines = _known_lines(store, raw, shard, languages, held_out, duplicates)
    checks = list(line_checks(CleanConfig(**clean), languages))
    paths = tuple(shard_file(store.path("shard", raw), shard, language) for language in languages)
    sentences, dropped = 0, Counter[str]()
    kept: list[list[np.ndarray]] = [[np.empty(0, np.int32)] for _ in languages]
    sampled: list[list[np.ndarray]] = [[np.empty(0, np.int32)] for _ in languages]
    for chunk in read_chunks(RawText(split, tuple(languages), paths), CHUNK_BYTES):
        bad = _bad_lines(chunk, known_lines, checks)
        chunk = chunk.without(bad)
        if not chunk.lines[0]:
            dropped.update(bad.values())
            continue
        numbers, empty, too_long = _tokenize_chunk(tokenizers, chunk, text["max_tokens"])
        dropped.update([*bad.values(), *["empty"] * empty, *["max_tokens"] * too_long])
        sentences += len(chunk.lines[0]) - empty - too_long
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
        "dropped": dict(dropped),
        "counted": counted,
        "characters": "".join(sorted(characters)),
    }


@lru_cache(maxsize=8)
def _tokenizer(text: str, language: str) -> Tokenizer:
    """Return a tokenizer, kept for the next shards because building it and filling its caches takes time."""
    return Tokenizer(language, TextConfig(**json.loads(text)))


def _known_lines(
    store: ArtifactStore, raw: str, shard: int, languages: list[str], held_out: str | None, duplicates: str | None
) -> dict[int, str]:
    """Return the indices of a shard's lines that occur elsewhere, with the reason for dropping them."""
    reasons: dict[int, str] = {}
    if duplicates:
        found = read_duplicates(store.path("duplicates", duplicates), raw, shard)
        reasons.update(dict.fromkeys(found.tolist(), "drop_duplicates"))
    for language in languages if held_out else []:
        digests = read_digests(store.path("shard", raw), shard, language)
        found = np.flatnonzero(is_held_out(store.path("held_out", str(held_out)), language, digests))
        reasons.update(dict.fromkeys(found.tolist(), "decontaminate"))
    return reasons


def _bad_lines(chunk: Chunk, known: Mapping[int, str], checks: Sequence[tuple[str, Check]]) -> dict[int, str]:
    """Return the indices in a chunk of the lines to drop, with reasons; ``known``: those of lines of the shard."""
    bad = {}
    for index, aligned in enumerate(zip(*chunk.lines)):
        reason = known.get(chunk.first - 1 + index)
        if checks and not reason:
            sides = [line.decode() for line in aligned]
            reason = next((reason for reason, check in checks if check(sides)), None)
        if reason:
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
