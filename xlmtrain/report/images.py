"""The pictures of a report as PNG files: the same SVG that is in the page, drawn by resvg."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

from xlmtrain.errors import ConfigError
from xlmtrain.runtime.output_paths import new_file

try:
    import resvg_py
except ImportError:
    resvg_py = None  # type: ignore[assignment]

_PICTURE = re.compile(r'<svg [^>]*?aria-label="(.*?)".*?</svg>', re.DOTALL)
_ENLARGED = 3  # a picture of 400 units is 1,200 pixels wide
# resvg knows no "the system's own": the first of these that is there is taken.
_FAMILIES = (
    *("DejaVu Sans", "Noto Sans", "Liberation Sans", "Segoe UI", "Helvetica Neue", "Arial", "Helvetica", "Verdana"),
    *("Open Sans", "Roboto", "Ubuntu", "Cantarell", "Adwaita Sans", "FreeSans", "Lato"),
)
_PROBE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 20" font-family="{}"><text y="16">x</text></svg>'


def write_images(page: str, directory: Path) -> list[Path]:
    """Write each picture of a report's page to ``<number>-<title>.png``, on white; returns the files.

    Raises ConfigError if resvg or a font is missing, or the directory cannot be written.
    """
    if resvg_py is None:
        raise ConfigError("images=: needs the package resvg_py; install it with: pip install resvg_py")
    family = _family()
    files = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for number, found in enumerate(_PICTURE.finditer(page), 1):
            name = re.sub(r"\W+", "-", unescape(found[1]).lower()).strip("-")[:60]
            files.append(directory / f"{number:02d}-{name}.png")
            with new_file(files[-1]) as path:
                path.write_bytes(_draw(found[0], family))
    except OSError as error:
        raise ConfigError(f"images={directory}: cannot be written ({error.strerror})") from None
    return files


def _family() -> str:
    """A font that is installed: resvg leaves text out without a word if there is none."""
    nothing = _draw(_PROBE.format("none"), "none")
    for family in _FAMILIES:
        if _draw(_PROBE.format(family), family) != nothing:
            return family
    raise ConfigError(
        f"images=: none of the fonts {', '.join(_FAMILIES)} is installed, and the pictures would have no text; on "
        "Debian: apt-get install fonts-dejavu-core"
    )


def _draw(svg: str, family: str) -> bytes:
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, background="white", zoom=_ENLARGED, sans_serif_family=family))
