"""Lines that preparation drops, changes or cuts, and how it counts them."""

from __future__ import annotations

import re
import unicodedata

import pytest

from tests.support.preparation import GERMAN, Workplace, contents, dropped
from xlmtrain.config.prepare import CleanConfig, SplitConfig, TextConfig
from xlmtrain.data.format import Header
from xlmtrain.diagnostics.statistics_warnings import statistics_warnings


def test_dropped_lines_are_counted_and_pairs_stay_aligned(work: Workplace) -> None:
    work.write("pairs.de", ["eins", "", "drei drei drei", "vier", "\u200b \t", "sechs"])
    work.write("pairs.en", ["one", "two", "three", "four four four", "five", "six"], end="\r\n")
    statistics = work.prepare(text=TextConfig(max_tokens=2), train=work.pairs())
    assert work.text("train.de-en.de") == ["eins </s>", "sechs </s>"]
    assert work.text("train.de-en.en") == ["one </s>", "six </s>"]
    sides = [file for file in statistics.files if file.pair]
    assert [(file.lines, dropped(file), file.sentences) for file in sides] == [
        (6, {"empty": 2, "max_tokens": 2}, 2)
    ] * 2


def test_lines_in_another_language_are_counted(work: Workplace) -> None:
    pytest.importorskip("py3langid", reason="what identifies languages is an extra")
    english = "The dog sleeps on the sofa and the cat is sitting next to it."
    work.write("pairs.de", ["Der Hund schläft auf dem Sofa und die Katze sitzt daneben.", english])
    work.write("pairs.en", [english, english])
    statistics = work.prepare(train=work.pairs(), clean=CleanConfig(langid_confidence=0.9))
    assert [dropped(file) for file in statistics.files] == [{"langid_confidence": 1}] * 2
    assert len(work.text("train.de-en.en")) == 1


def test_every_cleaning_switch_counts_what_it_drops(work: Workplace) -> None:
    work.write("pairs.de", ["eins", "zwei", "eins", "Berlin", "kurz", "drei", "Привет", "", "fünf", "x y z"])
    work.write("pairs.en", ["one", "two", " one ", "Berlin", "long " * 20, "three", "hello", "void", "five", "a b"])
    work.write("mono.de", ["", "sechs", "sechs", "sechs ", "zwei"])
    work.write("mono.en", ["five"])
    train = SplitConfig({"de": [f"{work.directory}/mono.de"]}, {"de-en": [f"{work.directory}/pairs.{{lang}}"]})
    settings = {"train": train, "valid": SplitConfig({"en": [f"{work.directory}/mono.en"]})}
    clean = CleanConfig(drop_duplicates=True, drop_identical=True, max_length_ratio=4, min_latin_fraction=0.5)
    statistics = work.prepare(clean=clean, text=TextConfig(max_tokens=2), **settings)
    german, pair = statistics.files[0], statistics.files[1]
    assert dropped(german) == {"empty": 1, "drop_duplicates": 2}
    expected = "drop_duplicates drop_identical max_length_ratio min_latin_fraction empty decontaminate max_tokens"
    assert dropped(pair) == dict.fromkeys(expected.split(), 1)
    assert all(file.sentences + sum(file.dropped.values()) == file.lines for file in statistics.files)
    assert work.text("train.de-en.en") == ["one </s>", "two </s>", "three </s>"]
    assert work.text("train.de") == ["sechs </s>", "zwei </s>"]
    header = str(statistics).splitlines()[0].split()
    reasons = "max_length_ratio min_latin_fraction empty max_tokens decontaminate drop_duplicates drop_identical"
    assert header[:9] == ["file", "lines", *reasons.split()]  # named like the settings, in the order of the checks
    overlap = "train.de-en.de: 1 lines are in the validation or test text, too; they were left out"
    assert overlap in [finding.what for finding in statistics_warnings(statistics)]


def test_by_default_only_what_cannot_be_used_is_dropped(work: Workplace) -> None:
    work.write("pairs.de", ["eins", "eins", "Berlin", "", "Привет", "x " * 100])
    work.write("pairs.en", ["one", "one", "Berlin", "void", "hello", "y"])
    statistics = work.prepare(train=work.pairs(), valid=SplitConfig({"en": [f"{work.directory}/mono.en"]}))
    assert dropped(statistics.files[0]) == {"empty": 1}


def test_training_lines_of_the_validation_text_may_be_kept(work: Workplace) -> None:
    valid = SplitConfig({"de": [f"{work.directory}/mono.de"]})
    work.write("pairs.de", [*GERMAN[:1], "Neu.", "Alt."])
    assert dropped(work.prepare(valid=valid, train=work.pairs()).files[0]) == {"decontaminate": 1}
    kept = work.prepare(valid=valid, train=work.pairs(), clean=CleanConfig(decontaminate=False), overwrite=True)
    assert dropped(kept.files[0]) == {}


VARIANTS = [
    "Das \u201eHaus\u201c ist gro\u00df.",
    'Das "Haus" ist gro\u00df.',
    " Das  \u201eHaus\u201c\u00a0ist \tgro\u00df .",
    "Das \u00bbHaus\u00ab ist gro\u00df.",
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_lines_are_compared_as_they_are_trained_on(work: Workplace, variant: str) -> None:
    """Quotation marks, white space: the same tokens are the same line."""
    work.write("mono.de", [*VARIANTS[:1], "Ganz neu.", variant])
    work.write("valid.de", [variant])
    train = SplitConfig({"de": [f"{work.directory}/mono.de"]})
    valid = SplitConfig({"de": [f"{work.directory}/valid.de"]})
    assert dropped(work.prepare(train=train, valid=valid).files[0]) == {"decontaminate": 2}
    statistics = work.prepare(train=train, clean=CleanConfig(drop_duplicates=True), overwrite=True)
    assert dropped(statistics.files[0]) == {"drop_duplicates": 1}


def test_pairs_of_the_same_tokens_are_identical(work: Workplace) -> None:
    work.write("pairs.de", ["Rhein \u2013 Main\u2026", "Nein."])
    work.write("pairs.en", ["Rhein  - Main ...", "No."])
    statistics = work.prepare(train=work.pairs(), clean=CleanConfig(drop_identical=True))
    assert dropped(statistics.files[0]) == {"drop_identical": 1}


def test_decomposed_text_is_composed_and_counted(work: Workplace) -> None:
    decomposed = [unicodedata.normalize("NFD", line) for line in GERMAN]
    train = SplitConfig({"de": [f"{work.directory}/mono.de"]})
    work.prepare(train=train)
    expected = contents(work.output)
    work.write("mono.de", [line.replace("chl", "ch\u00adl") for line in decomposed])
    statistics = work.prepare(train=train, overwrite=True)
    assert {name: contents(work.output)[name] for name in expected if name != "statistics.json"} == {
        name: content for name, content in expected.items() if name != "statistics.json"
    }
    warnings = [finding.what for finding in statistics_warnings(statistics)]
    assert any(re.search(r"mono\.de: 2 of 3 lines, first .*mono\.de:1, hold letters and", text) for text in warnings)
    assert any("1 of 3 lines" in text and "soft hyphens" in text for text in warnings)
    assert Header.read(work.output).text["normalize_unicode"] is True
    off = work.prepare(train=train, text=TextConfig(), overwrite=True)
    assert off.totals()[0].words > statistics.totals()[0].words


def test_a_word_without_end_is_cut_with_a_note(work: Workplace) -> None:
    work.write("mono.de", [*GERMAN, "x" * 900_000])
    statistics = work.prepare(train=SplitConfig({"de": [f"{work.directory}/mono.de"]}))
    assert "longer words were cut: there are 900 pieces of 1,000 characters" in statistics.notes
