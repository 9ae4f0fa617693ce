"""Files that come with the package: the configs and the sample corpus."""

from __future__ import annotations

from pathlib import Path


def resource(name: str) -> Path:
    """Return the directory ``name``: ``configs`` or ``data/sample``.

    A wheel has it inside the package, a checkout beside it; setup.cfg maps the one to the other.
    """
    package = Path(__file__).resolve().parent
    installed = package / name
    return installed if installed.is_dir() else package.parent / name
