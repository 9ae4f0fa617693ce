"""Read the formats of publishers as aligned sentences.

Each reader takes an entry of the catalogue and its downloaded file and yields rows: a sentence for each of
``entry.languages``, in that order. An empty one means that there is no usable text; the writer drops the row.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path

from xlmtrain.download.archives import check_archive, lines, open_compressed, open_member
from xlmtrain.download.catalogue import DatasetEntry
from xlmtrain.download.wiki import read_wiki
from xlmtrain.errors import DataError
from xlmtrain.text.xml_files import text_in, tmx_units

Rows = Iterator[tuple[str, ...]]
SGM_BYTES = 1 << 26
_SEGMENT = re.compile(r'<seg\s+id="?([^">]*)"?[^>]*>(.*?)</seg>', re.DOTALL | re.IGNORECASE)


def read_rows(entry: DatasetEntry, path: Path, workers: int) -> Rows:
    """Return the rows of a dataset that is not used as it is. ``workers``: processes that read Wikipedia.

    Raises DataError where the file is damaged or not aligned.
    """
    if entry.format == "wiki":
        return _read_wiki(entry, path, workers)
    return {"tsv": _read_tsv, "moses": _read_moses, "sgm": _read_sgm, "tmx": _read_tmx}[entry.format](entry, path)


def _read_tsv(entry: DatasetEntry, path: Path) -> Rows:
    """Read a sentence from each of the first columns; the others hold remarks."""
    width = len(entry.languages)
    with open_compressed(path) as stream:
        for line in lines(stream, path):
            columns = line.split("\t")[:width]
            yield tuple(columns) if len(columns) == width else ("",) * width


def _read_moses(entry: DatasetEntry, path: Path) -> Rows:
    """Read one file a language in an archive, aligned by line."""
    check_archive(path)
    with ExitStack() as stack:
        sides = [lines(stack.enter_context(open_member(path, name)), path) for name in entry.members]
        for number, row in enumerate(zip_longest(*sides), 1):
            if None in row:
                short = entry.members[row.index(None)]
                raise DataError(f"{path}: {short} ends before its line {number}, the other file does not")
            yield row


def _read_sgm(entry: DatasetEntry, path: Path) -> Rows:
    """Read a test set of WMT: not quite XML, one ``<seg>`` a sentence, numbered within each document."""
    check_archive(path)
    sides = []
    for name in entry.members:
        with open_member(path, name) as stream:
            content = stream.read(SGM_BYTES)
        if len(content) == SGM_BYTES:
            raise DataError(f"{path}: {name} has more than {SGM_BYTES:,} bytes; is this a test set?")
        sides.append(_SEGMENT.findall(content.decode("utf-8", "replace")))
    numbers = [[number for number, _ in side] for side in sides]
    if any(other != numbers[0] for other in numbers):
        raise DataError(f"{path}: the segments of {' and '.join(entry.members)} are not numbered alike")
    yield from (tuple(html.unescape(text) for _, text in row) for row in zip(*sides))


def _read_tmx(entry: DatasetEntry, path: Path) -> Rows:
    """Read a translation memory."""
    with open_compressed(path) as stream:
        for _, segments in tmx_units(stream, path):
            yield tuple(text_in(segments, language) or "" for language in entry.languages)


def _read_wiki(entry: DatasetEntry, path: Path, workers: int) -> Rows:
    with open_compressed(path) as stream:
        for sentence in read_wiki(stream, path, entry.languages[0], workers):
            yield (sentence,)
