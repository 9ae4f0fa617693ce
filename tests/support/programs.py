"""Programs (``train.py``, ``tools/*.py``) as a user starts them: in a process of their own, or, faster, in this one."""

from __future__ import annotations

import faulthandler
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.repository import REPOSITORY

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)}
_LOG_ON_STDERR = ("train", "finetune")


def script(name: str) -> str:
    """Return the path of ``train.py`` or ``tools/<name>.py``."""
    return str(REPOSITORY / "train.py" if name == "train" else REPOSITORY / "tools" / f"{name}.py")


def start(*words: str, environment: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """Start ``python *words``. ``options``: those of Popen; both streams are pipes if none says otherwise."""
    return subprocess.Popen(
        [sys.executable, *words],
        env={**ENVIRONMENT, **(environment or {})},
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def run(*words: str, code: int | None = 0, timeout: float = 120, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``python *words`` to its end. Raises AssertionError for a traceback, or another exit code than ``code``.

    With ``code=None`` the test judges both.
    """
    with start(*words, **options) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        finally:
            process.kill()
    assert code in (None, process.returncode), f"exit code {process.returncode}: {errors}"
    assert code is None or "Traceback" not in (errors or ""), errors
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, *arguments: str
) -> tuple[object, str, str]:
    """Run a program in this process. Return its exit code and what it printed on each stream."""
    monkeypatch.setattr(faulthandler, "enable", lambda: None)  # pytest's own is at work
    monkeypatch.setattr(sys, "argv", [script(name), *arguments])
    code: object = 0
    try:
        runpy.run_path(script(name), run_name="__main__")
    except SystemExit as end:
        code = end.code or 0
    return code, *capsys.readouterr()


class Call:
    """Runs programs in this process. A refusal must be one message without a traceback."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._fixtures = (monkeypatch, capsys)

    def __call__(self, name: str, *arguments: str, code: int = 0) -> str:
        """Return standard output; standard error if ``code`` is not 0, and of ``train.py``, which logs there."""
        ended, output, errors = run_here(*self._fixtures, name, *arguments)
        assert ended == code, errors
        assert errors.count("error: ") == (code != 0), errors
        if name not in _LOG_ON_STDERR:
            assert errors.startswith("error: ") if code else errors == "", errors
        return errors if code or name == "train" else output
