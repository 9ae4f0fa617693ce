"""The profile of a step names its operations and accounts for all of its time."""

from __future__ import annotations

import pytest

from benchmarks import profile
from xlmtrain.errors import ConfigError


@pytest.mark.parametrize("system", ["ours-fp32", "plain-mt-fp32"])
def test_shares_of_a_step_sum_to_one(system: str, capsys: pytest.CaptureFixture[str]) -> None:
    profile.main(["suite=mt-tiny", f"system={system}", "steps=1", "rows=500"])  # all: any may be slow on a busy machine
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    assert {"| mm", "| addmm", "| all else"} <= {line[0] for line in lines}
    shares = [float(line[1].rstrip("%")) for line in lines]
    assert sum(shares) == pytest.approx(100, abs=5)  # they are rounded
    assert shares[:-1] == sorted(shares[:-1], reverse=True)
    assert min(shares) >= 0


@pytest.mark.parametrize("argument", ["suite=marathon", "system=megatron", "steps=0"])
def test_wrong_arguments_are_refused(argument: str) -> None:
    with pytest.raises(ConfigError, match=argument.partition("=")[0]):
        profile.main([argument])
