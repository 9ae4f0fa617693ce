"""The artifact of stage ``tokenizer``: what the text is split with, a tokenizer that is given or trained on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from xlmtrain.config.prepare import CleanConfig
from xlmtrain.prepare.artifacts import ArtifactStore
from xlmtrain.prepare.raw_files import RawText, read_chunks
from xlmtrain.prepare.shard_raw import CHUNK_BYTES, bad_lines, digest, shard_file
from xlmtrain.text.filters import line_checks
from xlmtrain.text.new_tokenizer import new_tokenizer
from xlmtrain.text.tokenizer_extension import extended_tokenizer
from xlmtrain.text.tokenizer_json import SPECIAL_TOKENS, TOKENIZER_FILE, TokenizerVocab, read_tokenizer

_SOURCE = "sentencepiece.model"  # empty for other tokenizers


def copy_tokenizer(store: ArtifactStore, out: Path, path: str, fingerprint: str) -> dict[str, Any]:
    """Copy the given tokenizer. ``fingerprint`` only makes the key follow the content."""
    return _stored(read_tokenizer(Path(path)), out)


def train_tokenizer(
    store: ArtifactStore,
    out: Path,
    shards: list[list[Any]],
    rates: dict[str, float],
    clean: dict[str, Any],
    model: str,
    size: int,
) -> dict[str, Any]:
    """Train a tokenizer of ``size`` entries on the raw training ``shards``: (shard key, number, languages).

    ``rates``: fraction of each language's text to learn from. ``clean``: lines that it drops are left out.
    """
    return _stored(new_tokenizer(_sampled_texts(store, shards, rates, clean), model, size), out)


def extend_tokenizer(
    store: ArtifactStore,
    out: Path,
    shards: list[list[Any]],
    rates: dict[str, float],
    clean: dict[str, Any],
    path: str,
    fingerprint: str,
    entries: int,
) -> dict[str, Any]:
    """Copy the given tokenizer with up to ``entries`` further entries; the other arguments are those of both others."""
    texts = _sampled_texts(store, shards, rates, clean)
    return _stored(extended_tokenizer(read_tokenizer(Path(path)), texts, entries), out)


def _sampled_texts(
    store: ArtifactStore, shards: list[list[Any]], rates: dict[str, float], clean: dict[str, Any]
) -> Iterator[list[str]]:
    for key, number, languages in shards:
        yield from _sampled(store.path("shard", key), number, languages, rates, CleanConfig(**clean))


def _sampled(
    raw: Path, number: int, languages: list[str], rates: dict[str, float], clean: CleanConfig
) -> Iterator[list[str]]:
    """Yield the sampled lines of a shard, a chunk of a language at a time."""
    checks = list(line_checks(clean, languages))
    paths = tuple(shard_file(raw, number, language) for language in languages)
    for chunk in read_chunks(RawText("train", tuple(languages), paths), CHUNK_BYTES, is_own=True):
        chunk = chunk.without(bad_lines(chunk, checks))
        for language, lines in zip(languages, chunk.lines):
            if lines and digest(lines[0]) < rates[language] * 2**64:
                yield [line.decode() for line in lines]


def stored_vocab(store: ArtifactStore, key: str) -> TokenizerVocab:
    """Return the entries of the tokenizer of an artifact, read once per process."""
    return _read(store.path("tokenizer", key), json.dumps(store.result("tokenizer", key)))


@lru_cache(maxsize=1)
def _read(directory: Path, result: str) -> TokenizerVocab:
    stored = json.loads(result)
    vocab = TokenizerVocab.read_from(directory, stored[SPECIAL_TOKENS], stored["size"])
    vocab.source = (directory / _SOURCE).read_bytes()
    return vocab


def _stored(vocab: TokenizerVocab, out: Path) -> dict[str, Any]:
    """Write the tokenizer; return its symbols and size, which :class:`TokenizerVocab` needs, too."""
    (out / TOKENIZER_FILE).write_bytes(vocab.content)
    (out / _SOURCE).write_bytes(vocab.source)
    return {SPECIAL_TOKENS: vocab.names, "size": len(vocab)}
