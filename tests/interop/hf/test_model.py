"""Folders that transformers loads: the same model, the same ids, whoever asks."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import xlmtrain
from tests.support.hf_folders import SENTENCES, model_of, same
from xlmtrain.config.model import Activation
from xlmtrain.config.prepare import TextConfig
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.hf import export
from xlmtrain.interop.hf.model import write_hf_folder
from xlmtrain.interop.hf.parity import check_hf_parity
from xlmtrain.text.vocab import UNK

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="the tokenizers package is not installed")


VARIANTS: list[tuple[list[str], dict[str, Any]]] = [
    (["de", "en"], {}),
    (["en", "de", "en_GB"], {}),
    (["de"], {}),
    (["de", "en"], {"tie_embeddings": False}),
    (["de", "en"], {"language_embeddings": False}),
    (["de", "en"], {"sinusoidal_positions": True, "activation": Activation.relu}),
]


@pytest.mark.parametrize(("languages", "changes"), VARIANTS)
def test_there_and_back_and_the_same_for_transformers(
    tmp_path: Path, languages: list[str], changes: dict[str, Any]
) -> None:
    model = model_of(languages, **changes)
    write_hf_folder(model, tmp_path)
    assert same(read_model(tmp_path), model)
    report = check_hf_parity(tmp_path, model, {name: SENTENCES.get(name, ["so"]) for name in languages})
    assert report.difference < 1e-6
    assert report.sentences["de"] == 3
    transformers.AutoModel.from_pretrained(tmp_path)


def test_text_settings_come_along(tmp_path: Path) -> None:
    model = model_of(["de", "en"], TextConfig(lowercase=True, remove_accents=True))
    write_hf_folder(model, tmp_path)
    assert same(read_model(tmp_path), model)
    check_hf_parity(tmp_path, model, SENTENCES)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["do_lowercase_and_remove_accent"] is True
    cased = model_of(["de", "en"])
    write_hf_folder(cased, tmp_path / "cased")
    assert (
        json.loads((tmp_path / "cased" / "tokenizer_config.json").read_text())["do_lowercase_and_remove_accent"]
        is False
    )


@pytest.mark.parametrize("text", [TextConfig(lowercase=True), TextConfig(remove_accents=True)])
def test_a_languages_folder_keeps_each_text_setting(tmp_path: Path, text: TextConfig) -> None:
    model = model_of(["de", "en"], text)
    write_hf_folder(model, tmp_path)
    for language in ("de", "en"):
        read = read_model(tmp_path / language)
        assert read.text == text
        assert read.pipeline().tokens("Höher", language) == model.pipeline().tokens("Höher", language)


def test_the_tied_matrix_is_stored_once(written: Path) -> None:
    assert "pred_layer.proj.weight" not in load_file(written / "model.safetensors")
    assert (written / "model.safetensors").stat().st_mode & 0o044 == 0o044


def test_symbols_that_the_vocabulary_does_not_list_are_unknown_and_never_predicted(written: Path) -> None:
    model = model_of(["de", "en"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(written)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(written).eval()
    ids = tokenizer("so wever")["input_ids"]
    assert ids[2] >= len(model.vocab)
    assert model.pipeline().ids("so wever", "de") == [model.vocab.id("so"), UNK]
    assert model.pipeline().ids("however", "de") == [model.vocab.id("however")]
    tokens = torch.tensor([ids, [i if i < len(model.vocab) else UNK for i in ids]])
    with torch.no_grad():
        logits = theirs(tokens, langs=torch.zeros_like(tokens)).logits
    assert torch.equal(logits[0], logits[1])
    assert logits.softmax(dim=-1)[..., len(model.vocab) :].max() < 1e-15


def test_a_model_without_codes_has_no_tokenizer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = replace(model_of(["de", "en"]), codes=[])
    report = export.export_hf_folder(model, tmp_path, "bare", None)
    assert "no BPE codes" in caplog.text
    assert report.difference < 1e-5
    assert not list(tmp_path.rglob("tokenizer*"))
    assert "There is no tokenizer" in (tmp_path / "README.md").read_text()
    assert same(read_model(tmp_path), model)


@pytest.mark.parametrize("languages", [["de", "en"], ["de"]])
def test_targets_are_words_not_prefixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, languages: list[str]) -> None:
    write_hf_folder(model_of(languages), tmp_path)
    expected = {g.word: g.probability for g in xlmtrain.load(tmp_path).fill_mask("so <mask>", "de", k=99)[0]}
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "fill_mask", raising=False)
    ours = __import__("fill_mask").XLMFillMask.from_pretrained(str(tmp_path), "de")
    for targets in ("e", ["e"], ["e", "so", "e"]):
        guesses = ours("so <mask>", targets=targets)
        assert {guess["token_str"] for guess in guesses} == set(targets)
        for guess in guesses:
            assert guess["score"] == pytest.approx(expected[guess["token_str"]], rel=1e-4)
    for bad in (["Katze"], ["q"], [" "], []):
        with pytest.raises(ValueError, match="targets: "):
            ours("so <mask>", targets=bad)
    with pytest.raises(ValueError, match=r"tokens are more than the model's \d+ positions"):
        ours("so <mask>" + " so" * 600)
    # As the card says: transformers' own takes entries of the vocabulary.
    home = tmp_path / "de" if len(languages) > 1 else tmp_path
    stock = transformers.pipeline("fill-mask", model=str(home))("so <mask>", targets=["e", "e</w>"])
    assert {guess["token_str"]: guess["score"] for guess in stock} == pytest.approx(
        {"e": expected["e"], "e@@": expected["e@@"]}, rel=1e-4
    )


def test_words_that_are_split_already_are_joined_and_found_again(written: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(written / "de")
    words = ["Am", "3.", "Oktober", "kam", "<mask>", "am", "Dr.", "so", "."]
    line = " ".join(words)
    encoded = tokenizer(line, return_offsets_mapping=True, add_special_tokens=False)
    known = len(model_of(["de"]).vocab)
    ids = [i if i < known else UNK for i in encoded["input_ids"]]
    assert ids == model_of(["de"]).pipeline().ids(line, "de")
    found = [line[:start].count(" ") for start, _ in encoded["offset_mapping"]]
    assert sorted(set(found)) == list(range(len(words)))
    tokens = {word: [token for token, i in zip(encoded.tokens(), found) if words[i] == word] for word in words}
    assert tokens["3."] == ["<unk>", ".</w>"]  # as a line of its own it would be 3</w> .</w>
    assert tokens["<mask>"] == ["<mask>"]


@pytest.mark.slow
def test_daily_use(written: Path, tmp_path: Path) -> None:
    """Pipelines on batches of raw text, and training on it; ``however`` ends in a symbol that the vocabulary lacks."""
    home = str(written / "en")
    lines = [*SENTENCES["en"], "", "a\u200bb", "\U0001f600 e\u0301", "wever so"]
    fill = transformers.pipeline("fill-mask", model=home)
    alone = [fill(f"{line} <mask>")[0] for line in lines]
    for one, other in zip(alone, fill([f"{line} <mask>" for line in lines], batch_size=4)):
        assert (one["token"], one["sequence"]) == (other[0]["token"], other[0]["sequence"])
    features = transformers.pipeline("feature-extraction", model=home)
    assert features("so " * 3000, truncation=True, return_tensors=True).shape == (1, 64, 16)
    assert len(features(lines, batch_size=3)) == len(lines)

    tokenizer = transformers.AutoTokenizer.from_pretrained(home)
    model = transformers.AutoModelForMaskedLM.from_pretrained(home)
    assert max(tokenizer("wever so")["input_ids"]) >= len(model_of(["de", "en"]).vocab)
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=3, logging_steps=1, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True
    )
    trainer = transformers.Trainer(
        model,
        arguments,
        train_dataset=[tokenizer(line, truncation=True) for line in lines * 4],
        data_collator=transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5),
        processing_class=tokenizer,
    )
    assert trainer.train().training_loss < 30
    trainer.save_model(str(tmp_path / "saved"))
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert [again(line)["input_ids"] for line in lines] == [tokenizer(line)["input_ids"] for line in lines]
