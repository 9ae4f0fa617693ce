"""BLEU of translators whose quality is known, against pairs and of round trips, on one process and on two."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tiny import ALONE, WORDS, NeverStops, run_processes, tiny_config
from xlmtrain.config.train import Precision, Sharding
from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import ConfigError
from xlmtrain.evaluate.bleu import tokenized_bleu
from xlmtrain.evaluate.translation import RoundTrip, TranslationBleu, read_examples
from xlmtrain.evaluate.validator import Validator
from xlmtrain.generate.beam import Hypothesis
from xlmtrain.model.translation_model import TranslationModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.process import Interrupted
from xlmtrain.text.vocab import EOS

BOTH = {"data.mlm": {}, "data.tlm": {}, "data.bt": {"de-en": 1.0}, "data.mt": {"en-de": 1.0}}
BOTH |= {"evaluate.round_trip": 20, "evaluate.metric": "valid/round_trip_bleu"}
PAIRS = {"evaluate.max_translations": 30, "evaluate.round_trip": 0, "evaluate.metric": "valid/mt_bleu"}
Translator = Callable[[np.ndarray, int, int], list[int]]


def copying(words: np.ndarray, source: int, target: int) -> list[int]:
    return words.tolist()


def perfect(words: np.ndarray, source: int, target: int) -> list[int]:
    return (words + WORDS * (target - source)).tolist()


def forgetful(words: np.ndarray, source: int, target: int) -> list[int]:
    """Perfect into English; loses the last word of a German sentence of more than 6."""
    return perfect(words[:-1] if target == 0 and len(words) > 6 else words, source, target)


@contextmanager
def translating_by(translator: Translator) -> Iterator[None]:
    """Let ``translator`` take the place of the model, in batches of few sentences."""

    def translate(
        model: TranslationModel, sentences: Iterable[np.ndarray], source: int, target: int, config: Any, precision: Any
    ) -> Iterator[list[Hypothesis]]:
        for ids in sentences:
            yield [Hypothesis(np.array([*translator(ids[:-1], source, target), EOS]), 0.0)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xlmtrain.evaluate.translation.translate_ids", translate)
        patch.setattr("xlmtrain.evaluate.sentence_embeddings.BATCH_TOKENS", 24)
        yield


def measured(distributed: Distributed, data: Path, translator: Translator, changes: dict[str, Any]) -> dict[str, float]:
    config, dataset = tiny_config("run", data, {**BOTH, **changes}), Dataset(data)
    model = TranslationModel(config.model, len(dataset.vocab), 2)
    kind = TranslationBleu if config.evaluate.max_translations else RoundTrip
    with translating_by(translator):
        return kind(config, dataset)(model, Precision.fp32, distributed, NeverStops())


def test_copying_has_0_and_translating_100(tiny_dataset: Path) -> None:
    copied, translated = (measured(ALONE, tiny_dataset, one, {}) for one in (copying, perfect))
    for name in ("de-en", "en-de"):
        assert (copied[f"valid/{name}_round_trip_bleu"], copied[f"valid/{name}_copied_share"]) == (0, 1)
        assert (translated[f"valid/{name}_round_trip_bleu"], translated[f"valid/{name}_copied_share"]) == (100, 0)
    assert (copied["valid/round_trip_bleu"], translated["valid/round_trip_bleu"]) == (0, 100)


def test_it_is_the_bleu_of_what_came_back_on_any_number_of_processes(tiny_dataset: Path, tmp_path: Path) -> None:
    found = measured(ALONE, tiny_dataset, forgetful, {})
    dataset = Dataset(tiny_dataset)
    corpus = dataset.corpus("valid.de")
    original = [corpus.sentence(i)[:-1] for i in range(len(corpus)) if len(corpus.sentence(i)) > 1][:20]
    lines = [dataset.vocab.decode(words.tolist()) for words in original]
    back = [dataset.vocab.decode(words[:-1].tolist() if len(words) > 6 else words.tolist()) for words in original]
    assert found["valid/de-en_round_trip_bleu"] == pytest.approx(tokenized_bleu(back, lines).value)
    assert 50 < found["valid/de-en_round_trip_bleu"] < 100
    assert found["valid/round_trip_bleu"] == pytest.approx(
        (found["valid/de-en_round_trip_bleu"] + found["valid/en-de_round_trip_bleu"]) / 2
    )
    assert run_processes(2, measured, tmp_path, tiny_dataset, forgetful, {}) == [found, found]


def test_translations_are_compared_with_the_other_side_on_any_number_of_processes(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    found = measured(ALONE, tiny_dataset, forgetful, PAIRS)
    dataset = Dataset(tiny_dataset)
    usable = np.flatnonzero(dataset.corpus("valid.de-en.de").lengths() > 0)[:30].tolist()
    sides = [dataset.corpus(f"valid.de-en.{language}").sentences(usable) for language in ("de", "en")]
    german, english = ([ids[:-1].astype(np.int64) for ids in side] for side in sides)
    texts = {
        lang: [dataset.vocab.decode(ids.tolist()) for ids in side]
        for lang, side in zip(("de", "en"), (german, english))
    }
    there = [dataset.vocab.decode(forgetful(ids, 0, 1)) for ids in german]
    back = [dataset.vocab.decode(forgetful(ids, 1, 0)) for ids in english]
    assert found["valid/de-en_mt_bleu"] == pytest.approx(tokenized_bleu(there, texts["en"]).value)
    assert found["valid/en-de_mt_bleu"] == pytest.approx(tokenized_bleu(back, texts["de"]).value)
    assert 50 < found["valid/en-de_mt_bleu"] < found["valid/de-en_mt_bleu"]
    assert found["valid/mt_bleu"] == (found["valid/de-en_mt_bleu"] + found["valid/en-de_mt_bleu"]) / 2
    assert run_processes(2, measured, tmp_path, tiny_dataset, forgetful, PAIRS) == [found, found]


def test_examples_are_the_first_pairs_with_their_translations(tiny_dataset: Path) -> None:
    config, dataset = tiny_config("run", tiny_dataset, {**BOTH, **PAIRS}), Dataset(tiny_dataset)
    model = TranslationModel(config.model, len(dataset.vocab), 2)
    with translating_by(copying):
        examples = TranslationBleu(config, dataset).examples(model, Precision.fp32, ALONE, 2)
    assert set(examples) == {"de-en_translation", "en-de_translation"}
    german, english = (dataset.corpus(f"valid.de-en.{language}") for language in ("de", "en"))
    first = int(np.flatnonzero(german.lengths() > 0)[0])
    texts = [dataset.vocab.decode(side.sentence(first)[:-1].tolist()) for side in (german, english)]
    rows = read_examples(examples["de-en_translation"])
    assert len(rows) == 2
    assert rows[0] == (texts[0], texts[0], texts[1])


def test_a_line_break_or_bar_in_a_translation_stays_in_its_cell(tiny_dataset: Path) -> None:
    config, dataset = tiny_config("run", tiny_dataset, {**BOTH, **PAIRS}), Dataset(tiny_dataset)
    model = TranslationModel(config.model, len(dataset.vocab), 2)
    with translating_by(copying), pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(dataset.vocab), "decode", lambda vocab, ids: f"a\n{len(ids)}|\u2028<b> & | c")
        examples = TranslationBleu(config, dataset).examples(model, Precision.fp32, ALONE, 3)
    rows = read_examples(examples["de-en_translation"])
    assert len(rows) == 3
    assert all(len(row) == 3 and row[0].startswith("a ") and row[0].endswith("| <b> & | c") for row in rows)


def test_what_cannot_be_translated_is_an_error(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset(tiny_dataset)
    with pytest.raises(ConfigError, match=r"evaluate.max_translations: 30 pairs, but .* no direction"):
        TranslationBleu(tiny_config("run", tiny_dataset, PAIRS), dataset)
    monkeypatch.setattr(dataset, "has", lambda name: False)
    with pytest.raises(ConfigError, match=r"has no validation pairs for de-en, en-de"):
        TranslationBleu(tiny_config("run", tiny_dataset, {**BOTH, **PAIRS}), dataset)
    monkeypatch.undo()
    with pytest.raises(ConfigError, match=r"evaluate.max_translations=0, and an evaluate.metric like"):
        tiny_config("run", tiny_dataset, {**BOTH, **PAIRS, "data.bt": {}, "train.sharding": Sharding.full})
    with pytest.raises(ConfigError, match=r"is none of .*valid/de-en_mt_bleu"):
        Validator(tiny_config("run", tiny_dataset, {**BOTH, **PAIRS, "evaluate.metric": "valid/x_bleu"}), dataset)


def test_one_direction_alone_has_no_round_trip(tiny_dataset: Path) -> None:
    dataset = Dataset(tiny_dataset)
    config = tiny_config("run", tiny_dataset, {**BOTH, "data.mt": {}})
    with pytest.raises(ConfigError, match=r"evaluate\.round_trip: 20 sentences .* both directions"):
        Validator(config, dataset)
    assert Validator(tiny_config("run", tiny_dataset, BOTH), dataset).measures
    with pytest.raises(ConfigError, match=r"is none of .*valid/de-en_round_trip_bleu"):
        Validator(tiny_config("run", tiny_dataset, {**BOTH, "evaluate.metric": "valid/fr_bleu"}), dataset)


def test_it_stops_when_asked(tiny_dataset: Path) -> None:
    config, dataset = tiny_config("run", tiny_dataset, BOTH), Dataset(tiny_dataset)
    model = TranslationModel(config.model, len(dataset.vocab), 2).train()
    with pytest.raises(Interrupted):
        RoundTrip(config, dataset)(model, Precision.fp32, ALONE, lambda: True)
    assert model.training
