"""Rows of the table of ours and peers."""

from __future__ import annotations

import pytest

from benchmarks.comparison import Comparison, print_comparisons


def rows(printed: str) -> list[list[str]]:
    """Return the cells of each row of a table in Markdown, without its head."""
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def test_a_row_has_medians_and_ratios_of_the_same_round(capsys: pytest.CaptureFixture[str]) -> None:
    """The machine is ten times slower in the last round, for both: the ratio does not change."""
    made = [
        Comparison("walk", "miles", [4000.0, 5000.0, 400.0], "snail", [2000.0, 2000.0, 200.0]),
        Comparison("carry", "tons", [12.5], "ant", [0.0512]),
    ]
    print_comparisons(made)
    assert rows(capsys.readouterr().out) == [
        ["walk", "miles", "4,000", "snail", "2,000", "2.00 (2.00 to 2.50)"],
        ["carry", "tons", "12.5", "ant", "0.0512", "244.14 (244.14 to 244.14)"],
    ]


def test_a_row_is_printed_before_the_next_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    def measured() -> object:
        yield Comparison("walk", "miles", [4.0], "snail", [2.0])
        assert "| walk |" in capsys.readouterr().out
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        print_comparisons(measured())  # type: ignore[arg-type]


def test_both_must_have_as_many_rounds() -> None:
    with pytest.raises(ValueError, match="zip"):
        assert Comparison("walk", "miles", [1.0, 2.0], "snail", [1.0]).ratio
