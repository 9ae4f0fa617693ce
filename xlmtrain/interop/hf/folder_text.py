"""The text processing of a Hugging Face folder: vocabulary, merges, tokenizer, and the fingerprint of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xlmtrain.config.prepare import TextConfig
from xlmtrain.data.format import fingerprint
from xlmtrain.interop.bundle import FinetunedBundle, ModelBundle
from xlmtrain.interop.hf.tokenizer import (
    hf_words,
    read_own_tokenizer,
    read_tokenizer_json,
    read_vocab_json,
    tokenizer_config,
    write_own_tokenizer,
)
from xlmtrain.runtime.atomic_io import read_json, write_json
from xlmtrain.runtime.typed_json import typed
from xlmtrain.text.bpe import END_OF_WORD, Code
from xlmtrain.text.text_files import read_lines
from xlmtrain.text.tokenizer_json import SPECIAL_TOKENS, TokenizerVocab
from xlmtrain.text.vocab import CONTINUATION, SPECIALS, UNK, SpecialIds, Vocab

EXTRA = "xlmtrain.json"
TABLE, BIAS = "encoder.token_embeddings.weight", "head.bias"
NEVER = -40.0
"""A logit whose softmax is below the rounding of fp32. The loss of such a target does not hide all others."""


class NumberedVocab(Vocab):
    """Vocabulary of a model whose folder has no tokenizer: ids without text, and the special ids of ``config.json``."""

    def __init__(self, size: int, special: SpecialIds) -> None:
        super().__init__((f"<{i}>", 0) for i in range(len(Vocab([])), size))
        self.special, self.fingerprint = special, f"{size} ids, {special}"
        self.is_special = np.isin(np.arange(size), special[:-1])


def write_text(folder: Path, bundle: ModelBundle[Any], tokenizer: str) -> None:
    """Write vocabulary and tokenizer; ``tokenizer``: content of ``tokenizer.json``, empty without BPE codes."""
    if isinstance(bundle.vocab, NumberedVocab):
        return
    types = isinstance(bundle, FinetunedBundle) and bundle.pair.token_types
    if isinstance(bundle.vocab, TokenizerVocab):
        write_own_tokenizer(bundle.vocab, folder, bundle.languages, bundle.config.max_positions, types)
        write_json(folder / EXTRA, _extra(bundle, {SPECIAL_TOKENS: bundle.vocab.names}))
        return
    write_json(folder / "vocab.json", {word: i for i, word in enumerate(hf_words(bundle.vocab))})
    write_json(folder / EXTRA, _extra(bundle, asdict(bundle.text)))
    if not tokenizer:
        return
    merges = "".join(f"{code.left} {code.right}\n" for code in bundle.codes)
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    settings = tokenizer_config(bundle.languages, bundle.config.max_positions, bundle.text, types)
    write_json(folder / "tokenizer_config.json", settings)


def read_text(
    path: Path,
    extra: Mapping[str, Any],
    weights: Mapping[str, torch.Tensor],
    languages: Sequence[str],
    special: SpecialIds | None,
) -> tuple[Vocab, list[Code], TextConfig]:
    """Return vocabulary, BPE codes and text settings of the folder ``path``.

    ``extra``: content of its ``xlmtrain.json``. ``special``: ids in ``config.json``, None for XLM, whose folder must
    have a vocabulary. Raises ValueError if files were edited or are missing.
    """
    counts, size = extra.get("counts", []), len(weights[TABLE])
    # Beside a vocab.json of XLM, tokenizer.json may hold its rules in a form that is not read.
    own = None if special is None and (path / "vocab.json").is_file() else read_own_tokenizer(path, size)
    if own:
        vocab = own.with_counts(np.array(counts, np.int64)) if len(counts) == len(own) else own
        _check_fingerprint(extra, vocab, [], languages)
        return vocab, [], TextConfig()
    if special is not None and not counts:
        return NumberedVocab(size, special), [], TextConfig()
    words, codes, text = _read_tokenizer(path)
    if counts:
        _check_fingerprint(extra, _vocab(words[: len(counts)], counts), codes, languages)
        text = typed(TextConfig, extra["text"], "text")
    return _vocab(words[: _listed(weights, len(words))], counts), codes, text


def _extra(bundle: ModelBundle[Any], text: dict[str, Any]) -> dict[str, Any]:
    """Return what transformers does not keep, and the fingerprint."""
    counts, provenance = bundle.vocab.counts.tolist(), bundle.provenance.public()
    mark = _fingerprint(bundle.vocab, bundle.codes, text, bundle.languages)
    more = {"max_tokens": bundle.max_tokens} if isinstance(bundle, FinetunedBundle) else {}
    return {"text": text, "counts": counts, "provenance": provenance, "fingerprint": mark, **more}


def _check_fingerprint(
    extra: Mapping[str, Any], exported: Vocab, codes: Sequence[Code], languages: Sequence[str]
) -> None:
    """Raise ValueError if the parts that determine ids changed since the export."""
    if "fingerprint" not in extra:  # neither version 0.1.0 nor transformers writes one
        return
    if extra["fingerprint"] != _fingerprint(exported, codes, extra["text"], languages):
        raise ValueError(
            f"vocabulary, merges, the languages in config.json or the text settings in {EXTRA} are not those "
            "that the model was exported with; export it again"
        )


def _fingerprint(vocab: Vocab, codes: Sequence[Code], text: dict[str, Any], languages: Sequence[str]) -> str:
    """Return SHA-256 in hex of everything that determines the ids of raw text, and the languages."""
    pairs = "".join(f"{code.left} {code.right}\n" for code in codes)
    return fingerprint(vocab.fingerprint, hashlib.sha256(pairs.encode()).hexdigest(), text, {}, languages)


def _read_tokenizer(path: Path) -> tuple[list[str], list[Code], TextConfig]:
    """Return words, codes and text settings: of ``tokenizer.json`` if its rules are ours, or of the older files."""
    tokenizer, vocab, config = path / "tokenizer.json", path / "vocab.json", path / "tokenizer_config.json"
    if not tokenizer.is_file() and not vocab.is_file():
        raise ValueError("no tokenizer.json and no vocab.json; save the tokenizer into the folder, too")
    if tokenizer.is_file() and (ours := read_tokenizer_json(tokenizer)):
        return ours
    if not vocab.is_file():
        raise ValueError("tokenizer.json: not the tokenizer that this program exported, and there is no vocab.json")
    # True is the default of transformers' XLMTokenizer.
    both = bool((read_json(config) if config.is_file() else {}).get("do_lowercase_and_remove_accent", True))
    return read_vocab_json(vocab), _codes(path / "merges.txt"), TextConfig(lowercase=both, remove_accents=both)


def _listed(weights: Mapping[str, torch.Tensor], words: int) -> int:
    """Return how many of the words are the vocabulary, and not symbols that are read as UNK and never predicted.

    Those come last. Training with transformers may have given them embeddings of their own: then they are words, too.
    """
    unknown = (weights[TABLE][:words] == weights[TABLE][UNK]).all(dim=1)
    never = (weights[BIAS][:words] < NEVER / 2 if BIAS in weights else unknown).long()
    listed = words - int(never.flip(0).cumprod(0).sum())
    return listed if unknown[listed:].all() else words


def _vocab(words: list[str], counts: list[int]) -> Vocab:
    """Return the vocabulary of Hugging Face's ``words``: ``word</w>`` becomes ``word``, ``part`` becomes ``part@@``."""
    if tuple(words[: len(SPECIALS)]) != SPECIALS:
        raise ValueError(f"the vocabulary does not begin with the {len(SPECIALS)} special symbols")
    if len(counts) > len(words):
        raise ValueError(f"{EXTRA}: {len(counts)} counts for {len(words)} words")
    ours = [word.removesuffix(END_OF_WORD) if word.endswith(END_OF_WORD) else word + CONTINUATION for word in words]
    return Vocab(list(zip(ours, counts + [0] * (len(words) - len(counts))))[len(SPECIALS) :])


def _codes(path: Path) -> list[Code]:
    """Read lines ``left right``; a line ``#version`` is skipped. The counts are not in the file: 0."""
    if not path.is_file():
        return []
    lines = (line for _, line in read_lines(path, "merges"))
    pairs = [line.split(" ")[:2] for line in lines if line and not line.startswith("#version")]
    return [Code(left, right, 0) for left, right in pairs]
