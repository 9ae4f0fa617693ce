"""``tokenizer.json``: this package's text chain for one language, as data for Hugging Face's ``tokenizers`` library.

The library replaces what a pattern (Oniguruma's syntax) matches by a fixed string, and nothing else. So every rule of
sacremoses becomes one or more such replacements: what a rule keeps is looked at from outside the match, and private
characters mark places from one replacement to the next. Character classes are spelt out, as libraries are of different
editions of Unicode.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import regex
from sacremoses import MosesPunctNormalizer, MosesTokenizer

from xlmtrain.config.prepare import TextConfig
from xlmtrain.errors import ConfigError
from xlmtrain.text.bpe import END_OF_WORD, Code
from xlmtrain.text.moses import Moses
from xlmtrain.text.pipeline import MASK_IN_TEXT
from xlmtrain.text.vocab import CONTINUATION, EOS, MASK, SPECIALS, UNK, Vocab

try:
    import tokenizers
except ImportError:
    tokenizers = None  # type: ignore[assignment]

_NAMED = (*SPECIALS[: UNK + 1], MASK_IN_TEXT)
"""The special symbols that transformers knows by name."""
_ALONE = {special: chr(0xE000 + i) for i, special in enumerate(_NAMED)}
"""Stand-ins, which no rule takes apart; they are restored last."""
_MASK = _ALONE[MASK_IN_TEXT]
_MARK = "\ue010"
_OURS = "\ue000-\ue010"
_ANY_CONTROL = "\ue011"
_NO_CONTROL = r"\P{C}"

Rule = tuple[str, str]
"""A pattern in Oniguruma's syntax and the string that takes its matches' place."""

# The rules that exchange what they match, and so cannot be translated part by part.
_EXCHANGES: dict[str, list[Rule]] = {
    r'"([,.]+)': [(r'"[,.]+\K', '"'), (r'"(?=[,.])', "")],
    # Python's chain has a newline at the end of every line, which [^<] takes.
    r'(\.+)"(\s*[^<])': [
        (r'(?<!\.)\.+"\s*(?:[^<]|\z)\K', _MARK),
        (rf'(?<!\.)\.(?=\.*"\s*[^<{_MARK}]?{_MARK})', '".'),
        (rf'(?<=\.)"(?=\s*[^<{_MARK}]?{_MARK})', ""),
        (_MARK, ""),
    ],
}
_PART = r"(?:\\.|[^()\\])*"
_KEPT_AROUND = re.compile(rf"(?:\((?P<left>{_PART})\))?(?P<middle>{_PART}?)(?:\((?P<right>{_PART})\))?(?P<end>\$?)")


def hf_words(vocab: Vocab) -> list[str]:
    """The vocabulary as Hugging Face spells it: a subword that ends its word with ``</w>``, the others bare."""
    return [*SPECIALS, *(_symbol(word) for word in vocab.words[len(SPECIALS) :])]


def out_of_vocab_merges(vocab: Vocab, codes: Sequence[Code]) -> list[str]:
    """What the codes join, or make, that is not in the vocabulary.

    Such a subword is UNK. But the library gives each symbol that it can join an id of its own, so these have the ids
    from ``len(vocab)`` on, and the exported model must treat them as it treats UNK.
    """
    listed = set(hf_words(vocab))
    needed = (symbol for code in codes for symbol in (code.left, code.right, code.left + code.right))
    return [symbol for symbol in dict.fromkeys(needed) if symbol not in listed]


def tokenizer_json(vocab: Vocab, codes: Sequence[Code], language: str, text: TextConfig) -> str:
    """Content of ``tokenizer.json``: raw text of ``language`` -> ``</s> ids </s>``, ids as
    :meth:`xlmtrain.text.pipeline.TextPipeline.ids` gives them; :func:`out_of_vocab_merges` stand for UNK.

    Three kinds of lines differ: one that is a special symbol's name and nothing else is that symbol; one that spells
    Moses' own stand-in for dots (``DOTMULTI``) keeps it; and the library's lower-casing and decomposition may know
    another edition of Unicode, so other letters that have come in lately. Raises ConfigError if the tokenizers package
    is missing.
    """
    if tokenizers is None:
        raise ConfigError("format=hf: the tokenizers package is missing; install it with: pip install 'xlmtrain[hf]'")
    words = [*hf_words(vocab), *out_of_vocab_merges(vocab, codes)]
    words[MASK] = MASK_IN_TEXT
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            {word: i for i, word in enumerate(words)},
            [(code.left, code.right) for code in codes],
            unk_token=SPECIALS[UNK],
            end_of_word_suffix=END_OF_WORD,
        )
    )
    tokenizer.normalizer = tokenizers.normalizers.Sequence(list(_normalizers(language, text)))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="</s> $A </s>", pair="</s> $A </s> </s> $B </s>", special_tokens=[("</s>", EOS)]
    )
    # A symbol's name is a word of its own, which the decoder sees only with the suffix.
    names = tokenizers.Regex("(?:" + "|".join(_NAMED) + r")\z\K")
    tokenizer.decoder = tokenizers.decoders.Sequence(
        [tokenizers.decoders.Replace(names, END_OF_WORD), tokenizers.decoders.BPEDecoder(suffix=END_OF_WORD)]
    )
    # "normalized": looked for after the rules, which leave such a name together only where it is meant.
    tokenizer.add_tokens([tokenizers.AddedToken(name, normalized=True, special=True) for name in _NAMED])
    return tokenizer.to_str()


def tokenizer_config(languages: Sequence[str], max_positions: int, text: TextConfig) -> dict[str, Any]:
    """Content of ``tokenizer_config.json``. ``languages``: in the order of their ids."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",  # version 5 calls it TokenizersBackend, and knows this name too
        "model_max_length": max_positions,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "cls_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": MASK_IN_TEXT,
        "model_input_names": ["input_ids", "attention_mask"],  # version 4 adds token types, which XLM takes for words
        "clean_up_tokenization_spaces": False,
        "do_lowercase_and_remove_accent": text.lowercase and text.remove_accents,
        "lang2id": {language: i for i, language in enumerate(languages)},
        "id2lang": {str(i): language for i, language in enumerate(languages)},
    }


def _symbol(word: str) -> str:
    return word.removesuffix(CONTINUATION) if word.endswith(CONTINUATION) else word + END_OF_WORD


def _normalizers(language: str, text: TextConfig) -> Iterator[Any]:
    """The whole way from a raw line to words with spaces between them."""
    space, digit = _all_that(str.isspace), _all_that(str.isdecimal)  # Python's \s and \d

    def replacements(rules: Iterable[Rule]) -> Iterator[Any]:
        for pattern, replacement in rules:
            pattern = pattern.replace(r"\s", f"[{space}]").replace(r"\d", f"[{digit}]")
            yield tokenizers.normalizers.Replace(tokenizers.Regex(pattern), replacement)

    yield from replacements([*_stand_ins(), *_punctuation(language), *_words(language)])
    if text.lowercase:
        # Python knows the sigma that ends a word; the library's lower-casing sees one character at a time.
        final = r"(?<=\p{Cased}\p{Case_Ignorable}{0,9})Σ(?!\p{Case_Ignorable}*\p{Cased})"
        yield from replacements([(final, "ς")])
        yield tokenizers.normalizers.Lowercase()
    if text.remove_accents:
        marks = _all_that(lambda char: unicodedata.category(char) == "Mn")
        yield tokenizers.normalizers.NFD()
        yield from replacements([(f"[{marks}]+", "")])
    yield from replacements((stand_in, special) for special, stand_in in _ALONE.items())


def _stand_ins() -> Iterator[Rule]:
    """``<mask>`` anywhere, and the name of another special symbol if it is the whole line."""
    yield f"[{_OURS}]", _ANY_CONTROL
    yield MASK_IN_TEXT, f" {_MASK} "
    for special in _NAMED[:-1]:
        yield rf"\A{special}\z", _ALONE[special]


def _punctuation(language: str) -> Iterator[Rule]:
    """:class:`xlmtrain.text.normalize.Normalizer`, and white space made single spaces."""
    table = MosesPunctNormalizer(lang=language, perl_parity=True)
    for pattern, replacement in [*table.REPLACE_UNICODE_PUNCTUATION, *table.substitutions]:
        yield from _translated(pattern, replacement)
    yield f"[^{_all_that(regex.compile(_NO_CONTROL).match)}{_OURS}]", " "
    yield r"\s+", " "
    yield r"\A | \z", ""


def _words(language: str) -> Iterator[Rule]:
    """:class:`xlmtrain.text.moses.RuleTokenizer`, before it changes case and accents."""
    moses, table = Moses(language), MosesTokenizer
    alpha, number = _ranges(table.IsAlpha), _ranges(table.IsN)
    alone = f"[^{_all_that(lambda char: not moses.PAD_NOT_ISALNUM[0].match(char))}{_OURS}]"
    yield f"(?<={alone})|(?={alone})", " "
    yield r"(?<!\.)(?=\.\.)|(?<=\.\.)(?!\.)", " "
    rules = [table.COMMA_SEPARATE_1, table.COMMA_SEPARATE_2, table.COMMA_SEPARATE_3]
    if language == "en":
        rules += table.ENGLISH_SPECIFIC_APOSTROPHE
    elif language in ("fr", "it"):
        rules += table.FR_IT_SPECIFIC_APOSTROPHE
    else:
        rules.append(table.NON_SPECIFIC_APOSTROPHE)
    for pattern, replacement in rules:
        yield from _translated(pattern.pattern.replace(table.IsAlpha, alpha).replace(table.IsN, number), replacement)
    yield " +", " "
    yield r"\A | \z", ""
    yield _periods(moses, alpha)
    yield r"\.'\z", " . '"


def _periods(moses: Moses, alpha: str) -> Rule:
    """A word's last period apart from it, but for a row of periods and for abbreviations. The last word has none."""
    numeric = set(moses.NUMERIC_ONLY_PREFIXES)
    always = [word for word in moses.NONBREAKING_PREFIXES if not moses.has_numeric_only(word) and word not in numeric]
    abbreviations = [
        rf"[^ ]+ [{_ranges(moses.IsLower)}{_MASK}]",
        rf"(?=[^ ]*[{alpha}])[^ .]*+\.[^ ]++(?<=\.) ",
        rf"(?:{_any_of(always)})\. ",
        rf"(?:{_any_of(sorted(numeric))})\. [0-9]",
    ]
    return rf"(?<![^ ])(?!{'|'.join(abbreviations)})[^ ]*[^ .]\K\.(?= |\z)", " ."


def _any_of(words: Sequence[str]) -> str:
    """A pattern of these words, which matches nothing if there are none."""
    return "|".join(map(re.escape, words)) or "(?!)"


def _translated(pattern: str, replacement: str) -> list[Rule]:
    r"""A substitution of Python's as rules. Its form is ``(left)middle(right)`` -> ``\1new\2``; either side may be
    missing.

    A match begins where the one before has ended, so what is kept on the right cannot be kept on the left of the next
    one: looking around alone would find more.
    """
    if pattern in _EXCHANGES:
        return _EXCHANGES[pattern]
    parts = _KEPT_AROUND.fullmatch(pattern)
    assert parts, f"a rule of an unknown form: {pattern}"
    left, right, end = parts["left"] or "", parts["right"], r"\z" if parts["end"] else ""
    new = re.sub(r"\\(?:\d|g<\d>)", "", replacement)
    if not right:
        return [(rf"{left}\K{parts['middle']}{end}" if left else parts["middle"] + end, new)]
    return [
        (rf"{left}{parts['middle']}{right}\K", _MARK),
        (f"{parts['middle']}(?={right}{_MARK})", new),
        (_MARK, ""),
    ]


def _all_that(test: Callable[[str], object]) -> str:
    """The inside of a class of the characters that pass a test. Surrogates are no characters."""
    return _ranges(filter(test, map(chr, [*range(0xD800), *range(0xE000, sys.maxunicode + 1)])))


def _ranges(characters: Iterable[str]) -> str:
    """The inside of a character class."""
    codes = sorted(map(ord, set(characters)))
    starts = [code for before, code in zip([-2, *codes], codes) if code != before + 1]
    ends = [code for code, after in zip(codes, [*codes[1:], -2]) if code + 1 != after]
    return "".join(rf"\x{{{start:X}}}-\x{{{end:X}}}" for start, end in zip(starts, ends))
