"""A prepared data set as text: its figures, pairs side by side, and what was dropped."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from xlmtrain.commands.show_data import describe_dataset
from xlmtrain.config.prepare import BpeConfig, CleanConfig, PrepareConfig, SplitConfig
from xlmtrain.data.batch import make_seq2seq_batch
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.inspect import describe_batch
from xlmtrain.data.sequences import sentence_sequences
from xlmtrain.prepare.pipeline import prepare

GERMAN = [f"Der Hund Nummer {i} , sieht {'die ' * (i % 40)}Katze ." for i in range(300)]
ENGLISH = [f"Dog number {i} sees {'the ' * (i % 40)}cat ." for i in range(300)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    directory = tmp_path_factory.mktemp("inspect")
    (directory / "x.de").write_text("".join(f"{line}\n" for line in [*GERMAN, *GERMAN[:20], ""]), encoding="utf-8")
    (directory / "x.en").write_text("".join(f"{line}\n" for line in [*ENGLISH, *ENGLISH[:20], ""]), encoding="utf-8")
    (directory / "v.de").write_text("Der ☃ sieht die 漢字 , die ☃☃ .\nDer Hund .\nDer ☃ .\n", encoding="utf-8")
    train = SplitConfig({"de": [f"{directory}/x.de"]}, {"de-en": [f"{directory}/x.{{lang}}"]})
    valid = SplitConfig({"de": [f"{directory}/v.de"]})
    output = str(directory / "out")
    prepare(PrepareConfig(output, train, valid, bpe=BpeConfig(merges=200), clean=CleanConfig(drop_duplicates=True)))
    return Dataset(output)


@pytest.fixture(scope="module")
def shown(prepared: Dataset) -> str:
    return "\n".join(describe_dataset(prepared, sentences=5, words=10, width=100))


def test_sizes_are_those_of_the_data(prepared: Dataset, shown: str) -> None:
    for name, corpus in prepared.header.corpora.items():
        row = next(line.split() for line in shown.splitlines() if line.startswith(f"{name} "))
        assert row[1:3] == [f"{corpus.sentences:,}", f"{corpus.tokens:,}"]
        assert row[4] == str(len(corpus.shards))
    assert f"vocabulary {len(prepared.vocab):,}, ids uint16" in shown


@pytest.mark.parametrize("name", ["train.de", "train.de-en.en", "valid.de"])
def test_the_histogram_counts_every_sentence(prepared: Dataset, shown: str, name: str) -> None:
    lengths = prepared.corpus(name).lengths()
    rows = shown.partition(f"sentences of {name} by their tokens:\n")[2].partition("most frequent")[0].splitlines()
    assert len(rows) > 1 or name == "valid.de"
    for row in rows:
        bounds, count, share = row.split()[:3]
        first, last = (int(bound) for bound in (bounds.split("-") * 2)[:2])
        inside = int(np.count_nonzero((lengths >= first) & (lengths <= last)))
        assert int(count.replace(",", "")) == inside
        assert share == f"{inside / len(lengths):.1%}"
    assert sum(int(row.split()[1].replace(",", "")) for row in rows) == len(lengths)


def test_pairs_stand_side_by_side(shown: str) -> None:
    part = shown.partition("== train.de-en.de | train.de-en.en\n")[2].partition("sentences of")[0]
    rows = re.split(r"\n(?= *\d)", part.strip("\n"))
    assert len(rows) == 5
    for row in rows:
        lines = [re.split(r" \|(?: |$)", line, maxsplit=1) for line in row.splitlines()]
        number = int(lines[0][0].split()[0])
        german = " ".join(line[0].strip() for line in lines).split()[1:]
        english = " ".join(line[1].strip() for line in lines).split()
        assert german == GERMAN[number].split()
        assert english == ENGLISH[number].split()
        assert all(len(line) <= 100 for line in row.splitlines())


def test_words_and_unknown_words_are_counted(shown: str) -> None:
    text = re.sub(r"\n {4}(?=\S)", " ", shown)
    count = sum(line.count("die ") for line in GERMAN)
    assert f"die {count:,} | " in text.partition("== train.de\n")[2].partition("==")[0]
    unknown = text.partition("== valid.de\n")[2].partition("unknown words: ")[2].splitlines()[0]
    assert unknown == "☃ 4 | 漢字 1"  # the tokenizer takes ☃☃ apart
    assert "unknown words: none" in text.partition("== train.de\n")[2].partition("==")[0]


def test_dropped_lines_are_shown(shown: str) -> None:
    assert re.search(r"^train\.de +321 +1 +20 +300 ", shown, re.MULTILINE)


def test_data_from_elsewhere_is_shown_as_far_as_it_is_known(tiny_dataset: Path) -> None:
    shown = "\n".join(describe_dataset(Dataset(tiny_dataset), sentences=2, words=3, width=80))
    assert "Dropped text and unknown words are not recorded" in shown
    assert "sentences of valid.de-en.en by their tokens:" in shown


def test_padding_is_that_of_both_sides(prepared: Dataset) -> None:
    sides = [sentence_sequences([np.array([14] * n + [1]) for n in lengths], 0) for lengths in ((3, 8), (5, 5))]
    first, *_ = describe_batch(make_seq2seq_batch("mt", *sides, "x"), prepared.vocab, prepared.languages, 1)
    assert first == f"== x: 2 rows x 7 tokens, 12 to predict, {5 / 34:.1%} padding"
