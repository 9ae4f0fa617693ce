"""Two tiers of the same properties: a few fixed inputs by default, random ones for half an hour by ``make fuzz``."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.fault_table import write_section
from tests.support.fuzzing import RECORDS, limited_address_space

BEGUN = time.monotonic()
_COMMON: dict[str, Any] = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("quick", max_examples=8, derandomize=True, **_COMMON)
settings.register_profile("fuzz", max_examples=50, print_blob=True, **_COMMON)
settings.load_profile("quick")  # pytest loads another one afterwards, if --hypothesis-profile names it


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--fuzz-minutes``: of all properties together; ``--fuzz-table=FILE``: where the counts are written to."""
    parser.addoption("--fuzz-minutes", type=float, default=0.0, help="repeat each property for its share of these")
    parser.addoption("--fuzz-table", help="write the counts of inputs to this file")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Repeat a property with other random inputs until its share of the time is over."""
    minutes = pyfuncitem.config.getoption("--fuzz-minutes", 0.0)
    if not minutes or not hasattr(pyfuncitem.obj, "hypothesis"):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    properties = sum(hasattr(getattr(item, "obj", None), "hypothesis") for item in pyfuncitem.session.items)
    end = time.monotonic() + 60 * minutes / properties
    while time.monotonic() < end:
        pyfuncitem.obj(**arguments)
    return True


@pytest.fixture(autouse=True)
def _bounds() -> Iterator[None]:
    """Limit the address space, and drop the log: a long run has a warning for most inputs."""
    logging.disable(logging.WARNING)
    with limited_address_space():
        yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for the inputs of a module."""
    return tmp_path_factory.mktemp("fuzz").resolve()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the counts after a long run, and write them where that is asked for."""
    minutes = config.getoption("--fuzz-minutes", 0.0)
    if not minutes or not RECORDS:
        return
    lines = ["| reader | inputs | accepted |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {one.inputs:,} | {one.accepted:,} |" for name, one in sorted(RECORDS.items())]
    total = [sum(values) for values in zip(*((record.inputs, record.accepted) for record in RECORDS.values()))]
    lines.append(f"| **all** | **{total[0]:,}** | **{total[1]:,}** |")
    terminalreporter.section("fuzz")
    for line in lines:
        terminalreporter.write_line(line)
    if path := config.getoption("--fuzz-table", None):
        failed = len(terminalreporter.stats.get("failed", []))
        write_section(Path(path), [*_preface(failed), *lines])


def _preface(failed: int) -> list[str]:
    minutes = (time.monotonic() - BEGUN) / 60
    return [
        f"Written by `make fuzz`, this time in {minutes:.0f} minutes; properties that failed: {failed}.",
        "An input is a valid file with bits flipped, spans cut, inserted or doubled, values of another type, huge",
        "numbers, deep nesting, or free-form bytes. A reader accepts it or raises an error of its own, with bounded",
        "time and memory, and writes nothing outside its output. The properties are in `tests/fuzz`.",
        "",
    ]
