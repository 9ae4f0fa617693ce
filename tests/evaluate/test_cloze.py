"""Words hidden in validation pairs: which, and what the model sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.support.tiny import write_corpus, write_header
from xlmtrain.config.model import ModelConfig
from xlmtrain.data.batch import Batch
from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import DataError
from xlmtrain.evaluate.cloze import run_cloze
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.text.vocab import EOS, MASK, Vocab

WORDS = {"Katze": "cats", "Hund": "dogs", "Straße": "street", "schläft": "sleeps", "Nacht": "night", "Öfen": "ovens"}
"""German words that may be hidden, and their translations."""

OTHERS = ("die", "Uhr", "2024", "U-Bahn", ".", "Haus@@", "boot", "@@", "Brot@@", "the")
"""Too short, not of letters only, or a part of a word: never hidden."""

VOCAB = Vocab([(word, 1) for word in (*WORDS, *WORDS.values(), *OTHERS)])
MAY_BE_HIDDEN: dict[str, set[str]] = {
    "die Katze schläft .": {"Katze", "schläft"},
    "die Uhr . 2024": set(),
    "Haus@@ boot Brot@@ Nacht Straße": {"Straße"},
    "U-Bahn Straße Nacht": {"Straße", "Nacht"},
    "": set(),
    "Hund Katze Öfen . Haus@@ boot": {"Hund", "Katze", "Öfen"},
    "boot": {"boot"},
}
"""Sentences, and the words of each that are whole, of letters only, and longer than three."""

SENTENCES = list(MAY_BE_HIDDEN)


def translate(sentence: str) -> str:
    return " ".join(WORDS.get(word, "the") for word in sentence.split())


def write(directory: Path, german: Sequence[str], english: Sequence[str]) -> Dataset:
    """Validation pairs of whole text, and nothing else."""
    directory.mkdir()
    VOCAB.write(directory / "vocab")
    sides = {"de": german, "en": english}
    names = {language: f"valid.de-en.{language}" for language in sides}
    corpora = {
        names[language]: write_corpus(directory, names[language], [VOCAB.encode(line.split()) for line in lines])
        for language, lines in sides.items()
    }
    write_header(directory, VOCAB, corpora)
    return Dataset(directory)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write(tmp_path_factory.mktemp("pairs") / "data", SENTENCES, [translate(line) for line in SENTENCES])


@dataclass
class Seen:
    """One row as the model was given it."""

    tokens: list[int]
    positions: list[int]
    languages: list[int]


class Dictionary(LanguageModel):
    """Looks a hidden word's translation up where it is in view, and says ``die`` where it is not."""

    def __init__(self, max_positions: int = 32) -> None:
        super().__init__(ModelConfig(dim=8, layers=1, heads=2, max_positions=max_positions), len(VOCAB), 2)
        self.seen: list[Seen] = []

    def logits(self, batch: Batch) -> torch.Tensor:
        assert batch.lengths is None  # one row, without padding
        (tokens,), (positions,), (languages,) = (
            each.tolist() for each in (batch.tokens, batch.positions, batch.languages)
        )
        self.seen.append(Seen(tokens, positions, languages))
        place = tokens.index(MASK)
        guess = "die"
        for token, position, language in zip(tokens, positions, languages):
            if position == positions[place] and language != languages[place]:
                guess = {b: a for a, b in WORDS.items()}.get(VOCAB.token(token), "die")
        assert batch.target_index.tolist() == [place]
        return torch.nn.functional.one_hot(torch.tensor([VOCAB.id(guess)]), len(VOCAB)).float()


def test_one_whole_word_is_hidden_and_stood_there(dataset: Dataset) -> None:
    found = run_cloze(Dictionary(), dataset, "valid", "de-en", "de", 100)
    sentences = [sentence for sentence, allowed in MAY_BE_HIDDEN.items() if allowed]
    assert len(found) == len(sentences)
    for item, sentence in zip(found, sentences):
        assert item.gold in MAY_BE_HIDDEN[sentence]
        assert item.sentence.count("<mask>") == 1
        assert item.sentence.replace("<mask>", item.gold) == sentence.replace("@@ ", "")
        assert item.translation == translate(sentence)


def test_any_word_may_be_the_one(tmp_path: Path) -> None:
    """Not always the first: over many copies of a sentence each of its words is hidden."""
    dataset = write(tmp_path / "data", ["die Katze schläft . Nacht Öfen"] * 60, ["the"] * 60)
    found = run_cloze(Dictionary(), dataset, "valid", "de-en", "de", 100)
    assert {item.gold for item in found} == {"Katze", "schläft", "Nacht", "Öfen"}


def test_what_the_model_is_shown(dataset: Dataset) -> None:
    """As MLM and TLM read it: the sentence, then followed by the translation, whose positions start again."""
    model = Dictionary()
    (item,) = run_cloze(model, dataset, "valid", "de-en", "de", 1)
    german, english = ([VOCAB.id(word) for word in text.split()] for text in (SENTENCES[0], translate(SENTENCES[0])))
    german[german.index(VOCAB.id(item.gold))] = MASK
    mono, parallel = model.seen
    assert mono == Seen([EOS, *german, EOS], list(range(6)), [0] * 6)
    assert parallel.tokens == [*mono.tokens, EOS, *english, EOS]
    assert parallel.positions == [*range(6), *range(6)]
    assert parallel.languages == [0] * 6 + [1] * 6


def test_a_model_that_reads_the_translation_is_right_with_it(dataset: Dataset) -> None:
    found = [item for item in run_cloze(Dictionary(), dataset, "valid", "de-en", "de", 100) if item.gold in WORDS]
    assert len(found) == 4
    assert [item.parallel for item in found] == [item.gold for item in found]
    assert [item.mono for item in found] == ["die"] * len(found)


def test_either_language_may_be_hidden(dataset: Dataset) -> None:
    model = Dictionary()
    found = run_cloze(model, dataset, "valid", "de-en", "en", 100)
    assert found[0].gold in ("cats", "sleeps")
    assert found[0].sentence.replace("<mask>", found[0].gold) == translate(SENTENCES[0])
    assert found[0].translation == SENTENCES[0]
    assert (model.seen[0].languages, model.seen[1].languages) == ([1] * 6, [1] * 6 + [0] * 6)


def test_mono_knows_nothing_of_the_translation(dataset: Dataset, tmp_path: Path) -> None:
    """With the translations of other sentences only the guess that sees them changes."""
    torch.manual_seed(0)
    model = LanguageModel(ModelConfig(dim=16, layers=2, heads=2, max_positions=32), len(VOCAB), 2).eval()
    others = [translate(sentence) for sentence in [*SENTENCES[3:], *SENTENCES[:3]]]
    right = run_cloze(model, dataset, "valid", "de-en", "de", 100)
    wrong = run_cloze(model, write(tmp_path / "data", SENTENCES, others), "valid", "de-en", "de", 100)
    assert [(a.sentence, a.gold, a.mono) for a in right] == [(b.sentence, b.gold, b.mono) for b in wrong]
    assert [a.translation for a in right] != [b.translation for b in wrong]
    assert [a.parallel for a in right] != [b.parallel for b in wrong]


def test_the_same_every_time_and_as_many_as_asked_for(dataset: Dataset) -> None:
    every = run_cloze(Dictionary(), dataset, "valid", "de-en", "de", 100)
    assert run_cloze(Dictionary(), dataset, "valid", "de-en", "de", 100) == every
    for count in (1, 3, 5):
        assert run_cloze(Dictionary(), dataset, "valid", "de-en", "de", count) == every[:count]


def test_pairs_too_long_for_the_model_are_passed_over(tmp_path: Path) -> None:
    """A sentence of 7 words takes 9 positions; neither side may have more than the model."""
    short, long = "Katze . . . . . .", "Katze . . . . . . ."
    german, english = [short, long, short, short], [short, short, long, short]
    dataset = write(tmp_path / "data", german, english)
    model = Dictionary(max_positions=9)
    found = run_cloze(model, dataset, "valid", "de-en", "de", 100)
    assert [(item.sentence, item.translation) for item in found] == [("<mask> . . . . . .", short)] * 2
    assert max(max(seen.positions) for seen in model.seen) == 8  # the model's last
    assert len(run_cloze(Dictionary(max_positions=10), dataset, "valid", "de-en", "de", 100)) == 4


def test_a_split_that_is_not_there(dataset: Dataset) -> None:
    with pytest.raises(DataError, match=r"no corpus test\.de-en\.de; there are valid\.de-en\.de, valid\.de-en\.en"):
        run_cloze(Dictionary(), dataset, "test", "de-en", "de", 1)
