"""Tables in their three styles."""

from __future__ import annotations

from xlmtrain.metrics.table import decimals, format_table

ROWS = [("a|<b>", "1", "x"), ("c", "1,000", "yy")]
HEADER = ("name", "count", "note")


def test_plain_text() -> None:
    assert format_table(ROWS, HEADER, left=(0, 2), rules=(1,)).splitlines() == [
        "name   count  note",
        "------------------",
        "a|<b>      1  x",
        "------------------",
        "c      1,000  yy",
    ]


def test_markdown() -> None:
    assert format_table(ROWS, HEADER, "markdown", left=(0, 2)).splitlines() == [
        "| name | count | note |",
        "| --- | ---: | --- |",
        "| a\\|&lt;b> | 1 | x |",
        "| c | 1,000 | yy |",
    ]


def test_html() -> None:
    assert format_table(ROWS[:1], HEADER, "html", left=(0, 2)) == (
        "<table><thead><tr><th>name</th><th class=n>count</th><th>note</th></tr></thead>"
        "<tbody><tr><td>a|&lt;b&gt;</td><td class=n>1</td><td>x</td></tr></tbody></table>"
    )


def test_without_rows() -> None:
    assert format_table([], HEADER).splitlines() == ["name  count  note", "-----------------"]


def test_a_perplexity_that_ran_away_is_short() -> None:
    assert [decimals(value) for value in (17.004, 999_999.0, 1.01e304)] == ["17.00", "999999.00", "1.0e+304"]
    assert [decimals(value, 4) for value in (17.004, 1.01e304)] == ["17.0040", "1.0e+304"]
