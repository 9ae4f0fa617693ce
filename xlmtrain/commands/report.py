"""Report on runs: one HTML file that needs no network, and a summary on the terminal.

xlmtrain report run=runs/quickstart                              runs/quickstart/report.html
xlmtrain report run=runs/a run=runs/b output=comparison.html     several side by side
xlmtrain report run=runs/quickstart images=pictures              its charts as PNG files, too
xlmtrain report run=runs/mine reference=configs/reference/mine.json      its curves for later runs' reports

Charts need matplotlib: pip install 'xlmtrain[report]'
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from xlmtrain.config.load import parse_options
from xlmtrain.config.validate import ABOVE_ZERO, CheckedSettings, ranged
from xlmtrain.diagnostics.baseline import is_reference
from xlmtrain.report.charts import INSTALL, can_draw, write_pngs
from xlmtrain.report.curves import reference_of
from xlmtrain.report.html import charts_in, is_report
from xlmtrain.report.model_views import view
from xlmtrain.report.report import report_blocks, report_page, summary
from xlmtrain.report.run_data import RunData
from xlmtrain.runtime.output_paths import check_file, replace_file


@dataclass
class ReportOptions(CheckedSettings):
    """The settings of this command."""

    run: list[str] = field(default_factory=list)
    """Run directory; given several times, the runs are compared."""

    output: str | None = None
    """HTML file to write; null: report.html in the (first) run directory."""

    images: str | None = None
    """Directory for the report's charts as PNG files; null: none."""

    reference: str | None = None
    """JSON file for the run's curves; null: none. In ``configs/reference``, later runs of the same preset are drawn
    beside it and, on the same text, compared to it."""

    cloze_lang: str = "de"
    """Language whose words are masked."""

    words: int = ranged(200, ABOVE_ZERO)
    """Number of words to mask."""

    def problems(self) -> Iterator[str]:
        if not self.run:
            yield "run: no run directory is given"
        if self.reference and len(self.run) > 1:
            yield "reference: of one run, and several are given"
        if self.images and not can_draw():
            yield f"images: {INSTALL}"


def main(argv: list[str]) -> None:
    """Mask ``words`` words of the language ``cloze_lang`` in the validation pairs, run the other views, and report."""
    options = parse_options(ReportOptions, argv)
    loaded = [RunData(Path(run)) for run in options.run]
    output = options.output if options.output is not None else loaded[0].path / "report.html"
    check_file("output", output, is_report)  # before the views, which take longer
    runs = [(run, view(run, options.cloze_lang, options.words)) for run in loaded]
    text = report_page(runs)
    replace_file("output", output, text, is_report)
    for run, views in runs:
        print(summary(run, views))
    print(f"report: {output}")
    if options.images:
        for path in write_pngs(list(charts_in(report_blocks(runs))), Path(options.images)):
            print(f"picture: {path}")
    if options.reference:
        replace_file("reference", options.reference, reference_of(loaded[0]).as_json(), is_reference)
        print(f"reference: {options.reference}")
