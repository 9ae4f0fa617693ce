"""Figures of heats as a page of Markdown."""

from __future__ import annotations

from itertools import groupby
from typing import Any

Result = dict[str, Any]

_COLUMNS = (
    "",
    "tokens/s",
    "ms a step",
    "ratio",
    "of the ceiling",
    "forward, backward, optimizer, other",
    "waits a step",
    "data wait",
    "memory",
    "loss",
)
_HEAD = f"| {' | '.join(_COLUMNS)} |\n| --- {'| ---: ' * (len(_COLUMNS) - 1)}|"


def page(results: list[Result], around: Result) -> str:
    """A table for each heat, who failed below it; then everybody at his best batch."""
    parts = [
        f"{around['device']}, torch {around['torch']}, CUDA {around['cuda']}, transformers {around['transformers']}, "
        f"accelerate {around['accelerate']}, commit {around['commit']}; {around['minutes']:.1f} minutes.\n\n"
        "Ratio: to the first one, median of the rounds, least and most. Ceiling: of a large matrix product in the same "
        "precision. Waits: times that the host waits for the GPU, by the profiler and by torch's warnings. Loss: mean "
        "of the last quarter of the steps."
    ]
    for title, group in groupby(results, key=lambda result: result["heat"]):
        parts.append("\n".join([f"## {title}\n", *_table(list(group))]))
    best = _best([result for result in results if "failure" not in result])
    if best:
        parts.append("\n".join(["## Everybody at his best batch\n", *best]))
    return "\n\n".join(parts) + "\n"


def _table(results: list[Result]) -> list[str]:
    able = [result for result in results if "failure" not in result]
    lines = []
    if able:
        ceilings = {f"{_ceiling(result) / 1e12:,.1f}" for result in able}
        lines += [f"Ceiling: {', '.join(sorted(ceilings))} TFLOP/s.\n", _HEAD, *(_row(result) for result in able)]
    for result in able:
        if result["checkpoint"]:
            saving = result["checkpoint"]
            lines.append(
                f"\n{_label(result)}: a checkpoint of {saving['megabytes']:,.0f} MB stops training for "
                f"{saving['stall']:.2f} s, {saving['stalled']:.2%} of ten minutes ({saving['first_stall']:.2f} s the "
                f"first time), and is on the disk after {saving['wall']:.1f} s."
            )
    lines += [f"\n{_label(result)} failed: {result['failure']}" for result in results if "failure" in result]
    return lines


def _row(result: Result) -> str:
    shares, syncs = result["shares"], result["syncs"] or {}
    parts = ", ".join(f"{shares[part]:.0%}" for part in ("forward", "backward", "optimizer", "other"))
    waits = " / ".join("?" if count is None else f"{count:.1f}" for count in syncs.values())
    return (
        f"| {_label(result)} | {_speed(result):,.0f} | {1e3 * result['seconds_per_step']:.1f} "
        f"| {result['ratio']:.2f} ({result['ratio_least']:.2f} to {result['ratio_most']:.2f}) "
        f"| {result['useful_flops_of_ceiling']:.1%} | {parts} | {waits} | {result['data_wait']:.2%} "
        f"| {result['peak_mb']:,.0f} MB | {result['late_loss']:.4f} |"
    )


def _best(results: list[Result]) -> list[str]:
    """Of each model, every contender with the batch at which he is fastest, and ours against the others."""
    lines = []
    for model in dict.fromkeys(_model(result) for result in results):
        best: dict[str, Result] = {}
        for result in results:
            if _model(result) == model:
                best[result["contender"]] = max(best.get(result["contender"], result), result, key=_speed)
        lines += [f"- {model}: " + "; ".join(f"{_label(result)} {_speed(result):,.0f}" for result in best.values())]
        for mine in (result for name, result in best.items() if name.startswith("ours")):
            ratios = [
                f"{_speed(mine) / _speed(other):.2f} x {name}"
                for name, other in best.items()
                if not name.startswith("ours")
            ]
            if ratios:
                lines.append(f"  - {mine['contender']}: {', '.join(ratios)}")
    return lines


def _label(result: Result) -> str:
    return f"{result['contender']}@{result['shape']}"


def _model(result: Result) -> str:
    return f"{result['layers']} x {result['dim']}, vocabulary {result['vocab_size']:,}"


def _speed(result: Result) -> float:
    return next(result[key] for key in ("tokens_per_second", "tokens_per_cpu_second") if key in result)


def _ceiling(result: Result) -> float:
    return next(result[key] for key in ("ceiling_flops_per_second", "ceiling_flops_per_cpu_second") if key in result)
