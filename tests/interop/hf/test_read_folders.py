"""Folders that transformers saved, or somebody edited, are read or refused with the reason."""

from __future__ import annotations

import json
import re
import shutil
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import xlmtrain
from tests.support.hf_folders import model_of, same
from xlmtrain.commands import export as tool
from xlmtrain.config.prepare import TextConfig
from xlmtrain.errors import CheckpointError, DataError
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.hf.model import write_hf_folder

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="the tokenizers package is not installed")


def test_what_version_0_1_0_exported_is_read_under_todays_names(copy: Path) -> None:
    extra = json.loads((copy / "xlmtrain.json").read_text())
    del extra["provenance"]
    extra["history"] = {
        "source": "elsewhere",
        "step": 7,
        "settings": {"data": {"mlm": {}, "clm": {"de": 1.0}}, "mask": {"rate": 0.3}},
        "corpora": {},
        "figures": {"valid/de-en_alone_acc": 1.0},
    }
    (copy / "xlmtrain.json").write_text(json.dumps(extra))
    read = read_model(copy)
    assert read.provenance.step == 7
    assert read.provenance.settings["mask"] == {"prob": 0.3}
    assert read.provenance.metrics == {"valid/de-en_cloze_mono_acc": 1.0}
    assert read.causal


def _swap(values: dict[str, int], number: int = 0) -> None:
    """Exchange the values of an entry and the next."""
    (first, one), (second, other) = list(values.items())[number : number + 2]
    values[first], values[second] = other, one


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("tokenizer.json", lambda content: _swap(content["model"]["vocab"], number=20)),
        ("tokenizer.json", lambda content: content["model"]["merges"].pop(0)),
        ("config.json", lambda config: _swap(config["lang2id"])),
        ("xlmtrain.json", lambda extra: extra["text"].update(lowercase=True)),
    ],
)
def test_an_exported_folder_that_was_edited_is_refused(
    copy: Path, name: str, edit: Callable[[dict[str, Any]], None]
) -> None:
    path = copy / name
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match="are not those that the model was exported with; export it again"):
        read_model(copy)


def test_what_transformers_saves_is_read_too(written: Path, tmp_path: Path) -> None:
    transformers.AutoModelForMaskedLM.from_pretrained(written).save_pretrained(tmp_path)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "xlmtrain.json"):
        shutil.copyfile(written / name, tmp_path / name)
    assert same(read_model(tmp_path), model_of(["de", "en"]))


@pytest.mark.parametrize(
    ("home", "text"), [("", TextConfig()), ("en", TextConfig(lowercase=True)), ("en", TextConfig(True, True))]
)
def test_what_transformers_saves_is_all_that_is_needed(tmp_path: Path, text: TextConfig, home: str) -> None:
    """Also after training there: symbols that the vocabulary does not list then have embeddings of their own."""
    exported, saved = tmp_path / "exported", tmp_path / "saved"
    exported.mkdir()
    write_hf_folder(model_of(["de", "en"], text), exported)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(exported / home)
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported, subfolder="en")
    theirs.save_pretrained(saved)
    with pytest.raises(CheckpointError, match="save the tokenizer into the folder, too"):
        read_model(saved)
    tokenizer.save_pretrained(saved)
    assert not (saved / "vocab.json").exists()
    read, expected = read_model(saved), read_model(exported / home)
    assert same(replace(read, vocab=expected.vocab), expected)  # the counts are lost
    assert read.vocab.tokens == expected.vocab.tokens
    with torch.no_grad():
        theirs.transformer.embeddings.weight[len(read.vocab) :] += 0.5
    theirs.save_pretrained(saved, max_shard_size="5KB")
    assert len(list(saved.glob("model-*.safetensors"))) > 1
    (saved / "model.safetensors").unlink()
    trained = xlmtrain.load(saved)
    for sentence in ("so wever <mask>", "Die Katze ist höher <mask>"):
        inputs = tokenizer(sentence, return_tensors="pt")
        assert inputs["input_ids"][0, 1:-1].tolist() == trained.text.ids(sentence, "en")
        langs = {"langs": torch.ones_like(inputs["input_ids"])} if not home else {}
        with torch.no_grad():
            logits = theirs.eval()(**inputs, **langs).logits[0, inputs["input_ids"][0] == 5]
        guesses = trained.fill_mask(sentence, "en", k=1)[0]
        assert guesses[0].probability == pytest.approx(float(logits.softmax(-1).max()), rel=1e-4)
        assert trained.text.vocab.id(guesses[0].word) == int(logits.argmax())
    sharded = read_model(saved)
    weights = {name: weight.clone() for name, weight in theirs.state_dict().items()}
    halves = [OrderedDict((name, weights[name]) for name in list(weights)[half::2]) for half in (0, 1)]
    for half, content in enumerate(halves):
        torch.save(content, saved / f"pytorch_model-{half}.bin")
    listed = {name: f"pytorch_model-{half}.bin" for half, content in enumerate(halves) for name in content}
    (saved / "model.safetensors.index.json").rename(saved / "other.json")
    (saved / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": listed}))
    assert same(read_model(saved), sharded)
    torch.save(theirs.state_dict(), saved / "pytorch_model.bin")  # as transformers 4
    assert same(read_model(saved), sharded)
    (saved / "other.json").rename(saved / "model.safetensors.index.json")
    next(saved.glob("model-*.safetensors")).rename(tmp_path / "part")
    with pytest.raises(CheckpointError, match=r"(?i)no such file or directory: .*model-0000"):
        read_model(saved)
    theirs.transformer.save_pretrained(saved)
    with pytest.raises(CheckpointError, match="no output layer"):
        read_model(saved)
    theirs.save_pretrained(saved)
    tool.main([f"model={saved}", "format=run", f"output={tmp_path / 'run'}"])
    assert read_model(tmp_path / "run").vocab.tokens == trained.text.vocab.tokens
    tokenizer.add_tokens(["Sofa"])
    tokenizer.save_pretrained(saved)
    with pytest.raises(CheckpointError, match="added after training, such as 'Sofa'"):
        read_model(saved)
    (saved / "tokenizer.json").write_text(tokenizers.Tokenizer(tokenizers.models.BPE()).to_str())
    with pytest.raises(DataError, match="bos token '</s>' is not in the tokenizer"):
        read_model(saved)


def test_a_folder_as_published_in_2019(copy: Path) -> None:
    """Without our file and our tokenizer: the names of the early versions, and their lower-casing by default."""
    model, tmp_path = model_of(["de", "en"]), copy
    for name in ("xlmtrain.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    published = {
        key: value for key, value in config.items() if not key.endswith("_token_id") and key != "tie_word_embeddings"
    }
    published |= {"share_inout_emb": True, "mask_token_id": 0, "same_enc_dec": True, "end_n_top": 5}
    (tmp_path / "config.json").write_text(json.dumps(published))
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    merges = (tmp_path / "merges.txt").read_text().splitlines()
    (tmp_path / "merges.txt").write_text("\n".join(f"{line} {7 * i}" for i, line in enumerate(merges)) + "\n")
    read = read_model(tmp_path)
    assert read.text == TextConfig(lowercase=True, remove_accents=True)
    assert all(torch.equal(read.weights[name], model.weights[name]) for name in model.weights)
    assert (read.vocab.tokens, read.languages) == (model.vocab.tokens, ["de", "en"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
        ({"asm": True}, "asm is True"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps"),
        ({"pad_token_id": 0}, "pad is 0"),
        ({"n_layers": 3}, "2 layers, its settings say 3"),
        ({"emb_dim": 32}, "does not fit the model"),
        ({"lang2id": None}, "incomplete or damaged"),
    ],
)
def test_other_architectures_are_refused(copy: Path, change: dict[str, Any], message: str) -> None:
    config = json.loads((copy / "config.json").read_text()) | change
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        read_model(copy).module()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.safetensors", "pytorch_model.bin"),
        ("tokenizer.json", "tokenizer.json"),
        ("config.json", "no model in it"),
    ],
)
def test_missing_and_damaged_files_are_named(copy: Path, name: str, message: str) -> None:
    (copy / name).unlink()
    (copy / "vocab.json").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=message):
        read_model(copy)
    (copy / name).write_bytes(b"{not good")
    with pytest.raises(CheckpointError, match=re.escape(str(copy))):
        read_model(copy)
