"""Files, downloads, settings and names that mean harm, and who listens to the network."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import test_architecture
from tests.download import test_fetch
from tests.support import evil_pickles as evil
from tests.support.evil_archives import TARS, TOO_MANY, ZIPS
from tests.support.fault_table import Tries
from tests.support.programs import free_port, run_here
from tests.support.publisher import Hurried, publishing
from tests.support.repository import REPOSITORY
from tests.support.starts import settings
from tests.support.tiny import tiny_config, write_tiny_dataset
from tests.support.training import checkpoint, train_alone
from xlmtrain.config.load import compose, from_json
from xlmtrain.config.schema import Config
from xlmtrain.data.dataset import Dataset
from xlmtrain.download import archives
from xlmtrain.download.archives import check_archive
from xlmtrain.errors import ConfigError, DataError, UserError
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.xlm.pth import read_data_file
from xlmtrain.runtime.atomic_io import sha256_of
from xlmtrain.train.checkpoint_io import read_checkpoint


@pytest.fixture(scope="module")
def run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step."""
    path = tmp_path_factory.mktemp("secure") / "run"
    train_alone(tiny_config(path, tiny_dataset, {"train.steps": 1, "evaluate.every": 0}))
    return path


def _open_data(path: Path) -> None:
    Dataset(path).corpus("train.de")


@pytest.mark.row(41, slow=29, full=29)
def test_evil_pickles(tries: Tries, run: Path, own_dataset: Path, tmp_path: Path) -> None:
    """Each as the original's checkpoint and data in three containers, as our checkpoint, vocabulary and ids.

    Our checkpoint comes with a manifest that fits: whoever can write one can write the other.
    """
    marker = tmp_path / "marker"
    pickles = evil.live(marker)
    ours = Path(shutil.copytree(checkpoint(run, 1), tmp_path / "step-00000001"))
    manifest = json.loads((ours / "manifest.json").read_text(encoding="utf-8"))
    assert len(pickles) == tries.count >= 25
    ways = 0
    for name, (content, _) in pickles.items():
        with tries.attempt(name):
            readers: list[Callable[[], object]] = []
            for container, wrap in evil.CONTAINERS.items():
                file = tmp_path / f"{container}.pth"
                file.write_bytes(wrap(content))
                readers += [partial(read_model, file), partial(read_data_file, file)]
            file = ours / "model.safetensors"
            file.write_bytes(content)
            manifest[file.name] = {"bytes": len(content), "sha256": sha256_of(file)}
            (ours / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
            readers.append(partial(read_checkpoint, ours))
            for place in ("vocab", "train.de.ids", "dataset.json"):
                data = tmp_path / name / place
                shutil.copytree(own_dataset, data)
                (data / place).write_bytes(content)
                readers.append(partial(_open_data, data))
            for read in readers:
                with pytest.raises(UserError):
                    read()
            ways += len(readers)
            assert not marker.exists()
    tries.figure(f"{ways} files; nothing was executed")


@pytest.mark.row(42, slow=50, full=50)
def test_evil_archives(tries: Tries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_RATIO_FLOOR", 1 << 24)  # bombs that take no time to make
    monkeypatch.setattr(archives, "MAX_MEMBERS", TOO_MANY)
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    cases = [(".tgz", *case) for case in TARS.items()] + [(".zip", *case) for case in ZIPS.items()]
    assert len(cases) == tries.count
    for ending, name, write in cases:
        path = place / f"{name}{ending}"
        write(path)
        before = set(tmp_path.rglob("*"))
        with tries.attempt(name):
            with pytest.raises(DataError):
                check_archive(path)
            assert set(tmp_path.rglob("*")) == before
        path.unlink()


DOWNLOADS: list[Callable[..., None]] = [
    test_fetch.test_a_wrong_checksum_is_refused,
    *(
        partial(test_fetch.test_a_wrong_size_is_refused, size=len(test_fetch.CONTENT) + more, length=length)
        for more in (-1, 1)
        for length in (True, False)
    ),
    test_fetch.test_broken_off_is_resumed,
    test_fetch.test_the_next_run_resumes,
    *(
        partial(test_fetch.test_what_cannot_be_resumed_starts_anew, behaviour=behaviour)
        for behaviour in ({"etag": '"second"'}, {"ranges": False}, {"etag": None})
    ),
    test_fetch.test_parts_of_two_versions_are_found_out,
    partial(test_fetch.test_a_beginning_of_who_knows_what_is_not_used, note="{}"),
    test_fetch.test_nothing_left_to_come,  # 416
    test_fetch.test_more_here_than_there,  # 416
    test_fetch.test_more_than_the_limit_is_refused_before_it_comes,
    test_fetch.test_a_body_without_end_is_refused,
    *(
        partial(test_fetch.test_redirects_to_other_schemes_are_refused, target=target)
        for target in ("ftp://127.0.0.1/file", "file:///etc/hostname", "https://127.0.0.1/file")
    ),
]


@pytest.mark.row(43, slow=20, full=20)
def test_bad_downloads(tries: Tries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cases of the download's own tests, and unencrypted http, which is refused by default."""
    monkeypatch.setenv("no_proxy", "*")
    assert len(DOWNLOADS) + 1 == tries.count
    for number, case in enumerate(DOWNLOADS):
        name = getattr(case, "__name__", getattr(getattr(case, "func", None), "__name__", ""))
        target = tmp_path / str(number)
        target.mkdir()
        with tries.attempt(name), publishing() as publisher:
            case(client=Hurried(), publisher=publisher, tmp_path=target)
    (tmp_path / "http").mkdir()
    with tries.attempt("http"), publishing() as publisher:
        test_fetch.test_by_default_nothing_goes_unencrypted(publisher, tmp_path / "http")


SECRET = "canary-4711"
HOSTILE = [
    "run=${oc.env:TOKEN}",
    "data.path=${oc.env:TOKEN,x}",
    "seed=${oc.env:TOKEN}",
    "data.mlm.${oc.env:TOKEN}=1",
    "run=${hydra:runtime.cwd}",
    "run=${oc.create:x}",
    "run=${run}",
    "+_target_=os.system",
    "model._target_=os.system",
    "+model._target_=os.system",
    "data.mlm={_target_: os.system}",
    "experiment=../../../../tmp/evil",
    "model=/tmp/evil",
    "run=!!python/object/apply:os.system [id]",
    "optim.lr=__import__('os').system('id')",
    "train.steps=1e400",
    "hydra/job_logging=../x",
]
FOREIGN: list[dict[str, Any]] = [
    {"run": "${oc.env:TOKEN}"},
    {"data": {"path": "a/${oc.env:TOKEN}"}},
    {"_target_": "os.system"},
    {"model": {"_target_": "os.system", "dim": 8}},
    {"seed": "!!python/object/apply:os.system"},
    {"data": {"mlm": {"de": "${oc.env:TOKEN}"}}},
]


@pytest.mark.row(44, quick=24, slow=24, full=24)
def test_hostile_settings(tries: Tries, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the command line and in a foreign ``config.json``; and no file of a run holds what is in the environment."""
    monkeypatch.setenv("TOKEN", SECRET)
    monkeypatch.chdir(tmp_path)
    for override in HOSTILE:
        with tries.attempt(override):
            with pytest.raises(ConfigError) as caught:
                compose("config", ["run=somewhere", "data.path=p", "data.mlm={de: 1}", override])
            assert SECRET not in str(caught.value)
    for content in FOREIGN:
        with tries.attempt(json.dumps(content)):
            with pytest.raises(ConfigError) as caught:
                from_json(Config, content)
            assert SECRET not in str(caught.value)
    with tries.attempt("what a run writes"):
        train_alone(tiny_config(tmp_path / "run", tiny_dataset, {"train.steps": 1}))
        written = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
        assert len(written) > 10
        assert not [file for file in written if SECRET.encode() in file.read_bytes()]


NAMES = (
    "with blank",
    "it's",
    'a "quote"',
    "new\nline",
    "-leading",
    "ä ß",
    "$(touch harm)",
    "a;touch harm",
    "${oc.env:HOME}",
    "a,b=c",
    "{lang}%s",
    "*?[a]",
)


@pytest.mark.row(45, slow=60, full=60)
def test_odd_names(
    tries: Tries, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each tool works with each name, or refuses it with one message; nothing else comes to be."""
    worked = 0

    def call(tool: str, *arguments: str) -> None:
        nonlocal worked
        ended, _, errors = run_here(monkeypatch, capsys, tool, *arguments)
        assert ended == 0 or (ended in (2, 3, 4) and errors.startswith("error: ")), f"{ended}: {errors}"
        worked += ended == 0

    monkeypatch.chdir(tmp_path)
    names = NAMES[: tries.count // 5]
    for number, name in enumerate(names):
        place = tmp_path / str(number)
        place.mkdir()
        monkeypatch.chdir(place)
        shutil.copytree(run, place / name)
        calls = {
            "report": (f"run={name}",),
            "fill_mask": (f"model={name}", "lang=de", "a <mask> b"),
            "export": (f"model={name}", "format=xlm", f"output={name}.pth"),
            "evaluate": (f"model={name}", f"data={write_tiny_dataset(place / f'data {name}')}", "split=valid"),
            "show_data": (f"data.path='data {name}'", "data.mlm={de: 1}", "data.sub_batch_tokens=512"),
        }
        for tool, arguments in calls.items():
            with tries.attempt(f"{tool}, {name!r}"):
                call(tool, *arguments)
        assert {path.name for path in place.iterdir()} <= {name, f"data {name}", f"{name}.pth"}
    tries.figure(f"{worked} worked, {tries.count - worked} were refused with a message")
    assert worked >= tries.count * 2 // 3


@pytest.mark.row(45, slow=1, full=1)
def test_no_shell_anywhere(tries: Tries) -> None:
    """Nor eval, pickle, extractall: in none of the product's files, which are as many tries."""
    for path in [*test_architecture.MODULES.values(), *test_architecture.PROGRAMS]:
        with tries.attempt(path.name):
            test_architecture.test_nothing_dangerous_is_used(path)
    tries.figure(f"{len(test_architecture.MODULES)} modules without a shell")


def listening(pid: int) -> set[str]:
    """Addresses on which ``pid`` listens, as ``ss -ltnp`` shows them: from /proc."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        link = os.readlink(descriptor) if descriptor.exists() or descriptor.is_symlink() else ""
        if link.startswith("socket:["):
            inodes.add(link[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text(encoding="utf-8").splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                found.add(words[1].partition(":")[0])
    return found


LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


@pytest.fixture
def tensorboard(run: Path) -> Iterator[int]:
    """README's ``tensorboard --logdir runs``, listening."""
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run.parent), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if f":{port}/" in line:
                break
        yield process.pid
        process.send_signal(signal.SIGKILL)


@pytest.mark.row(46, full=3)
def test_who_listens(tries: Tries, tensorboard: int, tiny_dataset: Path, tmp_path: Path) -> None:
    """TensorBoard, as the README starts it, to this machine only; training on one process, not at all."""
    with tries.attempt("tensorboard"):
        found = listening(tensorboard)
        assert found
        assert found <= LOOPBACK
    with tries.attempt("README"):
        text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
        assert "tensorboard --logdir" in text
        assert "--bind_all" not in text
    with tries.attempt("training"):
        before = listening(os.getpid())
        train_alone(settings(tmp_path / "run", tiny_dataset, 2))
        assert listening(os.getpid()) == before == set()
