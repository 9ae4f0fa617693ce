"""Keyed randomness, files that are whole or not there, the lock, the log."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

import xlmtrain.runtime.atomic_io
from tests.support import programs
from xlmtrain.errors import ConfigError
from xlmtrain.runtime.atomic_io import read_json, sha256_of, write_json
from xlmtrain.runtime.lock import lock_directory
from xlmtrain.runtime.logging import log_to_file, set_up_logging
from xlmtrain.runtime.process import GC_STEPS, collect_garbage, gc_at_steps
from xlmtrain.runtime.rng import generator, torch_seed


def test_generators_are_keyed_by_all_they_are_given() -> None:
    keys = [
        (0, "mask", "mlm.en", 1, 2),
        (1, "mask", "mlm.en", 1, 2),
        (0, "tasks", "mlm.en", 1, 2),
        (0, "mask", "mlm.de", 1, 2),
        (0, "mask", "mlm.en", 2, 1),
        (0, "mask", "mlm.en", 1),
    ]
    drawn = [tuple(generator(*key).integers(2**62, size=4)) for key in keys]  # type: ignore[arg-type]
    assert len(set(drawn)) == len(keys)
    assert drawn == [tuple(generator(*key).integers(2**62, size=4)) for key in keys]  # type: ignore[arg-type]
    seeds = {torch_seed(*key) for key in keys}  # type: ignore[arg-type]
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_keys_are_the_same_in_every_process_and_release() -> None:
    """A run must resume under another Python: numbers as measured once."""
    assert generator(0, "mask", "mlm.en", 3, 5).integers(10**6, size=3).tolist() == [952210, 765024, 166394]
    code = "from xlmtrain.runtime.rng import torch_seed; print(torch_seed(7, 'dropout', 1, 2))"
    other = programs.run("-c", code, environment={"PYTHONHASHSEED": "9"})
    assert int(other.stdout) == torch_seed(7, "dropout", 1, 2)


def test_neighbouring_keys_are_independent() -> None:
    drawn = np.stack([generator(0, "mask", index).random(2000) for index in range(20)])
    correlations = np.corrcoef(drawn) - np.eye(20)
    assert np.abs(correlations).max() < 5 / np.sqrt(2000)


def test_json_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status.json"
    write_json(path, {"status": "läuft", "n": np.float32(0.5)})
    assert json.loads(path.read_text(encoding="utf-8")) == {"status": "läuft", "n": 0.5}
    with path.open(encoding="utf-8") as reader:  # who reads while it is replaced reads the old one, whole
        write_json(path, {"status": "läuft", "n": 1})
        assert json.load(reader)["n"] == 0.5
    assert [file.name for file in tmp_path.iterdir()] == ["status.json"]

    def fail(path: Path) -> None:
        raise OSError("power loss")

    monkeypatch.setattr(xlmtrain.runtime.atomic_io, "sync_file", fail)
    with pytest.raises(OSError, match="power loss"):
        write_json(path, {"status": "other"})
    assert json.loads(path.read_text(encoding="utf-8"))["status"] == "läuft"


def test_sha256(tmp_path: Path) -> None:
    content = os.urandom(3_000_001)
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_directory_is_locked_until_its_holder_ends(tmp_path: Path) -> None:
    hold = (
        "import sys; from pathlib import Path; from xlmtrain.runtime.lock import lock_directory\n"
        "lock = lock_directory(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"run={tmp_path}: another process is training in this directory"):
            lock_directory(tmp_path)
        other.kill()  # as a machine that fails: nothing is left to clean up
        other.wait()
    lock_directory(tmp_path).close()


@pytest.mark.parametrize("rank", [0, 1])
def test_the_main_process_says_all_and_the_others_their_warnings(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, rank: int
) -> None:
    set_up_logging(rank)
    log_to_file(tmp_path / "log.txt")
    logger = logging.getLogger("xlmtrain.anything")
    logger.info("all is well")
    logger.warning("it smells")
    printed, written = capsys.readouterr().err, (tmp_path / "log.txt").read_text(encoding="utf-8")
    for text in (printed, written):
        assert ("all is well" in text) == (rank == 0)
        assert "it smells" in text
    assert ("[rank 1] " in printed) == (rank == 1)


def test_json_that_an_editor_saved_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n')
    assert read_json(tmp_path / "config.json") == {"a": 1}


class _Cycle:
    def __init__(self) -> None:
        self.itself = self


def test_garbage_is_collected_at_steps_alone() -> None:
    with gc_at_steps():
        assert not gc.isenabled()
        seen = weakref.ref(_Cycle())
        for step in range(1, GC_STEPS):
            collect_garbage(step)
        assert seen() is not None
        collect_garbage(GC_STEPS)
        assert seen() is None
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
