"""``tokenizer.json``: the text processing of one language, as data for Hugging Face's ``tokenizers`` library.

The library can only replace matches of a pattern (Oniguruma's syntax) by a fixed string. So every rule of sacremoses
becomes one or more such replacements: the groups that a rule keeps become lookarounds, and private-use characters mark
positions from one replacement to the next. For example ``(a)b(c)`` -> ``\\1x\\2`` becomes ``abc\\K`` -> mark,
``b(?=c mark)`` -> x, mark -> nothing. Character classes are spelt out, because libraries differ in their version
of Unicode.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import regex
from sacremoses import MosesPunctNormalizer, MosesTokenizer

from xlmtrain.config.families import PairLayout
from xlmtrain.config.prepare import TextConfig
from xlmtrain.errors import ConfigError
from xlmtrain.runtime.atomic_io import read_json, write_json
from xlmtrain.text.bpe import END_OF_WORD, Code
from xlmtrain.text.delimiters import delimit_as_in_training, set_delimiters
from xlmtrain.text.moses import INVISIBLE, MAX_TOKEN_CHARS, Moses
from xlmtrain.text.pipeline import MASK_IN_TEXT
from xlmtrain.text.tokenizer_json import TOKENIZER_FILE, TokenizerVocab, read_tokenizer
from xlmtrain.text.vocab import CONTINUATION, EOS, MASK, SPECIALS, UNK, Vocab

try:
    import tokenizers
except ImportError:
    tokenizers = None  # type: ignore[assignment]

_NAMED_SPECIALS = (*SPECIALS[: UNK + 1], MASK_IN_TEXT)
"""Special symbols that transformers knows by name."""
_PLACEHOLDERS = {special: chr(0xE000 + i) for i, special in enumerate(_NAMED_SPECIALS)}
"""Placeholders that no rule splits; replaced by the symbols at the end."""
_MASK_PLACEHOLDER = _PLACEHOLDERS[MASK_IN_TEXT]
TLM_PAIR = PairLayout(separators=2)
_REST = "\ue00f"
"""Follows a placeholder, which stands for the symbol's first character: so the offsets cover the whole symbol."""
_MARKER = "\ue010"
_PRIVATE_USE = "\ue000-\ue010"
_ANY_CONTROL = "\ue011"
_NO_CONTROL = r"\P{C}"

Rule = tuple[str, str]
"""A pattern in Oniguruma's syntax and the replacement of its matches."""

# Rules that swap their groups or keep a part of what they match, translated by hand.
_BY_HAND: dict[str, list[Rule]] = {
    r"\( ": [(r"\(\K ", "")],
    "nº\u00a0": [("nº\\K\u00a0", " ")],
    "\u00a0ºC": [("\u00a0(?=ºC)", " ")],
    "\u00a0cm": [("\u00a0(?=cm)", " ")],
    ",\u00a0": [(",\\K\u00a0", " ")],
    r'"([,.]+)': [(r'"[,.]+\K', '"'), (r'"(?=[,.])', "")],
    # In Python every line ends with a newline, which [^<] matches.
    r'(\.+)"(\s*[^<])': [
        (r'(?<!\.)\.+"\s*(?:[^<]|\z)\K', _MARKER),
        (rf'(?<!\.)\.(?=\.*"\s*[^<{_MARKER}]?{_MARKER})', '".'),
        (rf'(?<=\.)"(?=\s*[^<{_MARKER}]?{_MARKER})', ""),
        (_MARKER, ""),
    ],
}
_PART = r"(?:\\.|[^()\\])*"
_KEPT_AROUND = re.compile(rf"(?:\((?P<left>{_PART})\))?(?P<middle>{_PART}?)(?:\((?P<right>{_PART})\))?(?P<end>\$?)")


def hf_words(vocab: Vocab) -> list[str]:
    """Return the vocabulary in Hugging Face's spelling: word-final subwords end with ``</w>``, others are bare."""
    words = vocab.tokens[len(SPECIALS) :]
    ours = (word[: -len(CONTINUATION)] if word.endswith(CONTINUATION) else word + END_OF_WORD for word in words)
    return [*SPECIALS, *ours]


def out_of_vocab_merges(vocab: Vocab, codes: Sequence[Code]) -> list[str]:
    """Return the symbols that the merges use or produce and that are not in the vocabulary.

    They are UNK in training. The library needs an id for each of them: these are the ids from ``len(vocab)`` on, and
    the exported model must treat them as it treats UNK.
    """
    listed = set(hf_words(vocab))
    needed = (symbol for code in codes for symbol in (code.left, code.right, code.left + code.right))
    return [symbol for symbol in dict.fromkeys(needed) if symbol not in listed]


def tokenizer_json(
    vocab: Vocab, codes: Sequence[Code], language: str, text: TextConfig, pair: PairLayout = TLM_PAIR
) -> str:
    """Return the content of ``tokenizer.json``: raw text in ``language`` -> ``</s> ids </s>``.

    ``pair``: the layout of two texts. The ids are those of :meth:`xlmtrain.text.pipeline.BpePipeline.ids`, with
    :func:`out_of_vocab_merges` for UNK. Three kinds of lines differ: a special symbol's name as the whole line becomes
    that symbol; Moses' own placeholder for dots (``DOTMULTI``) is kept; the tokenizers library may lower-case
    and decompose letters of a newer version of Unicode. Raises ConfigError if the tokenizers package is missing.
    """
    if tokenizers is None:
        raise ConfigError("format=hf: the tokenizers package is missing; install it with: pip install 'xlmtrain[hf]'")
    words = [*hf_words(vocab), *out_of_vocab_merges(vocab, codes)]
    words[MASK] = MASK_IN_TEXT
    ids, merges = {word: i for i, word in enumerate(words)}, [(code.left, code.right) for code in codes]
    bpe = tokenizers.models.BPE(ids, merges, unk_token=SPECIALS[UNK], end_of_word_suffix=END_OF_WORD)
    tokenizer = tokenizers.Tokenizer(bpe)
    tokenizer.normalizer = tokenizers.normalizers.Sequence(list(_normalizers(language, text)))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    set_delimiters(tokenizer, SPECIALS[EOS], SPECIALS[EOS], [SPECIALS[EOS]] * pair.separators, int(pair.token_types))
    tokenizer.decoder = tokenizers.decoders.Sequence(list(_decoders()))
    # normalized=True: searched after the rules, which leave a name in one piece only where the symbol is meant.
    tokenizer.add_tokens([tokenizers.AddedToken(name, normalized=True, special=True) for name in _NAMED_SPECIALS])
    return tokenizer.to_str()


def read_tokenizer_json(path: Path) -> tuple[list[str], list[Code], TextConfig] | None:
    """Return words in Hugging Face's spelling, codes and text settings of a ``tokenizer.json`` written as above.

    transformers may have saved it again. None if its rules are not those of :func:`tokenizer_json`. Raises ValueError
    if it has tokens that were added later.
    """
    content = read_json(path)
    steps = (content["normalizer"] or {}).get("normalizers", [])
    model, kinds = content["model"], {step["type"] for step in steps}
    if not steps or steps[0].get("content") != _ANY_CONTROL or model["end_of_word_suffix"] != END_OF_WORD:
        return None
    if added := [token["content"] for token in content["added_tokens"] if token["content"] not in _NAMED_SPECIALS]:
        raise ValueError(f"{path.name}: has tokens that were added after training, such as {added[0]!r}")
    words = _in_order(model["vocab"])
    words[MASK] = SPECIALS[MASK]
    merges = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    text = TextConfig(lowercase="Lowercase" in kinds, remove_accents="NFD" in kinds, normalize_unicode="NFC" in kinds)
    return words, [Code(left, right, 0) for left, right in merges], text


def read_vocab_json(path: Path) -> list[str]:
    """Return the words of a ``vocab.json``, in Hugging Face's spelling, by id."""
    return _in_order(read_json(path))


def _in_order(ids: dict[str, int]) -> list[str]:
    words = sorted(ids, key=ids.__getitem__)
    if [ids[word] for word in words] != list(range(len(words))) or len(words) < len(SPECIALS):
        raise ValueError("the ids of the vocabulary are not the numbers from 0 on")
    return words


def read_own_tokenizer(folder: Path, size: int) -> TokenizerVocab | None:
    """Return the tokenizer of a folder; None if it has none, or Moses' rules with BPE codes.

    ``size``: entries of the model. Raises DataError for a damaged one.
    """
    path = folder / TOKENIZER_FILE
    if not path.is_file() or read_tokenizer_json(path):
        return None
    vocab = read_tokenizer(folder)
    return vocab if len(vocab) == size else TokenizerVocab(vocab.content, vocab.names, size, str(path))


def write_own_tokenizer(
    vocab: TokenizerVocab, folder: Path, languages: Sequence[str], max_positions: int, token_types: bool
) -> None:
    """Write ``tokenizer.json`` as it was given, and the roles of its special tokens."""
    (folder / TOKENIZER_FILE).write_bytes(vocab.content)
    settings = tokenizer_config(languages, max_positions, TextConfig(), token_types)
    roles = {"bos": ("bos", "cls"), "eos": ("eos", "sep"), "pad": ("pad",), "unk": ("unk",), "mask": ("mask",)}
    names = {f"{name}_token": vocab.names.get(role) for role, names in roles.items() for name in names}
    write_json(folder / "tokenizer_config.json", {**settings, **names})


def add_delimiters(vocab: Vocab, folder: Path) -> None:
    """Let the ``tokenizer.json`` in ``folder`` add a sentence's delimiters, if it adds no special tokens at all."""
    path = str(folder / TOKENIZER_FILE)
    tokenizer = tokenizers.Tokenizer.from_file(path)
    if isinstance(vocab, TokenizerVocab) and not tokenizer.encode("").ids:
        delimit_as_in_training(tokenizer, vocab.names)
        tokenizer.save(path)


def tokenizer_config(
    languages: Sequence[str], max_positions: int, text: TextConfig, token_types: bool = False
) -> dict[str, Any]:
    """Return the content of ``tokenizer_config.json``. ``languages``: in the order of their ids.

    ``token_types``: the model is given them.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",  # transformers 5 accepts this name too
        "model_max_length": max_positions,
        **{"bos_token": "<s>", "eos_token": "</s>", "cls_token": "</s>", "sep_token": "</s>"},
        **{"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": MASK_IN_TEXT},
        # transformers 4 would add token types, which XLM embeds as words.
        "model_input_names": ["input_ids", *["token_type_ids"] * token_types, "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "do_lowercase_and_remove_accent": text.lowercase and text.remove_accents,
        "lang2id": {language: i for i, language in enumerate(languages)},
        "id2lang": {str(i): language for i, language in enumerate(languages)},
    }


def _normalizers(language: str, text: TextConfig) -> Iterator[Any]:
    """Yield the steps from a raw line to words separated by spaces."""
    space, digit = _char_class(str.isspace), _char_class(str.isdecimal)  # Python's \s and \d

    def replacements(rules: Iterable[Rule]) -> Iterator[Any]:
        for pattern, replacement in rules:
            pattern = pattern.replace(r"\s", f"[{space}]").replace(r"\d", f"[{digit}]")
            yield tokenizers.normalizers.Replace(tokenizers.Regex(pattern), replacement)

    # <mask> anywhere is the symbol; another special symbol's name is if it is the whole line.
    names = [(f"[{_PRIVATE_USE}]", _ANY_CONTROL)]
    for special, placeholder in _PLACEHOLDERS.items():
        begin, end, space_around = (r"\A", r"\z", "") if special != MASK_IN_TEXT else ("", "", " ")
        names += [(f"{begin}<(?={special[1:]}{end})", space_around + placeholder)]
        names += [(rf"{placeholder}\K{special[1:]}", _REST + space_around)]
    yield from replacements(names)
    if text.normalize_unicode:
        yield from replacements([(f"[{INVISIBLE}]+", "")])
        yield tokenizers.normalizers.NFC()
    yield from replacements([*_punctuation_rules(language), *_moses_rules(language)])
    if text.lowercase:
        # Python lower-cases a word-final sigma to its own letter; the library sees one character at a time.
        final = r"(?<=\p{Cased}\p{Case_Ignorable}{0,9})Σ(?!\p{Case_Ignorable}*\p{Cased})"
        yield from replacements([(final, "ς")])
        yield tokenizers.normalizers.Lowercase()
    if text.remove_accents:
        marks = _char_class(lambda char: unicodedata.category(char) == "Mn")
        yield tokenizers.normalizers.NFD()
        yield from replacements([(f"[{marks}]+", "")])
    yield from replacements([(rf"[^ ]{{{MAX_TOKEN_CHARS}}}\K(?=[^ ])", " ")])
    yield from replacements((rf"{placeholder}\K{_REST}", special[1:]) for special, placeholder in _PLACEHOLDERS.items())
    yield from replacements((placeholder, "<") for placeholder in _PLACEHOLDERS.values())


def _decoders() -> Iterator[Any]:
    """Yield the steps from subwords to text. An unfinished word at the end, as of a single prefix, ends with ``@@``."""
    # A special symbol's name lacks the suffix that ends a word.
    names = "(?:" + "|".join(_NAMED_SPECIALS) + ")"
    yield tokenizers.decoders.Replace(tokenizers.Regex(rf"{names}\z\K"), END_OF_WORD)
    yield tokenizers.decoders.Fuse()
    yield tokenizers.decoders.Replace(tokenizers.Regex(rf".(?<!{END_OF_WORD})\z\K"), CONTINUATION)
    yield tokenizers.decoders.Replace(tokenizers.Regex(rf"{END_OF_WORD}\z"), "")
    yield tokenizers.decoders.Replace(END_OF_WORD, " ")


def _punctuation_rules(language: str) -> Iterator[Rule]:
    """Yield the rules of :class:`xlmtrain.text.moses.Normalizer`, and of white space to single spaces."""
    table = MosesPunctNormalizer(lang=language, perl_parity=True)
    for pattern, replacement in [*table.REPLACE_UNICODE_PUNCTUATION, *table.substitutions]:
        yield from _to_rules(pattern, replacement)
    yield f"[^{_char_class(regex.compile(_NO_CONTROL).match)}{_PRIVATE_USE}]", " "
    yield r"\s+", " "
    yield r"\A | \z", ""


def _moses_rules(language: str) -> Iterator[Rule]:
    """Yield the rules of :class:`xlmtrain.text.moses.RuleTokenizer`, without case and accents."""
    moses, table = Moses(language), MosesTokenizer
    alpha, number = _ranges(table.IsAlpha), _ranges(table.IsN)
    separated = f"[^{_char_class(lambda char: not moses.PAD_NOT_ISALNUM[0].match(char))}{_PRIVATE_USE}]"
    yield f"(?<={separated})|(?={separated})", " "
    yield r"(?<!\.)(?=\.\.)|(?<=\.\.)(?!\.)", " "
    romance = table.FR_IT_SPECIFIC_APOSTROPHE
    apostrophes = {"en": table.ENGLISH_SPECIFIC_APOSTROPHE, "fr": romance, "it": romance}
    commas = [table.COMMA_SEPARATE_1, table.COMMA_SEPARATE_2, table.COMMA_SEPARATE_3]
    for pattern, replacement in [*commas, *apostrophes.get(language, [table.NON_SPECIFIC_APOSTROPHE])]:
        yield from _to_rules(pattern.pattern.replace(table.IsAlpha, alpha).replace(table.IsN, number), replacement)
    yield " +", " "
    yield r"\A | \z", ""
    yield _periods(moses, alpha)
    yield r"\.'\z", " . '"


def _periods(moses: Moses, alpha: str) -> Rule:
    """Return the rule that splits off a word's final period, except in ellipses, abbreviations and the last word."""
    numeric = set(moses.NUMERIC_ONLY_PREFIXES)
    always = [word for word in moses.NONBREAKING_PREFIXES if not moses.has_numeric_only(word) and word not in numeric]
    abbreviations = [
        rf"[^ ]+ [{_ranges(moses.IsLower)}{_MASK_PLACEHOLDER}]",
        rf"(?=[^ ]*[{alpha}])[^ .]*+\.[^ ]++(?<=\.) ",
        rf"(?:{_alternatives(always)})\. ",
        rf"(?:{_alternatives(sorted(numeric))})\. [0-9]",
    ]
    return rf"(?<![^ ])(?!{'|'.join(abbreviations)})[^ ]*[^ .]\K\.(?= |\z)", " ."


def _alternatives(words: Sequence[str]) -> str:
    """Return a pattern of these words, or one that never matches if there are none."""
    return "|".join(map(re.escape, words)) or "(?!)"


def _to_rules(pattern: str, replacement: str) -> list[Rule]:
    r"""Translate a substitution ``(left)middle(right)`` -> ``\1new\2`` of Python's; either group may be missing.

    A match of ``re.sub`` starts after the previous one, so a kept right group cannot be the left group of the next
    match. Lookarounds alone would match there; the marks prevent it.
    """
    if pattern in _BY_HAND:
        return _BY_HAND[pattern]
    parts = _KEPT_AROUND.fullmatch(pattern)
    assert parts, f"a rule of an unknown form: {pattern}"
    left, right, end = parts["left"] or "", parts["right"], r"\z" if parts["end"] else ""
    new = re.sub(r"\\(?:\d|g<\d>)", "", replacement)
    if not right:
        return [(rf"{left}\K{parts['middle']}{end}" if left else parts["middle"] + end, new)]
    return [
        (rf"{left}{parts['middle']}{right}\K", _MARKER),
        (f"{parts['middle']}(?={right}{_MARKER})", new),
        (_MARKER, ""),
    ]


def _char_class(test: Callable[[str], object]) -> str:
    """Return the inside of a character class of all characters, without surrogates, that pass a test."""
    return _ranges(filter(test, map(chr, [*range(0xD800), *range(0xE000, sys.maxunicode + 1)])))


def _ranges(characters: Iterable[str]) -> str:
    """Return the inside of a character class, as ranges of code points."""
    codes = set(map(ord, characters))
    starts = sorted(code for code in codes if code - 1 not in codes)
    ends = sorted(code for code in codes if code + 1 not in codes)
    return "".join(rf"\x{{{start:X}}}-\x{{{end:X}}}" for start, end in zip(starts, ends))
