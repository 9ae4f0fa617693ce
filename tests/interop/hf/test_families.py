"""BERT, RoBERTa, XLM-R and ModernBERT: read from transformers' folders, continued, and written for the same classes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.foreign_tokenizers import LINES, write_tokenizer
from tests.support.tiny import tiny_config
from tests.support.training import checkpoint, records, train_alone
from xlmtrain.commands import export as export_tool
from xlmtrain.config.load import compose
from xlmtrain.config.model import InitConfig
from xlmtrain.config.prepare import PrepareConfig, SplitConfig
from xlmtrain.config.schema import Config
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.validation import ValidationSet
from xlmtrain.errors import CheckpointError, ConfigError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.hf.model import write_hf_folder
from xlmtrain.interop.hf.parity import check_hf_parity
from xlmtrain.interop.warm_start import LANGUAGES, initialize_weights
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.prepare.pipeline import prepare
from xlmtrain.text.tokenizer_json import TokenizerVocab, read_tokenizer
from xlmtrain.text.vocab import PAD

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

SIZE = {"vocab_size": 54, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "pad_token_id": PAD}
BERT = {**SIZE, "intermediate_size": 48, "max_position_embeddings": 32}
ROBERTA = {
    **SIZE,
    "intermediate_size": 128,
    "max_position_embeddings": 35,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}
MODERN = {**BERT, "local_attention": 8, "bos_token_id": 1, "eos_token_id": 1, "cls_token_id": 1, "sep_token_id": 1}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", BERT),
    "roberta": ("RobertaConfig", ROBERTA),
    "xlm_roberta": ("XLMRobertaConfig", ROBERTA),
    "modernbert": ("ModernBertConfig", MODERN),
}
FAMILIES = list(CONFIGS)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers.logging.disable_progress_bar()


def foreign(family: str, folder: Path | None = None, **changes: Any) -> Any:
    """A model of transformers with random weights, biases and norms included, saved into ``folder``."""
    name, values = CONFIGS[family]
    config = getattr(transformers, name)(**{**values, **changes})
    torch.manual_seed(3)
    model = transformers.AutoModelForMaskedLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    if folder is not None:
        model.save_pretrained(folder)
    return model


def padded(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (3, length), and the lengths of the rows, of which the first is full."""
    lengths = torch.tensor([length, 5, length - 3])
    tokens = torch.randint(5, 54, (3, length), generator=torch.Generator().manual_seed(1))
    return tokens.where(torch.arange(length) < lengths[:, None], PAD), lengths


@torch.no_grad()
def assert_same_outputs(bundle: PretrainedBundle, model: Any) -> None:
    """Hidden states of all layers and logits, on a padded batch of full length."""
    ours, length = bundle.module(), bundle.config.max_positions
    tokens, lengths = padded(length)
    valid = torch.arange(length) < lengths[:, None]
    expected = model(tokens, attention_mask=valid.long(), output_hidden_states=True)
    places = torch.arange(length).expand_as(tokens)
    states = list(ours.encoder.hidden_states(tokens, places, 0 * tokens, lengths))
    assert len(states) == len(expected.hidden_states)
    for found, theirs in zip(states, expected.hidden_states):
        torch.testing.assert_close(found[valid], theirs[valid], atol=1e-5, rtol=0)
    logits = ours.head(states[-1][valid], ours.encoder.token_embeddings.weight)
    torch.testing.assert_close(logits, expected.logits[valid], atol=1e-5, rtol=0)


def assert_equal_weights(first: Any, second: Any) -> None:
    assert type(first) is type(second)
    one, two = first.state_dict(), second.state_dict()
    assert one.keys() == two.keys()
    assert not [name for name in one if not torch.equal(one[name], two[name])]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_in_and_out_again(family: str, tied: bool, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"tie_word_embeddings": tied}
    if family == "modernbert" and not tied:
        changes |= {"layer_types": ["full_attention", "sliding_attention"] * 2, "local_attention": 4, "norm_eps": 1e-6}
        changes["rope_parameters"] = {"full_attention": {"rope_type": "default", "rope_theta": 500.0}}
    model = foreign(family, tmp_path / "in", **changes)
    if not tied and family != "modernbert":  # without effect: the class uses the bias of its decoder
        unused = model.get_parameter("cls.predictions.bias" if family == "bert" else "lm_head.bias")
        unused.data.copy_(model.get_output_embeddings().bias)
    read = read_model(tmp_path / "in")
    assert read.config.tie_embeddings is tied
    assert_same_outputs(read, model)
    (tmp_path / "out").mkdir()
    write_hf_folder(read, tmp_path / "out")
    written = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out")
    assert_equal_weights(model, written)
    for key, value in {**CONFIGS[family][1], **changes}.items():
        found = getattr(written.config, key)
        assert (found if key != "rope_parameters" else found["full_attention"]["rope_theta"]) in (value, 500.0), key
    assert replace(read_model(tmp_path / "out"), provenance=read.provenance).config == read.config
    assert check_hf_parity(tmp_path / "out", read, {}).difference < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_in_parts_and_in_half_precision(family: str, tmp_path: Path) -> None:
    model = foreign(family).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    read = read_model(tmp_path)
    assert {weight.dtype for weight in read.weights.values()} == {torch.float32}
    assert_same_outputs(read, transformers.AutoModelForMaskedLM.from_pretrained(tmp_path, dtype=torch.float32))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_gets_a_head(family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = foreign(family)
    model.base_model.save_pretrained(tmp_path / "encoder")
    with caplog.at_level(logging.WARNING):
        first, second = read_model(tmp_path / "encoder"), read_model(tmp_path / "encoder")
    assert f"{tmp_path / 'encoder'}: has no prediction head; a new one with random weights is used" in caplog.text
    model.save_pretrained(tmp_path / "all")
    for name, weight in read_model(tmp_path / "all").weights.items():
        assert torch.equal(weight, first.weights[name]) is name.startswith("encoder."), name
        assert torch.equal(second.weights[name], first.weights[name])


def test_weights_without_effect_and_old_names(tmp_path: Path) -> None:
    """As in files of Google's BERT: a pooler, a head for the next sentence, positions, gamma and beta."""
    model = foreign("bert", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    old = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t.clone()
        for n, t in weights.items()
    }
    old |= {"bert.pooler.dense.weight": torch.ones(32, 32), "cls.seq_relationship.weight": torch.ones(2, 32)}
    save_file({**old, "bert.embeddings.position_ids": torch.ones(1, 32)}, tmp_path / "model.safetensors")
    assert_same_outputs(read_model(tmp_path), model)


def test_the_settings_of_older_modernberts(tmp_path: Path) -> None:
    """Of before transformers 5: the layers' types and the rotary positions have other names."""
    rope = {
        "full_attention": {"rope_type": "default", "rope_theta": 900.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 70.0},
    }
    types = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    model = foreign("modernbert", tmp_path, rope_parameters=rope, layer_types=types)
    settings = json.loads((tmp_path / "config.json").read_text())
    del settings["rope_parameters"], settings["layer_types"]
    old = {"global_rope_theta": 900.0, "local_rope_theta": 70.0, "global_attn_every_n_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps({**settings, **old, "position_embedding_type": "sans_pos"}))
    assert_same_outputs(read_model(tmp_path), model)


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    change(settings)
    path.write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("bert", {"hidden_act": "silu"}, "the activation is 'silu', only gelu and relu"),
        ("bert", {"is_decoder": True}, "is_decoder is True, only False"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ("bert", {"num_attention_heads": 5}, "heads: 5 does not divide"),
        ("bert", {"num_hidden_layers": 5}, "has the weights of 4 layers, its settings say 5"),
        ("bert", {"hidden_size": "wide"}, "incomplete or damaged"),
        ("roberta", {"max_position_embeddings": 40}, r"position_embeddings.weight is \(35, 32\), not \(40, 32\)"),
        ("modernbert", {"norm_bias": True}, "norm_bias is True, only False"),
        ("modernbert", {"layer_types": ["sliding_attention"] * 4}, "layer_types are not"),
        ("modernbert", {"rope_scaling": {"rope_type": "yarn"}}, "rotary positions are scaled"),
        ("modernbert", {"model_type": "deberta"}, "model_type is 'deberta'; there are xlm, bert, roberta, xlm-roberta"),
    ],
)
def test_other_architectures_are_refused(family: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    foreign(family, tmp_path)
    edit(tmp_path, lambda settings: settings.update(changes))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_model(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w["decoder.bias"].fill_(torch.nan), "decoder.bias has numbers that are not finite"),
        (lambda w: w.pop("model.layers.2.mlp.Wo.weight"), r"encoder.blocks.2.ffn.outer.weight is None"),
        (lambda w: w.pop("head.dense.weight"), "head.transform.dense.weight is None"),
        (
            lambda w: w.update({"classifier.weight": torch.ones(2, 32)}),
            "classifier.weight is not a weight of ModernBert",
        ),
        (lambda w: w.update({"model.layers.1.mlp.Wo.bias": torch.ones(32)}), "encoder.blocks.1.ffn.outer.bias is "),
    ],
)
def test_damaged_weights_are_refused(change: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    foreign("modernbert", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        read_model(tmp_path)


def continued(
    run: Path, data: Path, source: Path, languages: bool = True, metric: str = "valid/mlm_ppl", **changes: Any
) -> Config:
    """Settings of a run from ``source``, with the settings of the model that the error proposes."""
    config = replace(tiny_config(run, data, {"train.steps": 3, "evaluate.every": 3}), init=InitConfig(str(source)))
    config = replace(config, data=replace(config.data, **changes), evaluate=replace(config.evaluate, metric=metric))
    with pytest.raises(ConfigError, match="this model has another shape; train it with") as caught:
        train_alone(config)
    advice = str(caught.value).partition("train it with ")[2].split()
    given = [f"model.{name}={getattr(value, 'value', value)}" for name, value in vars(config.model).items()]
    rest = ["run=r", "data.path=d", "data.mlm.de=1", "data.sequence_length=16", "data.sub_batch_tokens=256"]
    model = compose("config", [*rest, *given, *advice]).model
    model = replace(model, dropout=0.0, attention_dropout=0.0, language_embeddings=languages)
    return replace(config, model=model)


@torch.no_grad()
def loss_of(model: Any, config: Config, objective: str, key: str) -> float:
    """Mean loss by transformers on a validation set of a run; without padding it takes the positions of the batch."""
    total, count, shift = 0.0, 0, model.config.pad_token_id + 1 if "oberta" in type(model).__name__ else 0
    for batch in ValidationSet(config, Dataset(config.data.path), "valid", objective, key).batches():
        given = {"position_ids": batch.positions + shift}
        if batch.lengths is not None:
            given["attention_mask"] = (torch.arange(batch.tokens.shape[1]) < batch.lengths[:, None]).long()
        logits = model(batch.tokens, **given).logits.flatten(0, 1)[batch.target_index]
        total += float(torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum"))
        count += len(batch.targets)
    return total / count


@pytest.mark.parametrize("family", FAMILIES)
def test_the_start_is_the_same_model(family: str, tiny_dataset: Path, tmp_path: Path) -> None:
    """On masked text and on pairs; the language embeddings that are added begin at zero."""
    theirs = foreign(family, tmp_path / "in")
    config, dataset = continued(tmp_path / "run", tiny_dataset, tmp_path / "in"), Dataset(tiny_dataset)
    ours = LanguageModel(config.model, len(dataset.vocab), 2)
    initialize_weights(config.init, config.model, ours, dataset)
    assert not ours.state_dict()[LANGUAGES].any()
    for objective, key in (("mlm", "de"), ("tlm", "de-en")):
        batches = list(ValidationSet(config, dataset, "valid", objective, key).batches())
        with torch.no_grad():
            total = sum(float(ours.eval()(batch)) for batch in batches)
        expected = loss_of(theirs, config, objective, key)
        assert total / sum(len(batch.targets) for batch in batches) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["xlm_roberta", "modernbert"])
def test_a_run_ends_as_the_class_that_it_began_as(
    family: str, tiny_dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = foreign(family, tmp_path / "in")
    config = continued(tmp_path / "run", tiny_dataset, tmp_path / "in")
    train_alone(config)
    assert "has no tokenizer; its ids are taken to be those of the data" in caplog.text
    record = next(record for record in records(tmp_path / "run") if record["step"] == 0 and "valid/mlm_ppl" in record)
    assert np.log(record["valid/de_mlm_ppl"]) == pytest.approx(loss_of(model, config, "mlm", "de"), abs=1e-5)
    assert read_model(checkpoint(tmp_path / "run", 3)).weights[LANGUAGES].any()
    export(tmp_path)
    assert not (tmp_path / "out" / "config.json").exists()  # the class has no languages
    for language in ("de", "en"):
        written = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out" / language)
        assert type(written) is type(model)
        assert read_model(tmp_path / "out" / language).languages == [language]


@pytest.mark.parametrize(("family", "kind"), [("bert", "wordpiece"), ("roberta", "byte_bpe")])
def test_a_folder_with_its_tokenizer_goes_in_and_out(family: str, kind: str, tmp_path: Path) -> None:
    """Data, run and export have the tokenizer of the folder, whose model has more entries."""
    folder, data = write_tokenizer(kind, tmp_path / "in"), tmp_path / "data"
    pad = read_tokenizer(folder).special.pad
    theirs = foreign(family, folder, vocab_size=608, pad_token_id=pad)
    splits = {"train": slice(200), "valid": slice(200, 240)}
    for name, chosen in splits.items():
        for language, lines in (("de", LINES[:1500]), ("en", LINES[1500:])):
            (tmp_path / f"{name}.{language}").write_text("\n".join(lines[chosen]) + "\n", encoding="utf-8")
    files = {n: SplitConfig(mono={one: [f"{tmp_path / n}.{one}"] for one in ("de", "en")}) for n in splits}
    prepare(PrepareConfig(output=str(data), tokenizer=str(folder), workers=1, shard_mb=1, **files))
    dataset = Dataset(data)
    assert isinstance(dataset.vocab, TokenizerVocab)
    config = continued(tmp_path / "run", data, folder, languages=False, tlm={})
    train_alone(config)
    record = next(record for record in records(tmp_path / "run") if record["step"] == 0 and "valid/mlm_ppl" in record)
    assert np.log(record["valid/de_mlm_ppl"]) == pytest.approx(loss_of(theirs, config, "mlm", "de"), abs=1e-5)
    export(tmp_path)
    out = tmp_path / "out"
    assert type(transformers.AutoModelForMaskedLM.from_pretrained(out)) is type(theirs)
    assert (out / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    tokenizer, text = transformers.AutoTokenizer.from_pretrained(out), LINES[0]
    bos, eos = dataset.vocab.special.bos, dataset.vocab.special.eos
    assert tokenizer(text)["input_ids"] == [bos, *read_model(out).pipeline().ids(text, "de"), eos]
    assert tokenizer.mask_token_id == dataset.vocab.special.mask
    assert read_model(out).vocab.fingerprint == dataset.vocab.fingerprint


def export(folder: Path) -> None:
    """Export the run in ``folder``, which compares it with transformers."""
    (folder / "text").write_text("a b c\nd\n")
    given = [f"output={folder / 'out'}", f"sentences={folder / 'text'}"]
    export_tool.main([f"model={folder / 'run'}", "format=hf", *given])


@pytest.mark.slow
def test_without_language_embeddings_the_folder_itself_is_the_class(tiny_dataset: Path, tmp_path: Path) -> None:
    foreign("bert", tmp_path / "in")
    changes = {"metric": "valid/clm_ppl", "mlm": {}, "tlm": {}, "clm": {"de": 1.0, "en": 1.0}}
    config = continued(tmp_path / "run", tiny_dataset, tmp_path / "in", languages=False, **changes)
    train_alone(config)
    export(tmp_path)
    written = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out")
    assert type(written).__name__ == "BertForMaskedLM"
    again = read_model(tmp_path / "out")
    assert again.causal
    assert again.vocab.fingerprint == Dataset(tiny_dataset).vocab.fingerprint
    with pytest.raises(ConfigError, match="format=xlm: the model is a bert"):
        export_tool.main([f"model={tmp_path / 'run'}", "format=xlm", f"output={tmp_path / 'out.pth'}"])


def test_other_ids_are_refused(tiny_dataset: Path, tmp_path: Path) -> None:
    for name, changes in {"size": {"vocab_size": 60}, "padding": {"pad_token_id": 5}}.items():
        foreign("bert", tmp_path / name, **changes)
        config = continued(tmp_path / "run", tiny_dataset, tmp_path / name)
        with pytest.raises(
            ConfigError, match=r"; the data in .* has 54, padding 2; prepare it with the model's tokenizer"
        ):
            train_alone(config)
