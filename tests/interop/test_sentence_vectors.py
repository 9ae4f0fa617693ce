"""Exports whose sentence vectors are those of embed: folders of sentence-transformers, and ONNX graphs."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xlmtrain
from tests.support.foreign_tokenizers import LINES, write_tokenizer
from tests.support.tiny import tiny_config
from tests.support.training import train_alone
from xlmtrain.commands import export
from xlmtrain.config.evaluate import Pooling
from xlmtrain.config.families import Family
from xlmtrain.config.prepare import PrepareConfig, SplitConfig
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.interop import onnx, sentence_encoder, sentence_transformers
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.sentence_encoder import VectorChoice, choose_vectors
from xlmtrain.prepare.pipeline import prepare

pytest.importorskip("transformers", reason="transformers is not installed")
ODD = ["", "a", "\u00e4 e\u0301", "a\u200bb c", "\U0001f600 d", " ".join("abcdefghij" * 2), *"klm"]


def trained(family: str, data: Path, run: Path, **changes: Any) -> Path:
    positions = {"model.global_every": 2, "model.local_attention": 4} if family == "modernbert" else {}
    shape = {"model.family": Family(family), "model.layers": 3, "train.steps": 10, **positions}
    train_alone(tiny_config(run, data, shape | changes))
    return run


@pytest.fixture(scope="module")
def run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained("xlm", tiny_dataset, tmp_path_factory.mktemp("vectors") / "run")


@pytest.fixture(scope="module")
def own_tokenizer_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with a tokenizer that adds no delimiters, as some do."""
    home = tmp_path_factory.mktemp("own")
    folder = write_tokenizer("byte_bpe", home / "tokenizer")
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps({**content, "post_processor": None}), encoding="utf-8")
    splits = {}
    for name, lines in {"train": LINES[:300], "valid": LINES[300:400]}.items():
        for language in ("de", "en"):
            (home / f"{name}.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
        mono = {language: [str(home / f"{name}.{language}")] for language in ("de", "en")}
        splits[name] = SplitConfig(mono, {"de-en": [str(home / f"{name}.{{lang}}")]})
    prepare(PrepareConfig(output=str(home / "data"), tokenizer=str(folder), **splits))
    shape = {"model.language_embeddings": False, "model.max_positions": 64, "data.max_sentence_length": 28}
    return trained("bert", home / "data", home / "run", **shape)


def written(folder: Path) -> tuple[int, str]:
    """Layers and pooling of an exported folder."""
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    return settings.get("n_layers", settings.get("num_hidden_layers")), (
        "mean" if pooling["pooling_mode_mean_tokens"] else "first"
    )


def test_the_layer_is_chosen_by_retrieval_and_the_others_are_cut_off(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = read_model(run)
    measured = choose_vectors(bundle, None)
    model = xlmtrain.load(run, device="cpu")
    assert measured.pairs > 15
    assert 1 <= measured.layer <= 3
    assert measured.top1 >= measured.last_top1
    chosen = VectorChoice(2, Pooling.first, 7, 12.3, 4.5)
    monkeypatch.setattr(sentence_transformers, "choose_vectors", lambda *_: chosen)
    export.main([f"model={run}", "format=sentence-transformers", "lang=en", f"output={tmp_path / 'out'}"])
    printed = capsys.readouterr().out
    assert "first state of layer 2 of 3. Of 7 validation pairs it finds 12.3 %" in printed
    assert written(tmp_path / "out") == (2, "first")
    assert "12.3 %" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    encoder = sentence_transformers._Encoder(tmp_path / "out", bundle.config, Pooling.first)
    rows = [[1, *model.text.ids("u v w", "en"), 1], [1, *model.text.ids("x", "en"), 1]]
    found = np.concatenate([encoder(*batch) for batch in sentence_encoder.padded_batches(rows, 2)])
    expected = model.embed(["u v w", "x"], "en", pooling="first", layer=2)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - model.embed(["u v w", "x"], "de", pooling="first", layer=2)).max() > 1e-2


def test_without_pairs_it_is_the_mean_of_the_last_layer(run: Path, tmp_path: Path) -> None:
    export.main([f"model={run}", "format=xlm", f"output={tmp_path / 'model.pth'}"])
    bundle = read_model(tmp_path / "model.pth", codes=run / "codes")
    assert choose_vectors(bundle, None) == VectorChoice(3, Pooling.mean)


def test_a_wrong_vector_is_not_exported(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = sentence_encoder.cut_after
    monkeypatch.setattr(sentence_transformers, "cut_after", lambda bundle, layer: broken(bundle, 1))
    monkeypatch.setattr(sentence_transformers, "choose_vectors", lambda *_: VectorChoice(3, Pooling.mean))
    with pytest.raises(DataError, match=r"sentence vectors differ by .*; nothing was exported"):
        export.main([f"model={run}", "format=sentence-transformers", "lang=de", f"output={tmp_path / 'out'}"])
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [f"model={run}", f"output={tmp_path / 'out'}"]
    with pytest.raises(ConfigError, match="lang=fr: the model knows de, en"):
        export.main([*given, "format=sentence-transformers", "lang=fr"])
    monkeypatch.setattr(sentence_transformers, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'xlmtrain\[hf\]'"):
        export.main([*given, "format=sentence-transformers"])
    monkeypatch.setattr(onnx, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ConfigError, match=r"needs onnxscript; install it: pip install 'xlmtrain\[onnx\]'"):
        export.main([*given, "format=onnx"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("family", [family.value for family in Family])
def test_sentence_transformers_gives_the_vectors_of_embed(
    family: str, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    run = trained(family, tiny_dataset, tmp_path / "run")
    chosen = VectorChoice(2, Pooling.mean)
    monkeypatch.setattr(sentence_transformers, "choose_vectors", lambda *_: chosen)
    export.main([f"model={run}", "format=sentence-transformers", f"output={tmp_path / 'out'}"])
    model = xlmtrain.load(run, device="cpu")
    for language in ("de", "en"):
        encoder = library.SentenceTransformer(str(tmp_path / "out" / language), device="cpu")
        assert encoder.max_seq_length == 32
        found = encoder.encode(ODD, batch_size=4)
        np.testing.assert_allclose(found, model.embed(ODD, language, layer=2), atol=1e-5)
        assert encoder.encode(["a " * 100]).shape == (1, 16)


@pytest.mark.slow
def test_a_tokenizer_without_delimiters_gets_them(own_tokenizer_run: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    export.main([f"model={own_tokenizer_run}", "format=sentence-transformers", f"output={tmp_path / 'out'}"])
    layer, pooling = written(tmp_path / "out")
    model, lines = xlmtrain.load(own_tokenizer_run, device="cpu"), ["", "u\u0308ber", *LINES[300:340]]
    encoder = library.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    expected = model.embed(lines, "en", pooling=pooling, layer=layer)
    np.testing.assert_allclose(encoder.encode(lines), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["xlm", "roberta", "modernbert", "own tokenizer", "causal"])
def test_onnxruntime_gives_the_models_numbers(
    family: str, tiny_dataset: Path, own_tokenizer_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also through the example of its card, as it stands there."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    if family == "own tokenizer":
        run = own_tokenizer_run
    elif family == "causal":
        clm = {"data.mlm": {}, "data.tlm": {}, "data.clm": {"de": 1.0, "en": 1.0}, "evaluate.metric": "valid/clm_ppl"}
        run = trained("xlm", tiny_dataset, tmp_path / "run", **clm)
    else:
        run = trained(family, tiny_dataset, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    level = logging.getLogger("torch.onnx").level
    export.main([f"model={run}", "format=onnx", "lang=en", "output=out"])
    assert logging.getLogger("torch.onnx").level == level
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    code = card.partition("```python\n")[2].partition("```")[0]
    found: dict[str, Any] = {}
    exec(code, found)
    model = xlmtrain.load(run, device="cpu")
    choice = choose_vectors(read_model(run), None)
    first, *_ = found["batch"]
    expected = model.embed(["The cat is <mask> on the sofa.", "..."], "en", choice.pooling, choice.layer)
    np.testing.assert_allclose(found["vectors"], expected, atol=1e-4)
    if family != "causal":
        best = model.fill_mask("The cat is <mask> on the sofa.", "en", k=1)[0][0]
        place = first.ids.index(model.text.vocab.special.mask)
        assert model.text.vocab.token(int(found["logits"][0, place].argmax())) == best.word
