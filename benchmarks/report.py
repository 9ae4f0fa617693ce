"""Table of a suite in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COLUMNS = ("", "tokens/s", "ms per step", "ratio", "of the ceiling", "memory", "loss")


def table(title: str, summaries: Mapping[str, dict[str, Any]], failures: Mapping[str, str]) -> str:
    """Return one row per system in ``summaries``, then a line per failure."""
    lines = [f"## {title}", "", f"| {' | '.join(_COLUMNS)} |", f"| --- {'| ---: ' * (len(_COLUMNS) - 1)}|"]
    lines += [_row(name, summary) for name, summary in summaries.items()]
    lines += [f"\n{name} failed: {reason}" for name, reason in failures.items()]
    return "\n".join(lines) + "\n"


def _row(name: str, summary: dict[str, Any]) -> str:
    cells = (
        name,
        f"{summary['tokens_per_second']:,.0f}",
        f"{1e3 * summary['seconds_per_step']:.1f}",
        f"{summary['ratio']:.2f} ({summary['ratio_min']:.2f} to {summary['ratio_max']:.2f})",
        f"{summary['flops_share']:.1%}",
        f"{summary['peak_mb']:,.0f} MB",
        f"{summary['loss']:.4f}",
    )
    return f"| {' | '.join(cells)} |"
