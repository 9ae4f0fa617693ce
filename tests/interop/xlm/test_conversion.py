"""The original XLM's checkpoints: read, used, written again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model.test_parity import CASES
from tests.support.oracle import Oracle, as_batch
from tests.support.training import assert_same_weights
from tests.support.xlm_model import CODES, logits, oracle_content, save
from xlmtrain.config.model import Activation, ModelConfig
from xlmtrain.config.prepare import TextConfig
from xlmtrain.data.batch import Batch
from xlmtrain.errors import CheckpointError, ConfigError, DataError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.run import read_run, write_run
from xlmtrain.interop.xlm.conversion import from_xlm_state_dict, to_xlm_state_dict, write_xlm_checkpoint
from xlmtrain.model.encoder import sinusoids
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.pretrained import load
from xlmtrain.text.vocab import SPECIALS

OUTPUT = "pred_layer.proj.weight"


@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": False}, {"language_embeddings": False}, {"layers": 11}])
def test_there_and_back(changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    ours = LanguageModel(ModelConfig(**{"dim": 8, "layers": 2, "heads": 2, "max_positions": 6, **changes}), 30, 2)
    names = to_xlm_state_dict(ours.state_dict())
    back = from_xlm_state_dict(names)
    assert back.keys() == ours.state_dict().keys()
    assert all(torch.equal(back[name], value) for name, value in ours.state_dict().items())
    assert ("lang_embeddings.weight" in names) == ("language_embeddings" not in changes)
    tied = torch.equal(names["pred_layer.proj.weight"], names["embeddings.weight"])
    assert tied == ("tie_embeddings" not in changes)


def test_names_and_shapes_are_the_oracles(oracle: Oracle) -> None:
    state = oracle.group("state_dict.")
    again = to_xlm_state_dict(from_xlm_state_dict(state))
    assert again.keys() == state.keys() | {"pred_layer.proj.weight"}
    assert all(torch.equal(again[name], value) for name, value in state.items())


def test_names_are_all_those_of_the_full_reference(reference: dict[str, Any]) -> None:
    again = to_xlm_state_dict(from_xlm_state_dict(reference["state_dict"]))
    assert again.keys() == reference["state_dict"].keys()
    assert all(torch.equal(again[name], value) for name, value in reference["state_dict"].items())
    one_language = LanguageModel(ModelConfig(dim=64, layers=2, heads=4), 200, 1)
    assert set(to_xlm_state_dict(one_language.state_dict())) == set(reference["keys_one_language"])


@pytest.fixture
def content(oracle: Oracle) -> dict[str, Any]:
    """A checkpoint of the oracle's weights, for a test to change."""
    return oracle_content(oracle)


def through_a_run(model: PretrainedBundle, directory: Path) -> PretrainedBundle:
    """The model as it is after being kept in a run directory."""
    directory.mkdir()
    write_run(model, directory)
    return read_run(directory)


def one_language(content: dict[str, Any]) -> None:
    del content["model"]["lang_embeddings.weight"]
    content["params"] |= {"id2lang": {0: "en"}, "lang2id": {"en": 0}, "n_langs": 1}


def untied(content: dict[str, Any]) -> None:
    content["model"][OUTPUT] = torch.randn(200, 64, generator=torch.Generator().manual_seed(1)) / 8
    content["params"]["share_inout_emb"] = False


def sinusoidal(content: dict[str, Any]) -> None:
    content["model"]["position_embeddings.weight"] = sinusoids(512, 64)
    content["params"]["sinusoidal_embeddings"] = True


def changed(key: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    """A change to one of the file's parts."""
    return lambda content: content.update({key: change(content[key])})


VARIANTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "as it is": lambda content: None,
    "of several GPUs": changed("model", lambda weights: {f"module.{name}": w for name, w in weights.items()}),
    "before torch 1.6": lambda content: None,
    "fp16": changed("model", lambda weights: {name: w.half() for name, w in weights.items()}),
    "Parameters": changed("model", lambda weights: {n: torch.nn.Parameter(w) for n, w in weights.items()}),
    "before use_lang_emb": lambda content: content["params"].pop("use_lang_emb"),
    "one language": one_language,
    "without language embeddings": lambda content: (
        content["model"].pop("lang_embeddings.weight"),
        content["params"].update(use_lang_emb=False),
    ),
    "untied": untied,
    "sinusoidal": sinusoidal,
    "relu": lambda content: content["params"].update(gelu_activation=False),
    "en before de": lambda content: content["params"].update(id2lang={0: "en", 1: "de"}, lang2id={"en": 0, "de": 1}),
    "with its optimizer": lambda content: content.update(
        model_optimizer={"state": {0: {"step": 6, "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    ),
    "without counts": lambda content: content.pop("dico_counts"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_file_gives_its_model(content: dict[str, Any], variant: str, tmp_path: Path) -> None:
    """The logits are those of the file's own weights; nothing is lost on the way to a run and back."""
    VARIANTS[variant](content)
    params = content["params"]
    stored = {name.removeprefix("module."): w for name, w in content["model"].items()}
    plain = {name: w.detach().float() for name, w in stored.items()}
    path = save(content, tmp_path / "model.pth", legacy=variant == "before torch 1.6")
    model = read_model(path)

    assert model.languages == list(params["id2lang"].values())
    assert model.vocab.tokens == list(content["dico_id2word"].values())
    assert model.vocab.counts.tolist() == list(
        content.get("dico_counts", dict.fromkeys(model.vocab.tokens, 0)).values()
    )
    assert (model.provenance.source, model.provenance.step) == (str(path), 1234)
    assert (model.config.dropout, model.config.attention_dropout) == (0.1, 0.2)
    assert model.config.activation is (Activation.relu if variant == "relu" else Activation.gelu)
    assert_same_weights(to_xlm_state_dict(model.weights), plain)
    assert not any(weight.requires_grad for weight in model.weights.values())

    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(200, (3, 11), generator=generator)
    languages = torch.randint(len(model.languages), (3, 11), generator=generator)
    with torch.no_grad():
        batch = Batch(
            "mlm", tokens, torch.arange(11).expand(3, -1), languages, None, torch.arange(33), tokens.flatten()
        )
        found = model.module().logits(batch)
        expected = logits(plain, tokens, languages, relu=variant == "relu").flatten(0, 1)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)

    kept = through_a_run(model, tmp_path / "run")
    assert_same_weights(kept.weights, model.weights)
    assert (kept.config, kept.languages, kept.vocab.tokens) == (model.config, model.languages, model.vocab.tokens)
    assert kept.provenance.step == 1234
    write_xlm_checkpoint(kept, tmp_path / "again.pth")
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert_same_weights(again["model"], plain)
    assert again["dico_id2word"] == content["dico_id2word"]
    for key in again["params"].keys() & params.keys() - {"lgs"}:
        assert again["params"][key] == params[key], key
    assert read_model(tmp_path / "again.pth").config == model.config


@pytest.mark.parametrize("name", CASES)
def test_logits_are_the_oracles(oracle: Oracle, content: dict[str, Any], name: str, tmp_path: Path) -> None:
    case = oracle.group(f"cases.{name}.")
    module = read_model(save(content, tmp_path / "model.pth")).module()
    batch = as_batch(case, causal=name == "clm_stream")
    torch.testing.assert_close(module.logits(batch), case["logits"], atol=1e-5, rtol=0)
    if name == "mlm_stream":  # the standard that the other files are held to is one itself
        plain = logits(content["model"], batch.tokens, batch.languages).flatten(0, 1)[batch.target_index]
        torch.testing.assert_close(plain, case["logits"], atol=1e-5, rtol=0)


PARTS = "model epoch n_total_iter best_metrics best_stopping_criterion dico_id2word dico_word2id dico_counts params"
ARCHITECTURE = (
    "encoder_only emb_dim n_layers n_heads dropout attention_dropout gelu_activation share_inout_emb "
    "sinusoidal_embeddings use_lang_emb use_memory asm langs lgs id2lang lang2id n_langs n_words bos_index eos_index "
    "pad_index unk_index mask_index"
)


def test_what_is_written_has_all_that_the_original_program_reads(content: dict[str, Any], tmp_path: Path) -> None:
    write_xlm_checkpoint(read_model(save(content, tmp_path / "model.pth")), tmp_path / "again.pth")
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert set(again) == set(PARTS.split())
    assert set(again["params"]) == set(ARCHITECTURE.split())
    assert again["dico_word2id"] == content["dico_word2id"]
    assert again["dico_counts"] == content["dico_counts"]
    assert [again["params"][f"{name}_index"] for name in ("bos", "eos", "pad", "unk", "mask")] == [0, 1, 2, 3, 5]
    assert (again["params"]["n_words"], again["params"]["n_langs"], again["params"]["lgs"]) == (200, 2, "de-en")
    tied = again["model"]["embeddings.weight"]
    assert again["model"][OUTPUT].data_ptr() == tied.data_ptr()  # stored once


def test_other_positions_than_512_are_reported(
    content: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = read_model(save(content, tmp_path / "model.pth"))
    write_xlm_checkpoint(model, tmp_path / "short.pth")
    assert "has 32 positions; the original XLM reads models of 512 only" in caplog.text
    caplog.clear()
    content["model"]["position_embeddings.weight"] = torch.zeros(512, 64)
    write_xlm_checkpoint(read_model(save(content, tmp_path / "model.pth")), tmp_path / "whole.pth")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("words", "counts"), [({14: "zwei Worte"}, {}), ({14: "wo\u2028rt"}, {}), ({}, {"w182": 10**6}), ({14: ""}, {})]
)
def test_a_vocabulary_that_no_run_can_keep(
    content: dict[str, Any], words: dict[int, str], counts: dict[str, int], tmp_path: Path
) -> None:
    """Of use all the same; but a run that could not be read again is not written."""
    content["dico_id2word"] |= words
    content["dico_counts"] |= counts
    model = read_model(save(content, tmp_path / "model.pth"))
    model.module()
    with pytest.raises(DataError, match=r"model\.pth: its vocabulary cannot be kept"):
        through_a_run(model, tmp_path / "run")


def test_a_step_that_is_none_counts_as_zero(content: dict[str, Any], tmp_path: Path) -> None:
    for step in (-1, "many", None, True):
        content["n_total_iter"] = step
        model = read_model(save(content, tmp_path / "model.pth"))
        assert model.provenance.step == 0
    assert through_a_run(model, tmp_path / "run").provenance.step == 0


def test_without_codes_raw_text_is_refused_and_the_rest_works(content: dict[str, Any], tmp_path: Path) -> None:
    path = save(content, tmp_path / "model.pth")
    model = load(path, device="cpu")
    assert (model.languages, model.step) == (["de", "en"], 1234)
    for ask in (
        lambda: model.tokenize("die katze", "de"),
        lambda: model.fill_mask("die <mask>", "de"),
        lambda: model.embed(["die"], "de"),
        lambda: model.score(["die"], "de"),
    ):
        with pytest.raises(DataError, match=r"has no BPE codes, .*; with a \.pth file, give codes=FILE"):
            ask()
    with pytest.raises(ConfigError, match="lang=fr: the model knows de, en"):
        model.tokenize("die katze", "fr")


def test_codes_make_raw_text_the_vocabularys(content: dict[str, Any], tmp_path: Path) -> None:
    codes = tmp_path / "codes"
    codes.write_text(CODES, encoding="utf-8")
    model = read_model(save(content, tmp_path / "model.pth"), codes=codes)
    loaded = load(tmp_path / "model.pth", device="cpu", codes=str(codes))
    assert loaded.tokenize("die katze", "de") == ["die", "kat@@", "ze"]
    assert loaded.text.ids("die katze Q", "de") == [14, 15, 16, 3]
    tokens = torch.tensor([[1, 14, 5, 16, 1]])
    expected = logits(content["model"], tokens, torch.zeros_like(tokens))[0, 2].softmax(dim=0)
    (guesses,) = loaded.fill_mask("die <mask> ze", "de", k=200)
    found = {guess.word: guess.probability for guess in guesses}
    assert [found[word] for word in model.vocab.tokens] == pytest.approx(expected.tolist(), abs=1e-6)

    kept = through_a_run(model, tmp_path / "run")
    assert kept.codes == model.codes
    (again,) = load(tmp_path / "run", device="cpu").fill_mask("die <mask> ze", "de", k=200)
    # The weights are the same to the bit; what products give depends on where in memory they lie.
    assert {guess.word: guess.probability for guess in again} == pytest.approx(found, rel=1e-5)
    with pytest.raises(DataError, match=r"nowhere: cannot read the BPE codes"):
        read_model(tmp_path / "model.pth", codes=tmp_path / "nowhere")
    codes.write_text("i e</w>\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"codes:1: not a BPE code"):
        read_model(tmp_path / "model.pth", codes=codes)


@pytest.mark.parametrize("name", ["checkpoint", "best-valid_mlm_ppl"])
def test_the_original_programs_own_files(shared: Path, reference: dict[str, Any], name: str, tmp_path: Path) -> None:
    """Read, kept in a run, written again: as trained, and to the last bit."""
    path = shared / "reference" / f"{name}.pth"
    model = read_model(path)
    vocab = (shared / "reference" / "data" / "vocab").read_text(encoding="utf-8").split("\n")[:-1]
    pairs = zip(model.vocab.tokens, model.vocab.counts.tolist())
    assert [f"{word} {count}" for word, count in pairs] == [*(f"{word} 0" for word in SPECIALS), *vocab]
    assert (model.languages, model.provenance.step) == (["de", "en"], 6)
    assert model.config == ModelConfig(64, 2, 4, dropout=0.0, attention_dropout=0.0)
    trained = reference["training"]["state_dict_after"]
    kept = through_a_run(model, tmp_path / "run")
    for weights in (model.weights, kept.weights):
        assert_same_weights(to_xlm_state_dict(weights), trained)
    write_xlm_checkpoint(kept, tmp_path / "again.pth")
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert_same_weights(again["model"], trained)
    assert set(again) == set(reference["checkpoint"]["keys"]) - {"model_optimizer"}
    assert set(again["params"]) <= set(reference["checkpoint"]["params_keys"])


@pytest.mark.parametrize("case", CASES)
def test_logits_of_the_original_programs_own_files(
    shared: Path, reference: dict[str, Any], case: str, tmp_path: Path
) -> None:
    """With the weights from before training, for which there are logits, in the place of those after it."""
    model = read_model(shared / "reference" / "checkpoint.pth")
    write_xlm_checkpoint(model, tmp_path / "again.pth")
    content = torch.load(tmp_path / "again.pth", weights_only=True)
    content["model"] = reference["state_dict"]
    kept = through_a_run(read_model(save(content, tmp_path / "model.pth")), tmp_path / "run")
    expected = reference["cases"][case]
    found = kept.module().logits(as_batch(expected, expected["causal"]))
    print(f"{case}: largest difference of a logit {(found - expected['logits']).abs().max():.1e}")
    torch.testing.assert_close(found, expected["logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["lowercase", "remove_accents", "normalize_unicode"])
def test_text_settings_are_kept_and_can_be_given(content: dict[str, Any], tmp_path: Path, name: str) -> None:
    model = read_model(save(content, tmp_path / "model.pth"))
    assert model.text == TextConfig()
    write_xlm_checkpoint(replace(model, text=TextConfig(**{name: True})), tmp_path / "again.pth")
    assert read_model(tmp_path / "again.pth").text == TextConfig(**{name: True})
    assert read_model(tmp_path / "again.pth", text=TextConfig()).text == TextConfig()
    content["params"]["xlmtrain_text"] = {"lowercase": "perhaps"}
    with pytest.raises(CheckpointError, match=r"incomplete or damaged .*lowercase: str, not bool"):
        read_model(save(content, tmp_path / "model.pth"))
