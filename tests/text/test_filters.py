"""Cleaning: each switch drops what it says and nothing else, and counts it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from xlmtrain.config.prepare import CleanConfig
from xlmtrain.errors import ConfigError
from xlmtrain.text import langid as languages_module
from xlmtrain.text.filters import REASONS, line_checks
from xlmtrain.text.langid import detected_language, make_langid_filter, marker_words


def reasons(*sides: str, **clean: Any) -> list[str]:
    """Why a line would be dropped."""
    return [reason for reason, check in line_checks(CleanConfig(**clean), ["de", "en"][: len(sides)]) if check(sides)]


def test_by_default_no_line_is_dropped_for_what_it_says() -> None:
    for sides in (("gleich", "gleich"), ("a", "a" * 10_000), ("漢字", "ελληνικά"), ("漢字",)):
        assert reasons(*sides) == []


def test_every_switch_has_a_reason_of_the_report() -> None:
    on = {"max_length_ratio": 3.0, "min_latin_fraction": 0.5}
    assert reasons("漢", "漢", **on) == ["min_latin_fraction"]
    assert set(reasons("漢", "漢" * 9, **on)) < set(REASONS)


def test_the_ratio_counts_characters_either_way_and_stops_short_of_the_limit() -> None:
    assert reasons("äöü", "x" * 9, max_length_ratio=3) == []
    assert reasons("äöü", "x" * 10, max_length_ratio=3) == ["max_length_ratio"]
    assert reasons("x" * 10, " äöü ", max_length_ratio=3) == ["max_length_ratio"]
    assert reasons("", "x", max_length_ratio=3) == []
    assert reasons("nur eine", max_length_ratio=3) == []


def test_script_is_judged_by_letters_only() -> None:
    assert reasons("Größe 漢", min_latin_fraction=0.5) == []
    assert reasons("ab 漢字文", min_latin_fraction=0.5) == ["min_latin_fraction"]
    assert reasons("gut", "Привет", min_latin_fraction=0.5) == ["min_latin_fraction"]
    assert reasons("Cafe\u0301 ﬁn", min_latin_fraction=1.0) == []
    for line in ("1 234 €", "★★★", "", "🎉"):
        assert reasons(line, min_latin_fraction=1.0) == []


def test_marker_words_tell_german_from_english() -> None:
    german = [b"Der Hund und die Katze sind nicht auf dem Sofa, das ist eine L\xc3\xbcge."] * 5
    english = [b"The dog and the cat are not on the sofa, that is a lie to you."] * 5
    assert detected_language("de", marker_words(german)) is None
    assert detected_language("de", marker_words(english)) == "en"
    assert detected_language("en", marker_words(german)) == "de"
    assert detected_language("fr", marker_words(german)) is None  # nothing is known of French
    assert detected_language("en", marker_words(german[:1])) is None  # too little to say


def classifies(answers: dict[str, tuple[str, float]]) -> SimpleNamespace:
    """What stands for py3langid: it knows ``answers``, and gives up below its least confidence."""

    class Identifier:
        labels = ("de", "en")

        def __init__(self, least: float) -> None:
            self.least = least

        @classmethod
        def from_model_file(cls, model_file: str, norm_probs: bool, min_confidence: float) -> Identifier:
            assert (model_file, norm_probs) == ("model", True)
            return cls(min_confidence)

        def classify(self, line: str) -> tuple[str, float]:
            language, confidence = answers[line]
            return (language, confidence) if confidence >= self.least else ("und", confidence)

    return SimpleNamespace(LanguageIdentifier=Identifier, MODEL_FILE="model")


def test_lines_in_another_language_are_dropped_if_that_is_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"ja": ("de", 0.99), "yes": ("en", 0.99), "so": ("en", 0.5)}
    monkeypatch.setattr(languages_module, "langid", classifies(answers))
    assert reasons("ja", langid_confidence=0.9) == []
    assert reasons("yes", langid_confidence=0.9) == ["langid_confidence"]
    assert reasons("so", langid_confidence=0.9) == []
    assert reasons("so", langid_confidence=0.4) == ["langid_confidence"]
    assert reasons("ja", "ja", langid_confidence=0.9) == ["langid_confidence"]
    with pytest.raises(ConfigError, match="does not know the language fr"):
        make_langid_filter("fr", 0.9)


def test_a_missing_classifier_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages_module, "langid", None)
    with pytest.raises(ConfigError, match="pip install py3langid"):
        reasons("x", langid_confidence=0.9)
    assert reasons("x") == []


@pytest.fixture
def german() -> Callable[[str], bool]:
    """Whether py3langid itself takes a line for another language than German."""
    pytest.importorskip("py3langid")
    return make_langid_filter("de", 0.9)


def test_py3langid_itself(german: Callable[[str], bool]) -> None:
    assert not german("Der Hund schläft auf dem Sofa und die Katze sitzt daneben.")
    assert german("The dog sleeps on the sofa and the cat is sitting next to it.")
    assert not german("OK")
