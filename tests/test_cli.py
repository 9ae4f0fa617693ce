"""The command xlmtrain: its help, its commands, completion, and errors that several processes have."""

from __future__ import annotations

import shlex
import subprocess
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from torch.distributed import TCPStore

from tests.support import programs
from tests.support.repository import REPOSITORY
from tests.test_docs import check_command
from xlmtrain.cli import COMMANDS, main
from xlmtrain.commands import completion, demo
from xlmtrain.config.load import compose
from xlmtrain.errors import ConfigError, DataError, UserError
from xlmtrain.runtime.program import user_errors

SCRIPTS = sorted([*(REPOSITORY / "tools").glob("*.py"), REPOSITORY / "train.py"])


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    printed = capsys.readouterr().out
    main([])
    assert capsys.readouterr().out == printed
    assert [line.split()[0] for line in printed.splitlines()[2:-2]] == list(COMMANDS)
    assert max(map(len, printed.splitlines())) <= 100
    modules = {path.stem for path in (REPOSITORY / "xlmtrain" / "commands").glob("*.py")} - {"__init__"}
    assert {command.module for command in COMMANDS.values()} == modules


def test_help_loads_no_large_package() -> None:
    """Else it would take seconds."""
    program = (
        "import sys; from xlmtrain.cli import main; main(['--help']); print({'torch', 'hydra'} & set(sys.modules))"
    )
    assert programs.run("-c", program).stdout.endswith("\nset()\n")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_each_script_is_a_command(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (name,) = (name for name, command in COMMANDS.items() if command.module == path.stem)
    code, printed, _ = programs.run_here(monkeypatch, capsys, path.stem, "--help")
    assert code == 0
    assert f"xlmtrain {name} " in printed


def test_a_command_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["trian", "experiment=quickstart"])
    assert ended.value.code == ConfigError.exit_code
    assert capsys.readouterr().err == "error: trian: no such command; did you mean train?; xlmtrain --help lists them\n"


def test_the_package_is_a_program() -> None:
    assert programs.run("-m", "xlmtrain", "--version").stdout.startswith("xlmtrain 0.")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "xlmtrain"
    with path.open("w", encoding="utf-8") as file, redirect_stdout(file):
        completion.main(["bash"])
    return path


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["pre"], {"predict", "prepare", "prepare-shards"}),
        (["train", "train.st"], {"train.steps="}),
        (["train", "exp"], {"experiment="}),
        (["report", ""], {"run=", "output=", "images=", "reference=", "cloze_lang=", "words="}),
        (["plan", "gpu"], {"gpu=", "gpus="}),
        (["train", "run", "="], set()),
        (["train", "run", "=", "run"], set()),
    ],
)
def test_bash_completes(script: Path, words: list[str], offered: set[str]) -> None:
    state = f"COMP_WORDS=(xlmtrain {shlex.join(words)}); COMP_CWORD={len(words)}"
    program = f'source {script}; {state}; _xlmtrain; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered


def test_completion_of_another_shell() -> None:
    for words in ([], ["fish"]):
        with pytest.raises(SystemExit) as ended:
            main(["completion", *words])
        assert ended.value.code == ConfigError.exit_code


def test_the_demo_runs_commands_that_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, ...]] = []
    monkeypatch.setattr(demo, "_run", lambda directory, words: started.append(words))
    demo.main([str(tmp_path / "first")])
    assert [words[0] for words in started] == ["prepare", "train", "report", "fill-mask"]
    for name, *words in started:
        check_command(name, words)
    sample = REPOSITORY / "data" / "sample"
    copied = tmp_path / "first" / "data" / "sample"
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == {
        path.name: path.read_bytes() for path in sample.iterdir()
    }
    (copied / "train.de").write_text("changed\n", encoding="utf-8")
    (tmp_path / "first" / "prepared" / "sample").mkdir(parents=True)
    demo.main([str(tmp_path / "first")])
    assert [words[0] for words in started[4:]] == ["train", "report", "fill-mask"]
    assert (copied / "train.de").read_text(encoding="utf-8") == "changed\n"


@pytest.mark.parametrize("directory", ["", ".", "/", "n" * 300])
def test_the_demo_needs_a_directory_of_its_own(directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "_run", lambda directory, words: None)
    with pytest.raises(ConfigError, match="directory="):
        demo.main([directory])
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("words", [["output="], ["bpe.merges=-1"], ["output=."], ["output=there"]])
def test_the_sample_is_not_copied_for_settings_that_are_refused(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    with pytest.raises(SystemExit):
        main(["prepare", "corpus=sample", *words])
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize(
    ("device", "cores", "gpus", "processes"),
    [
        ("cpu", 1, 0, 1),
        ("cpu", 3, 0, 2),
        ("cpu", 64, 0, 4),
        ("cuda", 64, 1, 1),
        ("cuda", 2, 8, 4),
        ("mps", 8, 0, 1),
    ],
)
def test_the_demo_trains_on_every_core_or_gpu(
    device: str, cores: int, gpus: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "best_device", lambda: device)
    monkeypatch.setattr(demo, "usable_cores", lambda: cores)
    monkeypatch.setattr(torch.get_device_module(device), "device_count", lambda: gpus)
    assert demo.training_processes() == processes
    quickstart = compose("config", ["experiment=quickstart"])
    assert quickstart.train.batch_tokens % (processes * quickstart.data.sub_batch_tokens) == 0


def test_the_demo_starts_training_with_torchrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "training_processes", lambda: 2)
    with pytest.raises(SystemExit):
        demo._run(tmp_path, ("train", "experiment=nothing"))
    shown = capsys.readouterr().out
    assert "$ torchrun --standalone --nproc-per-node=2 -m xlmtrain train experiment=nothing" in shown


def test_the_demo_ends_with_a_command_that_fails(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        demo._run(tmp_path, ("frobnicate",))
    assert ended.value.code == ConfigError.exit_code


def end(error: UserError) -> None:
    with pytest.raises(SystemExit) as ended, user_errors():
        raise error
    assert ended.value.code == error.exit_code


def test_an_error_of_all_processes_is_printed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for attempt, rank in ((0, 0), (0, 1), (1, 1)):
        directory = tmp_path / f"attempt_{attempt}" / str(rank)
        directory.mkdir(parents=True)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(directory / "error.json"))
        end(ConfigError("train.stesp: no such setting"))
        end(DataError(f"rank {rank} cannot read a file"))
    assert capsys.readouterr().err.splitlines() == [
        "error: train.stesp: no such setting",
        "error: rank 0 cannot read a file",
        "error: rank 1 cannot read a file",
        "error: train.stesp: no such setting",  # of the next start
        "error: rank 1 cannot read a file",
    ]
    machines = TCPStore("127.0.0.1", 0, is_master=True)
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(machines.port))
    for machine in ("first", "second"):
        (tmp_path / machine / "attempt_0" / "0").mkdir(parents=True)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / machine / "attempt_0" / "0" / "error.json"))
        end(ConfigError("the same on both"))
    assert capsys.readouterr().err == "error: the same on both\n"
    monkeypatch.setenv("MASTER_PORT", str(programs.free_port()))  # the first machine's torchrun has ended
    for value in ("", "/nowhere/0/error.json"):
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", value)
        end(ConfigError("printed"))
        assert capsys.readouterr().err == "error: printed\n"


@pytest.mark.slow
def test_torchrun_prints_an_error_of_the_settings_once() -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3")
    done = programs.run(*launcher, "-m", "xlmtrain", "train", "experiment=quickstart", "train.stesp=3", code=None)
    assert done.returncode != 0
    assert done.stderr.count("error: ") == 1
    assert done.stderr.count("did you mean train.steps?") == 1
