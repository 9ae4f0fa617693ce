"""Read the sentences of a dump of Wikipedia.

mwparserfromhell reads the markup of articles, sentencex cuts paragraphs into sentences; both are kept by people around
Wikimedia. Templates are not expanded, so their text is missing. Only running text is taken: tables, lists,
headings, footnotes, captions and formulas are left out, and so are lines that do not end like a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from xlmtrain.errors import ConfigError
from xlmtrain.runtime.process_pool import pool_imap, worker_count
from xlmtrain.text.xml_files import xml_elements

try:
    import mwparserfromhell
    import sentencex
    from mwparserfromhell.nodes import Heading, Tag, Text, Wikilink
    from mwparserfromhell.wikicode import Wikicode
except ImportError:
    mwparserfromhell = None  # type: ignore[assignment]

PAGES_PER_TASK = 32
ARTICLES = "0"
_SENTENCE_ENDS = tuple(mark + close for mark in ".!?" for close in ("", '"', "“", "”", "«", "’", ")"))
_OTHER_NAME_SPACE = re.compile(r":?[^:]+:\S")  # [[Datei:...]], [[Category:...]], [[fr:...]]
_LEFTOVER = re.compile(r"[|<>{}]|\[\[|\]\]|==")  # of markup that was not closed
_RUNNING_TEXT_TAGS = {"b", "i", "u", "em", "strong", "small", "big", "span", "sub", "sup", "abbr", "nowiki", "p"}


def require_wiki() -> None:
    """Raise ConfigError if the packages that read Wikipedia are not installed."""
    if mwparserfromhell is None:
        raise ConfigError("Wikipedia needs mwparserfromhell and sentencex: pip install 'xlmtrain[wiki]'")


def read_wiki(stream: BinaryIO, path: Path, language: str, workers: int) -> Iterator[str]:
    """Yield the sentences of all articles of an XML dump, in its order. ``workers``: processes; 0 takes all cores."""
    require_wiki()
    pages = _articles(stream, path)
    batches = iter(lambda: list(islice(pages, PAGES_PER_TASK)), [])
    for sentences in pool_imap(partial(_sentences, language), batches, worker_count(workers)):
        yield from sentences


def _articles(stream: BinaryIO, path: Path) -> Iterator[str]:
    """Yield the markup of pages in the name space of articles that do not redirect."""
    for _, page in xml_elements(stream, path, "page"):
        if page.findtext("ns", "").strip() == ARTICLES and page.find("redirect") is None:
            yield page.findtext("revision/text") or ""


def _sentences(language: str, articles: Sequence[str]) -> list[str]:
    """Return the sentences of some articles."""
    found: list[str] = []
    for article in articles:
        for line in _running_text(article).splitlines():
            line = " ".join(line.split())
            if line.endswith(_SENTENCE_ENDS) and not _LEFTOVER.search(line):
                found += (sentence.strip() for sentence in sentencex.segment(language, line))
    return found


def _running_text(article: str) -> str:
    kept: list[Any] = []
    in_list = False
    for node in mwparserfromhell.parse(article).nodes:
        if isinstance(node, Tag) and node.wiki_markup and str(node.tag) in ("li", "dt", "dd"):
            in_list = True
        elif in_list and isinstance(node, Text) and "\n" in node.value:
            in_list = False
            kept.append(Text(node.value[node.value.index("\n") :]))
        elif not in_list and _is_running_text(node):
            kept.append(node)
    return str(Wikicode(kept).strip_code())


def _is_running_text(node: Any) -> bool:
    if isinstance(node, Wikilink):
        return not _OTHER_NAME_SPACE.match(str(node.title))
    if isinstance(node, Tag):
        return str(node.tag).strip().lower() in _RUNNING_TEXT_TAGS
    return not isinstance(node, Heading)
