"""Normalization and tokenization: the results of Moses' Perl scripts."""

from __future__ import annotations

import lzma
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from tests.support.repository import REPOSITORY
from xlmtrain.config.prepare import TextConfig
from xlmtrain.text.moses import Normalizer, RuleTokenizer
from xlmtrain.text.tokenizer import LINE_END, Tokenizer

# (language, raw line, tokens joined by spaces); own sentences, results as of Moses' Perl scripts
EXAMPLES = [
    ("en", "Hello, world! It's 5,300 o'clock.", "Hello , world ! It 's 5,300 o 'clock ."),
    ("en", "He said “wait…” – and left.", 'He said " wait ... " - and left .'),
    ("en", "Dr. Smith arrived at 3 p.m.", "Dr. Smith arrived at 3 p.m ."),
    ("en", "full－width：１２３？", "full － width : 123 ?"),
    ("de", "Äpfel, Öl und Übermaß: größer!", "Äpfel , Öl und Übermaß : größer !"),
    ("de", "Er sagte: „Das ist gut.“", 'Er sagte : " Das ist gut " .'),
    ("de", "Das kostet 3.50 Euro usw.", "Das kostet 3.50 Euro usw ."),
    ("de", "z. B. am 3. Mai", "z. B. am 3. Mai"),
    ("de", "a<b> & c|d [e]", "a < b > & c | d [ e ]"),
    ("en", "x\u0007y\u200bz\u00adw", "x y z w"),
    ("en", "one\u00a0two\u2028three\u0085four\ttab", "one two three four tab"),
    ("en", "漢字かな交じり", "漢字かな交じり"),
    ("en", "wait ....", "wait ...."),
    ("en", "  \u200b ", ""),
]


@pytest.mark.parametrize(("language", "raw", "tokens"), EXAMPLES)
def test_tokens(language: str, raw: str, tokens: str) -> None:
    assert Tokenizer(language, TextConfig())(raw) == tokens.split()


def test_the_worked_example_of_the_module() -> None:
    tokenizer = Tokenizer("de", TextConfig())
    assert tokenizer("Das kostet 3.50 Euro usw.") == ["Das", "kostet", "3.50", "Euro", "usw", "."]
    assert " ".join(tokenizer("usw. und (Haus) usw. (Bahn)")) == "usw. und ( Haus ) usw. ( Bahn )"


def test_german_punctuation_at_the_end_of_the_line_is_normalized_as_inside() -> None:
    assert Normalizer("de")("„Ja.“") == '"Ja".'
    assert Normalizer("en")("“Yes”.") == '"Yes."'


def test_a_very_long_row_of_dots_takes_no_quadratic_time() -> None:
    dots = "." * 300_000
    pieces = ["." * 1000] * 300
    tokens = Tokenizer("de", TextConfig())(f'Punkte{dots}" und {dots} mehr')
    assert tokens == ["Punkte", '"', *pieces, "und", *pieces, "mehr"]


ODD_WORDS = (
    "Haus haus I's o'c 'tis 'S '.x x' x. Dr. z.B. 3. 3.5 5,300 ,x x, (x) :x % 5% x: « »x -x- x/y @-@ a.m. No. A. ä. "
    "x\u00a0y x\ty x\u200by DOTMULTI 漢字 １２ don't 2'5 '95 l' „x“ “x.” ‚x‘ x?! <s> usw. x... …x … ' '' `x` x'' .x"
)


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize("settings", [TextConfig(), TextConfig(lowercase=True, remove_accents=True)])
def test_text_at_once_is_what_the_rules_make_of_each_line(language: str, settings: TextConfig) -> None:
    """Whatever stands beside a word, at the ends of lines, and whatever was met and forgotten before."""
    rng, words = random.Random(3), [*ODD_WORDS.split(" "), '"x', 'x".', '."x', 'x"', '"']
    tokenizer, rules = Tokenizer(language, settings, 100), RuleTokenizer(language, settings)
    for _ in range(4):
        lines = [rng.choice([" ", "  "]).join(rng.choices(words, k=rng.randrange(7))) for _ in range(300)]
        tokenizer.evict()
        numbers = tokenizer.numbers("".join(f"{line}\n" for line in lines))
        sentences = np.split(numbers, np.flatnonzero(numbers == LINE_END) + 1)
        assert not len(sentences.pop())
        for line, sentence in zip(lines, sentences, strict=True):
            assert [tokenizer.words[number] for number in sentence[:-1]] == rules(line)


@pytest.mark.parametrize(
    "raw",
    [
        "gr\u00f6\u00dfer \u00dcber",
        unicodedata.normalize("NFD", "gr\u00f6\u00dfer \u00dcber"),
        "gr\u00f6\u00ad\u00dfer \u00dc\u00adber",
        "\ufeffgr\u00f6\u200c\u00dfer \u200e\u00dcber\u2060",
        "gro\u00ad\u0308\u00dfer U\u200d\u0308ber",
    ],
)
def test_unicode_is_normalized_when_asked(raw: str) -> None:
    settings = TextConfig(normalize_unicode=True)
    assert Tokenizer("de", settings)(raw) == RuleTokenizer("de", settings)(raw) == ["gr\u00f6\u00dfer", "\u00dcber"]
    assert (Tokenizer("de", TextConfig())(raw) == ["gr\u00f6\u00dfer", "\u00dcber"]) is (len(raw) == 11)


def test_composed_text_has_the_same_tokens_with_and_without_normalization() -> None:
    """The settings of today and the original's agree on text that is composed and has no invisible characters."""
    for language in ("de", "en"):
        lines = (REPOSITORY / "data" / "sample" / f"valid.{language}").read_text(encoding="utf-8").splitlines()
        today, original = Tokenizer(language, TextConfig(normalize_unicode=True)), Tokenizer(language, TextConfig())
        assert all(today(line) == original(line) for line in lines)


@pytest.mark.parametrize("word", ["x", "1", ".", "-", "a.", "1,", "\u2026", "u\u0308"])
def test_a_word_without_end_is_cut(word: str) -> None:
    settings = TextConfig(normalize_unicode=True)
    for line in (word * 20_001, f"Ein {word * 2000} Wort"):
        tokens = Tokenizer("de", settings)(line)
        assert tokens == RuleTokenizer("de", settings)(line)
        assert max(map(len, tokens)) == 1000
        assert "".join(tokens) == unicodedata.normalize("NFC", line).replace("\u2026", "...").replace(" ", "")


def test_lowercase_and_accents_are_separate_switches() -> None:
    line = "Die Größe der Äpfel in Orléans"
    assert Tokenizer("de", TextConfig(lowercase=True))(line) == ["die", "größe", "der", "äpfel", "in", "orléans"]
    assert Tokenizer("de", TextConfig(remove_accents=True))(line) == ["Die", "Große", "der", "Apfel", "in", "Orleans"]
    both = TextConfig(lowercase=True, remove_accents=True)
    assert Tokenizer("de", both)(line) == ["die", "große", "der", "apfel", "in", "orleans"]
    assert Tokenizer("de", both)("a \u0301 b") == ["a", "b"]


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_line_of_the_reference(shared: Path, language: str) -> None:
    directory = shared / "reference" / "text-chain"
    raw, tokenized = (
        lzma.decompress((directory / f"sample.{name}.xz").read_bytes()).decode().split("\n")[:-1]
        for name in (language, f"{language}.tok")
    )
    tokenizer = Tokenizer(language, TextConfig())
    different = [
        (ours, theirs) for ours, theirs in zip(raw, tokenized, strict=True) if tokenizer(ours) != theirs.split()
    ]
    assert not different, f"{len(different)} of {len(raw)} lines differ, e.g. {different[:3]}"
