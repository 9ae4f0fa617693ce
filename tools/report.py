"""Report on runs: one HTML file that needs no network, and a summary on the terminal.

python tools/report.py run=runs/quickstart                              runs/quickstart/report.html
python tools/report.py run=runs/a run=runs/b output=comparison.html     several side by side
python tools/report.py run=runs/quickstart images=pictures              its pictures as PNG files, too
python tools/report.py run=runs/mine reference=configs/reference/mine.json      its curves for later runs' reports
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import sys
from dataclasses import dataclass, field
from pathlib import Path

from xlmtrain.config.load import parse_args, user_errors
from xlmtrain.diagnostics.baseline import is_reference
from xlmtrain.errors import ConfigError
from xlmtrain.report.curves import reference_of
from xlmtrain.report.images import write_images
from xlmtrain.report.page import is_report
from xlmtrain.report.record import RunRecord
from xlmtrain.report.report import report
from xlmtrain.report.summary import summary
from xlmtrain.report.views import view
from xlmtrain.runtime.output_paths import replace_file


@dataclass
class ReportOptions:
    """The settings of this tool."""

    run: list[str] = field(default_factory=list)
    """Run directory; given several times, the runs are compared."""

    output: str | None = None
    """HTML file to write; null: report.html in the (first) run directory."""

    images: str | None = None
    """Directory for the report's pictures as PNG files; null: none. Needs ``pip install resvg_py``."""

    reference: str | None = None
    """JSON file for the run's curves; null: none. In ``configs/reference``, what later runs of the same preset, or of
    yours in ``configs/experiment``, are drawn beside and, on the same text, judged by."""

    hidden: str = "de"
    """Language whose words are hidden."""

    words: int = 200
    """How many."""

    def __post_init__(self) -> None:
        if not self.run:
            raise ConfigError("run=: which run directory?")
        if self.words < 1:
            raise ConfigError(f"words: {self.words} is less than 1")
        if self.reference and len(self.run) > 1:
            raise ConfigError("reference=: of one run, and several are given")


def main(argv: list[str]) -> None:
    """Hide ``words`` words of the language ``hidden`` in the validation pairs, look at the rest, and report."""
    options, others = parse_args(ReportOptions, argv)
    if others:
        raise ConfigError(f"not understood: {' '.join(others)}")
    records = [RunRecord(Path(run)) for run in options.run]
    runs = [(record, view(record, options.hidden, options.words)) for record in records]
    text = report(runs)
    for record, views in runs:
        print(summary(record.path, views.recovered))
    own = records[0].path / "report.html"
    output = Path(options.output) if options.output is not None else own
    replace_file("output", output, text, lambda old: output == own or is_report(old))
    print(f"report: {output}")
    if options.images:
        for path in write_images(text, Path(options.images)):
            print(f"picture: {path}")
    if options.reference:
        replace_file("reference", Path(options.reference), reference_of(records[0]).as_json(), is_reference)
        print(f"reference: {options.reference}")


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
