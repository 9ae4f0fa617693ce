"""Checks of the committed sample corpus: counts, no repetition between splits, and sound English and German."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "data" / "sample"
SPLITS = ("train", "valid", "test")
FILES = [f"{split}.{language}" for split in SPLITS for language in ("en", "de")]


@pytest.fixture(scope="module")
def pairs() -> dict[str, list[tuple[str, str]]]:
    return {split: list(zip(read(f"{split}.en"), read(f"{split}.de"), strict=True)) for split in SPLITS}


def read(name: str) -> list[str]:
    text = (SAMPLE / name).read_bytes().decode("utf-8")
    assert text.endswith("\n")
    return text.removesuffix("\n").split("\n")


def words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text)


def test_counts_and_size(pairs: dict[str, list[tuple[str, str]]]) -> None:
    assert len(pairs["train"]) >= 12_000
    assert len(pairs["valid"]) == len(pairs["test"]) == 500
    assert sum((SAMPLE / name).stat().st_size for name in FILES) < 2_000_000


def test_no_sentence_occurs_twice_in_any_split(pairs: dict[str, list[tuple[str, str]]]) -> None:
    for side in (0, 1):
        counts = Counter(pair[side] for split in SPLITS for pair in pairs[split])
        assert [text for text, count in counts.items() if count > 1] == []


def test_every_held_out_word_occurs_in_training(pairs: dict[str, list[tuple[str, str]]]) -> None:
    for side in (0, 1):
        known = Counter(word for pair in pairs["train"] for word in words(pair[side]))
        for split in ("valid", "test"):
            rare = {word for pair in pairs[split] for word in words(pair[side]) if known[word] < 4}
            assert rare == set()


def test_lines_are_plain_sentences(pairs: dict[str, list[tuple[str, str]]]) -> None:
    for pair in (pair for split in SPLITS for pair in pairs[split]):
        for text in pair:
            assert re.fullmatch(r"[A-ZÄÖÜ][A-Za-zÄÖÜäöüßé',.?! -]*[.?!]", text), text
            assert not re.search(r"  | [,.?!]", text), text
            assert unicodedata.is_normalized("NFC", text), text
            assert 2 <= len(words(text)) <= 20, text


def test_both_sides_are_of_one_kind(pairs: dict[str, list[tuple[str, str]]]) -> None:
    differing = [pair for split in SPLITS for pair in pairs[split] if (pair[0][-1] == "?") != (pair[1][-1] == "?")]
    assert differing == []


# Written by hand, not taken from the lexicon: the articles that can stand before a singular noun, whatever its case.
ARTICLES = {
    "m": {"der", "den", "dem", "des", "ein", "einen", "einem", "dieser", "diesen", "diesem", "dieses"},
    "f": {"die", "der", "eine", "einer", "diese", "dieser"},
    "n": {"das", "dem", "des", "ein", "einem", "dieses", "diesem"},
}
EVERY_ARTICLE = set().union(*ARTICLES.values())
GENDERS = {
    "m": "Tisch Hund Bus Zug Apfel Brief Korb Stuhl Garten Bahnhof Arzt Vertrag Regenschirm Mantel Löwe Junge",
    "f": "Katze Lampe Tasche Küche Straße Schule Lehrerin Zeitung Suppe Jacke Kirche Blume Maschine Ärztin Besprechung",
    "n": "Buch Haus Kind Auto Fahrrad Bild Hemd Pferd Brot Museum Handy Bett Lied Krankenhaus Paket Büro",
}


def test_articles_have_the_gender_of_their_noun(pairs: dict[str, list[tuple[str, str]]]) -> None:
    gender_of = {noun: gender for gender, nouns in GENDERS.items() for noun in nouns.split()}
    checked = 0
    for _, text in (pair for split in SPLITS for pair in pairs[split]):
        tokens = words(text)
        for article, noun in pairwise(tokens):
            if noun in gender_of and article.lower() in EVERY_ARTICLE:
                assert article.lower() in ARTICLES[gender_of[noun]], text
                checked += 1
    assert checked > 1_000


def test_adjectives_agree_after_the_article(pairs: dict[str, list[tuple[str, str]]]) -> None:
    ending = {"den": "en", "dem": "en", "des": "en", "einen": "en", "einem": "en", "einer": "en", "das": "e"}
    stems = "groß|klein|alt|neu|schön|jung|wichtig|interessant|berühmt|freundlich"
    pattern = re.compile(rf"\b({'|'.join(ending)}) ({stems})(e|en|er|es|em) (?=[A-ZÄÖÜ])")
    found = [match for split in SPLITS for pair in pairs[split] for match in pattern.finditer(pair[1])]
    assert len(found) > 200
    assert [match.group() for match in found if match[3] != ending[match[1]]] == []


def test_subordinate_clauses_are_set_off_by_a_comma(pairs: dict[str, list[tuple[str, str]]]) -> None:
    texts = [pair[1] for split in SPLITS for pair in pairs[split]]
    for word in ("dass", "weil", "obwohl", "bevor", "nachdem", "ob"):
        assert sum(f", {word} " in text for text in texts) > 30, word
        assert [text for text in texts if f" {word} " in text and f", {word} " not in text] == []


def test_a_and_an(pairs: dict[str, list[tuple[str, str]]]) -> None:
    wrong = re.compile(r"\b(a [aeio]\w*|an [^aeiouh\W]\w*)\b")
    assert [pair[0] for split in SPLITS for pair in pairs[split] if wrong.search(pair[0].replace("a one", ""))] == []
