"""Report on a run: prints it, and writes ``report.md`` into the run directory.

python tools/report.py run=runs/quickstart
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from xlmtrain.config.load import arguments, user_errors
from xlmtrain.data.corpus import Dataset
from xlmtrain.evaluate.recovery import Recovery, recover_words
from xlmtrain.evaluate.report import report
from xlmtrain.export.api import load


@dataclass
class ReportOptions:
    """The settings of this tool."""

    run: str = "???"
    hidden: str = "de"
    words: int = 200


def main(argv: list[str]) -> None:
    """Hide ``words`` words of the language ``hidden`` in the validation pairs, and report."""
    options, _ = arguments(ReportOptions, argv)
    run, model = Path(options.run), load(options.run)
    data = json.loads((run / "config.json").read_text(encoding="utf-8"))["data"]
    dataset = Dataset(data["path"])
    recovered: list[Recovery] = []
    for pair in data["tlm"]:
        if options.hidden in pair.split("-") and dataset.has(f"valid.{pair}.{options.hidden}"):
            recovered += recover_words(model.model, dataset, "valid", pair, options.hidden, options.words)
    text = report(run, recovered)
    (run / "report.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
