"""No program deletes or replaces what this package did not write."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.tiny import tiny_config
from tests.support.training import train_alone
from xlmtrain.config.prepare import PrepareConfig, SplitConfig
from xlmtrain.errors import CheckpointError, ConfigError, DataError, UserError
from xlmtrain.prepare.pipeline import prepare
from xlmtrain.runtime.output_paths import check_output_path, new_directory, replace_file


def snapshot(directory: Path) -> dict[str, bytes | None]:
    """Relative path -> content, None for a directory; without locks."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
        if path.name != ".lock"
    }


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, which has something in it, within a home directory that has, too."""
    home = tmp_path / "home"
    place = home / "checkout"
    (place / ".git").mkdir(parents=True)
    (place / ".git" / "HEAD").write_text("ref: refs/heads/main\n", encoding="utf-8")
    (place / "text.de").write_text("".join(f"Das ist Satz {i} .\n" for i in range(40)), encoding="utf-8")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(place)
    return place


NO_OUTPUT = ["", " ", ".", "./", "..", "/", "~", "../..", "../checkout", "x/../../checkout"]


@pytest.mark.parametrize("value", NO_OUTPUT)
def test_a_path_that_is_none_is_refused(place: Path, value: str) -> None:
    with pytest.raises(ConfigError, match="output="):
        check_output_path("output", value)
    with pytest.raises(ConfigError), new_directory(Path(value)):
        pass


@pytest.mark.parametrize("value", ["n" * 260, "ü" * 120, "a\0b"])
def test_a_name_that_no_file_can_have_is_refused(place: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"output=.*(bytes|not a usable path)"):
        check_output_path("output", value)
    with pytest.raises(ConfigError, match="output="):
        _prepare(value)


def test_a_damaged_header_is_named_with_advice(place: Path, tiny_dataset: Path) -> None:
    for name, start in (
        ("config.json", lambda: train_alone(tiny_config(place / "x", tiny_dataset))),
        ("dataset.json", lambda: _prepare("x")),
    ):
        (place / "x").mkdir(exist_ok=True)
        (place / "x" / name).write_text("{", encoding="utf-8")
        with pytest.raises(
            CheckpointError, match=rf"x: this may be .*{name}: not readable .*; nothing .* choose another"
        ):
            start()
        (place / "x" / name).unlink()


def test_where_nothing_can_be_written_no_work_is_kept(place: Path) -> None:
    (place / "other").write_text("a file", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^output=other/x/y: .*/other is a file, not a directory"):
        _prepare("other/x/y")
    (place / ".x.partial").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match=r"\.x\.partial: is in the way"):
        _prepare("x")
    assert (place / ".x.partial").read_text(encoding="utf-8") == "mine"


def test_an_output_through_a_directory_that_is_not_there_yet(place: Path) -> None:
    with pytest.raises(DataError, match="exists already"), new_directory("x/../text.de"):
        pass
    with new_directory("x/../new") as partial:
        (partial / "file").touch()
    assert sorted(path.name for path in place.iterdir()) == [".git", "new", "text.de"]


def test_what_is_read_is_not_written(place: Path) -> None:
    (place / "link").symlink_to(place / "corpora")
    for output in ("corpora", "corpora/a", "link", "corpora/a/de.txt"):
        with pytest.raises(ConfigError, match="which is read"):
            check_output_path("output", output, ["corpora/a/de.txt"])
    assert check_output_path("output", "corpora/b", ["corpora/a/de.txt"]) == place / "corpora" / "b"


def _prepare(output: str) -> None:
    prepare(PrepareConfig(output=output, train=SplitConfig(mono={"de": ["text.de"]}), overwrite=True, workers=1))


@pytest.mark.parametrize("value", NO_OUTPUT)
def test_preparation_does_not_replace_a_place_of_the_users(place: Path, value: str) -> None:
    before = snapshot(place.parent)
    with pytest.raises(ConfigError):
        _prepare(value)
    assert snapshot(place.parent) == before


@pytest.mark.parametrize("value", NO_OUTPUT)
def test_a_run_does_not_take_a_place_of_the_users(place: Path, tiny_dataset: Path, value: str) -> None:
    config = tiny_config(place / "run", tiny_dataset, {"train.overwrite": True})
    config.run = value
    before = snapshot(place.parent)
    with pytest.raises(ConfigError):
        train_alone(config)
    assert snapshot(place.parent) == before


def test_preparation_does_not_replace_a_run(place: Path, tiny_dataset: Path) -> None:
    """It has a dataset.json too, and is refused also within prepared data."""
    _prepare("data")
    train_alone(tiny_config(place / "data" / "run", tiny_dataset), stop_after=6)
    before = snapshot(place)
    for output in ("data", "data/run"):
        with pytest.raises(ConfigError, match="nothing in it was touched"):
            _prepare(output)
    assert snapshot(place) == before


@pytest.mark.parametrize("keepsake", ["thesis.pt", "run/notes.txt", "empty/"])
def test_preparation_replaces_only_what_it_wrote(place: Path, keepsake: str) -> None:
    _prepare("data")
    path = place / "data" / keepsake
    if keepsake == "empty/":
        path.mkdir()
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine", encoding="utf-8")
    before = snapshot(place)
    with pytest.raises(ConfigError, match=f"not part of it: {keepsake}"):
        _prepare("data")
    assert snapshot(place) == before


def test_preparation_replaces_its_own(place: Path) -> None:
    _prepare("data")
    _prepare("data")
    (place / "link").symlink_to(place / "data")
    _prepare("link")
    assert (place / "link").is_symlink()
    assert not list(place.glob(".*replaced*"))


def test_what_is_in_the_way_of_the_work_directory_is_refused(place: Path) -> None:
    (place / ".data.partial").mkdir()
    (place / ".data.partial" / "thesis.pt").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match=r"\.data\.partial: is in the way"):
        _prepare("data")
    assert (place / ".data.partial" / "thesis.pt").exists()


def _thesis(run: Path) -> None:
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "thesis.pt").write_text("mine", encoding="utf-8")


def _hugging_face(run: Path) -> None:
    run.mkdir()
    (run / "config.json").write_text('{"architectures": ["XLMWithLMHeadModel"]}', encoding="utf-8")


def _vocabulary(run: Path) -> None:
    run.mkdir()
    (run / "vocab").write_text("mine", encoding="utf-8")


def _file(run: Path) -> None:
    run.write_text("mine", encoding="utf-8")


def _empty_directories(run: Path) -> None:
    (run / "checkpoints" / "mine").mkdir(parents=True)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("make", [_thesis, _hugging_face, _vocabulary, _file, _empty_directories])
def test_a_directory_that_is_no_run_is_refused(
    place: Path, tiny_dataset: Path, make: Callable[[Path], None], fresh: bool
) -> None:
    make(place / "run")
    before = snapshot(place)
    with pytest.raises(ConfigError, match=r"run=.*run: "):
        train_alone(tiny_config(place / "run", tiny_dataset, {"train.overwrite": fresh}))
    assert snapshot(place) == before


@pytest.mark.parametrize(
    "keepsake", ["notes.txt", "checkpoints/thesis.pt", "tensorboard/mine/x", "checkpoints/step-1/x"]
)
def test_a_run_with_something_else_in_it_resumes_but_is_not_replaced(
    place: Path, tiny_dataset: Path, keepsake: str
) -> None:
    train_alone(tiny_config(place / "run", tiny_dataset), stop_after=6)
    path = place / "run" / keepsake
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine", encoding="utf-8")
    before = snapshot(place)
    with pytest.raises(ConfigError, match=f"not part of it: {keepsake}; nothing in it was touched"):
        train_alone(tiny_config(place / "run", tiny_dataset, {"train.overwrite": True}))
    assert snapshot(place) == before
    train_alone(tiny_config(place / "run", tiny_dataset), stop_after=1)
    assert path.read_text(encoding="utf-8") == "mine"
    path.unlink()
    if path.parent.name in ("mine", "old"):
        path.parent.rmdir()
    train_alone(tiny_config(place / "run", tiny_dataset, {"train.overwrite": True}), stop_after=1)


def test_the_model_that_a_run_begins_from_is_not_deleted_by_it(place: Path, tiny_dataset: Path) -> None:
    train_alone(tiny_config(place / "run", tiny_dataset), stop_after=6)
    before = snapshot(place)
    config = tiny_config(place / "run", tiny_dataset, {"train.overwrite": True})
    config.init.pretrained = str(place / "run")
    with pytest.raises(ConfigError, match="which is read"):
        train_alone(config)
    assert snapshot(place) == before


def test_a_file_is_replaced_only_by_one_of_its_kind(place: Path) -> None:
    path = place / "page.html"
    path.write_text("thesis", encoding="utf-8")
    with pytest.raises(ConfigError, match="is something else"):
        replace_file("output", path, "ours 1", lambda old: old.startswith("ours"))
    assert path.read_text(encoding="utf-8") == "thesis"
    path.unlink()
    for text in ("ours 1", "ours 2"):
        replace_file("output", path, text, lambda old: old.startswith("ours"))
        assert path.read_text(encoding="utf-8") == text
    with pytest.raises(ConfigError, match="output="):
        replace_file("output", Path(""), "ours", lambda old: True)


def test_files_of_others_in_a_checkpoint_are_not_pruned(place: Path, tiny_dataset: Path) -> None:
    train_alone(tiny_config(place / "run", tiny_dataset), stop_after=6)
    checkpoints = place / "run" / "checkpoints"
    (oldest,) = checkpoints.glob("step-00000005")
    (oldest / "notes.txt").write_text("mine", encoding="utf-8")
    (checkpoints / ".step-mine").mkdir()
    (checkpoints / ".step-mine" / "notes.txt").write_text("mine", encoding="utf-8")
    train_alone(tiny_config(place / "run", tiny_dataset, {"train.keep_last": 1}))
    assert (oldest / "notes.txt").exists()
    assert (checkpoints / ".step-mine" / "notes.txt").exists()


@pytest.mark.parametrize("name", [".data.replaced/mine", ".data.partial/mine", "data/users.ids"])
def test_names_like_those_of_preparation_are_refused(place: Path, name: str) -> None:
    _prepare("data")
    path = place / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine", encoding="utf-8")
    if ".partial" in name:
        for file in (".lock", "finished"):
            (path.parent / file).touch()
    with pytest.raises(UserError):
        _prepare("data")
    assert path.read_text(encoding="utf-8") == "mine"


def test_what_appears_while_a_preparation_works_is_not_replaced(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = PrepareConfig(output="data", train=SplitConfig(mono={"de": ["text.de"]}), workers=1)

    def appear(_: object) -> None:
        (place / "data").mkdir()
        (place / "data" / "precious").write_text("mine", encoding="utf-8")

    with pytest.raises(UserError, match="has appeared meanwhile"):
        prepare(config, appear)
    assert (place / "data" / "precious").read_text(encoding="utf-8") == "mine"
    shutil.rmtree(place / "data")
    prepare(config)  # goes on


def test_paths_that_cannot_be_resolved(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "loop").symlink_to(place / "loop")
    for value in ("loop/x", "~nobody-of-this-name/x", "~/x"):
        with pytest.raises(ConfigError, match="output="):
            check_output_path("output", value)
    monkeypatch.delenv("HOME")
    assert check_output_path("output", "new") == place / "new"
