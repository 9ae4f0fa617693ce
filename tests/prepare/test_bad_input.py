"""Text and settings that cannot be prepared: one clear error, and nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.preparation import ENGLISH, GERMAN, Workplace
from xlmtrain.config.prepare import BpeConfig, SplitConfig, TextConfig, VocabConfig
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.prepare import segmentation

Broken = tuple[dict[str, Any], str]
"""Settings, and the message they lead to."""


def break_utf8(work: Workplace) -> Broken:
    (work.directory / "mono.de").write_bytes(b"gut\nschlecht \xfc\n")
    return {}, r"mono\.de:2: not UTF-8"


def break_alignment(work: Workplace) -> Broken:
    work.write("pairs.en", ENGLISH[:2])
    return {}, r"pairs\.de:3 is the first line without a partner"


def break_codes(work: Workplace) -> Broken:
    (work.directory / "mono.de").write_text("x\n")
    (work.directory / "pairs.de").write_text("a b 1\nc\n")
    return {"bpe": BpeConfig(codes=str(work.directory / "pairs.de"))}, r"pairs\.de:2: not a BPE code"


def break_vocab(work: Workplace) -> Broken:
    (work.directory / "pairs.de").write_text("a b 1\n")
    (work.directory / "pairs.en").write_text("a 1\nb 2\n")
    return {
        "bpe": BpeConfig(codes=str(work.directory / "pairs.de")),
        "vocab": VocabConfig(file=str(work.directory / "pairs.en")),
    }, r"pairs\.en:2: count 2 after 1"


def cut_off_every_subword(work: Workplace) -> Broken:
    return {"vocab": VocabConfig(min_count=1000)}, r"vocab\.min_count: 1000 leaves nothing"


def only_empty_lines(work: Workplace) -> Broken:
    work.write("mono.en", ["", " "])
    return {}, r"train\.en: none of its 2 lines can be used; dropped: 2 empty$"


def utf16(work: Workplace) -> Broken:
    (work.directory / "mono.de").write_text("Hunde\n", encoding="utf-16")
    return {}, r"mono\.de: is UTF-16, not UTF-8"


def empty_file(work: Workplace) -> Broken:
    work.write("mono.en", [])
    return {}, r"train\.en: there is no line in it$"


def directory(work: Workplace) -> Broken:
    place = str(work.directory)
    return {"valid": SplitConfig(mono={"en": [place]})}, r"valid\.mono\.en: .* is a directory; give its files, like "


def no_such_file(work: Workplace) -> Broken:
    return {"valid": SplitConfig(mono={"en": ["nowhere/*.en"]})}, r"valid\.mono\.en: no file matches nowhere/\*\.en"


@pytest.mark.parametrize(
    ("breaking", "workers"),
    [
        (break_utf8, 1),
        (break_utf8, 2),
        (break_alignment, 1),
        (only_empty_lines, 1),
        (cut_off_every_subword, 1),
        (utf16, 1),
        (empty_file, 1),
    ],
)
def test_bad_text_is_a_clear_error_and_leaves_nothing(
    work: Workplace, breaking: Callable[[Workplace], Broken], workers: int
) -> None:
    settings, message = breaking(work)
    with pytest.raises(DataError, match=message):
        work.prepare(workers=workers, **settings)
    assert work.leftovers() == set()


@pytest.mark.parametrize("breaking", [break_codes, break_vocab, no_such_file, directory])
def test_bad_settings_are_found_before_anything_is_written(
    work: Workplace, breaking: Callable[[Workplace], Broken], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, message = breaking(work)
    monkeypatch.setattr("pathlib.Path.mkdir", lambda *_, **__: pytest.fail("wrote too early"))
    with pytest.raises(DataError, match=message):
        work.prepare(**settings)


@pytest.mark.parametrize(
    ("lines", "settings", "message"),
    [
        (["a", "b", "c"], {}, r"train: every word is a single character"),
        (GERMAN, {"bpe": BpeConfig(merges=9, train_sample=1, sampling_alpha=0.0)}, r"bpe\.train_sample: no word"),
    ],
)
def test_nothing_to_learn_from_is_refused_by_the_setting(
    work: Workplace, lines: list[str], settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentation, "sample_rates", lambda *_: {"de": 0.0 if settings else 1.0})
    work.write("mono.de", lines)
    with pytest.raises(DataError, match=message) as error:
        work.prepare(train=SplitConfig({"de": [f"{work.directory}/mono.de"]}), **settings)
    assert ".partial" not in str(error.value)


def test_a_language_without_files_is_refused() -> None:
    problems = list(SplitConfig(mono={"de": []}, pairs={"de-en": []}).problems())
    assert problems == [f"{key}: has no file; give one, or remove it" for key in ("mono.de", "pairs.de-en")]


def test_a_file_of_two_languages_is_refused(work: Workplace) -> None:
    (work.directory / "x.en").symlink_to("mono.de")
    train = SplitConfig({"de": [f"{work.directory}/mono.de"], "en": [f"{work.directory}/x.en"]})
    with pytest.raises(DataError, match=r"x\.en is given for en, and as .*mono\.de for de"):
        work.prepare(train=train)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"vocab": VocabConfig(max_size=14)}, "vocab.max_size: 14 leaves no entry"),
        ({"vocab": VocabConfig(max_size=-1)}, "vocab.max_size: -1 is negative"),
        ({"text": TextConfig(max_tokens=-2)}, "text.max_tokens: -2 is negative"),
        ({"valid": SplitConfig(mono={"../en": ["a"]})}, "valid.mono.../en: a language is named by letters"),
        ({"valid": SplitConfig(mono={"de-en": ["a"]})}, "valid.mono.de-en: a language is named by letters"),
        ({"test": SplitConfig(mono={"": ["a"]})}, "test.mono.: a language is named by letters"),
        ({"test": SplitConfig(pairs={"/de-en": ["a"]})}, "test.pairs./de-en: a pair is two languages"),
        ({"test": SplitConfig(pairs={"de-en-fr": ["a"]})}, "test.pairs.de-en-fr: a pair is two languages"),
        ({"test": SplitConfig(pairs={"en-en": ["a"]})}, "test.pairs.en-en: a pair is two languages"),
    ],
)
def test_settings_that_cannot_be_right_are_refused_by_key_path(
    work: Workplace, settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        work.config(**settings)
    (problem,) = str(caught.value).splitlines()[1:]
    assert problem.startswith(f"  {complaint}")
    work.config(vocab=VocabConfig(max_size=15), valid=SplitConfig(mono={"zh_Hans": ["a"]}, pairs={"de-en": ["a"]}))
