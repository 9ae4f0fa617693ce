"""The check for machines with a GPU, rehearsed without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu_check import VARIANTS, Check, compare
from tests.support import programs
from xlmtrain.config.train import Device, Precision


@pytest.mark.slow
def test_rehearsal(tmp_path: Path) -> None:
    """Every part, its results on the disk, and the table at the end; on a CPU the gpu tests skip themselves."""
    found = programs.run(
        "-m", "benchmarks.gpu_check", "device=cpu", f"output={tmp_path / 'out'}", timeout=600, code=None
    )
    results = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert found.returncode == 0, found.stdout
    assert {*VARIANTS, "tests", "teardown-raise", "teardown-kill", "speed-tiny"} <= {one["part"] for one in results}
    assert all(one["passed"] for one in results)
    table = found.stdout[found.stdout.rindex("part ") :]
    assert all(one["part"] in table for one in results)


def test_a_part_that_fails_or_hangs_costs_no_other_result(tmp_path: Path) -> None:
    check = Check(tmp_path, Device.cpu)
    check.run("wrong", 60, "-c", "print('x'); raise SystemExit(3)", judge=lambda code, _: (code == 0, f"code {code}"))
    hang = "import threading; print('y', flush=True); threading.Event().wait()"
    assert check.run("hangs", 5, "-c", hang, judge=lambda code, _: (True, "")) == "y\n"
    check.run("unreadable", 60, "-c", "", judge=lambda _, output: (True, output.splitlines()[-1]))
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [(one["part"], one["passed"]) for one in lines] == [
        ("wrong", False),
        ("hangs", False),
        ("unreadable", False),
    ]
    assert [one["value"][:10] for one in lines] == ["code 3", "ended afte", "exit code "]
    assert (tmp_path / "wrong.log").read_text() == "x\n"


def test_losses_are_compared_with_the_cpus() -> None:
    assert compare("fp32", Precision.fp32, [2.0, 1.0], [2.0, 1.0005]).passed
    assert not compare("fp32", Precision.fp32, [2.0, 1.0], [2.0, 1.01]).passed
    assert compare("bf16", Precision.bf16, [2.0, 1.0], [2.0, 1.01]).passed
    assert compare("bf16", Precision.bf16, "RuntimeError: x", [2.0]).value == "RuntimeError: x"
