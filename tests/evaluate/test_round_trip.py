"""Round-trip BLEU of translators whose quality is known, on one process and on two."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tiny import ALONE, WORDS, NeverStops, run_processes, tiny_config
from xlmtrain.config.train import Precision
from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import ConfigError
from xlmtrain.evaluate.bleu import tokenized_bleu
from xlmtrain.evaluate.round_trip import RoundTrip
from xlmtrain.evaluate.validator import Validator
from xlmtrain.generate.beam import Hypothesis
from xlmtrain.model.translation_model import TranslationModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.process import Interrupted
from xlmtrain.text.vocab import EOS

BOTH = {"data.mlm": {}, "data.tlm": {}, "data.bt": {"de-en": 1.0}, "data.mt": {"en-de": 1.0}}
BOTH |= {"evaluate.round_trip": 20, "evaluate.metric": "valid/round_trip_bleu"}
Translator = Callable[[np.ndarray, int, int], list[int]]


def copying(words: np.ndarray, source: int, target: int) -> list[int]:
    return words.tolist()


def perfect(words: np.ndarray, source: int, target: int) -> list[int]:
    return (words + WORDS * (target - source)).tolist()


def forgetful(words: np.ndarray, source: int, target: int) -> list[int]:
    """Perfect into English; loses the last word of a German sentence of more than 6."""
    return perfect(words[:-1] if target == 0 and len(words) > 6 else words, source, target)


def measured(distributed: Distributed, data: Path, translator: Translator, changes: dict[str, Any]) -> dict[str, float]:
    config, dataset = tiny_config("run", data, {**BOTH, **changes}), Dataset(data)
    model = TranslationModel(config.model, len(dataset.vocab), 2)

    def translate(
        model: TranslationModel, sentences: Iterable[np.ndarray], source: int, target: int, config: Any
    ) -> Iterator[list[Hypothesis]]:
        for ids in sentences:
            yield [Hypothesis(np.array([*translator(ids[:-1], source, target), EOS]), 0.0)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xlmtrain.evaluate.round_trip.translate_ids", translate)
        patch.setattr("xlmtrain.evaluate.sentence_embeddings.BATCH_TOKENS", 24)
        return RoundTrip(config, dataset)(model, Precision.fp32, distributed, NeverStops())


def test_copying_and_translating_have_100_and_copied_words_tell_them_apart(tiny_dataset: Path) -> None:
    copied, translated = (measured(ALONE, tiny_dataset, one, {}) for one in (copying, perfect))
    for name in ("de-en", "en-de"):
        assert copied[f"valid/{name}_round_trip_bleu"] == translated[f"valid/{name}_round_trip_bleu"] == 100
        assert copied[f"valid/{name}_copied_share"] == 1
        assert translated[f"valid/{name}_copied_share"] == 0
    assert copied["valid/round_trip_bleu"] == 100


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
