"""What a log shows of a long stage."""

from __future__ import annotations

import pytest

from xlmtrain.errors import DataError
from xlmtrain.runtime.progress import ProgressBar


def test_progress_in_a_log_is_plain_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with ProgressBar("tokenize", 60_000_000, "B") as progress:
        for seconds in (4.0, 12.0, 20.0):
            now[0] = seconds
            progress.update(12_000_000)
    assert capsys.readouterr().out.splitlines() == [
        "tokenize:   0% 0.00/60.0M [00:00<?, ?B/s]",
        "tokenize:  40% 24.0M/60.0M [00:12<00:17, 2.00MB/s]",
        "tokenize:  60% 36.0M/60.0M [00:20<00:13, 1.80MB/s]",
    ]


def test_progress_of_a_stage_that_failed_does_not_say_that_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    def stage() -> None:
        with ProgressBar("tokenize", 1, " words") as progress:
            progress.update()
            raise DataError("no")

    with pytest.raises(DataError):
        stage()
    assert capsys.readouterr().out == "tokenize:   0% 0.00/1.00 [00:00<?, ? words/s]\n"
