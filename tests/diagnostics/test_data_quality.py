"""Eight sets with mistakes: refused or warned of when they are prepared, and again before training, where the problem
is looked for in the data itself. A good set passes both in silence."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.repository import REPOSITORY
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.prepare import BpeConfig, PrepareConfig, SplitConfig, VocabConfig
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.format import CorpusHeader, CorpusWriter, Header, id_dtype
from xlmtrain.diagnostics import data_quality, statistics_warnings
from xlmtrain.diagnostics.data_quality import check_vocabulary, quality_warnings
from xlmtrain.errors import DataError
from xlmtrain.prepare.pipeline import prepare
from xlmtrain.runtime.typed_json import typed
from xlmtrain.text.vocab import Vocab

SAMPLE = REPOSITORY / "data" / "sample"
LINES = 3000
Lines = dict[str, list[str]]


@dataclass
class Warned:
    """The warnings, or the message of a refusal."""

    lines: list[str]
    refused: bool = False

    def matches(self, pattern: str) -> bool:
        return any(re.search(pattern, line) for line in self.lines)


def sample(split: str) -> Lines:
    """The first lines of the sample corpus."""
    return {
        language: (SAMPLE / f"{split}.{language}").read_text(encoding="utf-8").splitlines()[:LINES]
        for language in ("de", "en")
    }


def write(directory: Path, name: str, lines: Lines) -> None:
    for language, side in lines.items():
        (directory / f"{name}.{language}").write_text("".join(f"{line}\n" for line in side), encoding="utf-8")


def prepared(directory: Path, mono: Lines, pairs: Lines, valid: Lines, **settings: Any) -> Warned:
    """Prepare some text in ``directory / "data"``; return the warnings."""
    for name, lines in (("mono", mono), ("pairs", pairs), ("valid", valid)):
        write(directory, name, lines)
    paths = {language: [f"{directory}/mono.{language}"] for language in ("de", "en")}
    train = SplitConfig(paths, {"de-en": [f"{directory}/pairs.{{lang}}"]})
    held_out = SplitConfig({language: [f"{directory}/valid.{language}"] for language in ("de", "en")})
    settings = {"bpe": BpeConfig(merges=1500), **settings}
    try:
        statistics = prepare(PrepareConfig(str(directory / "data"), train, held_out, **settings))
    except DataError as error:
        return Warned([str(error)], refused=True)
    return Warned([str(finding) for finding in statistics_warnings.statistics_warnings(statistics)])


def trained_on(directory: Path) -> Warned:
    """Return the warnings before training."""
    try:
        dataset = Dataset(directory)
        check_vocabulary(len(dataset.vocab), ModelConfig())
        dataset.verify_training()
        return Warned([str(finding) for finding in quality_warnings(dataset, ModelConfig())])
    except DataError as error:
        return Warned([str(error)], refused=True)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``data`` in it, prepared from good text."""
    directory = tmp_path_factory.mktemp("good")
    warned = prepared(directory, sample("train"), sample("train"), sample("valid"))
    assert warned.lines == []
    return directory


def rewritten(good: Path, directory: Path, change: Callable[[dict[str, list[np.ndarray]]], None]) -> Path:
    """A copy of good data with other sentences, in order as far as files and checksums go, and with no statistics."""
    data = directory / "rewritten"
    shutil.copytree(good / "data", data)
    (data / "statistics.json").unlink()
    dataset = Dataset(good / "data")
    sentences = {
        name: [corpus.sentence(i) for i in range(len(corpus))]
        for name in dataset.header.corpora
        for corpus in [dataset.corpus(name)]
    }
    change(sentences)
    content = json.loads((data / "dataset.json").read_text(encoding="utf-8"))
    corpora = {}
    for name, some in sentences.items():
        with CorpusWriter(data, name, id_dtype(len(dataset.vocab))) as writer:
            writer.append(np.concatenate(some), np.array([len(sentence) for sentence in some]))
            corpora[name] = writer.finish([name])
    corpora = {name: typed(CorpusHeader, corpus) for name, corpus in content["corpora"].items()} | corpora
    Header.of(data, Vocab.read(data / "vocab"), content["languages"], content["text"], corpora).write(data)
    return data


def test_good_text_is_left_alone(good: Path) -> None:
    assert trained_on(good / "data") == Warned([])


def test_bpe_forgotten(tmp_path: Path) -> None:
    """A vocabulary of whole words, for text that was never split: issue 274 of the original XLM."""
    text = sample("train")
    words = sorted({word for side in text.values() for line in side for word in re.findall(r"\w+", line)})
    (tmp_path / "vocab").write_text("".join(f"{word} 1\n" for word in words), encoding="utf-8")
    (tmp_path / "codes").write_text("☃ ☃ 1\n", encoding="utf-8")
    given = {"bpe": BpeConfig(codes=f"{tmp_path}/codes"), "vocab": VocabConfig(file=f"{tmp_path}/vocab")}
    warned = prepared(tmp_path, text, text, sample("valid"), **given)
    assert warned.matches(rf"of the vocabulary's {len(words) + 14:,} entries 0 are parts of words.*was BPE forgotten")
    assert warned.matches(r"subwords a word; were the codes learned from text like this")
    assert trained_on(tmp_path / "data").matches("was BPE forgotten")


def test_bpe_applied_already(tmp_path: Path) -> None:
    text = {
        language: [re.sub(r"(\w\w)(\w)", r"\1@@ \2", line) for line in side]
        for language, side in sample("train").items()
    }
    warned = prepared(tmp_path, text, text, sample("valid"))
    assert warned.matches(rf"train\.mono\.de: [\d,]+ of {LINES:,} lines of .*mono\.de hold '@@ ', as after BPE")
    assert trained_on(tmp_path / "data").matches(r"mono\.de hold '@@ ', as after BPE")


def test_an_absurd_vocabulary(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """3.7 million entries, as in issue 274 of the original XLM: a warning when prepared, refused before the model is
    made. The limits are lowered, so that 2,000 entries are too many."""
    monkeypatch.setattr(statistics_warnings, "LARGE_VOCAB", 2000)
    (tmp_path / "vocab").write_text("".join(f"w{i}@@ 1\n" for i in range(2000)), encoding="utf-8")
    (tmp_path / "codes").write_text("☃ ☃ 1\n", encoding="utf-8")
    given = {"bpe": BpeConfig(codes=f"{tmp_path}/codes"), "vocab": VocabConfig(file=f"{tmp_path}/vocab")}
    few = {"de": ["a b"], "en": ["a"]}
    warned = prepared(tmp_path, few, few, {"de": ["c"], "en": ["d"]}, **given)
    absurd = (
        r"a vocabulary of 2,014: the embeddings of a model of 1024 dimensions alone would have 2 million parameters"
    )
    assert warned.matches(absurd)
    assert trained_on(tmp_path / "data").matches(absurd)
    with pytest.raises(DataError, match=r"vocabulary of 3,700,014: the embeddings alone would have 3,789 million"):
        check_vocabulary(3_700_014, ModelConfig())
    monkeypatch.setattr(data_quality, "LARGEST_VOCAB", 100)
    assert trained_on(good / "data").refused
    small = ModelConfig(dim=32, layers=1)
    size = len(Dataset(good / "data").vocab)
    share = size * 32 / (size * 32 + 12 * 32**2)
    monkeypatch.setattr(statistics_warnings, "MAX_EMBEDDING_SHARE", share - 0.01)
    assert any(f"{share:.0%} of the model's" in one.what for one in quality_warnings(Dataset(good / "data"), small))


def test_unknown_subwords(good: Path, tmp_path: Path) -> None:
    """Text of another kind than codes and vocabulary were made of."""
    text = {"de": [f"Ελληνικά {line}" for line in sample("train")["de"]], "en": sample("train")["en"]}
    given = {"bpe": BpeConfig(codes=f"{good}/data/codes"), "vocab": VocabConfig(file=f"{good}/data/vocab")}
    warned = prepared(tmp_path, text, sample("train"), sample("valid"), **given)
    assert warned.matches(r"^train\.de: \d+\.\d% of the subwords are not in the vocabulary")
    assert len(warned.lines) == 1
    (tmp_path / "data" / "statistics.json").unlink()
    assert trained_on(tmp_path / "data").matches(r"^train\.de: \d+\.\d% of the subwords are not in the vocabulary")


def reads_like(corpus: str, language: str) -> str:
    return f"{corpus}: it reads like {language}, not {corpus[-2:]}; were files swapped?"


def test_swapped_languages(tmp_path: Path) -> None:
    text = sample("train")
    swapped = {"de": text["en"], "en": text["de"]}
    warned = prepared(tmp_path, swapped, text, sample("valid"))
    assert warned.matches(r"train\.mono\.de: .*mono\.de reads like en, not de; were files swapped\?")
    assert warned.matches(r"train\.mono\.en: .*mono\.en reads like de, not en; were files swapped\?")
    (tmp_path / "data" / "statistics.json").unlink()
    assert trained_on(tmp_path / "data").lines == [
        f"train.{one}: it reads like {other}, not {one}; were files swapped?"
        for one, other in (("de", "en"), ("en", "de"))
    ]


def test_swapped_sides(good: Path, tmp_path: Path) -> None:
    text = sample("train")
    warned = prepared(tmp_path, text, {"de": text["en"], "en": text["de"]}, sample("valid"))
    assert warned.refused
    assert warned.matches(r"pairs\.de:1: .* reads like en, .* swapped with .*pairs\.en")

    def swap(sentences: dict[str, list[np.ndarray]]) -> None:
        one, other = "train.de-en.de", "train.de-en.en"
        sentences[one], sentences[other] = sentences[other], sentences[one]

    assert trained_on(rewritten(good, tmp_path, swap)).lines == [
        f"train.de-en.{one}: it reads like {other}, not {one}; were files swapped?"
        for one, other in (("de", "en"), ("en", "de"))
    ]


def test_held_out_text_in_training(tmp_path: Path) -> None:
    text = sample("train")
    warned = prepared(tmp_path, text, text, {language: side[:100] for language, side in text.items()})
    overlap = r"train\.de: [\d,]+ lines are in the validation or test text, too; they were left out"
    assert warned.matches(overlap)
    assert trained_on(tmp_path / "data").matches(overlap)
    dataset = Dataset(tmp_path / "data")
    held_out, train = (
        {tuple(corpus.sentence(i)) for i in range(len(corpus))}
        for corpus in (dataset.corpus("valid.de"), dataset.corpus("train.de"))
    )
    assert held_out
    assert not held_out & train


@pytest.mark.parametrize(("side", "lost"), [("de", 0), ("en", 0), ("de", 1500), ("en", 1500)])
def test_misaligned_pairs(good: Path, tmp_path: Path, side: str, lost: int) -> None:
    text, other = sample("train"), {"de": "en", "en": "de"}[side]
    del text[side][lost], text[other][-1]
    warned = prepared(tmp_path, sample("train"), text, sample("valid"))
    assert warned.refused
    assert warned.matches(r"pairs\.de:\d+: from about this line on, its lines are 1 (ahead of|behind) those of")

    def shift(sentences: dict[str, list[np.ndarray]]) -> None:
        del sentences[f"train.de-en.{side}"][lost], sentences[f"train.de-en.{other}"][-1]

    (found,) = trained_on(rewritten(good, tmp_path, shift)).lines
    said = re.fullmatch(
        r"train\.de-en\.de: from about sentence ([\d,]+) on, its lines are 1 (ahead of|behind) .*", found
    )
    assert said is not None
    assert abs(int(said[1].replace(",", "")) - lost) < 60
    assert said[2] == ("ahead of" if side == "de" else "behind")


def test_damaged_statistics_are_no_reason_not_to_train(good: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(good / "data", data)
    (data / "statistics.json").write_text("{", encoding="utf-8")
    warned = trained_on(data)
    assert not warned.refused
    assert warned.matches(r"statistics\.json: not statistics as this program writes them")


@pytest.mark.slow
def test_real_text_is_left_alone(shared: Path, tmp_path: Path) -> None:
    """Prepare eleven collections of real sentence pairs and running text: the few lines with entities are found."""
    pairs = [str(path).replace(".de.", ".{lang}.") for path in sorted((shared / "corpora" / "train").glob("*.de.xz"))]
    mono = {language: [str(shared / "corpora" / "dev" / f"*.{language}.xz")] for language in ("de", "en")}
    prepare(PrepareConfig(str(tmp_path / "data"), SplitConfig(mono, {"de-en": pairs}), bpe=BpeConfig(merges=2000)))
    warned = trained_on(tmp_path / "data")
    assert not warned.refused
    kinds = r"(first \S+), .*?(HTML entities|another encoding|markup).*"
    assert [re.sub(kinds, r"\1 \2", line) for line in warned.lines] == [
        "train.de-en.en: 16 of 28,989 lines, first multi30k.en.xz:560 HTML entities",
        "train.de-en.de: 15 of 28,823 lines, first php_manual.de.xz:1936 HTML entities",
        "train.de-en.en: 15 of 28,823 lines, first php_manual.en.xz:1936 HTML entities",
        "train.de-en.de: 7 of 9,298 lines, first wmt_mix10k.de.xz:870 another encoding",
    ]
