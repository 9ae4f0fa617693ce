"""xlmtrain export: models from one format to another, and nothing left behind when that fails."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from tests.support.programs import Call
from tests.support.tiny import tiny_config
from tests.support.training import assert_same_weights, train_alone
from xlmtrain.commands import export
from xlmtrain.errors import CheckpointError, ConfigError, DataError, UserError
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.run import CheckpointChoice
from xlmtrain.pretrained import load
from xlmtrain.train.checkpoint import CheckpointManager

SENTENCE = "a <mask> k <mask> o"


@pytest.fixture(scope="module")
def run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained for 20 steps; the checkpoint of step 15 is said to be the best. Of a few hundred kilobytes."""
    path = tmp_path_factory.mktemp("trained") / "run"
    train_alone(tiny_config(path, tiny_dataset, {"model.dim": 64, "train.keep_last": 2}))
    CheckpointManager(path / "checkpoints", keep_last=2).mark_best(15, "valid/mlm_ppl", 1.0)
    return path


@pytest.fixture
def file(run: Path, tmp_path: Path) -> Path:
    """The run's best checkpoint in the original's format."""
    path = tmp_path / "given" / "model.pth"
    export.main([f"model={run}", "format=xlm", f"output={path}"])
    return path


def weights_of(path: Path, checkpoint: CheckpointChoice = CheckpointChoice.best) -> dict[str, torch.Tensor]:
    return read_model(path, checkpoint).weights


def test_a_run_to_the_originals_format_and_back(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, again = tmp_path / "new" / "model.pth", tmp_path / "again"
    export.main([f"model={run}", "format=xlm", f"output={file}"])
    assert capsys.readouterr().out == f"xlm: {file}\n"
    export.main([f"model={file}", f"codes={run / 'codes'}", "format=run", f"output={again}"])
    assert capsys.readouterr().out == f"run: {again}\n"
    assert_same_weights(weights_of(run), weights_of(again))
    first, second = load(run, device="cpu"), load(again, device="cpu")
    assert (first.languages, first.step) == (second.languages, second.step) == (["de", "en"], 15)
    for lang in ("de", "en"):
        assert first.fill_mask(SENTENCE, lang) == second.fill_mask(SENTENCE, lang)
    assert (again / "codes").read_bytes() == (run / "codes").read_bytes()
    assert (again / "vocab").read_bytes() == (run / "vocab").read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["again", "new"]
    assert [path.name for path in file.parent.iterdir()] == ["model.pth"]


@pytest.mark.parametrize(("choice", "step"), [([], 15), (["checkpoint=best"], 15), (["checkpoint=last"], 20)])
def test_which_checkpoint(run: Path, tmp_path: Path, choice: list[str], step: int) -> None:
    export.main([f"model={run}", "format=xlm", f"output={tmp_path / 'model.pth'}", *choice])
    assert read_model(tmp_path / "model.pth").provenance.step == step
    assert_same_weights(weights_of(tmp_path / "model.pth"), weights_of(run / "checkpoints" / f"step-{step:08d}"))
    assert not torch.equal(
        weights_of(run, CheckpointChoice.last)["head.bias"], weights_of(run, CheckpointChoice.best)["head.bias"]
    )


def test_how_the_text_was_treated_goes_along(run: Path, file: Path, tmp_path: Path) -> None:
    given = [f"model={file}", f"codes={run / 'codes'}", "format=run"]
    for number, (settings, expected) in enumerate(
        [([], "K a"), (["lowercase=true"], "k a"), (["remove_accents=true", "lowercase=true"], "k a")]
    ):
        output = tmp_path / f"run-{number}"
        export.main([*given, f"output={output}", *settings])
        assert load(output, device="cpu").tokenize("K ä" if "remove_accents=true" in settings else "K a", "de") == (
            expected.split()
        )


NAMES = [
    "ein Modell.pth",
    'it\'s "quoted".pth',
    "-x.pth",
    "Größe ä.pth",
    "a=b,c.pth",
    "${oc.env:HOME}.pth",
    "null",
    "5",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_taken_as_they_are(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    export.main([f"model={run}", "format=xlm", f"output={name}"])
    export.main([f"model={name}", "format=run", f"output=run of {name}"])
    assert capsys.readouterr().out == f"xlm: {name}\nrun: run of {name}\n"
    assert {path.name for path in tmp_path.iterdir()} == {name, f"run of {name}"}
    assert_same_weights(weights_of(tmp_path / f"run of {name}"), weights_of(run))


@pytest.mark.parametrize("form", ["run", "xlm", "vectors"])
def test_what_exists_is_never_touched(run: Path, tmp_path: Path, form: str) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    exists = (DataError, "exists already; choose another name, or remove it first")
    no_name = (ConfigError, "names no directory of its own")
    names = {"file": exists, "directory": exists, "link": exists, ".": exists, "directory/..": no_name}
    for name, (error, message) in names.items():
        with pytest.raises(error, match=message):
            export.main([f"model={run}", f"format={form}", f"output={tmp_path / name}"])
    assert {path.name for path in tmp_path.iterdir()} == {"file", "directory", "link"}
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
    assert list((tmp_path / "directory").iterdir()) == []


@pytest.mark.parametrize("form", ["run", "xlm"])
def test_where_nothing_can_be_written(run: Path, tmp_path: Path, form: str) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    no_directory = (ConfigError, ".*file is a file, not a directory")
    too_long = (ConfigError, "its name has 300 bytes, 220 are possible")
    for name, (error, reason) in {"file/inside": no_directory, "x" * 300: too_long}.items():
        with pytest.raises(error, match=rf"^output=.*{name}: {reason}"):
            export.main([f"model={run}", f"format={form}", f"output={tmp_path / name}"])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Writing more than ``size`` bytes to a file fails, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("form", "size", "error", "message"),
    [
        ("xlm", 0, DataError, r"^output=.*new: cannot be written \(File too large\)$"),
        ("xlm", 100_000, DataError, r"^output=.*new: cannot be written \(File too large\)$"),
        ("vectors", 1_000, DataError, r"^output=.*new: cannot be written \(File too large\)$"),
        ("run", 20, DataError, r"^output=.*new: cannot be written \(File too large\)$"),
        (
            "run",
            100_000,
            CheckpointError,
            r"step-00000015: not written \(.*File too large.*; it needs .* bytes, .* are",
        ),
    ],
)
def test_a_full_disk_leaves_nothing_behind(
    run: Path, tmp_path: Path, form: str, size: int, error: type[UserError], message: str
) -> None:
    arguments = [f"model={run}", f"format={form}", f"output={tmp_path / 'new'}"]
    with files_up_to(size), pytest.raises(error, match=message):
        export.main(arguments)
    assert list(tmp_path.iterdir()) == []
    export.main(arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize(("form", "last"), [("run", "xlmtrain.train.checkpoint_io.sync_file"), ("xlm", "torch.save")])
def test_ctrl_c_leaves_nothing_behind(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, last: str
) -> None:
    def interrupted(*_: object) -> None:
        assert len(list(tmp_path.iterdir())) == 1  # something has been written
        raise KeyboardInterrupt

    monkeypatch.setattr(last, interrupted)
    with pytest.raises(KeyboardInterrupt):
        export.main([f"model={run}", f"format={form}", f"output={tmp_path / 'new'}"])
    assert list(tmp_path.iterdir()) == []


def test_killed_it_has_not_made_the_file(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(content: object, stream: BinaryIO) -> None:
        stream.write(b"half")
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    arguments = [f"model={run}", "format=xlm", f"output={tmp_path / 'model.pth'}"]
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", killed)
        child = os.fork()
        if not child:
            try:
                export.main(arguments)
            finally:
                os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [re.sub(r"\d+$", "", path.name) for path in tmp_path.iterdir()] == [".model.pth.partial-"]
    export.main(arguments)
    assert_same_weights(weights_of(tmp_path / "model.pth"), weights_of(run))


def test_a_damaged_model_leaves_nothing_behind(file: Path, tmp_path: Path) -> None:
    content = torch.load(file, weights_only=True)
    content["model"]["pred_layer.proj.bias"] = torch.zeros(7)
    torch.save(content, tmp_path / "given" / "bad.pth")
    for form in ("run", "xlm", "vectors", "hf"):
        with pytest.raises(CheckpointError, match=r"bad\.pth: does not fit the model: head\.bias"):
            export.main([f"model={tmp_path / 'given' / 'bad.pth'}", f"format={form}", f"output={tmp_path / 'new'}"])
    assert [path.name for path in tmp_path.iterdir()] == ["given"]


REFUSED = [
    (
        ["format=tflite"],
        ConfigError,
        r"'tflite', expected one of \[run, hf, sentence_transformers, onnx, xlm, vectors, projector\]",
    ),
    (["checkpoint=first"], ConfigError, r"Invalid value 'first', expected one of \[best, last, average\]"),
    (["outptu=x"], ConfigError, "no such settings: outptu=x; there are checkpoint, codes, data, format, "),
    (["more"], ConfigError, "not understood: more"),
    (["--format"], ConfigError, "not understood: --format"),
    (["model=???"], ConfigError, r"these settings have no value yet: model=\.\.\."),
    (["output=???"], ConfigError, r"these settings have no value yet: output=\.\.\."),
    (["model=nowhere"], CheckpointError, "nowhere: no such file or directory; expected a run directory"),
    (["codes=codes"], ConfigError, "has its own codes and text settings"),
    (["lowercase=true"], ConfigError, "has its own codes and text settings"),
    (["lowercase=perhaps"], ConfigError, "lowercase"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED, ids=[case[0][0] for case in REFUSED])
def test_what_is_refused(run: Path, tmp_path: Path, arguments: list[str], error: type[UserError], message: str) -> None:
    with pytest.raises(error, match=message):
        export.main([f"model={run}", "format=xlm", f"output={tmp_path / 'new'}", *arguments])
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_of_the_program(call: Call, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").touch()
    monkeypatch.chdir(tmp_path)
    printed = call("export", f"model={run}", "format=xlm", "output=here", code=3)
    assert printed == "error: output=here: exists already; choose another name, or remove it first\n"


def test_help_explains_every_setting(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", export)
    with pytest.raises(SystemExit) as end:
        export.main(["--help"])
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Convert a model from one format to another."
    settings = [line.split("=")[0].strip() for line in lines if re.match(r"  [a-z_]+=.*\[", line)]
    assert settings == [field.name for field in fields(export.ExportOptions)]
    for name in export.ExportFormat:
        assert f"format={name.value} " in "\n".join(lines)
