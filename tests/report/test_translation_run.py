"""What a report shows of a run that trained translation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.pages import check_page
from tests.support.tiny import tiny_config
from tests.support.training import records, train_alone
from xlmtrain.data.batch import make_seq2seq_batch
from xlmtrain.data.sequences import sentence_sequences
from xlmtrain.evaluate.cloze import source_attention_weights
from xlmtrain.evaluate.translation import read_examples
from xlmtrain.model.translation_model import TranslationModel
from xlmtrain.pretrained import load
from xlmtrain.report.examples import translations
from xlmtrain.report.html import Table
from xlmtrain.report.model_views import view
from xlmtrain.report.report import report_page, summary
from xlmtrain.report.run_data import RunData


@pytest.fixture(scope="module")
def translating(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("translating") / "run"
    objectives = {"data.mlm": {}, "data.tlm": {}, "data.mt": {"de-en": 1.0}, "data.bt": {"en-de": 0.0}}
    watched = {"evaluate.max_translations": 10, "evaluate.metric": "valid/mt_bleu", "evaluate.sample_predictions": 3}
    train_alone(tiny_config(path, tiny_dataset, {**objectives, **watched, "train.steps": 10, "evaluate.every": 5}))
    return path


def test_translations_at_several_steps_beside_their_references(translating: Path) -> None:
    assert [r["valid/mt_bleu"] for r in records(translating) if "valid/mt_bleu" in r] == [
        r["valid/de-en_mt_bleu"] for r in records(translating) if "valid/mt_bleu" in r
    ]
    run = RunData(translating)
    assert {name: len(texts) for name, texts in run.samples.items()} == {"de-en_mt": 3, "de-en_translation": 3}
    views = view(run, "de", 5)
    assert views.cloze == []  # no masked words were trained
    (section,) = translations(run)
    first = read_examples(run.samples["de-en_translation"][0][1])
    last = read_examples(run.samples["de-en_translation"][2][1])
    table = section.blocks[0]
    assert isinstance(table, Table)
    assert table.rows[0] == ("source", first[0][0])
    assert table.rows[1] == ("0", first[0][1])
    assert table.rows[-2:] == [("10", last[0][1]), ("reference", first[0][2])]
    assert len({source for source, _, _ in first}) == 3
    page = report_page([(run, views)])
    check_page(page)
    for text in ("Translations during training", "Attention to the source", "BLEU of translations", "Validation BLEU"):
        assert text in page
    assert "Masked words without" not in page
    assert "## Translations during training" in summary(run, views)


def test_attention_is_of_each_token_of_the_translation(translating: Path) -> None:
    found = view(RunData(translating), "de", 1).source_attention
    assert found is not None
    layers, heads, rows, columns = found.weights.shape
    assert (rows, columns) == (len(found.translation), len(found.source))
    assert found.translation[-1] == found.source[0] == found.source[-1] == "</s>"
    assert np.allclose(found.weights.sum(axis=-1), 1.0, atol=1e-5)
    loaded = load(translating)
    model, vocab = loaded.model, loaded.text.vocab
    assert isinstance(model, TranslationModel)
    assert (layers, heads) == (model.config.layers, model.config.heads)
    sides = ([vocab.id(word) for word in words] for words in (found.source[1:], found.translation))
    source, target = (sentence_sequences([np.array(ids)], number) for number, ids in enumerate(sides))
    expected = source_attention_weights(model, make_seq2seq_batch("mt", source, target))
    # The last position reads </s> and predicts nothing.
    np.testing.assert_allclose(found.weights, expected[:, 0, :, :-1].numpy(), atol=1e-5)


def test_attention_weights_give_what_the_decoder_mixes(translating: Path) -> None:
    model = load(translating).model
    assert isinstance(model, TranslationModel)
    sides = (sentence_sequences([np.array(ids)], number) for number, ids in enumerate(([20, 21, 22, 1], [41, 43, 1])))
    source, target = sides
    batch = make_seq2seq_batch("mt", source, target)
    block, mixed = model.decoder.blocks[0], {}
    hook = block.cross_attention.register_forward_hook(lambda module, given, out: mixed.update(given=given, out=out))
    weights = source_attention_weights(model, batch)[0]
    hook.remove()
    with torch.no_grad():
        _, values = block.cross_attention.keys_values(mixed["given"][1])
        expected = block.cross_attention.out((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixed["out"], expected, atol=1e-5, rtol=1e-4)
