"""train.py as a program: its exit codes, what it prints, what it leaves behind."""

from __future__ import annotations

import json
import shutil
import signal
import socket
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.programs import Call, script
from tests.support.tiny import tiny_config, write_header
from tests.support.training import assert_same_run, checkpoint, records, status, train_alone
from xlmtrain.config.train import Device
from xlmtrain.data.format import Header
from xlmtrain.text.vocab import Vocab

SETTINGS = (
    "model.dim=16",
    "model.layers=1",
    "model.heads=2",
    "model.max_positions=32",
    "model.dropout=0.1",
    "model.attention_dropout=0.1",
    "data.sequence_length=16",
    "data.sub_batch_tokens=64",
    "data.max_sentence_length=10",
    "optim.lr=1e-2",
    "optim.warmup_steps=5",
    "train.precision=fp32",
    "train.steps=20",
    "train.batch_tokens=256",
    "train.log_every=1",
    "train.save_every=5",
    "evaluate.every=5",
    "evaluate.batch_tokens=64",
    "evaluate.pairs_per_batch=8",
    "train.device=cpu",
)


def settings(run: Path, data: Path, *overrides: str) -> list[str]:
    given = [f"run={run}", f"data.path={data}", "data.mlm={de: 1, en: 1}", "data.tlm={de-en: 1}"]
    return [*given, *SETTINGS, *overrides]


def start(run: Path, data: Path, *overrides: str, cwd: Path, code: int) -> str:
    """Run to its end, which must come with exit code ``code``; what it printed."""
    return programs.run(script("train"), *settings(run, data, *overrides), cwd=cwd, code=code).stderr


def torchrun(count: int, run: Path, data: Path, *, cwd: Path) -> tuple[int, str]:
    """Run to the end on ``count`` processes; return the exit code and what they printed."""
    launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}")
    done = programs.run(*launcher, script("train"), *settings(run, data), cwd=cwd, code=None, timeout=300)
    return done.returncode, done.stderr


def test_a_run_and_what_it_leaves(tiny_dataset: Path, tmp_path: Path) -> None:
    """And it is bit for bit the run that the same settings give in another process."""
    here = tmp_path / "here"
    here.mkdir()
    printed = start(tmp_path / "run", tiny_dataset, cwd=here, code=0)
    assert list(here.iterdir()) == []  # Hydra leaves nothing in the working directory
    run = tmp_path / "run"
    files = ("config.json", "environment.json", "status.json", "log.txt", "metrics.jsonl")
    copies = ("dataset.json", "codes", "vocab")
    found = {path.name for path in run.iterdir()} - {".lock"}
    assert found == {*files, *copies, "tensorboard", "checkpoints"}
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "best.json",
        "step-00000015",
        "step-00000020",
    ]
    assert status(run) == {"status": "done", "reason": "20 steps"}
    assert json.loads((run / "config.json").read_text(encoding="utf-8"))["optim"]["lr"] == 0.01
    assert json.loads((run / "environment.json").read_text(encoding="utf-8"))["processes"] == 1
    for name in copies:
        assert (run / name).read_bytes() == (tiny_dataset / name).read_bytes()
    assert "parameters, vocabulary 54, de=0, en=1" in printed
    assert f"device: 1 x cpu, fp32; 1 on {socket.gethostname()}" in printed
    assert "done at step 20: 20 steps" in printed
    assert "\r" not in printed  # not a terminal: plain lines
    assert "ETA 0:00:00" in printed
    assert len(records(run)) == 20 + 5
    train_alone(tiny_config(tmp_path / "other", tiny_dataset, {"train.device": Device.cpu}))
    settings = [(path / "config.json").read_text(encoding="utf-8") for path in (run, tmp_path / "other")]
    assert json.loads(settings[0].replace(str(run), str(tmp_path / "other"))) == json.loads(settings[1])
    assert_same_run(run, tmp_path / "other", 20)


@pytest.mark.parametrize(
    ("overrides", "code", "message"),
    [
        (["optim.learning_rate=1"], 2, "full_key: optim.learning_rate"),
        (["optim.lr=fast"], 2, "full_key: optim.lr"),
        (["data.mlm.fr=1"], 2, "error: data.mlm.fr: "),
        (["model.heads=3", "optim.lr=-1"], 2, "model.heads: 3 does not divide model.dim=16"),
        (["data.path=nowhere"], 3, "error: nowhere/dataset.json: No such file"),
        (["evaluate.metric=valid/fr_ppl"], 2, "error: evaluate.metric: 'valid/fr_ppl' is none of"),
        (["optim.fused=apex"], 2, "error: optim.fused=apex: "),
    ],
)
def test_a_users_mistake_is_one_message_and_no_run(
    call: Call,
    tiny_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in call("train", *settings(tmp_path / "run", tiny_dataset, *overrides), code=code)
    assert list(tmp_path.iterdir()) == []


def test_what_is_unlikely_to_be_meant_is_said_before_the_first_step(
    call: Call, tiny_dataset: Path, tmp_path: Path
) -> None:
    bare = shutil.copytree(tiny_dataset, tmp_path / "bare")
    corpora = {name: one for name, one in Header.read(bare).corpora.items() if name.startswith("train.")}
    write_header(bare, Vocab.read(bare / "vocab"), corpora)
    printed = call("train", *settings(tmp_path / "run", bare, "optim.warmup_steps=20"))
    before, _, _ = printed.partition("step 1/")
    assert "WARNING: There is no validation text of what is trained on" in before
    assert "WARNING: optim.warmup_steps=20: the warm-up does not end before the run, after 20 steps" in before


@pytest.mark.slow
def test_the_runs_of_a_sweep_keep_their_logs_apart(tiny_dataset: Path, tmp_path: Path) -> None:
    runs = tmp_path / "lr-${optim.lr}"
    printed = start(runs, tiny_dataset, "optim.lr=0.01,0.02", "--multirun", cwd=tmp_path, code=0)
    assert printed.count("done at step 20: 20 steps") == 2
    for run in (tmp_path / "lr-0.01", tmp_path / "lr-0.02"):
        assert (run / "log.txt").read_text(encoding="utf-8").count("done at step 20") == 1
        assert len(records(run)) == 20 + 5


def test_a_loss_that_explodes(call: Call, tiny_dataset: Path, tmp_path: Path) -> None:
    printed = call("train", *settings(tmp_path / "run", tiny_dataset, "optim.lr=1e38", "evaluate.every=0"), code=5)
    assert "error: the gradient is not finite in step" in printed
    assert status(tmp_path / "run")["status"] == "failed"


@pytest.mark.slow
def test_damaged_checkpoints_end_with_code_4(tiny_dataset: Path, tmp_path: Path) -> None:
    start(tmp_path / "run", tiny_dataset, "train.steps=1", cwd=tmp_path, code=0)
    (checkpoint(tmp_path / "run", 1) / "model.safetensors").write_bytes(b"")
    printed = start(tmp_path / "run", tiny_dataset, cwd=tmp_path, code=4)
    assert "error: every checkpoint of the run is damaged" in printed


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_goes_on(tiny_dataset: Path, tmp_path: Path) -> None:
    long = ["train.steps=100000", "optim.decay_steps=20"]
    with programs.start(script("train"), *settings(tmp_path / "run", tiny_dataset, *long)) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "step 7/" in line:
                process.send_signal(signal.SIGTERM)
                break
        process.stderr.read()
    assert process.returncode == 143
    assert status(tmp_path / "run") == {"status": "preempted", "reason": "signal 15"}
    last = records(tmp_path / "run")[-1]["step"]
    assert checkpoint(tmp_path / "run", last).is_dir()
    start(tmp_path / "run", tiny_dataset, f"train.steps={last + 5}", *long[1:], cwd=tmp_path, code=0)
    train_alone(tiny_config(tmp_path / "other", tiny_dataset, {"train.steps": last + 5, "optim.decay_steps": 20}))
    for name in ("model.safetensors", "optimizer.safetensors"):
        resumed, straight = (checkpoint(tmp_path / run, last + 5) / name for run in ("run", "other"))
        assert resumed.read_bytes() == straight.read_bytes()


@pytest.mark.slow
def test_torchrun(tiny_dataset: Path, tmp_path: Path) -> None:
    """Two processes, one run directory, the figures of one process."""
    code, printed = torchrun(2, tmp_path / "run", tiny_dataset, cwd=tmp_path)
    assert code == 0, printed
    assert printed.count("done at step 20") == 1
    assert json.loads((tmp_path / "run" / "environment.json").read_text(encoding="utf-8"))["processes"] == 2
    train_alone(tiny_config(tmp_path / "other", tiny_dataset))
    for one, other in zip(records(tmp_path / "run"), records(tmp_path / "other"), strict=True):
        assert one["step"] == other["step"]
        for name in one.keys() - {"step"}:
            if not name.endswith("_acc"):
                assert one[name] == pytest.approx(other[name], rel=1e-5), name


@pytest.mark.slow
def test_torchrun_with_too_many_processes(tiny_dataset: Path, tmp_path: Path) -> None:
    code, printed = torchrun(3, tmp_path / "run", tiny_dataset, cwd=tmp_path)
    assert code != 0
    assert "which 3 processes cannot share evenly; take one of 1, 2, 4 processes" in printed
    assert not (tmp_path / "run").exists()
