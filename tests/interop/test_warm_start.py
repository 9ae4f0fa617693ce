"""A run that begins from another model begins exactly there, and one that cannot says why."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.tiny import WORDS, run_processes, tiny_config, write_header
from tests.support.training import (
    assert_same_run,
    assert_same_weights,
    checkpoint,
    records,
    status,
    train_alone,
    train_on,
)
from tests.support.warm_starts import STEPS, begin, with_languages
from xlmtrain.config.load import compose
from xlmtrain.config.model import Activation, InitConfig
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.format import Header
from xlmtrain.data.validation import ValidationSet
from xlmtrain.errors import ConfigError, DataError, UserError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.languages import LANGUAGES, POSITIONS
from xlmtrain.interop.run import write_run
from xlmtrain.interop.warm_start import initialize_weights
from xlmtrain.interop.word_vectors import TABLE
from xlmtrain.interop.xlm.conversion import write_xlm_checkpoint
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.text.vocab import SPECIALS, Vocab


def figures(run: Path, step: int) -> dict[str, float]:
    """Of the evaluation at ``step``."""
    found = [r for r in records(run) if r["step"] == step and "valid/mlm_ppl" in r]
    return {key: value for key, value in found[0].items() if key.startswith("valid/")}


def first_weights(init: InitConfig, data: Path, **shape: Any) -> dict[str, torch.Tensor]:
    """The state dict of a new model after it was given its first weights."""
    config, dataset = tiny_config("run", data), Dataset(data)
    config.model = replace(config.model, **shape)
    torch.manual_seed(1)
    model = LanguageModel(config.model, len(dataset.vocab), len(dataset.languages))
    initialize_weights(init, config.model, model, dataset)
    return model.state_dict()


@pytest.mark.parametrize("form", ["run", "checkpoint", "pth", "imported"])
def test_a_run_begins_where_the_other_ended(
    form: str, first: Path, saved: PretrainedBundle, tiny_dataset: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    if form == "run":
        source = first
    elif form == "checkpoint":
        source = checkpoint(first, STEPS)
    elif form == "pth":
        write_xlm_checkpoint(saved, source)
    else:
        source.mkdir()
        write_run(saved, source)
    began = read_model(first).provenance.step if form == "run" else STEPS  # a run directory stands for its best
    run = tmp_path / "run"
    train_alone(begin(run, tiny_dataset, InitConfig(pretrained=str(source))), stop_after=1)
    assert figures(run, 0) == figures(first, began)
    message = f"first weights: {checkpoint(first, began) if form == 'run' else source}"
    assert message in (run / "log.txt").read_text(encoding="utf-8")
    assert_same_weights(
        first_weights(InitConfig(pretrained=str(source)), tiny_dataset), read_model(checkpoint(first, began)).weights
    )


def test_logits_are_bit_equal(first: Path, saved: PretrainedBundle, tiny_dataset: Path) -> None:
    config, dataset = tiny_config("run", tiny_dataset), Dataset(tiny_dataset)
    model = LanguageModel(config.model, len(dataset.vocab), 2)
    done = initialize_weights(InitConfig(pretrained=str(checkpoint(first, STEPS))), config.model, model, dataset)
    assert done == [f"first weights: {checkpoint(first, STEPS)}, step 10"]
    batch = next(iter(ValidationSet(config, dataset, "valid", "tlm", "de-en").batches()))
    with torch.no_grad():
        assert torch.equal(model.eval().logits(batch), saved.module().logits(batch))


def test_two_processes_begin_with_the_same_weights(first: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    """Each computes half of the evaluation at step 0, and its own share of the first gradient."""
    source = InitConfig(pretrained=str(checkpoint(first, STEPS)))
    changes = {"model.dropout": 0.0, "model.attention_dropout": 0.0}
    run_processes(2, train_on, tmp_path, begin(tmp_path / "two", tiny_dataset, source, changes), 2)
    train_alone(begin(tmp_path / "one", tiny_dataset, source, changes), stop_after=2)
    expected = figures(first, STEPS)
    for name, value in figures(tmp_path / "two", 0).items():
        assert value == pytest.approx(expected[name], rel=1e-6), name
    one, two = (read_model(checkpoint(tmp_path / name, 2)).weights for name in ("one", "two"))
    for name, weight in one.items():
        assert torch.allclose(weight, two[name], atol=1e-4), name


def test_resuming_does_not_read_the_source_again(first: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    source, words = tmp_path / "source", tmp_path / "words.vec"
    shutil.copytree(first, source)
    words.write_text("a " + " ".join(["0.25"] * 16) + "\n", encoding="utf-8")
    init = InitConfig(pretrained=str(source), word_vectors=[str(words)])
    train_alone(begin(tmp_path / "whole", tiny_dataset, init))
    config = begin(tmp_path / "run", tiny_dataset, init)
    train_alone(config, stop_after=3)
    assert status(config.run)["status"] == "preempted"
    shutil.rmtree(source)
    words.unlink()
    assert train_alone(config).status == "done"
    assert_same_run(tmp_path / "whole", tmp_path / "run", STEPS)
    config.train.overwrite = True  # begins again, so it is needed again
    with pytest.raises(UserError, match="source: no such file or directory"):
        train_alone(config)
    assert checkpoint(config.run, STEPS).is_dir()


def test_another_source_is_another_run(first: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    train_alone(begin(tmp_path / "run", tiny_dataset, InitConfig(pretrained=str(first))), stop_after=1)
    with pytest.raises(ConfigError, match=r"holds a run with other settings:\n  init\.pretrained: .*/run -> None\n"):
        train_alone(begin(tmp_path / "run", tiny_dataset, InitConfig()))


def test_a_run_from_before_there_were_init_and_noise_goes_on(tiny_dataset: Path, tmp_path: Path, first: Path) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset)
    train_alone(config, stop_after=3)
    path = tmp_path / "run" / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    del settings["init"], settings["noise"]
    for name in ("family", "ffn_dim", "norm_eps", "token_types", "global_every", "local_attention", "rope_theta"):
        del settings["model"][name]
    path.write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"init\.pretrained: None -> "):
        train_alone(replace(config, init=InitConfig(pretrained=str(first))))
    assert train_alone(config).status == "done"
    train_alone(tiny_config(tmp_path / "whole", tiny_dataset))
    assert_same_run(tmp_path / "whole", tmp_path / "run", 20)


@pytest.mark.parametrize("changes", [{}, {"train.steps": 50}])
def test_no_run_goes_on_in_an_imported_model(
    changes: dict[str, Any], saved: PretrainedBundle, tiny_dataset: Path, tmp_path: Path
) -> None:
    imported = tmp_path / "imported"
    imported.mkdir()
    write_run(saved, imported)
    before = {path: path.read_bytes() for path in imported.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError) as caught:
        train_alone(tiny_config(imported, tiny_dataset, changes))
    assert f"run={imported}: this directory is not a training run and is not empty" in str(caught.value)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("languages", [["en", "de"], ["cs", "de", "en"], ["en", "fr", "de", "nl"]])
def test_languages_follow_their_names(
    languages: list[str], first: Path, saved: PretrainedBundle, tiny_dataset: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source.pth"
    write_xlm_checkpoint(with_languages(saved, languages), source)
    assert len(read_model(source).weights[LANGUAGES]) == len(languages)
    train_alone(begin(tmp_path / "run", tiny_dataset, InitConfig(pretrained=str(source))), stop_after=1)
    assert figures(tmp_path / "run", 0) == figures(first, STEPS)


@pytest.mark.parametrize("language", ["de", "en"])
def test_one_language_of_two(
    language: str, first: Path, saved: PretrainedBundle, own_dataset: Path, tmp_path: Path
) -> None:
    """A model of one language has no language embeddings: the positions carry the vector, and the figures stay."""
    header = Header.read(own_dataset)
    corpora = {f"{split}.{language}": header.corpora[f"{split}.{language}"] for split in ("train", "valid")}
    write_header(own_dataset, Vocab.read(own_dataset / "vocab"), corpora)
    changes = {"data.mlm": {language: 1.0}, "data.tlm": {}}
    init = InitConfig(pretrained=str(checkpoint(first, STEPS)))
    train_alone(begin(tmp_path / "run", own_dataset, init, changes), stop_after=1)
    name = f"valid/{language}_mlm_ppl"
    assert figures(tmp_path / "run", 0)[name] == pytest.approx(figures(first, STEPS)[name], rel=1e-6)
    found = first_weights(init, own_dataset)
    assert found.keys() == saved.weights.keys() - {LANGUAGES}
    moved = saved.weights[LANGUAGES][["de", "en"].index(language)]
    assert torch.equal(found.pop(POSITIONS), saved.weights[POSITIONS] + moved)
    assert_same_weights(found, {name: saved.weights[name] for name in found})


def test_another_shape_is_refused_with_the_settings_to_give(first: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    init = InitConfig(pretrained=str(first))
    other = {"model.dim": 32, "model.heads": 4, "model.activation": Activation.relu, "model.attention_dropout": 0.3}
    with pytest.raises(ConfigError) as caught:
        train_alone(begin(tmp_path / "run", tiny_dataset, init, other))
    advice = "this model has another shape; train it with model.dim=16 model.heads=2 model.activation=gelu"
    assert str(caught.value).endswith(advice)
    assert not (tmp_path / "run").exists()
    given = ["run=r", "data.path=d", "data.mlm.de=1", *advice.partition("with ")[2].split()]
    assert compose("config", given).model.dim == 16  # the advice can be taken as it stands
    for change in ({"model.tie_embeddings": False}, {"model.max_positions": 64}, {"model.language_embeddings": False}):
        with pytest.raises(ConfigError, match=f"train it with {next(iter(change))}="):
            train_alone(begin(tmp_path / "run", tiny_dataset, init, change))


def test_another_vocabulary_is_refused(first: Path, own_dataset: Path, tmp_path: Path) -> None:
    """As many words, of which two have changed places."""
    vocab = Vocab.read(own_dataset / "vocab")
    words = vocab.tokens[len(SPECIALS) :]
    words[:2] = words[1::-1]
    swapped = Vocab(zip(words, vocab.counts[len(SPECIALS) :].tolist()))
    swapped.write(own_dataset / "vocab")
    write_header(own_dataset, swapped, Header.read(own_dataset).corpora)
    with pytest.raises(
        ConfigError, match=r"its vocabulary is not that of the data in .*bpe\.codes=\.\.\. vocab\.file="
    ):
        train_alone(begin(tmp_path / "run", own_dataset, InitConfig(pretrained=str(first))))
    assert not (tmp_path / "run").exists()


def test_an_unknown_language_is_refused(saved: PretrainedBundle, tiny_dataset: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write_run(with_languages(saved, ["de", "fr", "nl"]), source)
    with pytest.raises(ConfigError, match=r"knows de, fr, nl, not en; prepare the data of its languages only, or"):
        train_alone(begin(tmp_path / "run", tiny_dataset, InitConfig(pretrained=str(source))))
    assert not (tmp_path / "run").exists()


def test_vectors_set_their_rows_and_no_others(first: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    german, english = tmp_path / "de.vec", tmp_path / "en.vec"
    german.write_text(f"3 16\na{' 1' * 16}\nzz{' 2' * 16}\n<pad>{' 3' * 16}\nb{' 4' * 16}\n", encoding="utf-8")
    english.write_text(f"u{' 5' * 16}\nb{' 6' * 16}\n", encoding="utf-8")
    a, u = len(SPECIALS), len(SPECIALS) + WORDS
    for model in (None, str(checkpoint(first, STEPS))):
        before = first_weights(InitConfig(pretrained=model), tiny_dataset)
        expected = {name: value.clone() for name, value in before.items()}
        for row, value in ((a, 1.0), (u, 5.0), (a + 1, 6.0)):  # of two files, the later one's vector
            expected[TABLE][row] = value
        init = InitConfig(pretrained=model, word_vectors=[str(german), str(english)])
        assert_same_weights(first_weights(init, tiny_dataset), expected)
        train_alone(begin(tmp_path / "run", tiny_dataset, init, {"train.overwrite": True}), stop_after=1)
        log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
        assert f"first word vectors: 2 of 54 vocabulary entries from {english}" in log


def test_vectors_of_another_size_are_refused_before_there_is_a_run(tiny_dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "words.vec"
    path.write_text(f"1 8\na{' 1' * 8}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"words\.vec:2: a vector of 8 numbers, model\.dim is 16"):
        train_alone(begin(tmp_path / "run", tiny_dataset, InitConfig(word_vectors=[str(path)])))
    with pytest.raises(DataError, match=r"nowhere\.vec: cannot read the word vectors: No such file"):
        train_alone(begin(tmp_path / "run", tiny_dataset, InitConfig(word_vectors=["nowhere.vec"])))
    assert not (tmp_path / "run").exists()


def test_chance_is_the_same_where_nothing_else_is_asked_for(tiny_dataset: Path) -> None:
    torch.manual_seed(1)
    config = tiny_config("run", tiny_dataset)
    untouched = LanguageModel(config.model, len(Dataset(tiny_dataset).vocab), 2).state_dict()
    assert_same_weights(first_weights(InitConfig(), tiny_dataset), untouched)
