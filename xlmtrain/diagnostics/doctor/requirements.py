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
    options, version = parser["options"], ".".join(map(str, python))
    bounds = options["python_requires"]
    if not _meets(version, bounds):
        yield f"Python {version} is not {bounds}: create the environment again, make PYTHON=python3.11"
    for name, bounds in re.findall(r"^([A-Za-z0-9_-]+)(.*)$", options["install_requires"], re.MULTILINE):
        found = installed(name)
        if found is None:
            yield f"{name} is not installed: run the program with .venv/bin/python, which make makes"
        elif not _meets(found, bounds):
            yield f"{name} {found} is installed, {bounds} is asked for: pip install '{name}{bounds}'"


def _meets(version: str, bounds: str) -> bool:
    """Return whether ``version`` is within ``bounds``, like ``>=1.3.7,<1.4``; of ``2.13.0+cpu``, 2.13.0 counts."""
    found = _numbers(version)
    compare = {">=": found.__ge__, "<": found.__lt__, "==": found.__eq__}
    return all(compare[sign](_numbers(bound)) for sign, bound in re.findall(r"(>=|<|==)([\w.]+)", bounds))


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()
