"""A run in a page of Markdown, for the terminal: what it was, how it went, what it predicts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xlmtrain.errors import CheckpointError
from xlmtrain.evaluate.cloze import ClozeExample
from xlmtrain.metrics.loggers import read_records
from xlmtrain.metrics.timer import duration
from xlmtrain.runtime.atomic_io import read_json


def summary(run: Path, recovered: list[ClozeExample], shown: int = 8) -> str:
    """The summary of the run directory ``run``; ``recovered``: words that were hidden in its validation pairs."""
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise CheckpointError(f"{path}: missing; is this a run directory?")
    records = read_records(path)
    lines = [*_summary(run, records), "", *_validation(records)]
    if recovered:
        lines += ["", *_recovery(recovered, shown)]
    return "\n".join(lines) + "\n"


def _summary(run: Path, records: list[dict[str, Any]]) -> Iterator[str]:
    environment = read_json(run / "environment.json")
    steps = [record for record in records if "train/loss" in record]
    yield f"# {run.name}"
    yield ""
    yield (
        f"{environment['processes']} process(es) on {environment['device']}, torch {environment['torch']}, "
        f"Python {environment['python']}."
    )
    if steps:
        last = steps[-1]
        seconds = last["progress/seconds"]
        yield (
            f"{last['step']:,} steps, {last['progress/tokens']:,} tokens in {duration(seconds)} of training "
            f"({last['progress/tokens'] / max(seconds, 1e-9):,.0f} tokens/s), "
            f"peak memory {max(record['speed/peak_memory_gb'] for record in steps):.2f} GB a process."
        )


def _validation(records: list[dict[str, Any]]) -> Iterator[str]:
    """Perplexity and accuracy of each set at every evaluation, oldest first."""
    evaluations = [record for record in records if any(key.startswith("valid/") for key in record)]
    if not evaluations:
        return
    names = [key.removesuffix("_ppl") for key in evaluations[0] if key.startswith("valid/") and key.endswith("_ppl")]
    names = [name for name in names if not name.endswith(("_cloze_mono", "_cloze_parallel"))]  # their means are enough
    yield "## Validation: perplexity (accuracy in %)"
    yield ""
    yield "| step | " + " | ".join(name.removeprefix("valid/") for name in names) + " |"
    yield "| ---: |" + " ---: |" * len(names)
    for record in evaluations:
        figures = [f"{record[f'{name}_ppl']:.2f} ({record[f'{name}_acc']:.1f})" for name in names]
        yield f"| {record['step']} | " + " | ".join(figures) + " |"


def _recovery(recovered: list[ClozeExample], shown: int) -> Iterator[str]:
    total = len(recovered)
    alone = sum(item.mono == item.gold for item in recovered)
    together = sum(item.parallel == item.gold for item in recovered)
    yield "## A hidden word and its translation"
    yield ""
    yield (
        f"One word was hidden in each of {total} validation sentences. The model's first guess was right "
        f"{together} times ({together / total:.1%}) with the translation in view, {alone} times ({alone / total:.1%}) "
        "without. Some that only the translation gave away come first."
    )
    yield ""
    yield "| sentence | translation | hidden | guess without | guess with |"
    yield "| --- | --- | --- | --- | --- |"
    given_away = [item for item in recovered if item.parallel == item.gold != item.mono]
    others = [item for item in recovered if item not in given_away]
    for item in [*given_away[: shown // 2], *others][:shown]:
        cells = (item.sentence, item.translation, item.gold, item.mono, item.parallel)
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"
