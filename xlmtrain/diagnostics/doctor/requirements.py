"""Python and the packages that ``setup.cfg`` asks for; nothing here needs one of them."""

from __future__ import annotations

import configparser
import importlib.metadata
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

SETUP = Path(__file__).resolve().parents[3] / "setup.cfg"


def installed_version(name: str) -> str | None:
    """The version of an installed package, None without it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def package_problems(
    setup: Path = SETUP,
    installed: Callable[[str], str | None] = installed_version,
    python: Sequence[int] = sys.version_info[:2],
) -> Iterator[str]:
    """What is missing, too old or too new, in a sentence each. ``setup``: the file that says what is wanted."""
    parser = configparser.ConfigParser()
    parser.read(setup, encoding="utf-8")
    wanted = parser["options"]
    spec = wanted["python_requires"].strip()
    if not _meets(".".join(map(str, python)), spec):
        yield f"Python {'.'.join(map(str, python))} is not {spec}: make the environment anew, make PYTHON=python3.11"
    for line in wanted["install_requires"].split("\n"):
        match = re.fullmatch(r"([A-Za-z0-9_-]+)(.*)", line.strip())
        if not match:
            continue
        name, spec = match.groups()
        version = installed(name)
        if version is None:
            yield f"{name} is not installed: run the program with .venv/bin/python, which make makes"
        elif not _meets(version, spec):
            yield f"{name} {version} is installed, {spec} is asked for: pip install '{name}{spec}'"


def _meets(version: str, spec: str) -> bool:
    """Whether ``version`` is within ``spec``, bounds like ``>=1.3.7,<1.4``."""
    found = _numbers(version)
    compare = {">=": lambda bound: found >= bound, "<": lambda bound: found < bound, "==": lambda bound: found == bound}
    bounds = re.findall(r"(>=|<|==)([\w.]+)", spec)
    return all(compare[operator](_numbers(bound)) for operator, bound in bounds)


def _numbers(version: str) -> tuple[int, ...]:
    """``2.13.0+cpu`` -> (2, 13, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(number) for number in match[0].split(".")) if match else ()
