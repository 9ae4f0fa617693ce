"""Preparation that was interrupted goes on with the same result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.preparation import ENGLISH, Workplace, contents
from xlmtrain.config.prepare import TextConfig
from xlmtrain.errors import DataError
from xlmtrain.prepare import global_stages
from xlmtrain.prepare import pipeline as prepare_module
from xlmtrain.prepare.artifacts import ArtifactStore, BuildTask
from xlmtrain.prepare.output import open_store


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_job_spares_the_old_output_and_goes_on(
    work: Workplace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    work.prepare()
    before = contents(work.output)

    def interrupt(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(global_stages, "learn_bpe", interrupt)
        with pytest.raises((KeyboardInterrupt, DataError)) as caught:
            work.prepare(overwrite=True)
    assert caught.type is KeyboardInterrupt or "No space left on device" in str(caught.value)
    assert contents(work.output) == before
    assert {path.name for path in work.output.parent.iterdir()} == {"prepared", ".prepared.partial"}
    capsys.readouterr()
    work.prepare(overwrite=True)
    assert "tokenize: 3 of 3 tasks are finished already" in capsys.readouterr().out
    assert contents(work.output) == before
    assert [path.name for path in work.output.parent.iterdir()] == ["prepared"]


TASKS = {"shard": 3, "tokenize": 3, "select": 3, "words": 2, "encode": 3, "assemble": 4}
STAGES = ("shard", "tokenize", "select", "words", "codes", "subwords", "encode", "vocab", "assemble")


@pytest.mark.parametrize("stage", STAGES)
def test_a_job_that_ends_in_any_stage_goes_on_with_the_same_result(
    work: Workplace, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    work.prepare()
    before = contents(work.output)
    made: list[str] = []
    build = ArtifactStore.build

    def ends(self: ArtifactStore, task: BuildTask, function: Callable[[Path], dict[str, Any]]) -> None:
        def fill(out: Path) -> dict[str, Any]:
            made.append(task.stage)
            result = function(out)
            if task.stage == stage and made.count(stage) == 1:
                raise KeyboardInterrupt
            return result

        build(self, task, fill)

    monkeypatch.setattr(ArtifactStore, "build", ends)
    with pytest.raises(KeyboardInterrupt):
        work.prepare(output=str(work.directory / "again"))
    first = list(made)
    work.prepare(output=str(work.directory / "again"))
    assert contents(work.directory / "again") == before
    # every task was run once, but for the one that was interrupted
    assert Counter(made) == Counter(TASKS) + Counter([stage, "codes", "subwords", "vocab"])
    assert set(first[:-1]) <= set(STAGES[: STAGES.index(stage) + 1])


def test_changed_input_and_settings_are_noticed(work: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(**settings: Any) -> str:
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(prepare_module, "publish", interrupt)
            with pytest.raises(KeyboardInterrupt):
                work.prepare(**settings)
        return capsys.readouterr().out

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    interrupted()
    unchanged = interrupted()
    assert all(f"{stage}: {n} of {n} tasks are finished already" in unchanged for stage, n in TASKS.items())
    work.write("mono.en", [*ENGLISH, "One more."])
    changed = interrupted()
    assert "shard: input, settings or program changed, 1 finished tasks are run again" in changed
    assert "tokenize: 2 of 3 tasks are finished already" in changed
    assert "encode: 3 of 3" not in changed  # other codes
    limited = interrupted(text=TextConfig(max_tokens=50))
    assert "shard: 3 of 3 tasks are finished already" in limited
    assert "tokenize: input, settings or program changed, 3 finished tasks are run again" in limited
    work.prepare(text=TextConfig(max_tokens=50))
    work.prepare(text=TextConfig(max_tokens=50), output=str(work.directory / "fresh"))
    assert contents(work.output) == contents(work.directory / "fresh")


def test_a_second_job_for_the_same_output_is_refused(work: Workplace) -> None:
    with open_store(work.output), pytest.raises(DataError, match="another process is preparing it"):
        work.prepare()
