"""Check that a report is a page that a browser understands without a network."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from xlmtrain.report.charts import Chart

_ALONE = {"meta", "rect", "path", "use", "image"}


class _Balance(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = {name for name, _ in attributes}
        assert not names & {"src", "onload", "onclick"}, (tag, names)
        assert (dict(attributes).get("href") or "#").startswith(("#", "data:image/png;base64,")), tag
        assert tag not in {"script", "link", "img", "iframe"}, tag
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in _ALONE, tag
        assert (dict(attributes).get("href") or "#").startswith(("#", "data:image/png;base64,")), tag

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag


def check_page(text: str) -> None:
    """Every element is closed where it should be, nothing comes from elsewhere, and no figure is nan."""
    assert text.startswith("<!DOCTYPE html>")
    parser = _Balance()
    parser.feed(text.replace("<!DOCTYPE html>", ""))
    assert parser.open == []
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text
    drawing = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert drawing
    identifiers = re.findall(r' id="([^"]*)"', drawing)
    assert len(set(identifiers)) == len(identifiers)
    assert not re.search(r'"[^"]*\b(nan|inf)\b[^"]*"', drawing)


def legend(chart: Chart | None) -> list[str]:
    """Return the entries of a chart's legend: name and last value."""
    assert chart
    (found,) = chart.draw().legends
    return [text.get_text() for text in found.get_texts()]
