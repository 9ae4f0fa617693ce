"""Tiers, and the table at the end: see fault_table.py.

By default a quick selection runs, with ``-m slow`` more, with ``-m faults`` all of it, as ``make test-faults`` does.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fault_table import Record, Tries, breaks, markdown, write_table

BEGUN = time.time()
_records: dict[int, Record] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--fault-table=FILE``: where the table is written to."""
    parser.addoption("--fault-table", help="write the table of faults to this file")


def _tier(config: pytest.Config) -> str:
    return {"slow": "slow", "faults": "full"}.get(config.option.markexpr, "quick")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test of a row is selected in the tiers for which it says how often it tries."""
    tier = _tier(config)
    for item in items:
        row = item.get_closest_marker("row")
        if row is None or not Path(item.path).is_relative_to(Path(__file__).parent):
            continue
        if tier == "full" or tier not in row.kwargs:
            item.add_marker("faults")
        elif tier == "slow":
            item.add_marker("slow")


@pytest.fixture
def tries(request: pytest.FixtureRequest) -> Tries:
    """The counter of this test's row, and how often to try in this tier."""
    row = request.node.get_closest_marker("row")
    return Tries(_records.setdefault(row.args[0], Record()), row.kwargs[_tier(request.config)])


@pytest.fixture
def xlmtrain_log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the package logs, as ``caplog``."""
    caplog.set_level(logging.INFO, "xlmtrain")
    logging.getLogger("xlmtrain").propagate = True
    return caplog


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    counter = pyfuncitem.funcargs.get("tries")
    try:
        result = yield
    except BaseException as error:
        if isinstance(counter, Tries):
            counter.finish(error)
        raise
    if isinstance(counter, Tries):
        counter.finish(None)
    return result


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table where all of it was tried, write it where that is asked for."""
    path = config.getoption("--fault-table", None)
    if _tier(config) != "full" or not _records:
        return
    lines = markdown(_records, every=path is not None)
    terminalreporter.section("faults")
    for line in lines:
        terminalreporter.write_line(line)
    if path:
        write_table(Path(path), [*_preface(), *lines, "", *_afterword(), *breaks()])


def _preface() -> list[str]:
    minutes = (time.time() - BEGUN) / 60
    return [
        "# What a run survives",
        "",
        "Written by `make test-faults`, which runs one or more tests for each row; all seeds are fixed.",
        f"This run took {minutes:.0f} minutes on {os.cpu_count()} shared cores ({platform.machine()}, Python "
        f"{platform.python_version()}); the load average was {os.getloadavg()[2]:.1f}.",
        '"Identical" means one SHA-256 over weights, optimizer state, loss scale, progress, and the records of (step,',
        "ids of the batch, loss): that of the run that was never disturbed.",
        "",
    ]


def _afterword() -> list[str]:
    return [
        "Rows 32 to 40, on text and its preparation, are in `data_faults.md`. What is not shown: a process that the",
        "system has stopped (row 9) cannot say where it stands, only the others do; row 50 lasts minutes, not hours,",
        "and loses no power, as row 3 does.",
        "",
        "Each row's test was seen to fail when the product was broken on purpose:",
        "",
    ]
