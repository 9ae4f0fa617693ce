"""What is at a path is found out; what fits nothing is refused with what was expected."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.oracle import Oracle
from tests.support.xlm_model import CODES, oracle_content, save
from xlmtrain.config.prepare import TextConfig
from xlmtrain.errors import CheckpointError, ConfigError, DataError, UserError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.run import CheckpointChoice, write_run
from xlmtrain.train.checkpoint import CheckpointManager

BIAS = "head.bias"


@pytest.fixture
def file(oracle: Oracle, tmp_path: Path) -> Path:
    return save(oracle_content(oracle), tmp_path / "model.pth")


@pytest.fixture
def run(file: Path, tmp_path: Path) -> Path:
    """Three checkpoints whose output biases are 10, 20 and 30; the second is the best."""
    path, codes = tmp_path / "run", tmp_path / "codes"
    codes.write_text(CODES, encoding="utf-8")
    path.mkdir()
    model = read_model(file, codes=codes, text=TextConfig(lowercase=True))
    write_run(model, path)
    store = CheckpointManager(path / "checkpoints", keep_last=9)
    shutil.rmtree(store.path(1234))
    for step in (10, 20, 30):
        weights = {**model.weights, BIAS: torch.full((200,), float(step))}
        store.save(step, weights, {}, {"progress": {"step": step}})
    store.mark_best(20, "valid/mlm_ppl", 1.0)
    return path


def step_of(model: PretrainedBundle) -> int:
    """The step whose weights these are, which must be the one that the model says."""
    assert model.weights[BIAS].tolist() == [float(model.provenance.step)] * 200
    return model.provenance.step


def test_a_run_and_its_checkpoints(run: Path) -> None:
    model = read_model(run)
    assert step_of(model) == step_of(read_model(str(run), CheckpointChoice.best)) == 20
    assert model.provenance.source == str(run / "checkpoints" / "step-00000020")
    assert model.text == TextConfig(lowercase=True)
    assert [(code.left, code.right) for code in model.codes][:2] == [("i", "e</w>"), ("d", "ie</w>")]
    assert step_of(read_model(run, CheckpointChoice.last)) == 30
    for choice in (CheckpointChoice.best, CheckpointChoice.last):
        assert step_of(read_model(run / "checkpoints" / "step-00000010", choice)) == 10
    (run / "checkpoints" / "best.json").unlink()
    assert step_of(read_model(run)) == 30


@pytest.mark.parametrize(
    ("inside", "path", "step"),
    [
        ("", "run", 20),
        ("", "run/", 20),
        ("", "./run/../run", 20),
        ("", "run/checkpoints/step-00000010/", 10),
        ("run", ".", 20),
        ("run", "checkpoints/step-00000010", 10),
        ("run/checkpoints", "step-00000010", 10),
        ("run/checkpoints/step-00000010", ".", 10),
        ("run/checkpoints", "..", 20),
        ("", "link", 20),
        ("", "link/", 20),
        ("", "link/checkpoints/step-00000010", 10),
        ("", "good", 10),
        ("", "file", 1234),
        ("run", "../model.pth", 1234),
    ],
)
def test_ways_to_name_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str, path: str, step: int
) -> None:
    """Relative, with a slash at its end, through a link to the run or to a checkpoint or file of it."""
    (tmp_path / "link").symlink_to(run)
    (tmp_path / "good").symlink_to(Path("run", "checkpoints", "step-00000010"))
    (tmp_path / "file").symlink_to("model.pth")
    monkeypatch.chdir(tmp_path / inside)
    model = read_model(path)
    assert model.provenance.step == step
    assert model.languages == ["de", "en"]


def test_what_is_no_model(tmp_path: Path, run: Path, file: Path) -> None:
    expected = "expected a run directory, one of its checkpoints, a Hugging Face folder, or a .pth file"
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun").mkdir()
    shutil.copy(run / "config.json", tmp_path / "begun")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for name, complaint in (
        ("empty", "no model in it"),
        ("begun", "no model in it"),
        ("nowhere", "no such file or directory"),
        ("gone", "no such file or directory"),
        ("model.pth/run", "no such file or directory"),
    ):
        with pytest.raises(CheckpointError) as refusal:
            read_model(tmp_path / name)
        assert str(refusal.value).startswith(f"{tmp_path / name}: {complaint}; {expected}")
    with pytest.raises(CheckpointError, match=r"run/vocab: begins with .* so it is no \.pth file"):
        read_model(run / "vocab")
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="run: no checkpoint yet"):
        read_model(run)


def test_codes_are_for_files_only(run: Path, tmp_path: Path) -> None:
    for path in (run, run / "checkpoints" / "step-00000010"):
        with pytest.raises(ConfigError, match="has its own codes and text settings"):
            read_model(path, codes=run / "codes")
        with pytest.raises(ConfigError, match="has its own codes and text settings"):
            read_model(path, text=TextConfig(lowercase=True))
    with pytest.raises(CheckpointError, match=r"modle\.pth: no such file"):  # not that it has codes of its own
        read_model(tmp_path / "modle.pth", codes=run / "codes")


def edited(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    """A change to one of a run's JSON files."""

    def edit(run: Path) -> None:
        content = json.loads((run / name).read_text(encoding="utf-8"))
        change(content)
        (run / name).write_text(json.dumps(content), encoding="utf-8")

    return edit


def cut_short(run: Path) -> None:
    weights = run / "checkpoints" / "step-00000020" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def another_vocabulary(run: Path) -> None:
    text = (run / "vocab").read_text(encoding="utf-8")
    (run / "vocab").write_text(text.replace("die ", "das "), encoding="utf-8")


DAMAGE: dict[str, tuple[Callable[[Path], object], type[UserError], str]] = {
    "no config": (lambda run: (run / "config.json").unlink(), CheckpointError, r"config\.json: not readable"),
    "no model in it": (edited("config.json", lambda c: c.pop("model")), CheckpointError, r"config\.json: does not say"),
    "an unknown setting": (edited("config.json", lambda c: c["model"].update(depth=2)), ConfigError, "depth"),
    "another shape": (
        edited("config.json", lambda c: c["model"].update(dim=32)),
        CheckpointError,
        r"step-00000020: .*",
    ),
    "more layers": (edited("config.json", lambda c: c["model"].update(layers=9)), CheckpointError, "of 2 layers, .* 9"),
    "heads": (edited("config.json", lambda c: c["model"].update(heads=7)), CheckpointError, "its 7 heads do not"),
    "no header": (lambda run: (run / "dataset.json").unlink(), DataError, r"dataset\.json: No such file"),
    "more languages": (edited("dataset.json", lambda c: c["languages"].append("fr")), DataError, "were edited"),
    "languages swapped": (edited("dataset.json", lambda c: c["languages"].reverse()), DataError, "were edited"),
    "a language like a path": (
        edited("dataset.json", lambda c: c.update(languages=["de", "/etc"], fingerprint="")),
        CheckpointError,
        "expected different names of letters",
    ),
    "other text settings": (
        edited("dataset.json", lambda c: c["text"].update(lowercase=not c["text"]["lowercase"])),
        DataError,
        r"text settings, languages or checksums in dataset\.json were edited; put the original files back",
    ),
    "no vocabulary": (lambda run: (run / "vocab").unlink(), DataError, "vocab: cannot read the vocabulary"),
    "another vocabulary": (
        another_vocabulary,
        DataError,
        "vocab: its .* entries are not the .* the ids were made with",
    ),
    "other codes": (
        lambda run: (run / "codes").write_bytes((run / "codes").read_bytes().rpartition(b"\n")[0]),
        DataError,
        "its codes are not those that the ids were made with",
    ),
    "damaged weights": (cut_short, CheckpointError, r"step-00000020/model\.safetensors: .* the manifest says"),
    "the best is gone": (
        lambda run: shutil.rmtree(run / "checkpoints" / "step-00000020"),
        CheckpointError,
        r"step-00000020/manifest\.json: not readable",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_run_that_is_not_whole(run: Path, what: str) -> None:
    damage, error, message = DAMAGE[what]
    damage(run)
    with pytest.raises(error, match=message):
        read_model(run)


def test_without_codes_the_rest_of_a_run_is_there(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    (run / "codes").unlink()
    assert read_model(run).codes == []
    assert "codes: missing, so raw text cannot be read" in caplog.text
    assert step_of(read_model(run)) == 20


def test_a_checkpoint_alone_is_no_model(run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "else" / "where" / "step-00000020"
    shutil.copytree(run / "checkpoints" / "step-00000020", alone)
    with pytest.raises(CheckpointError, match=r"else/config\.json: not readable"):
        read_model(alone)
