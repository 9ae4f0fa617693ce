"""The job is queued again once, by an argument list, and only if its id is one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from xlmtrain.errors import ConfigError
from xlmtrain.runtime.process import requeue, slurm_job_id


def fake_scontrol(directory: Path, monkeypatch: pytest.MonkeyPatch, code: int = 0) -> Path:
    """A scontrol on PATH that writes down its arguments, one a line."""
    program, said = directory / "scontrol", directory / "said"
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >> "{said}"\necho "no such job" >&2\nexit {code}\n', encoding="utf-8"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    return said


@pytest.mark.parametrize("job", ["1", "4711", "4711_12"])
def test_requeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str) -> None:
    said = fake_scontrol(tmp_path, monkeypatch)
    monkeypatch.setenv("SLURM_JOB_ID", job)
    requeue(slurm_job_id())
    assert said.read_text(encoding="utf-8") == f"requeue\n{job}\n"


@pytest.mark.parametrize("job", [None, "", "1;touch X", "1 2", "-1", "1_", "_1", "1\n", "$(id)", "١"])
def test_what_is_no_job_is_refused(monkeypatch: pytest.MonkeyPatch, job: str | None) -> None:
    if job is None:
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    else:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    with pytest.raises(ConfigError, match=r"train\.requeue=slurm: SLURM_JOB_ID="):
        slurm_job_id()


@pytest.mark.parametrize("there", [True, False])
def test_a_refusal_is_said_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, there: bool
) -> None:
    logging.getLogger("xlmtrain").propagate = True
    if there:
        fake_scontrol(tmp_path, monkeypatch, code=1)
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    requeue("4711")
    assert "start the job again yourself" in caplog.text
    assert ("no such job" in caplog.text) == there
