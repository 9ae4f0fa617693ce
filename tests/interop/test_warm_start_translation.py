"""A translation model begins from language models or from another translation model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.tiny import tiny_config, write_header
from tests.support.training import (
    assert_same_weights,
    train_alone,
)
from tests.support.warm_starts import begin, with_languages
from xlmtrain.config.model import InitConfig
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.format import Header
from xlmtrain.errors import ConfigError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.languages import LANGUAGES
from xlmtrain.interop.warm_start import initialize_weights
from xlmtrain.interop.word_vectors import TABLE
from xlmtrain.interop.xlm.conversion import write_xlm_checkpoint
from xlmtrain.model.translation_model import TranslationModel, as_decoder, decoder_part
from xlmtrain.text.vocab import SPECIALS, Vocab

MT = {"data.mlm": {}, "data.tlm": {}, "data.mt": {"de-en": 1.0}, "evaluate.metric": "valid/de-en_mt_ppl"}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("sides", [("encoder",), ("decoder",), ("encoder", "decoder")])
def test_a_translation_model_begins_from_language_models(
    saved: PretrainedBundle, tiny_dataset: Path, tmp_path: Path, sides: tuple[str, ...], tied: bool
) -> None:
    """From a model of other languages, in another order, whose file is the original's."""
    other = tmp_path / "other.pth"
    write_xlm_checkpoint(with_languages(saved, ["en", "fr", "de"]), other)
    init = InitConfig(**{side: str(other) for side in sides})
    run = tmp_path / "run"
    train_alone(begin(run, tiny_dataset, init, {**MT, "model.share_encoder_decoder_embeddings": tied}), stop_after=1)
    log = (run / "log.txt").read_text(encoding="utf-8")
    random = log.partition("random first weights: ")[2].partition("\n")[0].split(", ")
    assert [f"first weights of the {side}: {other}" in log for side in ("encoder", "decoder")] == [
        side in sides for side in ("encoder", "decoder")
    ]
    assert all("cross_attention" in name for name in random if name.startswith("decoder")) is ("decoder" in sides)
    assert not any(name.startswith("encoder.") and "token" not in name for name in random if "encoder" in sides)

    config, dataset = replace(tiny_config("run", tiny_dataset), init=init), Dataset(tiny_dataset)
    model = TranslationModel(config.model, len(dataset.vocab), 2, share_embeddings=tied)
    untouched = {name: weight.clone() for name, weight in model.state_dict().items()}
    initialize_weights(init, config.model, model, dataset)
    order = [2, 0]  # of de and en among the file's languages
    theirs = dict(read_model(other).weights)
    theirs[LANGUAGES] = theirs[LANGUAGES][order]
    expected = {
        **untouched,
        **(as_decoder(theirs) if "decoder" in sides else {}),
        **(theirs if "encoder" in sides else {}),
    }
    if tied:
        expected.pop("decoder.token_embeddings.weight", None)
        expected[TABLE] = theirs[TABLE]
    assert_same_weights(model.state_dict(), expected)


def test_a_translation_model_begins_from_another_one(first: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    train_alone(tiny_config(tmp_path / "mt", tiny_dataset, {**MT, "train.steps": 5}))
    dataset, config = Dataset(tiny_dataset), tiny_config("run", tiny_dataset)
    weights = read_model(tmp_path / "mt").weights
    model = TranslationModel(config.model, len(dataset.vocab), 2)
    lines = initialize_weights(InitConfig(pretrained=str(tmp_path / "mt")), config.model, model, dataset)
    assert not any("random" in line for line in lines)
    assert_same_weights(model.state_dict(), weights)
    init = InitConfig(encoder=str(first), decoder=str(tmp_path / "mt"))
    lines = initialize_weights(init, config.model, model, dataset)
    assert "tied" not in "".join(lines)
    assert_same_weights(decoder_part(model.state_dict()) | {TABLE: decoder_part(weights)[TABLE]}, decoder_part(weights))
    assert torch.equal(model.head.bias, read_model(first).weights["head.bias"])
    tied = TranslationModel(config.model, len(dataset.vocab), 2, share_embeddings=True)
    _, line, *_ = initialize_weights(init, config.model, tied, dataset)
    assert line.startswith("first weights of the decoder")
    assert line.endswith("without its token table, which is tied")


def test_models_that_do_not_fit_the_side_are_refused(first: Path, own_dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match=r"without a decoder; give init\.encoder=.* init\.decoder="):
        train_alone(begin(run, own_dataset, InitConfig(pretrained=str(first)), MT))
    with pytest.raises(ConfigError, match=r"this run has no decoder; give data\.mt, data\.dae or data\.bt a weight"):
        train_alone(begin(run, own_dataset, InitConfig(decoder=str(first))))
    with pytest.raises(ConfigError, match=r"init\.pretrained: sets encoder and decoder"):
        begin(run, own_dataset, InitConfig(pretrained=str(first), decoder=str(first)), MT)
    vocab = Vocab.read(own_dataset / "vocab")
    words = list(zip(vocab.tokens[len(SPECIALS) :], vocab.counts[len(SPECIALS) :].tolist()))
    swapped = Vocab([*words[:-1], ("new", 1)])
    swapped.write(own_dataset / "vocab")
    write_header(own_dataset, swapped, Header.read(own_dataset).corpora)
    for side in ("encoder", "decoder"):
        with pytest.raises(ConfigError, match="its vocabulary is not that of the data"):
            train_alone(begin(run, own_dataset, InitConfig(**{side: str(first)}), MT))
    assert not run.exists()
