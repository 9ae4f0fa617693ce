"""Tokenizers of Hugging Face's ``tokenizers`` library: the entries of a ``tokenizer.json`` as a vocabulary.

Sequences need five special symbols of it, by role: those that begin and end a sentence, padding, mask, unknown. A
folder names them in ``tokenizer_config.json`` or ``special_tokens_map.json``; else the usual spellings are taken.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from xlmtrain.errors import DataError, damage_as
from xlmtrain.text.delimiters import delimit_as_in_training, set_pair_layout
from xlmtrain.text.sentencepiece_model import sentencepiece_tokenizer
from xlmtrain.text.vocab import SpecialIds, Vocab

try:
    import tokenizers
except ImportError:
    tokenizers = None  # type: ignore[assignment]

TOKENIZER_FILE = "tokenizer.json"
COUNTS_FILE = "token_counts"
SPECIAL_TOKENS = "special_tokens"
"""Key of the symbols' names by role, in the text settings of prepared data."""

_ROLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bos": (("cls_token", "bos_token"), ("[CLS]", "<s>", "<bos>", "<|begin_of_text|>")),
    "eos": (("sep_token", "eos_token"), ("[SEP]", "</s>", "<eos>", "<|end_of_text|>")),
    "pad": (("pad_token",), ("[PAD]", "<pad>", "<|pad|>")),
    "unk": (("unk_token",), ("[UNK]", "<unk>")),
    "mask": (("mask_token",), ("[MASK]", "<mask>", "<|mask|>")),
}
"""Role -> its keys in the files of a folder, the preferred first, and usual spellings."""
_LARGEST_GAP = 1 << 20


class TokenizerVocab(Vocab):
    """The entries of a tokenizer. Masking neither selects nor draws special ones.

    ``tokenizer``: without truncation and padding. ``content``: of its file. ``names``: role -> special symbol.
    ``counts`` are 0 unless they were read. ``source``: the sentencepiece model that it was converted from, empty if
    none is known.
    """

    source = b""

    def __init__(self, content: bytes, names: Mapping[str, str], size: int = 0, where: str = TOKENIZER_FILE) -> None:
        """``size``: entries of the model, if it has more than the tokenizer. ``where``: names the file in errors.

        Raises DataError if the file is damaged, or lacks a symbol that sequences need.
        """
        self.content, self.names = content, dict(names)
        self.tokenizer = parse_tokenizer(content, where)
        entries: dict[str, int] = self.tokenizer.get_vocab(with_added_tokens=True)
        added = self.tokenizer.get_added_tokens_decoder()
        _check(content, names, entries, {token.content for token in added.values()}, where)
        size = max(size, max(entries.values()) + 1)
        if size > len(entries) + _LARGEST_GAP:
            raise DataError(f"{where}: has {len(entries)} entries, but ids up to {size - 1}; is it damaged?")
        ids = {role: entries.get(names.get(role, ""), -1) for role in _ROLES}
        self.tokens = [f"<unused {i}>" for i in range(size)]
        special = np.ones(size, bool)  # ids without an entry are never drawn
        for token, i in entries.items():
            self.tokens[i], special[i] = token, False
        special[[i for i, token in added.items() if token.special] + [i for i in ids.values() if i >= 0]] = True
        self._set_kinds(special, *_word_borders(self.tokens, special))
        self.special = SpecialIds(**ids, others=tuple(np.flatnonzero(special).tolist()))
        self.maskable = ~special
        self.counts = np.zeros(size, np.int64)
        parts = [hashlib.sha256(content).hexdigest(), self.names, size]
        self.fingerprint = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def id(self, word: str) -> int:
        """Return the id of a word that is one entry, else that of unknown text."""
        for text in (f" {word}", word):
            ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
            if len(ids) == 1 and self.token(ids[0]) == word:
                return ids[0]
        return self.special.unk

    def token(self, id: int) -> str:
        """Return the text of an entry; one that does not begin a word is written ``##text``."""
        if self.is_special[id]:
            return self.tokens[id]
        text = str(self.tokenizer.decode([id], skip_special_tokens=False)).strip()
        if not text or "\ufffd" in text:  # a part of a letter
            return self.tokens[id]
        return text if self.is_word[id] or text.startswith("##") else f"##{text}"

    def decode(self, ids: Iterator[int] | Sequence[int]) -> str:  # type: ignore[override]
        """Return the text of ``ids``; special symbols are spelt out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def write_to(self, directory: Path) -> None:
        """Write tokenizer and counts."""
        (directory / TOKENIZER_FILE).write_bytes(self.content)
        self.counts.astype("<i8").tofile(directory / COUNTS_FILE)

    @classmethod
    def read_from(cls, directory: Path, names: Mapping[str, str], size: int) -> TokenizerVocab:
        """Read what :meth:`write_to` wrote; the counts may be missing. Raises DataError if a file is damaged."""
        try:
            vocab = cls((directory / TOKENIZER_FILE).read_bytes(), names, size, str(directory / TOKENIZER_FILE))
        except OSError as error:
            raise DataError(f"{directory / TOKENIZER_FILE}: {error.strerror}; put the original file back") from None
        if (path := directory / COUNTS_FILE).is_file():
            counts = np.fromfile(path, "<i8")
            if len(counts) != len(vocab) or (counts < 0).any():
                raise DataError(f"{path}: not a count for each of {len(vocab)} entries; put the original file back")
            return vocab.with_counts(counts)
        return vocab

    def with_counts(self, counts: np.ndarray) -> TokenizerVocab:
        """Return a copy with these ``counts``, (len(vocab),)."""
        vocab = copy(self)
        vocab.counts = counts
        return vocab

    def with_pair_layout(self, separators: int, token_types: bool) -> TokenizerVocab:
        """Return the tokenizer with the delimiters of :func:`~xlmtrain.text.delimiters.set_pair_layout`."""
        tokenizer = parse_tokenizer(self.content, TOKENIZER_FILE)
        if not set_pair_layout(tokenizer, self.names["bos"], self.names["eos"], separators, token_types):
            return self
        return TokenizerVocab(tokenizer.to_str().encode(), self.names, len(self)).with_counts(self.counts)


def read_tokenizer(path: Path) -> TokenizerVocab:
    """Read a ``tokenizer.json``, a sentencepiece ``.model``, or a folder with one of them.

    ``config.json`` of a model in the folder gives the number of entries. Raises DataError for a damaged file, and for a
    tokenizer without a symbol that sequences need.
    """
    require_tokenizers()
    file, folder = path, path.parent if path.name == TOKENIZER_FILE else None
    if path.is_dir():
        models = sorted(path.glob("*.model"))
        file, folder = path / TOKENIZER_FILE, path
        if not file.is_file() and models:
            file = models[0]
            if len(models) > 1:
                raise DataError(f"tokenizer={path}: has {file.name} and {models[1].name}; give one of the files")
    try:
        content = file.read_bytes()
    except OSError as error:
        advice = "give a tokenizer.json, a sentencepiece .model or a folder with one; transformers' save_pretrained"
        raise DataError(f"tokenizer={file}: {error.strerror}; {advice} writes a tokenizer.json") from None
    if file.suffix == ".model":
        return _from_sentencepiece(content, str(file))
    settings: dict[str, Any] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json") if folder else ():
        settings |= {key: value for key, value in _settings(folder / name).items() if value}  # type: ignore[operator]
    vocab = TokenizerVocab(content, _names(settings, parse_tokenizer(content, str(file)), str(file)), where=str(file))
    size = (_settings(folder / "config.json") if folder else {}).get("vocab_size", 0)
    if not isinstance(size, int) or 0 < size < len(vocab):
        raise DataError(
            f"{file}: ids up to {len(vocab) - 1}, and config.json beside it says vocab_size {size!r}: the model has "
            "no rows for added tokens; enlarge it with transformers' resize_token_embeddings, or remove the tokens"
        )
    return TokenizerVocab(content, vocab.names, size, str(file)) if size > len(vocab) else vocab


def _from_sentencepiece(content: bytes, where: str) -> TokenizerVocab:
    """Return the vocabulary of a ``.model``. The symbols that it lacks, mask and padding mostly, follow its pieces."""
    tokenizer, unknown = sentencepiece_tokenizer(content, where)
    added = {"bos": "<s>", "eos": "</s>", "pad": "<pad>", "mask": "<mask>"}
    names = {**added, **_names({"unk_token": unknown}, tokenizer, where)}
    new = [added[role] for role in added if tokenizer.token_to_id(names[role]) is None]
    tokens = [tokenizers.AddedToken(name, lstrip=name == names["mask"], rstrip=name == names["mask"]) for name in new]
    tokenizer.add_special_tokens(tokens)
    delimit_as_in_training(tokenizer, names)
    vocab = TokenizerVocab(tokenizer.to_str().encode(), names, where=where)
    vocab.source = content
    return vocab


def require_tokenizers() -> None:
    """Raise DataError, saying how to install it, if the tokenizers package is missing."""
    if tokenizers is None:
        raise DataError("tokenizer: the tokenizers package is missing; install it with: pip install 'xlmtrain[hf]'")


@contextmanager
def tokenizer_errors(where: str, advice: str = "") -> Iterator[None]:
    """Turn any error of the library, panics of its Rust code included, into a DataError that begins with ``where``."""
    try:
        with damage_as(DataError, where, advice):
            yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise DataError(f"{where} ({str(error)[:400]}){advice}") from None


def parse_tokenizer(content: bytes, where: str) -> Any:
    """Return the tokenizer in a ``tokenizer.json``, without truncation and padding. Raises DataError for damage."""
    require_tokenizers()
    version = tokenizers.__version__
    with tokenizer_errors(
        f"{where}: not a tokenizer that tokenizers {version} reads", "; save it again, or copy it again"
    ):
        tokenizer = tokenizers.Tokenizer.from_str(content.decode())
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return tokenizer


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    with damage_as(DataError, f"{path}: damaged"):
        return dict(json.loads(path.read_bytes()))


def _names(settings: Mapping[str, Any], tokenizer: Any, where: str) -> dict[str, str]:
    """Return role -> symbol, as the settings say, else by its usual spelling."""
    names = {}
    for role, (keys, spellings) in _ROLES.items():
        found = next((settings[key] for key in keys if settings.get(key)), None)
        if isinstance(found, dict):
            found = found.get("content")
        if found is None:
            found = next((spelling for spelling in spellings if tokenizer.token_to_id(spelling) is not None), None)
        if isinstance(found, str):
            names[role] = found
        elif found is not None:
            raise DataError(f"{where}: the {role} token in the files beside it is {found!r}, not text")
    return names


def _check(content: bytes, names: Mapping[str, str], entries: Mapping[str, int], added: set[str], where: str) -> None:
    """Raise DataError if a symbol or an id is not what sequences, masks and the model need."""
    for role, (keys, spellings) in _ROLES.items():
        name = names.get(role)
        if name is None and role != "unk":
            raise DataError(
                f"{where}: the tokenizer has no {role} token, which sequences need; name it in special_tokens_map.json "
                f'beside the file, {{"{keys[0]}": "{spellings[0]}"}}, and if it is new, add it before, in Python: '
                f"t = tokenizers.Tokenizer.from_file(...); t.add_special_tokens([{spellings[0]!r}]); t.save(...)"
            )
        if name is not None and name not in entries:
            raise DataError(
                f"{where}: its {role} token {name!r} is not in the tokenizer; load and save it with transformers' "
                "AutoTokenizer, which adds it, or correct the name"
            )
    mask = names["mask"]
    if mask not in added or mask in (names[role] for role in names if role != "mask"):
        raise DataError(
            f"{where}: its mask token {mask!r} is an ordinary piece of text, or has another role, too; add one with "
            "t.add_special_tokens"
        )
    with damage_as(DataError, f"{where}: damaged"):
        listed = {token["content"]: token["id"] for token in json.loads(content)["added_tokens"]}
    for name, i in listed.items():
        if entries.get(name) != i:
            raise DataError(
                f"{where}: the added token {name!r} has the id {i}, but the library gives it {entries.get(name)}, the "
                "end of the vocabulary; save tokenizer and model again, with transformers' save_pretrained"
            )


def _word_borders(tokens: Sequence[str], special: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which entries begin a word, and after which one begins, by the marks of the tokenizer's kind."""
    marks = {
        "Ġ": [token.startswith("Ġ") for token in tokens],
        "▁": [token.startswith("▁") for token in tokens],
        "##": [token.startswith("##") for token in tokens],
        "</w>": [token.endswith("</w>") for token in tokens],
    }
    most = max(marks, key=lambda mark: sum(marks[mark]))
    marked = np.array(marks[most], bool)
    if most == "</w>" and marked.any():
        return special, marked | special
    return (marked if most in "Ġ▁" and marked.any() else ~marked) | special, special
