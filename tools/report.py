"""Report on a run: prints it, and writes ``report.md`` into the run directory.

python tools/report.py run=runs/quickstart
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import sys
from dataclasses import dataclass
from pathlib import Path

from xlmtrain.config.load import arguments, user_errors
from xlmtrain.data.corpus import Dataset
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.evaluate.recovery import Recovery, recover_words
from xlmtrain.evaluate.report import report
from xlmtrain.export.api import load
from xlmtrain.runtime.files import read_json


@dataclass
class ReportOptions:
    """The settings of this tool."""

    run: str = "???"
    """Run directory."""

    hidden: str = "de"
    """Language whose words are hidden."""

    words: int = 200
    """How many."""

    def __post_init__(self) -> None:
        if self.words < 1:
            raise ConfigError(f"words: {self.words} is less than 1")


def main(argv: list[str]) -> None:
    """Hide ``words`` words of the language ``hidden`` in the validation pairs, and report."""
    options, others = arguments(ReportOptions, argv)
    if others:
        raise ConfigError(f"not understood: {' '.join(others)}")
    run, model = Path(options.run), load(options.run)
    if options.hidden not in model.languages:
        raise ConfigError(f"hidden={options.hidden}: the model knows {', '.join(model.languages)}")
    data = read_json(run / "config.json")["data"]
    recovered: list[Recovery] = []
    for pair in data["tlm"]:
        dataset = Dataset(data["path"])
        if dataset.fingerprint != read_json(run / "dataset.json").get("fingerprint"):
            raise DataError(f"{data['path']}: this is no longer the data that {run} was trained on")
        if options.hidden in pair.split("-") and dataset.has(f"valid.{pair}.{options.hidden}"):
            recovered += recover_words(model.model, dataset, "valid", pair, options.hidden, options.words)
    text = report(run, recovered)
    (run / "report.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
