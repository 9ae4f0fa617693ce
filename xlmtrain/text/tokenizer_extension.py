"""Further entries for a tokenizer, learned from text by merging its pieces; its own entries keep their ids.

BPE gets them as merges after its own, WordPiece as words and pieces of words, unigram as pieces that score above their
parts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from xlmtrain.errors import DataError
from xlmtrain.text.bpe import END_OF_WORD
from xlmtrain.text.bpe_trainer import learn_bpe
from xlmtrain.text.tokenizer_json import TokenizerVocab, tokenizer_errors

_FIRST_CHARACTER = 0x100  # above those of END_OF_WORD
_SURROGATES = 0xD800, 0x800  # their first code point, and how many
_BONUS = 1.0
"""Log-probability of a new unigram piece above the sum of its parts'."""
_LOWEST_SCORE = -1000.0


def extended_tokenizer(vocab: TokenizerVocab, texts: Iterable[list[str]], entries: int) -> TokenizerVocab:
    """Return ``vocab`` with up to ``entries`` further entries: the most frequent pairs of neighbouring pieces, merged.

    ``texts``: lists of lines. Raises DataError for a tokenizer that cannot be extended.
    """
    check_extensible(vocab)
    content = json.loads(vocab.content)
    model, known = content["model"], set(vocab.tokens)
    prefix = model.get("continuing_subword_prefix") or ""
    new: dict[str, tuple[str, str]] = {}
    # A pair within words and the same pair at their ends are two codes, but one entry.
    for code in learn_bpe(_words(vocab, texts), 2 * entries):
        left, right = (_joined(vocab, part, prefix) for part in (code.left, code.right))
        token = left + right.removeprefix(prefix)
        if token not in known and token not in new and len(new) < entries:
            new[token] = left, right
    if model["type"] == "Unigram":
        _add_pieces(model, vocab, new)
    else:
        # Added tokens that are no entries of the model would get other ids.
        model["vocab"] |= {token["content"]: token["id"] for token in content["added_tokens"]}
        model["vocab"] |= {token: len(vocab) + number for number, token in enumerate(new)}
        if model["type"] == "BPE":
            as_text = bool(model["merges"]) and isinstance(model["merges"][0], str)
            model["merges"] += [" ".join(parts) if as_text else list(parts) for parts in new.values()]
    return TokenizerVocab(json.dumps(content, ensure_ascii=False).encode(), vocab.names, len(vocab) + len(new))


def _add_pieces(model: dict[str, Any], vocab: TokenizerVocab, new: Mapping[str, tuple[str, str]]) -> None:
    """Append to the pieces of a unigram ``model``, whose places are their ids."""
    model["vocab"] += [[token, _LOWEST_SCORE] for token in vocab.tokens[len(model["vocab"]) :]]
    scores: dict[str, float] = dict(model["vocab"])
    for token, (left, right) in new.items():
        scores[token] = scores[left] + scores[right] + _BONUS
        model["vocab"].append([token, scores[token]])


def check_extensible(vocab: TokenizerVocab) -> None:
    """Raise DataError for a tokenizer without a division of text into words, or of a kind that cannot be extended."""
    kind = type(vocab.tokenizer.model).__name__
    if vocab.source:
        raise DataError(
            "extend_tokenizer: a sentencepiece .model cannot be extended; give a tokenizer.json, which transformers' "
            "save_pretrained writes"
        )
    if kind not in ("BPE", "Unigram", "WordPiece") or vocab.tokenizer.pre_tokenizer is None:
        raise DataError(
            "extend_tokenizer: works for BPE, Unigram and WordPiece with a pre-tokenizer, which divides text into "
            f"words; this tokenizer is {kind} {'with' if vocab.tokenizer.pre_tokenizer else 'without'} one"
        )


def pieces_of_new_entries(old: TokenizerVocab, new: TokenizerVocab) -> list[list[int]] | None:
    """Return the ids in ``old`` that the entries which ``new`` has after those of ``old`` were divided into.

    None if ``new`` is not ``old`` with further entries.
    """
    if len(new) <= len(old) or new.names != old.names or new.tokens[: len(old)] != old.tokens:
        return None
    return [_piece_ids(old, token) for token in new.tokens[len(old) :]]


def _piece_ids(vocab: TokenizerVocab, token: str) -> list[int]:
    model = vocab.tokenizer.model
    if type(model).__name__ != "WordPiece" or not token.startswith(model.continuing_subword_prefix):
        return [piece.id for piece in model.tokenize(token)]
    # The longest pieces from the left, as within a word.
    ids, prefix, rest = [], model.continuing_subword_prefix, token.removeprefix(model.continuing_subword_prefix)
    while rest:
        size = next(
            (size for size in range(len(rest), 0, -1) if model.token_to_id(prefix + rest[:size]) is not None), 0
        )
        if not size:
            return [vocab.special.unk]
        ids.append(model.token_to_id(prefix + rest[:size]))
        rest = rest[size:]
    return ids


def _words(vocab: TokenizerVocab, texts: Iterable[list[str]]) -> Iterator[tuple[str, int]]:
    """Yield the words of a text, each piece written as one character, with their counts; none with unknown parts."""
    tokenizer, counts = vocab.tokenizer, Counter[str]()
    with tokenizer_errors("extend_tokenizer: cannot divide the text into words"):
        for lines in texts:
            for line in lines:
                text = tokenizer.normalizer.normalize_str(line) if tokenizer.normalizer else line
                counts.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text))
        for word, count in counts.items():
            pieces = tokenizer.model.tokenize(word)
            if not any(piece.id == vocab.special.unk or piece.value.startswith("<0x") for piece in pieces):
                yield "".join(_character(piece.id) for piece in pieces), count


def _character(id: int) -> str:
    code = _FIRST_CHARACTER + id
    return chr(code + _SURROGATES[1] * (code >= _SURROGATES[0]))


def _joined(vocab: TokenizerVocab, characters: str, prefix: str) -> str:
    """Return the entry that some pieces, written as characters, are joined to."""
    codes: Sequence[int] = [ord(character) for character in characters.removesuffix(END_OF_WORD)]
    tokens = [vocab.tokens[code - _FIRST_CHARACTER - _SURROGATES[1] * (code >= _SURROGATES[0])] for code in codes]
    return tokens[0] + "".join(token.removeprefix(prefix) for token in tokens[1:])
