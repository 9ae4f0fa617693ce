"""xlmtrain evaluate prints a run's own figures, and the original's figures of the original's model and data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.programs import Call
from tests.support.tiny import ALONE, tiny_config, write_header
from tests.support.training import checkpoint, records, train_alone
from xlmtrain.commands import evaluate as tool
from xlmtrain.commands import export
from xlmtrain.config.prepare import TextConfig
from xlmtrain.config.train import Precision
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.format import Header
from xlmtrain.data.validation import parallel_cloze_sets, validation_sets
from xlmtrain.errors import CheckpointError, ConfigError, DataError, UserError
from xlmtrain.evaluate.perplexity import evaluate_perplexity
from xlmtrain.interop.bundle import Provenance
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.languages import LANGUAGES
from xlmtrain.interop.xlm.conversion import write_xlm_checkpoint
from xlmtrain.interop.xlm.data import import_data
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.text.vocab import SPECIALS, Vocab
from xlmtrain.train.checkpoint import CheckpointManager

# The run's own windows, share of masks and pairs in a batch are none of the tool's defaults.
SETTINGS = {"train.steps": 20, "mask.prob": 0.3, "evaluate.pairs_per_batch": 4, "evaluate.max_pairs": 100}
OWN = ["sequence_length=16", "pairs_per_batch=4"]
# Words of one side hidden, which the original does not evaluate.
CLOZE = {f"{key}cloze_{kind}" for key in ("", "de-en_", "en-de_") for kind in ("mono", "parallel")}


@pytest.fixture(scope="module")
def run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluated") / "run"
    train_alone(tiny_config(path, tiny_dataset, SETTINGS))
    CheckpointManager(path / "checkpoints", keep_last=2).mark_best(15, "valid/mlm_ppl", 1.0)  # to tell it from the last
    return path


@pytest.fixture(scope="module")
def imported(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The original's binarized data."""
    path = tmp_path_factory.mktemp("imported") / "data"
    import_data(shared / "reference" / "data", path, None, TextConfig())
    return path


def table(printed: str) -> dict[str, tuple[float, float]]:
    """name -> perplexity and accuracy of the lines below the header, above which the settings stand."""
    settings, header, *lines = printed.splitlines()
    assert settings.startswith("data=")
    assert header.split() == ["perplexity", "accuracy"]
    fields = [line.split() for line in lines]
    return {name: (float(perplexity), float(accuracy.removesuffix("%"))) for name, perplexity, accuracy in fields}


def shown(figures: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What the tool is to print for figures; in batches of another size sums are rounded otherwise."""
    names = [name.removesuffix("_ppl") for name in figures if name.startswith("valid/") and name.endswith("_ppl")]
    return {
        name: (pytest.approx(figures[f"{name}_ppl"], rel=1e-5), pytest.approx(figures[f"{name}_acc"], abs=0.00501))
        for name in names
    }


def at(run: Path, step: int) -> dict[str, tuple[Any, Any]]:
    """The run's own evaluation at a step."""
    (found,) = [shown(record) for record in records(run) if record["step"] == step and "valid/mlm_ppl" in record]
    return found


@pytest.mark.parametrize("name", ["best-valid_mlm_ppl.pth", "checkpoint.pth"])
@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_originals_model_on_the_originals_data(
    name: str,
    split: str,
    imported: Path,
    reference: dict[str, Any],
    shared: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tool.main([f"model={shared / 'reference' / name}", f"data={imported}", f"split={split}", *OWN])
    found, expected = table(capsys.readouterr().out), reference["evaluation"]
    names = {"de_mlm": "de_mlm", "en_mlm": "en_mlm", "de-en_tlm": "de_en_mlm", "mlm": "mlm", "tlm": "de_en_mlm"}
    assert found.keys() == {f"{split}/{ours}" for ours in names.keys() | CLOZE}
    for ours, theirs in names.items():
        perplexity, accuracy = found[f"{split}/{ours}"]
        assert perplexity == pytest.approx(expected[f"{split}_{theirs}_ppl"], rel=2e-6)
        assert accuracy == pytest.approx(expected[f"{split}_{theirs}_acc"], abs=0.005001)


def test_a_runs_own_figures(run: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for step, given in (
        (15, [f"model={run}"]),
        (20, [f"model={run}", "checkpoint=last"]),
        (15, [f"model={checkpoint(run, 15)}"]),
        (20, [f"model={checkpoint(run, 20)}"]),
    ):
        tool.main([*given, f"data={tiny_dataset}"])
        found.append(table(capsys.readouterr().out))
        assert found[-1] == at(run, step)
    assert found[0] == found[2] != found[1] == found[3]
    assert found[0].keys() >= {f"valid/{name}" for name in CLOZE}
    assert len(found[0]) == 5 + len(CLOZE)
    for share, same in (("0.3", True), ("0.15", False)):
        tool.main([f"model={run}", f"data={tiny_dataset}", f"mask_prob={share}"])
        assert (table(capsys.readouterr().out) == found[0]) is same


@pytest.mark.parametrize("masks", [False, True])
def test_a_translation_model_is_evaluated_by_what_it_learned(
    masks: bool, tiny_dataset: Path, own_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By translation in its directions and by denoising with its noise; by masks only if it learned to fill them."""
    learned = {"data.mt": {"de-en": 1.0}, "data.bt": {"en-de": 1.0}, "data.dae": {"de": 1.0}, "noise.drop_prob": 0.3}
    fixed = {"data.tlm": {}, "data.mlm": {"de": 1.0, "en": 1.0} if masks else {}, "evaluate.metric": "valid/mt_ppl"}
    train_alone(tiny_config(tmp_path / "run", tiny_dataset, {**SETTINGS, **learned, **fixed, "train.steps": 2}))
    (own,) = [shown(record) for record in records(tmp_path / "run") if record["step"] == 2 and "valid/mt_ppl" in record]
    tool.main([f"model={tmp_path / 'run'}", "checkpoint=last", f"data={tiny_dataset}"])
    found = table(capsys.readouterr().out)
    assert {name: found[name] for name in own} == own
    assert {"valid/de-en_mt", "valid/en-de_mt", "valid/de_dae"} <= found.keys()
    assert any("cloze" in name for name in found) is any("mlm" in name for name in found) is masks
    header = Header.read(own_dataset)
    monolingual = {name: corpus for name, corpus in header.corpora.items() if name == "valid.en"}
    write_header(own_dataset, Dataset(own_dataset).vocab, monolingual)
    if not masks:
        with pytest.raises(ConfigError, match="nothing in valid for what the model was trained by, mt, dae, bt"):
            tool.main([f"model={tmp_path / 'run'}", f"data={own_dataset}"])
    # Of another's model nothing is known: all that it can do is evaluated.
    exported, known = tmp_path / "model.pth", read_model(tmp_path / "run")
    write_xlm_checkpoint(replace(known, provenance=Provenance("")), exported)
    tool.main([f"model={exported}", f"data={tiny_dataset}"])
    assert {"valid/de-en_mt", "valid/en-de_mt", "valid/de_mlm"} <= table(capsys.readouterr().out).keys()


@pytest.mark.parametrize("form", ["run", "xlm"])
def test_an_exported_model_has_the_windows_and_masks_of_its_run(
    run: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    export.main([f"model={run}", f"format={form}", f"output={tmp_path / 'exported'}"])
    tables = []
    for model in (run, tmp_path / "exported"):
        capsys.readouterr()
        tool.main([f"model={model}", f"data={tiny_dataset}", "pairs_per_batch=4"])
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]


def test_windows_and_pairs_can_be_given(
    run: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And without a run they are the original's, as far as there are positions: windows of 32, 32 pairs, 15 %."""
    file, saved = tmp_path / "model.pth", read_model(run)
    write_xlm_checkpoint(replace(saved, provenance=Provenance("")), file)
    usual = {"mask.prob": 0.15, "data.sequence_length": 32, "evaluate.pairs_per_batch": 32}
    others = {"data.sequence_length": 15, "evaluate.pairs_per_batch": 5}
    for model, settings, given in (
        (run, SETTINGS, {}),
        (run, SETTINGS, others),
        (file, usual, {}),
        (file, usual, others),
    ):
        sizes = {
            "data.sub_batch_tokens": 960,
            "train.batch_tokens": 960,
        }  # of no consequence, but a multiple of each length
        config = tiny_config("run", tiny_dataset, {**settings, **sizes, **given})
        dataset = Dataset(tiny_dataset)
        sets = validation_sets(config, dataset) + parallel_cloze_sets(config, dataset)
        expected = shown(evaluate_perplexity(saved.module(), sets, Precision.fp32, ALONE))
        arguments = [f"{key.partition('.')[2]}={value}" for key, value in given.items()]
        tool.main([f"model={model}", f"data={tiny_dataset}", *arguments])
        assert table(capsys.readouterr().out) == expected


def test_languages_are_found_by_name(
    run: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = read_model(run)
    weights = {**saved.weights, LANGUAGES: saved.weights[LANGUAGES].flip(0)}
    write_xlm_checkpoint(replace(saved, languages=["en", "de"], weights=weights), tmp_path / "swapped.pth")
    write_xlm_checkpoint(saved, tmp_path / "as_it_is.pth")
    for name in ("swapped", "as_it_is"):
        tool.main([f"model={tmp_path / name}.pth", f"data={tiny_dataset}"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 26
    assert lines[:13] == lines[13:]


def test_data_of_one_language_without_pairs(run: Path, own_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = Header.read(own_dataset)
    write_header(own_dataset, Vocab.read(own_dataset / "vocab"), {"valid.en": header.corpora["valid.en"]})
    tool.main([f"model={run}", f"data={own_dataset}"])
    found = table(capsys.readouterr().out)
    assert found.keys() == {"valid/en_mlm", "valid/mlm"}
    assert found["valid/mlm"] == at(run, 15)["valid/en_mlm"]


def test_only_the_main_process_prints(
    run: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tool, "initialize", lambda device: Distributed(1, 1, ALONE.device))
    tool.main([f"model={run}", f"data={tiny_dataset}"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["split=dev"], ConfigError, "split=dev: "),
        (["split=test"], ConfigError, "train.de, train.de-en.de, train.de-en.en, train.en, valid.de, valid.de-en.de, "),
        (["sequence_length=33"], ConfigError, "sequence_length=33: it is from 3 up to the model's 32 positions"),
        (["sequence_length=2"], ConfigError, "sequence_length=2: it is from 3 up to"),
        (["pairs_per_batch=0"], ConfigError, "pairs_per_batch: 0 is not above 0"),
        (
            ["spilt=test"],
            ConfigError,
            "no such settings: spilt=test; there are bilingual_lexicon, checkpoint, codes, data, device, ",
        ),
        (["valid"], ConfigError, "not understood: valid"),
        (["model=nowhere"], CheckpointError, "nowhere: no such file or directory; expected a run directory"),
        (["data=nowhere"], DataError, "nowhere/dataset.json: No such file"),
        (["model=???"], ConfigError, "these settings have no value yet: model=..."),
    ],
)
def test_refused(
    arguments: list[str],
    error: type[UserError],
    message: str,
    run: Path,
    tiny_dataset: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(error) as caught:
        tool.main([f"model={run}", f"data={tiny_dataset}", *arguments])
    assert message in str(caught.value)
    assert capsys.readouterr().out == ""


def test_another_vocabulary_or_language_is_refused(run: Path, own_dataset: Path) -> None:
    header, vocab = Header.read(own_dataset), Vocab.read(own_dataset / "vocab")
    dutch = {}
    for name, corpus in header.corpora.items():
        new = name.replace("en", "nl")
        ids, offsets = replace(corpus.ids, file=f"{new}.ids"), replace(corpus.offsets, file=f"{new}.offsets")
        dutch[new] = replace(corpus, ids=ids, offsets=offsets)
    write_header(own_dataset, vocab, dutch)
    with pytest.raises(ConfigError, match="knows de, en, not nl; prepare the data of its languages only"):
        tool.main([f"model={run}", f"data={own_dataset}"])
    words = vocab.tokens[: len(SPECIALS) - 1 : -1]
    other = Vocab((word, 1) for word in words)
    other.write(own_dataset / "vocab")
    write_header(own_dataset, other, header.corpora)
    assert len(Dataset(own_dataset).vocab) == len(vocab)
    with pytest.raises(ConfigError, match="its vocabulary is not that of the data in"):
        tool.main([f"model={run}", f"data={own_dataset}"])


def test_the_program(call: Call, run: Path, tiny_dataset: Path) -> None:
    errors = call("evaluate", f"model={run}", f"data={tiny_dataset}", "split=dev", code=2)
    assert errors.startswith("error: split=dev: ")
    assert errors.count("\n") == 1
