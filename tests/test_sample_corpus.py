"""The sample corpus: the committed files, and the grammar that wrote them (tools/sample_corpus)."""

from __future__ import annotations

import re
import subprocess
import sys
import unicodedata
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "data" / "sample"
SPLITS = ("train", "valid", "test")
FILES = [f"{split}.{language}" for split in SPLITS for language in ("en", "de")]

sys.path.insert(0, str(ROOT / "tools"))
from sample_corpus import english, german  # noqa: E402
from sample_corpus.clause import Clause  # noqa: E402
from sample_corpus.lexicon import Event, Lexicon, load  # noqa: E402
from sample_corpus.phrase import noun_phrase, pronoun  # noqa: E402


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return load()


@pytest.fixture(scope="module")
def pairs() -> dict[str, list[tuple[str, str]]]:
    return {split: list(zip(read(f"{split}.en"), read(f"{split}.de"), strict=True)) for split in SPLITS}


def read(name: str) -> list[str]:
    text = (SAMPLE / name).read_bytes().decode("utf-8")
    assert text.endswith("\n")
    return text.removesuffix("\n").split("\n")


def words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text)


# --- the committed files


def test_regeneration_gives_the_committed_bytes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "tools" / "make_sample_corpus.py"), str(tmp_path)], check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (SAMPLE / name).read_bytes(), name


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


# Determined by hand, apart from the lexicon: the articles that can stand before a singular noun, whatever its case.
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


# --- the grammar


@pytest.mark.parametrize(
    ("noun", "kind", "number", "adjective", "forms"),
    [
        ("table", "the", "s", "big", ("der große Tisch", "den großen Tisch", "dem großen Tisch", "des großen Tisches")),
        (
            "table",
            "a",
            "s",
            "big",
            ("ein großer Tisch", "einen großen Tisch", "einem großen Tisch", "eines großen Tisches"),
        ),
        (
            "lamp",
            "this",
            "s",
            "expensive",
            ("diese teure Lampe", "diese teure Lampe", "dieser teuren Lampe", "dieser teuren Lampe"),
        ),
        ("book", "a", "s", "old", ("ein altes Buch", "ein altes Buch", "einem alten Buch", "eines alten Buches")),
        (
            "child",
            "the",
            "p",
            "small",
            ("die kleinen Kinder", "die kleinen Kinder", "den kleinen Kindern", "der kleinen Kinder"),
        ),
        ("bread", "", "s", "fresh", ("frisches Brot", "frisches Brot", "frischem Brot", "frischen Brotes")),
        ("apple", "", "p", "sour", ("saure Äpfel", "saure Äpfel", "sauren Äpfeln", "saurer Äpfel")),
        ("boy", "the", "s", None, ("der Junge", "den Jungen", "dem Jungen", "des Jungen")),
        ("student", "this", "s", None, ("dieser Student", "diesen Studenten", "diesem Studenten", "dieses Studenten")),
        ("mother", "you_p", "s", None, ("eure Mutter", "eure Mutter", "eurer Mutter", "eurer Mutter")),
        ("house", "we", "p", None, ("unsere Häuser", "unsere Häuser", "unseren Häusern", "unserer Häuser")),
    ],
)
def test_noun_phrases(
    lexicon: Lexicon, noun: str, kind: str, number: str, adjective: str | None, forms: tuple[str, ...]
) -> None:
    entry = next(entry for entry in lexicon.nouns if entry.english == noun)
    described = next((entry for entry in lexicon.adjectives if entry.english == adjective), None)
    assert tuple(noun_phrase(entry, kind, number, described).german[case] for case in german.CASES) == forms


@pytest.mark.parametrize(
    ("verb", "present", "past", "participle", "command"),
    [
        ("lesen", "lese liest liest lesen lest lesen", "las", "gelesen", "lies"),
        ("arbeiten", "arbeite arbeitest arbeitet arbeiten arbeitet arbeiten", "arbeitete", "gearbeitet", "arbeite"),
        ("fahren", "fahre fährst fährt fahren fahrt fahren", "fuhr", "gefahren", "fahr"),
        ("öffnen", "öffne öffnest öffnet öffnen öffnet öffnen", "öffnete", "geöffnet", "öffne"),
        ("halten", "halte hältst hält halten haltet halten", "hielt", "gehalten", None),
        ("auf+laden", "lade lädst lädt laden ladet laden", "lud", "aufgeladen", "lade"),
        ("sammeln", "sammle sammelst sammelt sammeln sammelt sammeln", "sammelte", "gesammelt", "sammle"),
        (
            "reparieren",
            "repariere reparierst repariert reparieren repariert reparieren",
            "reparierte",
            "repariert",
            None,
        ),
        ("bellen", "belle bellst bellt bellen bellt bellen", "bellte", "gebellt", None),
        ("müssen", "muss musst muss müssen müsst müssen", "musste", "gemusst", None),
    ],
)
def test_german_verbs(
    lexicon: Lexicon, verb: str, present: str, past: str, participle: str, command: str | None
) -> None:
    entry = lexicon.german_verb(verb)
    assert [entry.present(person) for person in german.PERSONS] == present.split()
    assert (entry.past("3s"), entry.full_participle()) == (past, participle)
    if command:
        assert entry.imperative("2s") == command


@pytest.mark.parametrize(
    ("base", "forms"),
    [
        ("stop", "stops stopping stopped"),
        ("carry", "carries carrying carried"),
        ("travel", "travels travelling travelled"),
        ("visit", "visits visiting visited"),
        ("lie", "lies lying lay"),
        ("go", "goes going went"),
        ("wash", "washes washing washed"),
    ],
)
def test_english_verbs(lexicon: Lexicon, base: str, forms: str) -> None:
    verb = lexicon.english_verb(base)
    assert f"{verb.third()} {verb.ing()} {verb.past}" == forms


def test_english_articles() -> None:
    nouns = ("apple", "house", "hour", "university", "old book", "umbrella")
    assert [english.with_a(noun).split()[0] for noun in nouns] == ["an", "a", "an", "a", "an", "an"]


CALL = Event(("person",), "call {R}", "{R} an+rufen", {"R": (("kin",), "own", "")}, "d", ())
WAIT = Event(("person",), "wait for {O}", "auf {O:acc} warten", {"O": (("public",), "the", "")}, "d", ())
BUY = Event(("person",), "buy {O}", "{O} kaufen", {"O": (("read",), "a", "")}, "d", ())
GO = Event(("person",), "go into {P}", "in {P:acc} gehen", {"P": (("room",), "the", "")}, "d", ())
YESTERDAY = ("yesterday", "gestern")


@pytest.mark.parametrize(
    ("event", "who", "noun", "kind", "settings", "english_text", "german_text", "subordinate"),
    [
        (
            CALL,
            "he",
            "mother",
            "he",
            {"tense": "past", "time": YESTERDAY},
            "he called his mother yesterday",
            "er hat gestern seine Mutter angerufen",
            "er gestern seine Mutter angerufen hat",
        ),
        (
            CALL,
            "she",
            "brother",
            "she",
            {"tense": "present", "negated": True},
            "she doesn't call her brother",
            "sie ruft ihren Bruder nicht an",
            "sie ihren Bruder nicht anruft",
        ),
        (
            WAIT,
            "I",
            "bus",
            "the",
            {"tense": "modal", "modal": "have to"},
            "I have to wait for the bus",
            "ich muss auf den Bus warten",
            "ich auf den Bus warten muss",
        ),
        (
            BUY,
            "they",
            "newspaper",
            "a",
            {"tense": "past", "negated": True, "narrative": True},
            "they didn't buy a newspaper",
            "sie kauften keine Zeitung",
            "sie keine Zeitung kauften",
        ),
        (
            BUY,
            "you",
            "book",
            "the",
            {"tense": "perfect", "negated": True, "already": ("already", "schon")},
            "you haven't bought the book yet",
            "du hast das Buch noch nicht gekauft",
            "du das Buch noch nicht gekauft hast",
        ),
        (
            GO,
            "we",
            "garage",
            "the",
            {"tense": "pluperfect"},
            "we had gone into the garage",
            "wir waren in die Garage gegangen",
            "wir in die Garage gegangen waren",
        ),
        (
            GO,
            "she",
            "living room",
            "the",
            {"tense": "future"},
            "she will go into the living room",
            "sie wird ins Wohnzimmer gehen",
            "sie ins Wohnzimmer gehen wird",
        ),
    ],
)
def test_clauses(
    lexicon: Lexicon,
    event: Event,
    who: str,
    noun: str,
    kind: str,
    settings: dict[str, object],
    english_text: str,
    german_text: str,
    subordinate: str,
) -> None:
    entry = next(entry for entry in lexicon.nouns if entry.english == noun)
    fills = {next(iter(event.slots)): noun_phrase(entry, kind)}
    clause = Clause(lexicon, pronoun(who), event, fills, **settings)  # type: ignore[arg-type]
    assert clause.english_main() == english_text
    assert clause.german_main() == german_text
    assert clause.german_subordinate() == subordinate


def test_questions_and_fronting_turn_subject_and_verb_round(lexicon: Lexicon) -> None:
    mother = next(noun for noun in lexicon.nouns if noun.english == "mother")
    clause = Clause(lexicon, noun_phrase(mother, "I"), CALL, {"R": pronoun("you")}, tense="past", time=YESTERDAY)
    assert clause.english_question("why") == "why did my mother call you yesterday"
    assert clause.german_question("warum") == "warum hat dich meine Mutter gestern angerufen"
    assert clause.german_main(front=True) == "gestern hat dich meine Mutter angerufen"
