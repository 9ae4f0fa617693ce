"""Whether a report is a page that a browser understands without a network."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

_ALONE = {"meta", "line", "circle", "rect", "path", "polyline"}


class _Balance(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = {name for name, _ in attributes}
        assert not names & {"src", "href", "onload", "onclick"}, (tag, names)
        assert tag not in {"script", "link", "img", "iframe"}, tag
        if tag not in _ALONE or tag in {"circle", "rect"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in _ALONE, tag

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag


def check_page(text: str) -> None:
    """Every element is closed where it should be, nothing comes from elsewhere, and no figure is nan."""
    assert text.startswith("<!DOCTYPE html>")
    parser = _Balance()
    parser.feed(text.replace("<!DOCTYPE html>", ""))
    assert parser.open == []
    assert "url(" not in text
    assert "@import" not in text
    drawing = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert drawing
    assert not re.search(r'"[^"]*\b(nan|inf)\b[^"]*"', drawing)


def legend(picture: str) -> list[tuple[str, str]]:
    """(name, value) of each entry in a picture's legend."""
    found = re.findall(r'stroke-width="3"[^>]*/><text [^>]*>([^<]*)(?:<tspan [^>]*>([^<]*)</tspan>)?', picture)
    return [(unescape(name), value) for name, value in found]
