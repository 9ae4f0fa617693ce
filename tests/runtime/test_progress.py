"""How far preparation is: what a log shows."""

from __future__ import annotations

import pytest

from xlmtrain.errors import DataError
from xlmtrain.runtime.progress import ProgressBar


def test_progress_in_a_log_is_plain_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 4.0, 12.0, 13.0, 20.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with ProgressBar("tokenize", 60_000_000, "B") as progress:
        for _ in range(3):
            progress.advance(12_000_000)
    assert capsys.readouterr().out.splitlines() == [
        "tokenize: 24.0 MB of 60.0 MB, 2.0 MB/s, 0:00:18 left",
        "tokenize: 36.0 MB in 20.0 s",
    ]


def test_progress_of_a_stage_that_failed_does_not_say_that_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    def stage() -> None:
        with ProgressBar("tokenize", 1, "words"):
            raise DataError("no")

    with pytest.raises(DataError):
        stage()
    assert capsys.readouterr().out == ""
