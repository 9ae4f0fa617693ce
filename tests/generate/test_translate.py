"""Lines are translated in order, whatever the windows and batches, from raw text to raw text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.generate.test_search import lively_model
from tests.support.translation import bundle_of
from xlmtrain.config.train import Precision
from xlmtrain.config.translate import TranslationConfig
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.generate.translate import translate_ids
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.formats import read_model
from xlmtrain.pretrained import PretrainedModel

LINES = ["ab c.", "", "d e f, gh!", "i", "   ", "jklm no p q r s t u v w x y z.", "ab c.", "D. E?", "\x07"]
GREEDY = {"beam": 1}
SAMPLED = {"beam": 1, "temperature": 1.0}


@pytest.fixture(scope="module")
def bundle() -> PretrainedBundle:
    return bundle_of(lively_model())


@pytest.fixture(scope="module")
def model(bundle: PretrainedBundle) -> PretrainedModel:
    return PretrainedModel(bundle)


def translations(model: PretrainedModel, lines: list[str], **settings: Any) -> list[list[tuple[str, str, float]]]:
    return [[*best] for best in model.translator("de", "en", TranslationConfig(**settings))(iter(lines), "lines")]


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED, {"beam": 3, "n_best": 2, "length_penalty": 0.6}])
def test_order_is_kept_and_batches_do_not_matter(model: PretrainedModel, settings: dict[str, Any]) -> None:
    expected = translations(model, LINES, **settings)
    texts = [best[0][0] for best in expected]
    assert len(texts) == len(LINES)
    assert not any(texts[i] for i, line in enumerate(LINES) if not line.strip("\x07 "))
    assert len(set(texts)) > 4
    assert (texts[0] == texts[6]) == (settings is not SAMPLED)  # the same line
    for other in ({"window": 1}, {"window": 2}, {"batch_tokens": 1}, {"window": 4, "batch_tokens": 100}):
        found = translations(model, LINES, **settings, **other)
        assert [[one[:2] for one in best] for best in found] == [[one[:2] for one in best] for best in expected]
    for best, line in zip(expected, LINES):
        if line.strip("\x07 "):
            assert len(best) == settings.get("n_best", 1)
            assert settings["beam"] == 1 or best[0][2] > best[1][2]


def test_precision_is_that_of_the_products(model: PretrainedModel, bundle: PretrainedBundle) -> None:
    """A score in bf16 is close to that in fp32 and not equal to it."""
    ((exact,),) = translations(model, LINES[2:3], beam=3)
    ((rounded,),) = translations(PretrainedModel(bundle, "cpu", Precision.bf16), LINES[2:3], beam=3)
    assert exact[2] != rounded[2] == pytest.approx(exact[2], abs=0.05)


def test_memory_does_not_grow_with_the_lines(model: PretrainedModel) -> None:
    """Not more than a window is read ahead of what has come out."""
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "ab c."

    stream = model.translator("de", "en", TranslationConfig(beam=1, window=3))(endless(), "lines")
    for number in range(1, 8):
        next(stream)
        assert read == 3 * ((number + 2) // 3)


def test_a_translation_is_raw_text(model: PretrainedModel) -> None:
    vocab = model.text.vocab
    ids = vocab.encode(["a@@", "b", ",", "c", "!"])
    assert model.text.text(ids, "en") == "ab, c!"
    assert model.text.ids("ab, c!", "en") == ids
    assert model.text.text([], "en") == ""


def test_other_settings_give_other_translations(model: PretrainedModel) -> None:
    texts = LINES[:4]
    greedy = model.translate(texts, source="de", target="en", beam=1)
    assert greedy == [best[0][0] for best in translations(model, texts, beam=1)]
    others = [
        model.translate(texts, source="de", target="en", beam=4),
        model.translate(texts, source="en", target="de", beam=1),
        model.translate(texts, source="de", target="en", beam=1, temperature=1.0),
        model.translate(texts, source="de", target="en", beam=1, temperature=1.0, seed=1),
    ]
    assert all(a != b for i, a in enumerate([greedy, *others]) for b in others[i:])


def test_the_limit_is_the_sentences_own() -> None:
    torch_model = lively_model()
    torch_model.decoder_head.bias.data[1] = -1e4
    model = PretrainedModel(bundle_of(torch_model))
    config = TranslationConfig(beam=1, max_length_ratio=2.0, max_length_extra=1)
    ids = [np.array([15] * n + [1]) for n in (1, 4, 2)]
    found = [best[0].ids for best in translate_ids(torch_model, ids, 0, 1, config)]
    assert [len(one) + 1 for one in found] == [2 * (n + 2) + 1 for n in (1, 4, 2)]
    assert model.translate([], source="de", target="en") == []


def test_progress_moves_with_each_batch() -> None:
    """Before the first line of the window is out; blank lines with its end."""
    ids = [np.array([15] * n + [1]) for n in (1, 4, 0, 2, 3)]
    finished: list[int] = []
    config = TranslationConfig(beam=1, window=4, batch_tokens=20)
    found = translate_ids(lively_model(), ids, 0, 1, config, progress=finished.append)
    next(found)
    assert len(finished) > 2
    assert sum(finished) == 4
    assert len([*found]) + 1 == sum(finished) == 5


@pytest.mark.parametrize("penalty", [-10.0, 10.0])
def test_scores_of_any_length_penalty_are_numbers(model: PretrainedModel, penalty: float) -> None:
    config = TranslationConfig(length_penalty=penalty, max_length_extra=500)
    (best,) = model.translator("de", "en", config)(["a b c"], "sentences")
    assert np.isfinite(best[0].score)


def test_an_iterator_is_read_once(model: PretrainedModel) -> None:
    texts = ["ab c", "d e f"]
    assert model.translate(iter(texts), "de", "en") == model.translate(texts, "de", "en")
    assert np.array_equal(model.embed(iter(texts), "de"), model.embed(texts, "de"))


def test_what_is_refused(model: PretrainedModel) -> None:
    long = "a " * 511
    with pytest.raises(DataError, match=r"^file:3: 513 tokens are more than the model's 512 positions; split the line"):
        list(model.translator("de", "en", TranslationConfig())(["a", "", long], "file"))
    with pytest.raises(DataError, match=r"^sentences:1: 513 tokens"):
        model.translate([long], "de", "en")
    assert len(model.translate(["a " * 510], "de", "en", beam=1)) == 1
    with pytest.raises(ConfigError, match=r"^source=fr: the model knows de, en"):
        model.translate(["a"], "fr", "en")
    with pytest.raises(ConfigError, match=r"^target=fr: the model knows de, en"):
        model.translate(["a"], "de", "fr")
    with pytest.raises(ConfigError, match="a list of sentences is needed"):
        model.translate("a", "de", "en")
    with pytest.raises(ConfigError, match="a list of sentences is needed, not None"):
        model.translate(None, "de", "en")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a sentence is needed, as one string, not 5"):
        model.translate([5], "de", "en")  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"length_penalty: 1000000\.0 is not between -10 and 10"):
        model.translate(["a"], "de", "en", length_penalty=1e6)
    with pytest.raises(ConfigError, match="beam: None is not a whole number"):
        model.translate(["a"], "de", "en", beam=None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="beam: 0 is not above 0"):
        model.translate(["a"], "de", "en", beam=0)
    with pytest.raises(ConfigError, match="n_best: 5 translations need a beam as wide; the beam is 4"):
        TranslationConfig(n_best=5)
    with pytest.raises(ConfigError, match="temperature: draws one translation, so n_best is 1"):
        TranslationConfig(n_best=2, temperature=1.0)


def test_the_encoder_of_such_a_model_is_used_as_before(model: PretrainedModel) -> None:
    assert len(model.fill_mask("a <mask> b", "de", k=3)[0]) == 3
    assert model.embed(["a", "b c"], "en").shape == (2, 64)
    assert model.score(["a b"], "de")[0].tokens == 2


def test_greedy_translations_of_the_originals_evaluation(translation: dict[str, Any], shared: Path) -> None:
    case = translation["evaluation"]
    bundle = read_model(shared / "reference" / "translation-checkpoint.pth")
    module: Any = bundle.module()
    for split in ("valid", "test"):
        for a, b in (("de", "en"), ("en", "de")):
            sentences = [
                pairs[a][1:length, i].numpy()
                for pairs in case["batches"][split]
                for i, length in enumerate(pairs[f"{a}_lengths"].tolist())
            ]
            languages = bundle.languages.index(a), bundle.languages.index(b)
            found = translate_ids(module, sentences, *languages, TranslationConfig(beam=1))
            lines = [bundle.vocab.decode(best[0].ids[:-1]) for best in found]
            assert lines == case["greedy"]["hypotheses"][f"{split}.{a}-{b}"]
