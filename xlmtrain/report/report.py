"""The report of one run, or of several side by side, as one HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from xlmtrain import __version__
from xlmtrain.report import sections
from xlmtrain.report.curves import charts, reference_note
from xlmtrain.report.page import folded, grid, page, paragraph, section
from xlmtrain.report.record import RunRecord
from xlmtrain.report.views import Views

_PLACES = ("run", "data.path")


def report(runs: Sequence[tuple[RunRecord, Views]]) -> str:
    """The document."""
    names = ", ".join(run.name for run, _ in runs)
    return page(f"xlmtrain: {names}", _one(*runs[0]) if len(runs) == 1 else _several(runs))


def _one(run: RunRecord, views: Views) -> Iterator[str]:
    yield f"<h1>{escape(run.name)}</h1>"
    yield sections.summary(run, views)
    yield sections.findings(run)
    note = reference_note(run)
    yield section("Curves", paragraph(note) if note else "", grid(charts([run])))
    yield sections.retrieval([(run, views)])
    yield from sections.ordered(run, views)
    yield _footer()


def _several(runs: Sequence[tuple[RunRecord, Views]]) -> Iterator[str]:
    yield f"<h1>{escape(', '.join(run.name for run, _ in runs))}</h1>"
    yield sections.comparison(runs, _differing([run for run, _ in runs]))
    yield section("Curves", grid(charts([run for run, _ in runs])))
    yield sections.retrieval(runs)
    for run, views in runs:
        inner = [sections.summary(run, views), sections.findings(run)]
        inner += sections.ordered(run, views)
        yield f'<div class="run">{folded(run.name, "".join(inner))}</div>'
    yield _footer()


def _differing(runs: Sequence[RunRecord]) -> Iterator[tuple[str, ...]]:
    """(setting, its value in each run) where they are not all the same."""
    for key in dict.fromkeys(key for run in runs for key in run.settings):
        values = [str(run.settings.get(key)) for run in runs]
        if key not in _PLACES and len(set(values)) > 1:
            yield (key, *values)


def _footer() -> str:
    return f"<footer>xlmtrain {__version__}</footer>"
