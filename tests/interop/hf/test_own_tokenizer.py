"""Models with tokenizers of others are used on raw text, written as runs and Hugging Face folders, and read."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.foreign_tokenizers import LINES, edit, write_tokenizer
from xlmtrain.config.data import MaskConfig
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.prepare import TextConfig
from xlmtrain.config.translate import TranslationConfig
from xlmtrain.data.masking import Masker
from xlmtrain.data.sequences import pair_sequences, window_sequences
from xlmtrain.errors import CheckpointError, ConfigError, DataError
from xlmtrain.interop.bundle import PretrainedBundle, Provenance
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.hf.export import export_hf_folder
from xlmtrain.interop.hf.model import write_hf_folder
from xlmtrain.interop.run import write_run
from xlmtrain.interop.xlm.conversion import write_xlm_checkpoint
from xlmtrain.model.translation_model import TranslationModel
from xlmtrain.pretrained import PretrainedModel, load
from xlmtrain.runtime.rng import generator
from xlmtrain.text.tokenizer_json import read_tokenizer

CONFIG = ModelConfig(dim=32, layers=1, heads=2, max_positions=64, dropout=0.0, attention_dropout=0.0)


def bundle_of(kind: str, directory: Path, **model: Any) -> PretrainedBundle:
    torch.manual_seed(0)
    vocab = read_tokenizer(write_tokenizer(kind, directory / "tokenizer"))
    module = TranslationModel(CONFIG, len(vocab), 2, vocab.special, **model)
    weights = {name: weight for name, weight in module.state_dict().items() if model or "decoder" not in name}
    return PretrainedBundle(CONFIG, ["de", "en"], vocab, weights, TextConfig(), [], Provenance("toy"))


@pytest.mark.parametrize("kind", ["byte_bpe", "wordpiece"])
def test_raw_text_goes_in_and_every_format_gives_the_same(kind: str, tmp_path: Path) -> None:
    bundle = bundle_of(kind, tmp_path)
    model = PretrainedModel(bundle)
    (tmp_path / "lines.de").write_text("\n".join(LINES[:40]), encoding="utf-8")
    (tmp_path / "lines.en").write_text("\n".join(LINES[-40:]), encoding="utf-8")
    for name in ("run", "folder"):
        (tmp_path / name).mkdir()
    write_run(bundle, tmp_path / "run")
    report = export_hf_folder(bundle, tmp_path / "folder", "toy", str(tmp_path / "lines.{lang}"))
    assert report.sentences == {"de": 40, "en": 40}
    text = "Die Katze <mask> auf dem Sofa."
    for other in (load(tmp_path / "run"), load(tmp_path / "folder"), copy.deepcopy(model)):
        assert other.fill_mask(text, "de", k=3) == model.fill_mask(text, "de", k=3)
        assert other.score(["Guten Tag!"], "de") == model.score(["Guten Tag!"], "de")
        np.testing.assert_array_equal(other.embed(LINES[:3], "de"), model.embed(LINES[:3], "de"))
    own = bundle.vocab.tokenizer.encode("Guten Tag!", add_special_tokens=False)  # type: ignore[attr-defined]
    assert model.tokenize("Guten Tag!", "de") == own.tokens
    assert model.score(["Guten Tag!"], "de")[0].tokens == len(own.ids)
    for file in ("run", "folder", "folder/de"):
        assert (tmp_path / file / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer/tokenizer.json").read_bytes()
    with pytest.raises(ConfigError, match="format=xlm"):
        write_xlm_checkpoint(bundle, tmp_path / "model.pth")
    assert read_model(tmp_path / "folder").vocab.fingerprint == bundle.vocab.fingerprint


def test_edited_tokenizers_are_refused(tmp_path: Path) -> None:
    bundle = bundle_of("byte_bpe", tmp_path)
    folders = [tmp_path / "run", tmp_path / "folder"]
    for folder in folders:
        folder.mkdir()
    write_run(bundle, folders[0])
    write_hf_folder(bundle, folders[1])
    for folder in folders:
        merges = json.loads((folder / "tokenizer.json").read_bytes())["model"]
        edit(folder, model={**merges, "merges": merges["merges"][:-1]})
        with pytest.raises((DataError, CheckpointError), match=r"are not"):
            read_model(folder)


def test_translations_begin_and_end_with_the_tokenizers_symbols(tmp_path: Path) -> None:
    """A special symbol is never generated, and the decoder begins with that of the tokenizer."""
    model = PretrainedModel(bundle_of("wordpiece", tmp_path, share_embeddings=False))
    special, first = model.text.vocab.special, []
    assert isinstance(model.model, TranslationModel)
    step = model.model.next_logits

    def spy(tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        first.append(tokens)
        logits: torch.Tensor = step(tokens, *rest)
        return logits.index_fill(-1, torch.tensor([special.pad, special.unk, special.bos]), 99.0)

    model.model.next_logits = spy  # type: ignore[method-assign]
    for beam in (1, 3):
        first.clear()
        for found in model.translator("de", "en", TranslationConfig(beam))(["Guten Tag!", "Eins zwei drei"], "lines"):
            assert "[" not in found[0].tokenized
        assert (first[0] == special.bos).all()


def test_masks_leave_special_tokens_alone(tmp_path: Path) -> None:
    vocab = read_tokenizer(write_tokenizer("wordpiece", tmp_path / "tokenizer"))
    rows = window_sequences(np.random.default_rng(0).integers(0, 600, size=(200, 64)), 0)
    for alpha in (0.0, 0.5):
        counted = vocab.with_counts(np.where(vocab.is_special, 0, 9))
        masker = Masker(
            MaskConfig(prob=0.5, mask_token_prob=0.4, random_token_prob=0.5, inverse_frequency_exponent=alpha), counted
        )
        inputs, selected = masker(rows, generator(0, "mask"))
        assert selected.mean() > 0.4
        assert not vocab.is_special[rows.tokens[selected]].any()
        drawn = inputs[selected & (inputs != rows.tokens)]
        assert set(drawn[vocab.is_special[drawn]]) == {vocab.special.mask}
        assert len(set(drawn)) > 500


def test_pairs_have_the_tokenizers_symbols(tmp_path: Path) -> None:
    cls, sep, pad, *_ = special = read_tokenizer(write_tokenizer("wordpiece", tmp_path / "tokenizer")).special
    first, second = ([np.array([20, 21, sep]), np.array([22, sep])], [np.array([30, sep]), np.array([31, 32, sep])])
    rows = pair_sequences(first, second, (0, 1), special)
    assert rows.tokens.tolist() == [[cls, 20, 21, sep, cls, 30, sep], [cls, 22, sep, cls, 31, 32, sep]]
    rows = pair_sequences(first[:1] * 2, [second[0], second[1][:1]], (0, 1), special)
    assert rows.tokens[1].tolist() == [cls, 20, 21, sep, cls, 31, pad]
