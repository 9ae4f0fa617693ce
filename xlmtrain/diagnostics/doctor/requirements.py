"""Python and the packages that xlmtrain asks for; needs none of them itself."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageMetadata

_ADVICE = "is not installed: use the environment with xlmtrain, in a checkout .venv/bin/python, which make makes"


def installed_version(name: str) -> str | None:
    """Return the version of an installed package, None if it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def package_problems(
    metadata: Callable[[str], PackageMetadata] = importlib.metadata.metadata,
    installed: Callable[[str], str | None] = installed_version,
    python: Sequence[int] = sys.version_info[:2],
) -> Iterator[str]:
    """Yield a sentence for each package that xlmtrain needs, and for Python, if it is missing, too old or too new."""
    try:
        about = metadata("xlmtrain")
    except importlib.metadata.PackageNotFoundError:
        yield f"xlmtrain {_ADVICE}"
        return
    version, bounds = ".".join(map(str, python)), about["Requires-Python"]
    if not _meets(version, bounds):
        yield f"Python {version} is not {bounds}: create the environment again with another Python"
    for line in about.get_all("Requires-Dist", []):
        if "extra ==" in line:
            continue
        name, bounds = re.findall(r"^([\w.-]+)(.*)$", line)[0]
        found = installed(name)
        if found is None:
            yield f"{name} {_ADVICE}"
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
