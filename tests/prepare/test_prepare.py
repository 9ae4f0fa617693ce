"""The whole of preparation: raw text in, ids out."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.preparation import ENGLISH, GERMAN, Workplace, contents
from xlmtrain.config.prepare import BpeConfig, SplitConfig, TextConfig, Unit, VocabConfig
from xlmtrain.data.format import Header
from xlmtrain.diagnostics.statistics_warnings import statistics_warnings
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.prepare import encode_stage, executors, global_stages, shard_raw, tokenize_stage
from xlmtrain.text.bpe import read_codes
from xlmtrain.text.pipeline import BpePipeline
from xlmtrain.text.vocab import Vocab


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
    pipeline = BpePipeline(text, read_codes(work.output / "codes"), Vocab.read(work.output / "vocab"))
    assert [[*pipeline.ids(line, "de"), 1] for line in GERMAN] == work.sentences("train.de")
    assert [[*pipeline.ids(line, "en"), 1] for line in ENGLISH] == work.sentences("train.en")


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
    for workers in (1, 3):  # the one is this process, which sees the numbers set above
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
