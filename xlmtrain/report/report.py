"""The report of one run, or of several side by side: one HTML page, its charts, and a summary for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from xlmtrain import __version__
from xlmtrain.metrics.table import format_table
from xlmtrain.report import sections
from xlmtrain.report.examples import cloze_examples, translations
from xlmtrain.report.html import Block, Html, Section, Table, page
from xlmtrain.report.model_views import Views
from xlmtrain.report.run_data import RunData


def report_page(runs: Sequence[tuple[RunData, Views]]) -> str:
    """Return the report of one run or of several as an HTML document."""
    return page(f"xlmtrain: {_names(runs)}", report_blocks(runs))


def report_blocks(runs: Sequence[tuple[RunData, Views]]) -> list[Block]:
    """Return the parts of the page."""
    over_tokens = [sections.curves([run for run, _ in runs]), *sections.retrieval(runs)]
    if len(runs) == 1:
        body: list[Block] = [*sections.status(*runs[0]), *over_tokens, *sections.model_sections(*runs[0])]
    else:
        body = [*sections.comparison(runs), *over_tokens]
        for run in runs:
            inner = [*sections.status(*run), *sections.model_sections(*run)]
            body.append(Section(run[0].name, inner, folded=True))
    return [Html(f"<h1>{escape(_names(runs))}</h1>"), *body, Html(f"<footer>xlmtrain {__version__}</footer>")]


def summary(run: RunData, views: Views) -> str:
    """Return the run, its evaluations, some predictions and translations as Markdown."""
    versions = f"torch {run.environment['torch']}, Python {run.environment['python']}"
    lines = [f"# {run.name}", "", f"{sections.place(run)}, {versions}."]
    lines += [", ".join(f"{value} {label}" for label, value in sections.totals(run)) + "."] if run.last else []
    for section in [*sections.validation(run), *cloze_examples(views.cloze, shown=8), *translations(run)]:
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
