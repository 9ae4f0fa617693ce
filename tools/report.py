"""Report on runs: one HTML file that needs no network, and a summary on the terminal.

python tools/report.py run=runs/quickstart                              runs/quickstart/report.html
python tools/report.py run=runs/a run=runs/b output=comparison.html     several side by side
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import sys
from dataclasses import dataclass, field
from pathlib import Path

from xlmtrain.config.load import arguments, user_errors
from xlmtrain.errors import ConfigError
from xlmtrain.report.record import RunRecord
from xlmtrain.report.report import report
from xlmtrain.report.summary import summary
from xlmtrain.report.views import view


@dataclass
class ReportOptions:
    """The settings of this tool."""

    run: list[str] = field(default_factory=list)
    """Run directory; given several times, the runs are compared."""

    output: str | None = None
    """HTML file to write; null: report.html in the (first) run directory."""

    hidden: str = "de"
    """Language whose words are hidden."""

    words: int = 200
    """How many."""

    def __post_init__(self) -> None:
        if not self.run:
            raise ConfigError("run=: which run directory?")
        if self.words < 1:
            raise ConfigError(f"words: {self.words} is less than 1")


def main(argv: list[str]) -> None:
    """Hide ``words`` words of the language ``hidden`` in the validation pairs, look at the rest, and report."""
    options, others = arguments(ReportOptions, argv)
    if others:
        raise ConfigError(f"not understood: {' '.join(others)}")
    records = [RunRecord(Path(run)) for run in options.run]
    runs = [(record, view(record, options.hidden, options.words)) for record in records]
    text = report(runs)
    for record, views in runs:
        print(summary(record.path, views.recovered))
    output = Path(options.output) if options.output else records[0].path / "report.html"
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"output={output}: cannot be written ({error.strerror})") from None
    print(f"report: {output}")


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
