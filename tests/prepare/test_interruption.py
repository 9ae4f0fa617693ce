"""Preparation killed without warning: the same command goes on, and the result is the same, byte by byte."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.preparation import TOKENIZERS, tokenizer_settings
from tests.support.programs import script
from tests.support.repository import REPOSITORY
from xlmtrain.prepare.artifacts import ArtifactStore

SAMPLE = REPOSITORY / "data" / "sample"


def start(output: Path, *settings: str) -> subprocess.Popen[str]:
    """The program, in a process group of its own."""
    mono = f"train.mono={{de: [{SAMPLE}/train.de], en: [{SAMPLE}/train.en]}}"
    pairs = f"train.pairs={{de-en: ['{SAMPLE}/train.{{lang}}']}}"
    words = [script("prepare"), f"output={output}", "shard_mb=1", mono, pairs, *settings]
    return programs.start(*words, stdout=subprocess.DEVNULL, start_new_session=True)


def prepared(output: Path, *settings: str) -> dict[str, bytes]:
    """What the program makes when nobody disturbs it."""
    process = start(output, *settings)
    message = process.communicate()[1]
    assert process.returncode == 0, message
    return {path.name: path.read_bytes() for path in output.iterdir()}


def parts(output: Path) -> int:
    """How many pieces of work are done."""
    try:
        return len(list(output.with_name(f".{output.name}.partial").glob("*/[0-9a-f]*")))
    except FileNotFoundError:  # it is being removed, as all is done
        return 0


@pytest.mark.slow
@pytest.mark.parametrize(("tokenizer", "enough"), list(zip(TOKENIZERS, (30, 10, 10), strict=True)))
def test_killed_again_and_again_it_ends_with_the_same_bytes(tmp_path: Path, tokenizer: str, enough: int) -> None:
    chosen = tokenizer_settings(tokenizer, tmp_path)
    before = prepared(tmp_path / "undisturbed", *chosen)
    rng = random.Random(36)
    kills, rounds, kept = 0, 0, []
    while kills < enough:
        output = tmp_path / f"killed-{rounds}"
        rounds += 1
        for _ in range(4):
            process = start(output, *chosen, f"workers={1 + rounds % 2}")
            done, limit = parts(output), rng.randrange(1, 8)
            # So many parts further, or if there are not as many any more, some time later.
            deadline = time.monotonic() + rng.uniform(1, 6)
            while process.poll() is None and parts(output) < done + limit and time.monotonic() < deadline:
                time.sleep(0.01)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                kept.append(parts(output))
            process.communicate()
        if not output.exists():
            prepared(output, *chosen, "workers=2")
        assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert max(kept) > 5


def test_killed_once_it_keeps_what_is_done_and_leaves_no_process(tmp_path: Path) -> None:
    before = prepared(tmp_path / "undisturbed", "bpe.merges=500", "workers=1")
    output = tmp_path / "killed"
    process = start(output, "bpe.merges=500", "workers=1")
    while process.poll() is None and parts(output) < 5:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    kept = {
        path: path.stat().st_mtime_ns
        for path in ArtifactStore(output.with_name(".killed.partial")).directory.glob("*/*")
    }
    assert len([path for path in kept if not path.name.startswith(".")]) >= 5
    assert prepared(output, "bpe.merges=500", "workers=1") == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
