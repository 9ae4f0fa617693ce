"""The report of one run, or of several side by side: one HTML page, its charts, and a summary for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from xlmtrain import __version__
from xlmtrain.metrics.table import format_table
from xlmtrain.report import sections
from xlmtrain.report.html import Block, Fold, Html, Section, Table, page
from xlmtrain.report.model_views import Views
from xlmtrain.report.run_data import RunData

_PLACES = ("run", "data.path")


def report_page(runs: Sequence[tuple[RunData, Views]]) -> str:
    """Return the report of one run or of several as an HTML document."""
    return page(f"xlmtrain: {_names(runs)}", report_blocks(runs))


def report_blocks(runs: Sequence[tuple[RunData, Views]]) -> list[Block]:
    """Return the parts of the page."""
    body = _one(*runs[0]) if len(runs) == 1 else _several(runs)
    return [Html(f"<h1>{escape(_names(runs))}</h1>"), *body, Html(f"<footer>xlmtrain {__version__}</footer>")]


def summary(run: RunData, views: Views) -> str:
    """Return the run, its evaluations and some predictions as Markdown."""
    environment = run.environment
    where = f"{environment['processes']} process(es) on {environment['device']}"
    lines = [f"# {run.name}", "", f"{where}, torch {environment['torch']}, Python {environment['python']}."]
    lines += [", ".join(f"{value} {label}" for label, value in sections.totals(run)) + "."] if run.last else []
    for section in [*sections.validation(run), *sections.cloze(views.cloze, shown=8)]:
        lines += ["", *_markdown(section)]
    return "\n".join(lines) + "\n"


def _markdown(section: Section) -> Iterator[str]:
    yield f"## {section.title}"
    for block in section.blocks:
        yield ""
        if isinstance(block, Table):
            yield format_table(block.rows, block.header, "markdown", block.left)
        else:
            yield str(block)


def _names(runs: Sequence[tuple[RunData, Views]]) -> str:
    return ", ".join(run.name for run, _ in runs)


def _one(run: RunData, views: Views) -> Iterator[Block]:
    yield from sections.overview(run, views)
    yield sections.findings(run)
    yield sections.curves([run])
    yield from sections.retrieval([(run, views)])
    yield from sections.model_sections(run, views)


def _several(runs: Sequence[tuple[RunData, Views]]) -> Iterator[Block]:
    records = [run for run, _ in runs]
    yield from sections.comparison(runs, list(_differing(records)))
    yield sections.curves(records)
    yield from sections.retrieval(runs)
    for run, views in runs:
        inner = [*sections.overview(run, views), sections.findings(run), *sections.model_sections(run, views)]
        yield Fold(run.name, inner)


def _differing(runs: Sequence[RunData]) -> Iterator[tuple[str, ...]]:
    """Yield (setting, its value in each run) where they are not all the same."""
    for key in dict.fromkeys(key for run in runs for key in run.settings):
        values = [str(run.settings.get(key)) for run in runs]
        if key not in _PLACES and len(set(values)) > 1:
            yield (key, *values)
