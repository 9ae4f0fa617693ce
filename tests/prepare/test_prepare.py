"""The whole of preparation: raw text in, ids out, and what is left when something goes wrong."""

from __future__ import annotations

import itertools
import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlmtrain.config.prepare import BpeConfig, CleanConfig, PrepareConfig, SplitConfig, TextConfig, Unit, VocabConfig
from xlmtrain.data.format import Header
from xlmtrain.diagnostics.data_quality import statistics_warnings
from xlmtrain.diagnostics.finding import print_warnings
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.prepare import encode_stage, executors, global_stages, shard_raw, tokenize_stage
from xlmtrain.prepare import pipeline as pipeline_module
from xlmtrain.prepare import pipeline as prepare_module
from xlmtrain.prepare.artifacts import ArtifactStore, BuildTask
from xlmtrain.prepare.output import open_store
from xlmtrain.prepare.pipeline import prepare
from xlmtrain.prepare.statistics import FileStatistics, Statistics
from xlmtrain.text.bpe import read_codes
from xlmtrain.text.pipeline import TextPipeline
from xlmtrain.text.vocab import Vocab

GERMAN = ["Über den Dächern schläft die Katze.", "Österreich ist größer als ÄÖÜß!", "Die Straße „am See“ ist naß."]
ENGLISH = ["The cat sleeps above the roofs.", "Austria isn't a street!", "It's 5,300 o'clock <s> </s> <pad>."]


class Workplace:
    """A directory with raw text, and what preparation makes of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.output = directory / "out" / "prepared"
        self.write("mono.de", GERMAN)
        self.write("mono.en", ENGLISH)
        self.write("pairs.de", GERMAN)
        self.write("pairs.en", ENGLISH)

    def write(self, name: str, lines: list[str], end: str = "\n") -> None:
        (self.directory / name).write_bytes(end.join([*lines, ""]).encode())

    def config(self, **settings: Any) -> PrepareConfig:
        train = SplitConfig(
            mono={language: [f"{self.directory}/mono.{language}"] for language in ("en", "de")},
            pairs={"de-en": [f"{self.directory}/pairs.{{lang}}"]},
        )
        defaults: dict[str, Any] = {"output": str(self.output), "train": train, "workers": 1}
        defaults["bpe"] = BpeConfig(merges=30)
        return PrepareConfig(**{**defaults, **settings})

    def prepare(self, **settings: Any) -> Statistics:
        return prepare(self.config(**settings))

    def pairs(self) -> SplitConfig:
        """The pairs alone."""
        return SplitConfig(pairs={"de-en": [f"{self.directory}/pairs.{{lang}}"]})

    def sentences(self, corpus: str) -> list[list[int]]:
        """The ids of a corpus as lists."""
        header = Header.read(self.output)
        entry = header.corpora[corpus]
        ids = np.fromfile(self.output / entry.ids.file, header.dtype)
        starts = np.fromfile(self.output / entry.offsets.file, "<i8")
        assert len(starts) == entry.sentences + 1
        assert starts[-1] == len(ids) == entry.tokens
        return [ids[start:end].tolist() for start, end in itertools.pairwise(starts)]

    def text(self, corpus: str) -> list[str]:
        vocab = Vocab.read(self.output / "vocab")
        return [vocab.decode(ids) for ids in self.sentences(corpus)]

    def leftovers(self) -> set[str]:
        """Files and directories beside the raw text."""
        raw = {"mono.de", "mono.en", "pairs.de", "pairs.en"}
        return {path.name for path in self.directory.rglob("*") if path.name not in {*raw, "out"}}


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def dropped(file: FileStatistics) -> dict[str, int]:
    """The reasons for which lines of a file were dropped."""
    return {reason: count for reason, count in file.dropped.items() if count}


@pytest.fixture
def work(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


def test_golden_ids_with_given_codes_and_vocabulary(work: Workplace) -> None:
    (work.directory / "codes").write_text("e n</w> 9\nK a 3\nKa t 2\n", encoding="utf-8")
    (work.directory / "vocab").write_text("Kat@@ 9\nen 8\n. 7\nä@@ 6\nß 5\n", encoding="utf-8")
    work.write("mono.de", ["Katen äß.", "ß", "Ü en"])
    given: dict[str, Any] = {
        "bpe": BpeConfig(codes=str(work.directory / "codes")),
        "vocab": VocabConfig(file=str(work.directory / "vocab")),
    }
    work.prepare(train=SplitConfig(mono={"de": [f"{work.directory}/mono.de"]}), **given)
    assert work.sentences("train.de") == [[14, 15, 17, 18, 16, 1], [18, 1], [3, 15, 1]]
    assert (work.output / "codes").read_bytes() == (work.directory / "codes").read_bytes()
    assert (work.output / "vocab").read_bytes() == (work.directory / "vocab").read_bytes()


def test_text_comes_back_cased_with_umlauts_and_aligned(work: Workplace) -> None:
    work.prepare()
    assert work.text("train.de-en.de") == [
        "Über den Dächern schläft die Katze . </s>",
        "Österreich ist größer als ÄÖÜß ! </s>",
        'Die Straße " am See " ist naß . </s>',
    ]
    assert work.text("train.de-en.en")[:2] == [
        "The cat sleeps above the roofs . </s>",
        "Austria isn 't a street ! </s>",
    ]
    assert work.text("train.de") == work.text("train.de-en.de")


def test_special_symbols_in_raw_text_are_ordinary_text(work: Workplace) -> None:
    work.prepare()
    assert work.text("train.en")[2] == "It 's 5,300 o 'clock < s > < / s > < pad > . </s>"
    assert all(id >= 14 for ids in work.sentences("train.en") for id in ids[:-1])


def test_the_header_describes_what_is_there(work: Workplace) -> None:
    statistics = work.prepare(text=TextConfig(max_tokens=50))
    header = Header.read(work.output)
    vocab = Vocab.read(work.output / "vocab")
    assert header.languages == ["de", "en"]
    assert (header.vocab_size, header.vocab_fingerprint) == (len(vocab), vocab.fingerprint)
    assert header.text == {"lowercase": False, "remove_accents": False, "max_tokens": 50, "normalize_unicode": False}
    assert set(header.corpora) == {"train.en", "train.de", "train.de-en.de", "train.de-en.en"}
    corpus = header.corpora["train.de"]
    assert corpus.sources == ["mono.de"]
    expected = {"codes", "vocab", "dataset.json", "statistics.json"}
    expected |= {f"{name}.{kind}" for name in header.corpora for kind in ("ids", "offsets")}
    assert {path.name for path in work.output.iterdir()} == expected
    assert len(read_codes(work.output / "codes")) == statistics.codes == 30
    # the vocabulary's counts are those of the training text, on both kinds of file
    ids = Counter(id for name in header.corpora for sentence in work.sentences(name) for id in sentence[:-1])
    assert {vocab.id(word): count for word, count in zip(vocab.tokens[14:], vocab.counts[14:])} == ids


def test_the_pipeline_makes_the_same_ids(work: Workplace) -> None:
    work.prepare()
    text = TextConfig(**Header.read(work.output).text)
    pipeline = TextPipeline(text, read_codes(work.output / "codes"), Vocab.read(work.output / "vocab"))
    assert [[*pipeline.ids(line, "de"), 1] for line in GERMAN] == work.sentences("train.de")
    assert [[*pipeline.ids(line, "en"), 1] for line in ENGLISH] == work.sentences("train.en")


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


def test_several_files_of_a_corpus_follow_one_another(work: Workplace) -> None:
    work.write("more.en", ["Last line."])
    work.write("none.en", [])
    train = SplitConfig(mono={"en": [f"{work.directory}/{name}.en" for name in ("none", "more", "mono")]})
    statistics = work.prepare(train=train)
    assert [text.split()[0] for text in work.text("train.en")] == ["Last", "The", "Austria", "It"]
    assert Header.read(work.output).corpora["train.en"].sources == ["none.en", "more.en", "mono.en"]
    assert [file.sentences for file in statistics.files] == [0, 1, 3]


def test_the_output_depends_neither_on_workers_nor_on_chunks(work: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    random.seed(7)
    words = [*" ".join(GERMAN + ENGLISH).split(), "漢字", "☃", "3.14", "usw.", ""]
    for side in ("de", "en"):
        work.write(f"pairs.{side}", [" ".join(random.choices(words, k=random.randrange(12))) for _ in range(300)])
    work.prepare()
    monkeypatch.setattr(shard_raw, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(tokenize_stage, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(encode_stage, "_NUMBERS_PER_BLOCK", 100)
    monkeypatch.setattr(encode_stage, "CACHED_WORDS", 10)
    monkeypatch.setattr(tokenize_stage, "CACHED_WORDS", 10)
    tokenize_stage._tokenizer.cache_clear()
    monkeypatch.setattr(executors, "PARALLEL_BYTES", 0)
    for workers in (1, 2, 4):  # the one is this process, which sees the numbers set above
        work.prepare(output=str(work.directory / "more"), workers=workers, overwrite=True)
        assert contents(work.directory / "more") == contents(work.output)


def test_too_few_pairs_of_symbols_is_no_error(work: Workplace) -> None:
    statistics = work.prepare(bpe=BpeConfig(merges=5000))
    assert statistics.codes < 1000
    assert any(f"only {statistics.codes} codes" in note for note in statistics.notes)


def test_only_training_text_makes_codes_and_vocabulary(work: Workplace) -> None:
    work.write("mono.en", ["zzzzzz qqqqqq"] * 5)
    train = SplitConfig(mono={"de": [f"{work.directory}/mono.de"]})
    statistics = work.prepare(train=train, valid=SplitConfig(mono={"en": [f"{work.directory}/mono.en"]}))
    vocab = Vocab.read(work.output / "vocab")
    assert not any("zz" in word or "q" in word for word in vocab.tokens)
    (unknown,) = [total for total in statistics.totals() if total.split == "valid"]
    assert unknown.file == "valid.en"
    # "z" itself is in the vocabulary if it ends or continues a German word, "q" is not at all
    assert unknown.unknown_rate >= 0.5
    warnings = "\n".join(finding.what for finding in statistics_warnings(statistics))
    assert re.search(r"^valid\.en: \d+\.\d% of the subwords are not in the vocabulary", warnings, re.MULTILINE)


def test_unknown_words_are_told_with_their_counts(work: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    work.write("mono.en", [*(["The cat ☃ sleeps."] * 30), *(["The ★ cat ☃ ★ sleeps."] * 10), "The cat sleeps."])
    valid = SplitConfig(mono={"en": [f"{work.directory}/mono.en"]})
    statistics = work.prepare(train=work.pairs(), valid=valid)
    assert statistics.unknown_words["valid.en"] == [("☃", 40), ("★", 20)]
    assert statistics.unknown_words["train.de-en.de"] == []
    assert "unknown in valid.en: ☃ 40 | ★ 20" in str(statistics)
    for file in statistics.files:
        file.file = Path(file.file).name  # prepared data is passed on: no directories in it
    assert Statistics.read(work.output / "statistics.json") == statistics
    monkeypatch.setattr(encode_stage, "_SENTENCES_SEARCHED", 20)  # every other sentence
    again = work.prepare(train=work.pairs(), valid=valid, overwrite=True)
    assert again.unknown_words["valid.en"] == [("☃", 20), ("★", 10)]
    limited = work.prepare(vocab=VocabConfig(max_size=30), overwrite=True)
    assert "Dächern" in dict(limited.unknown_words["train.de"])


def test_the_statistics_count_tokens(work: Workplace) -> None:
    statistics = work.prepare()
    (german,) = [file for file in statistics.files if file.language == "de" and file.pair is None]
    sentences = work.sentences("train.de")
    assert german.subwords == sum(len(sentence) - 1 for sentence in sentences)
    assert german.words == sum(len(text.split()) - 1 for text in work.text("train.de"))
    assert german.unknown == 0
    stored = json.loads((work.output / "statistics.json").read_text(encoding="utf-8"))
    assert stored["files"][0]["subwords"] == statistics.files[0].subwords
    assert str(work.directory) not in json.dumps(stored)
    assert [total["file"] for total in stored["totals"]] == ["train.en", "train.de", "train.de-en.de", "train.de-en.en"]
    row = next(line for line in str(statistics).splitlines() if line.startswith("train.de "))
    assert row.split()[:3] == ["train.de", "3", "3"]


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


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_job_spares_the_old_output_and_goes_on(
    work: Workplace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    work.prepare()
    before = contents(work.output)

    def interrupt(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(global_stages, "learn_bpe", interrupt)
        with pytest.raises((KeyboardInterrupt, DataError)) as caught:
            work.prepare(overwrite=True)
    assert caught.type is KeyboardInterrupt or "No space left on device" in str(caught.value)
    assert contents(work.output) == before
    assert {path.name for path in work.output.parent.iterdir()} == {"prepared", ".prepared.partial"}
    capsys.readouterr()
    work.prepare(overwrite=True)
    assert "tokenize: 3 of 3 tasks are finished already" in capsys.readouterr().out
    assert contents(work.output) == before
    assert [path.name for path in work.output.parent.iterdir()] == ["prepared"]


STAGES = ("shard", "tokenize", "select", "codes", "subwords", "encode", "vocab", "assemble")


@pytest.mark.parametrize("stage", STAGES)
def test_a_job_that_ends_in_any_stage_goes_on_with_the_same_result(
    work: Workplace, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    work.prepare()
    before = contents(work.output)
    made: list[str] = []
    build = ArtifactStore.build

    def ends(self: ArtifactStore, task: BuildTask, function: Callable[[Path], dict[str, Any]]) -> None:
        def fill(out: Path) -> dict[str, Any]:
            made.append(task.stage)
            result = function(out)
            if task.stage == stage and made.count(stage) == 1:
                raise KeyboardInterrupt
            return result

        build(self, task, fill)

    monkeypatch.setattr(ArtifactStore, "build", ends)
    with pytest.raises(KeyboardInterrupt):
        work.prepare(output=str(work.directory / "again"))
    first = list(made)
    work.prepare(output=str(work.directory / "again"))
    assert contents(work.directory / "again") == before
    # every task was run once, but for the one that was interrupted
    assert Counter(made) == Counter({"shard": 3, "tokenize": 3, "select": 3, "encode": 3, "assemble": 4}) + Counter(
        [stage, "codes", "subwords", "vocab"]
    )
    assert set(first[:-1]) <= set(STAGES[: STAGES.index(stage) + 1])


def test_changed_input_and_settings_are_noticed(work: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(**settings: Any) -> str:
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(prepare_module, "publish", interrupt)
            with pytest.raises(KeyboardInterrupt):
                work.prepare(**settings)
        return capsys.readouterr().out

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    interrupted()
    unchanged = interrupted()
    assert all(f"{stage}: {n} of {n} tasks are finished already" in unchanged for stage, n in TASKS.items())
    work.write("mono.en", [*ENGLISH, "One more."])
    changed = interrupted()
    assert "shard: input, settings or program changed, 1 finished tasks are run again" in changed
    assert "tokenize: 2 of 3 tasks are finished already" in changed
    assert "encode: 3 of 3" not in changed  # other codes
    limited = interrupted(text=TextConfig(max_tokens=50))
    assert "shard: 3 of 3 tasks are finished already" in limited
    assert "tokenize: input, settings or program changed, 3 finished tasks are run again" in limited
    work.prepare(text=TextConfig(max_tokens=50))
    work.prepare(text=TextConfig(max_tokens=50), output=str(work.directory / "fresh"))
    assert contents(work.output) == contents(work.directory / "fresh")


TASKS = {"shard": 3, "tokenize": 3, "select": 3, "encode": 3, "assemble": 4}


def test_a_second_job_for_the_same_output_is_refused(work: Workplace) -> None:
    with open_store(work.output), pytest.raises(DataError, match="another process is preparing it"):
        work.prepare()


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


@pytest.mark.parametrize(
    ("lines", "settings", "message"),
    [
        (["a", "b", "c"], {}, r"train: every word is a single character"),
        (GERMAN, {"bpe": BpeConfig(merges=9, train_sample=1, sampling_alpha=0.0)}, r"bpe\.train_sample: no word"),
    ],
)
def test_nothing_to_learn_from_is_told_by_the_setting(
    work: Workplace, lines: list[str], settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_module, "sample_rates", lambda *_: {"de": 0.0 if settings else 1.0})
    work.write("mono.de", lines)
    with pytest.raises(DataError, match=message) as error:
        work.prepare(train=SplitConfig({"de": [f"{work.directory}/mono.de"]}), **settings)
    assert ".partial" not in str(error.value)


def test_a_language_without_files_is_refused() -> None:
    problems = list(SplitConfig(mono={"de": []}, pairs={"de-en": []}).problems())
    assert problems == [f"{key}: has no file; give one, or remove it" for key in ("mono.de", "pairs.de-en")]


def test_a_file_that_is_given_twice_is_read_once(work: Workplace) -> None:
    (work.directory / "link.de").symlink_to("mono.de")
    (work.directory / "hard.de").hardlink_to(work.directory / "mono.de")
    names = ["mono.de", "*.de", "./mono.de", "link.de"]
    (work.directory / "pairs.de").unlink()
    statistics = work.prepare(train=SplitConfig({"de": [f"{work.directory}/{name}" for name in names]}))
    assert [Path(file.file).name for file in statistics.files] == ["mono.de"]
    assert statistics.totals()[0].sentences == len(work.sentences("train.de")) == len(GERMAN)
    notes = [note for note in statistics.notes if "is given twice" in note]
    assert len(notes) == 5
    assert re.search(
        r"train\.mono\.de: .*link\.de is given twice, also as .*mono\.de; it is read once", str(statistics)
    )


def test_a_file_of_two_languages_is_refused(work: Workplace) -> None:
    (work.directory / "x.en").symlink_to("mono.de")
    train = SplitConfig({"de": [f"{work.directory}/mono.de"], "en": [f"{work.directory}/x.en"]})
    with pytest.raises(DataError, match=r"x\.en is given for en, and as .*mono\.de for de"):
        work.prepare(train=train)


def test_warnings_come_before_the_long_work_and_after_it(work: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    english = ["The dog is on the sofa and that was not for you."] * 20
    work.write("mono.de", english)
    work.write("mono.en", [f"The do@@ g {i}." for i in range(20)])
    statistics = prepare(work.config(), lambda known: print_warnings(statistics_warnings(known)))
    early = capsys.readouterr().out.partition("tokenize:")[0]
    for warning in (
        r"train\.mono\.de: .*mono\.de reads like en, not de; were files swapped\?",
        r"train\.mono\.en: 20 of 20 lines of .*mono\.en hold '@@ ', as after BPE",
    ):
        assert re.search(f"WARNING: {warning}", early)
        assert any(re.match(warning, finding.what) for finding in statistics_warnings(statistics))
    few_codes = work.prepare(bpe=BpeConfig(merges=1), overwrite=True)
    warnings = [finding.what for finding in statistics_warnings(few_codes)]
    assert any("subwords a word; were the codes learned from text like this" in warning for warning in warnings)
    few_codes.vocab_size = 3_700_000
    (warning,) = [
        finding.what for finding in statistics_warnings(few_codes) if "vocabulary of 3,700,000" in finding.what
    ]
    assert "3,789 million parameters" in warning


def test_codes_are_learned_from_a_balanced_sample(work: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_raw, "CHUNK_BYTES", 200)
    monkeypatch.setattr(tokenize_stage, "CHUNK_BYTES", 200)
    rng = random.Random(4)
    for language, lines in (("de", 400), ("en", 1600)):
        work.write(f"mono.{language}", ["".join(rng.choices("abcdef", k=19)) for _ in range(lines)])
    train = SplitConfig({language: [f"{work.directory}/mono.{language}"] for language in ("de", "en")})
    seen: list[dict[str, int]] = []
    learn = global_stages.balance_factors

    def spy(counted: dict[str, int], rates: dict[str, float], alpha: float) -> dict[str, float]:
        seen.append(counted)
        return learn(counted, rates, alpha)

    monkeypatch.setattr(global_stages, "balance_factors", spy)
    work.prepare(train=train, bpe=BpeConfig(merges=50, train_sample=300))
    whole = work.prepare(train=train, bpe=BpeConfig(merges=50, train_sample=0), overwrite=True)
    sampled, everything = seen
    assert everything == {"de": 400, "en": 1600}
    assert 60 <= sampled["de"] <= 140  # 100 expected, in chunks of 10 lines
    assert 140 <= sampled["en"] <= 260  # 200: the square root of 4 times as many
    work.prepare(
        train=train, bpe=BpeConfig(merges=50, train_sample=300 * 20, train_sample_unit=Unit.bytes), overwrite=True
    )
    assert seen[2] == sampled  # every line has 20 bytes
    limited = work.prepare(train=train, bpe=BpeConfig(merges=50, max_word_types=500), overwrite=True)
    assert limited.codes == whole.codes == 50


def test_a_large_vocabulary_takes_four_bytes_an_id(work: Workplace) -> None:
    (work.directory / "codes").write_text("\u2603 \u2603 1\n")
    (work.directory / "vocab").write_text("".join(f"w{i} 1\n" for i in range(70_000)) + "a@@ 1\nb 1\n")
    work.write("mono.de", ["ab", "b"])
    given = {"bpe": BpeConfig(codes=f"{work.directory}/codes"), "vocab": VocabConfig(file=f"{work.directory}/vocab")}
    work.prepare(train=SplitConfig({"de": [f"{work.directory}/mono.de"]}), **given)
    assert Header.read(work.output).dtype == "int32"
    assert work.sentences("train.de") == [[70_014, 70_015, 1], [70_015, 1]]


def test_an_existing_output_is_replaced_only_when_asked_and_only_a_data_set(work: Workplace) -> None:
    work.prepare()
    with pytest.raises(DataError, match=r"exists already.*overwrite=true"):
        work.prepare()
    work.write("mono.en", ["New."])
    work.prepare(overwrite=True)
    assert work.text("train.en") == ["New . </s>"]
    assert [path.name for path in work.output.parent.iterdir()] == ["prepared"]
    (work.output / "dataset.json").unlink()
    with pytest.raises(ConfigError, match="is not a prepared data set"):
        work.prepare(overwrite=True)
    assert (work.output / "train.en.ids").exists()


def test_the_fingerprint_follows_the_text_and_the_settings_only(work: Workplace) -> None:
    def prepared(name: str, **settings: Any) -> str:
        work.prepare(output=str(work.directory / name), **settings)
        return Header.read(work.directory / name).fingerprint

    first = prepared("first")
    assert prepared("again") == first
    assert prepared("limited", text=TextConfig(max_tokens=100)) != first
    work.write("mono.en", [*ENGLISH, "The cat sleeps."])
    assert prepared("longer") != first


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


def test_statistics_of_0_1_0_are_read_with_the_names_of_the_settings(work: Workplace) -> None:
    statistics = work.prepare()
    path = work.output / "statistics.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["files"][0]["dropped"] = {"overlap": 3, "too_long": 2, "empty": 1}
    path.write_text(json.dumps(content), encoding="utf-8")
    read = Statistics.read(path)
    assert read is not None
    assert dropped(read.files[0]) == {"decontaminate": 3, "max_tokens": 2, "empty": 1}
    assert [file.sentences for file in read.files[1:]] == [file.sentences for file in statistics.files[1:]]
