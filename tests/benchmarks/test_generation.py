"""The speed of generation: the program runs, and both systems write what they are asked for."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from benchmarks import generation


def test_two_rows_for_each_beam(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["dim=16", "layers=1", "heads=2", "vocab_size=200", "sentences=6", "batch=3", "rounds=1"]
    generation.main([*sizes, "beam=1", "beam=2"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| translate")]
    assert [row[0] for row in rows] == [
        f"| translate {what}, 1 + 1 x 16, beam of {beam}, fp32" for beam in (1, 2) for what in ("batches", "lines")
    ]
    assert [row[3] for row in rows] == 2 * ["MarianMTModel.generate", "MarianMTModel.generate, batches of 3"]
    assert all(float(row[2].replace(",", "")) > 0 and float(row[4].replace(",", "")) > 0 for row in rows)
