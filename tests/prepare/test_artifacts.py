"""Finished pieces of work: found again by what they were made from, whole or not there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from xlmtrain.errors import DataError
from xlmtrain.prepare import artifacts as work_module
from xlmtrain.prepare.artifacts import ArtifactStore, BuildTask, InterruptedWork
from xlmtrain.prepare.output import link, open_store, publish, remove_finished


def make(out: Path) -> dict[str, Any]:
    (out / "content").write_text("ä")
    return {"lines": 3}


def test_a_part_is_made_once_and_whole(tmp_path: Path) -> None:
    work, task = ArtifactStore(tmp_path), BuildTask("shard", {"file": "x"}, size=7)
    assert not work.exists(task)
    work.build(task, make)
    assert work.exists(task)
    assert work.result("shard", task.key) == {"lines": 3}
    assert (work.path("shard", task.key) / "content").read_text() == "ä"
    work.build(task, lambda out: pytest.fail("made twice"))


def test_an_exception_leaves_no_part(tmp_path: Path) -> None:
    work, task = ArtifactStore(tmp_path), BuildTask("shard", {})

    def fail(out: Path) -> dict[str, Any]:
        make(out)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work.build(task, fail)
    assert list((tmp_path / "shard").iterdir()) == []


def test_of_two_that_make_the_same_part_one_is_kept(tmp_path: Path) -> None:
    work, task = ArtifactStore(tmp_path), BuildTask("shard", {})

    def slow(out: Path) -> dict[str, Any]:
        work.build(task, make)
        return {"lines": 4}

    work.build(task, slow)
    assert work.result("shard", task.key) == {"lines": 3}
    assert len(list((tmp_path / "shard").iterdir())) == 1


def test_the_key_follows_stage_arguments_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    task = BuildTask("shard", {"a": 1, "b": [2]}, 5)
    assert task.key == BuildTask("shard", {"b": [2], "a": 1}, 9).key
    keys = {task.key, BuildTask("tokenize", {"a": 1, "b": [2]}).key, BuildTask("shard", {"a": 1, "b": [3]}).key}
    monkeypatch.setattr(work_module, "code_version", lambda: "other")
    assert len({*keys, BuildTask("shard", {"a": 1, "b": [2]}).key}) == 4


def test_only_parts_of_use_are_kept(tmp_path: Path) -> None:
    work = ArtifactStore(tmp_path)
    old, new = BuildTask("shard", {"file": 1}), BuildTask("shard", {"file": 2})
    for task in (old, new):
        work.build(task, make)
    (tmp_path / "shard" / ".killed").mkdir()
    assert work.gc("shard", [new, BuildTask("shard", {"file": 3})]) == 1
    assert [path.name for path in (tmp_path / "shard").iterdir()] == [new.key]
    assert work.gc("encode", []) == 0


def test_the_directory_stays_after_interruptions_and_goes_with_mistakes(tmp_path: Path) -> None:
    output, directory = tmp_path / "out" / "data", tmp_path / "out" / ".data.partial"
    with pytest.raises(DataError, match="mistake"), open_store(output):
        raise DataError("mistake")
    assert not directory.exists()
    for error in (
        KeyboardInterrupt(),
        SystemExit(143),
        InterruptedWork("lost"),
        OSError(28, "No space left on device"),
    ):
        with pytest.raises((type(error), DataError)), open_store(output):
            raise error
        assert directory.exists()
    with pytest.raises(DataError, match="mistake"), open_store(output):
        raise DataError("mistake")
    assert directory.exists()  # it held work of before


def test_only_one_process_works_there(tmp_path: Path) -> None:
    with open_store(tmp_path / "data"), pytest.raises(DataError, match=r"data: another process is preparing it"):
        with open_store(tmp_path / "data"):
            pass
    with open_store(tmp_path / "data"):
        pass


@pytest.mark.parametrize("before", [False, True])
def test_finishing_replaces_the_output_and_removes_the_rest(tmp_path: Path, before: bool) -> None:
    output = tmp_path / "data"
    if before:
        output.mkdir()
        header = dict.fromkeys(("format", "languages", "vocab_size", "fingerprint", "corpora"))
        (output / "dataset.json").write_text(json.dumps(header), encoding="utf-8")
    with open_store(output) as work:
        (work.directory / "output").mkdir()
        (work.directory / "output" / "new").touch()
        publish(work, work.directory / "output", output, overwrite=before)
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["data", "data/new"]


def test_what_was_left_after_finishing_is_removed(tmp_path: Path) -> None:
    directory = tmp_path / ".data.partial"
    (directory / "shard" / "artifact").mkdir(parents=True)
    remove_finished(tmp_path / "data")
    assert directory.exists()
    (directory / "finished").touch()
    remove_finished(tmp_path / "data")
    assert not directory.exists()


def test_a_file_gets_another_name_also_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("x")
    link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "x"
    assert not (tmp_path / "b").samefile(tmp_path / "a")


def test_a_task_survives_json() -> None:
    task = BuildTask("tokenize", {"raw": "ab", "sample": [0.1, 1.0], "held_out": None, "text": {"lowercase": False}})
    assert BuildTask(*json.loads(json.dumps([task.stage, task.arguments]))).key == task.key
