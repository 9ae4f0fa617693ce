"""Runs that continue BERT, RoBERTa, XLM-R and ModernBERT, and end as the class that they began as."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.foreign_models import FAMILIES, foreign, transformers
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
from xlmtrain.errors import ConfigError
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.languages import LANGUAGES
from xlmtrain.interop.warm_start import initialize_weights
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.prepare.pipeline import prepare
from xlmtrain.text.tokenizer_json import TokenizerVocab, read_tokenizer


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


def export(folder: Path) -> None:
    """Export the run in ``folder``, which compares it with transformers."""
    (folder / "text").write_text("a b c\nd\n")
    given = [f"output={folder / 'out'}", f"sentences={folder / 'text'}"]
    export_tool.main([f"model={folder / 'run'}", "format=hf", *given])


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
@pytest.mark.parametrize("family", ["xlm_roberta", "modernbert", "jina_embeddings_v3"])
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
