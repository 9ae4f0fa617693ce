"""Python and the packages that ``setup.cfg`` asks for; needs none of them itself."""

from __future__ import annotations

import configparser
import importlib.metadata
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

SETUP = Path(__file__).resolve().parents[3] / "setup.cfg"


def installed_version(name: str) -> str | None:
    """Return the version of an installed package, None if it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def package_problems(
    setup: Path = SETUP,
    installed: Callable[[str], str | None] = installed_version,
    python: Sequence[int] = sys.version_info[:2],
) -> Iterator[str]:
    """Yield a sentence for each package of the file ``setup``, and for Python, that is missing, too old or too new."""
    parser = configparser.ConfigParser()
    parser.read(setup, encoding="utf-8")
    options = parser["options"]
    spec, version = options["python_requires"].strip(), ".".join(map(str, python))
    if not _meets(version, spec):
        yield f"Python {version} is not {spec}: create the environment again, make PYTHON=python3.11"
    for match in re.finditer(r"^([A-Za-z0-9_-]+)(.*)$", options["install_requires"], re.MULTILINE):
        name, spec = match.groups()
        found = installed(name)
        if found is None:
            yield f"{name} is not installed: run the program with .venv/bin/python, which make makes"
        elif not _meets(found, spec):
            yield f"{name} {found} is installed, {spec} is asked for: pip install '{name}{spec}'"


def _meets(version: str, spec: str) -> bool:
    """Return whether ``version`` is within the bounds ``spec``, like ``>=1.3.7,<1.4``."""
    found = _numbers(version)
    compare = {">=": lambda bound: found >= bound, "<": lambda bound: found < bound, "==": lambda bound: found == bound}
    bounds = re.findall(r"(>=|<|==)([\w.]+)", spec)
    return all(compare[operator](_numbers(bound)) for operator, bound in bounds)


def _numbers(version: str) -> tuple[int, ...]:
    """Return ``2.13.0+cpu`` as (2, 13, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(number) for number in match[0].split(".")) if match else ()
