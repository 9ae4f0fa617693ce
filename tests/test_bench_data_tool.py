"""tools/bench_data.py: what it refuses, and that its table has every comparison."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repository import REPOSITORY

SAMPLE = REPOSITORY / "data" / "sample"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "tools" / "bench_data.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_text_and_scripts_that_are_not_there_are_refused(tmp_path: Path) -> None:
    for arguments, complaint in (
        ([], "give text with en=FILE and de=FILE"),
        ([f"en={SAMPLE}/train.en", f"moses={tmp_path}"], "no replace-unicode-punctuation.perl there"),
    ):
        done = bench(*arguments)
        assert done.returncode == 2
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_table_has_a_ratio_for_every_stage() -> None:
    settings = ["megabytes=0.1", "rounds=1", "merges=100"]
    done = bench(f"en={SAMPLE}/train.en", f"de={SAMPLE}/train.de", *settings)
    assert done.returncode == 0, done.stderr
    assert "0.2 MB of de, en; with learning 100 codes" in done.stdout
    for name in ("normalize, tokenize", "raw text to ids", "tokens to ids", "binarizing"):
        row = re.search(rf"^{name} .*\((\d+\.\d+)-\1\)$", done.stdout, re.MULTILINE)
        assert row, done.stdout
        assert float(row[1]) > 0.1
