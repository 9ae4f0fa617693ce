"""Values of settings: text is taken as it stands, wrong keys and values are named by their key path."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.settings import refusal, train_config
from tests.support.tiny import tiny_config
from xlmtrain.config.load import compose, from_json
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Sharding
from xlmtrain.config.translate import TranslationConfig
from xlmtrain.errors import ConfigError

FINETUNE = ["run=r", "init.pretrained=m", "task.train={en: a}", "task.test={en: b, de: c}"]


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("optim.learning_rate=1", "learning_rate"),
        ("optin.lr=1", "optin"),
        ("+model.depth=3", "depth"),
        ("model=huge", "huge"),
        ("experiment=nothing", "nothing"),
        ("optim.lr=fast", "optim.lr"),
        ("model.layers=2.5", "model.layers"),
        ("model.tie_embeddings=7.5", "model.tie_embeddings"),
        ("train.precision=fp8", "train.precision"),
        ("optim.schedule=stepwise", "optim.schedule"),
        ("data.mlm=[de]", "data.mlm"),
        ("data.mlm={de: much}", "data.mlm"),
        ("optim.lr", "optim.lr"),
    ],
)
def test_misspelt_keys_and_wrong_types_are_named(override: str, names: str) -> None:
    assert names in refusal(override)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model.layers": 0}, "model.layers: 0 is not above 0"),
    ({"model.heads": 3}, "model.heads: 3 does not divide model.dim=16"),
    (
        {"train.sharding": Sharding.full, "train.overlap_tied_embedding": True},
        "train.overlap_tied_embedding: has no effect with train.sharding=full",
    ),
    ({"model.dropout": 1.5}, "model.dropout: 1.5 is not between 0 and 1"),
    ({"model.dim": 15, "model.heads": 3, "model.sinusoidal_positions": True}, "model.dim: 15 is odd"),
    ({"mask.prob": 0.0}, "mask.prob: 0.0 is not above 0"),
    (
        {"mask.mask_token_prob": 0.8, "mask.random_token_prob": 0.3},
        "mask.mask_token_prob: its sum with mask.random_token_prob",
    ),
    ({"mask.inverse_frequency_exponent": -0.5}, "mask.inverse_frequency_exponent: -0.5 is negative"),
    ({"data.sampling_alpha": 1.1}, "data.sampling_alpha: 1.1 is not between 0 and 1"),
    ({"data.sequence_length": 64}, "data.sequence_length: 64 exceeds model.max_positions=32"),
    ({"data.sequence_length": 2}, "data.sequence_length: 2"),
    ({"data.max_sentence_length": 31}, "data.max_sentence_length: 31 and two delimiters exceed"),
    ({"data.max_sentence_length": 30, "data.sub_batch_tokens": 48}, "data.sub_batch_tokens: 48 cannot hold one pair"),
    ({"data.sub_batch_tokens": 65}, "data.sub_batch_tokens: 65 is no multiple of data.sequence_length=16"),
    ({"train.batch_tokens": 100}, "train.batch_tokens: 100 is no multiple of data.sub_batch_tokens=64"),
    ({"data.mlm": {"de": -1.0}}, "data.mlm.de: -1.0 is no weight"),
    ({"data.mlm": {"de": float("inf")}}, "data.mlm.de: inf is no weight"),
    ({"data.mlm": {"de": float("nan")}}, "data.mlm.de: nan is no weight"),
    ({"data.mlm": {}, "data.tlm": {}}, "data.mlm: nothing to train on"),
    ({"data.mlm": {"de": 0.0}, "data.tlm": {}}, "data.mlm: nothing to train on"),
    (
        {"data.loss_weight": {"mlm": "1:1"}},
        "data.loss_weight.mlm: 1:1 is not like 0.5 or 0:1,100000:0.1,300000:0: its st",
    ),
    ({"data.loss_weight": {"mlm": "0:1,5:2,5:1"}}, "data.loss_weight.mlm: 0:1,5:2,5:1 is not like"),
    ({"data.loss_weight": {"mlm": "0:1,5:-2"}}, "data.loss_weight.mlm: 0:1,5:-2 is not like"),
    ({"data.loss_weight": {"mlm": "0:1;5:2"}}, "data.loss_weight.mlm: 0:1;5:2 is not like"),
    ({"data.loss_weight": {"mlm": "nan"}}, "data.loss_weight.mlm: nan is not like"),
    ({"data.loss_weight": {"mlmm": "1"}}, "data.loss_weight.mlmm: is none of mlm, tlm"),
    ({"data.loss_weight": {"mlm": [0, 1]}}, "data.loss_weight.mlm: [0, 1] is not text"),
    (
        {"data.loss_weight": {"mlm": "0:1,7:0", "tlm": "0"}},
        "data.loss_weight: all objectives have the factor 0 at step 7",
    ),
    ({"data.bt": {"de-en": 1.0}, "train.sharding": Sharding.full}, "train.sharding: does not work with data.bt"),
    ({"optim.lr": 0.0}, "optim.lr: 0.0 is not above 0"),
    ({"optim.lr": float("nan")}, "optim.lr: nan is not above 0"),
    ({"optim.beta1": 1.0}, "optim.beta1: 1.0"),
    ({"optim.beta2": 1.0}, "optim.beta2: 1.0"),
    ({"optim.warmup_steps": -1}, "optim.warmup_steps: -1 is negative"),
    ({"train.micro_batch_tokens": -1}, "train.micro_batch_tokens: -1 is negative"),
    ({"train.keep_last": 0}, "train.keep_last: 0 is not above 0"),
    ({"evaluate.metric": "valid/mlm"}, "evaluate.metric: valid/mlm does not end in _ppl, _acc or _bleu"),
    ({"seed": -1}, "seed: -1 is negative"),
]


@pytest.mark.parametrize(("changes", "complaint"), WRONG, ids=[complaint for _, complaint in WRONG])
def test_values_out_of_range_and_impossible_combinations(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny_config("run", "data", changes)
    lines = str(caught.value).splitlines()
    assert lines[0] == "wrong settings:"
    assert any(line.startswith(f"  {complaint}") for line in lines), lines


def test_all_problems_are_reported_at_once() -> None:
    message = refusal("model.layers=-1", "optim.lr=0", "model.dropout=2", "train.batch_tokens=100", "data.mlm={de: -1}")
    for key in ("model.layers", "optim.lr", "model.dropout", "train.batch_tokens", "data.mlm.de"):
        assert f"\n  {key}: " in message


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("optim.lrr=3", "optim.lr"),
        ("model.dimm=8", "model.dim"),
        ("trian.steps=3", "train"),
        ("experimant=quickstart", "experiment"),
        ("lr=3", "optim.lr"),
    ],
)
def test_the_key_that_was_meant_is_named(override: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"did you mean {re.escape(meant)}\?"):
        compose("config", ["run=x", "data.path=y", override])


@pytest.mark.parametrize("word", ["train.steps", "data.mlm={en:", "--steps"])
def test_how_settings_are_written(word: str) -> None:
    assert "settings are key=value without blanks around the =" in refusal(word)


@pytest.mark.parametrize("value", ["${oc.env:TOKEN}", "${oc.env:TOKEN,x}", "a/${oc.env:TOKEN}"])
def test_what_is_outside_the_settings_is_not_asked_for(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Else a secret in the environment would end in ``config.json`` of the run, or be sent for by a foreign one."""
    monkeypatch.setenv("TOKEN", "secret")
    assert refusal(f"run={value}").startswith(f"run: {value} asks for something outside the settings")
    with pytest.raises(ConfigError, match=r"^run: .* asks for something outside the settings"):
        from_json(Config, {"run": value})
    assert train_config("run=${data.path}").run == "somewhere"


# Values of settings that are text, as a shell hands them on.
@pytest.mark.parametrize(
    "value", ["größe", "a=b", "x#1", "1e5", "007", "true", "a b", "it's", "(x)", "a;b", "a\\", "a\\'b", "x&y", "100"]
)
def test_a_text_setting_is_taken_as_it_stands(value: str) -> None:
    assert train_config(f"run={value}").run == value
    assert compose("finetune", [*FINETUNE, f"init.pretrained={value}"]).init.pretrained == value


def test_references_and_quotes_in_text_settings_are_read() -> None:
    assert train_config("run='a,b'").run == "a,b"
    assert train_config("run=größe/${seed}").run == "größe/0"
    assert "Ambiguous value" in refusal("run=a,b")
    for value in ("{x}", "x [y]", "'x"):
        assert refusal(f"run={value}").startswith(f"run={value}: cannot be read; settings are key=value")


@pytest.mark.parametrize("value", ["[t.tsv]", "{a: b}"])
def test_one_file_is_wanted_for_each_language(value: str) -> None:
    with pytest.raises(ConfigError, match=r"\n  task\.train\.en: .* is not text; give a single path or value$"):
        compose("finetune", [*FINETUNE[:2], FINETUNE[3], f"task.train={{en: {value}}}"])
    probe = f"evaluate.zero_shot_probe={{train: {{en: {value}}}, test: {{de: b}}}}"
    assert "evaluate.zero_shot_probe.train.en: " in refusal(probe)


@pytest.mark.parametrize("key", ["optim.lr", "train.hang_timeout", "optim.weight_decay", "optim.clip_grad_norm"])
@pytest.mark.parametrize("value", ["inf", "nan"])
def test_numbers_are_finite(key: str, value: str) -> None:
    assert f"\n  {key}: {value} is " in refusal(f"{key}={value}")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"beam": 2.5}, "beam: 2.5 is not a whole number"),
        ({"beam": "4"}, "beam: '4' is not a whole number"),
        ({"temperature": "1"}, "temperature: '1' is not a number"),
        ({"seed": None, "n_best": [1]}, r"n_best: \[1\] is not a whole number"),
    ],
)
def test_numbers_given_in_python_are_numbers(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"^wrong settings:\n  {problem}"):
        TranslationConfig(**values)
    assert TranslationConfig(length_penalty=1, temperature=None).length_penalty == 1


def test_numbers_fit_into_64_bits() -> None:
    assert f"\n  train.steps: {1 << 63} is too large" in refusal(f"train.steps={1 << 63}")


@pytest.mark.parametrize("key", ["run", "data.path", "evaluate.bilingual_lexicon"])
@pytest.mark.parametrize("value", ["~", "~/x", "~someone/x"])
def test_a_home_directory_is_written_out(key: str, value: str) -> None:
    assert refusal(f"{key}={value}") == f"{key}: {value}: the shell has not expanded the ~; give the whole path"
    assert train_config("run=x~y").run == "x~y"
