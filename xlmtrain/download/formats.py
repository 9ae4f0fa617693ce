"""The formats of publishers -> aligned sentences.

Each reader takes a corpus and its downloaded files and yields rows: a sentence for each of ``corpus.languages``, in
that order. An empty one says that there is no usable text at that place; the writer drops the row.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import zip_longest
from pathlib import Path

from xlmtrain.download.archives import check_archive, lines, open_compressed, open_member
from xlmtrain.download.catalogue import Corpus
from xlmtrain.download.markup import Gathered, xml_events
from xlmtrain.download.wiki import read_wiki
from xlmtrain.errors import DataError

Sequences = Iterator[tuple[str, ...]]
Advance = Callable[[int], object]
STREAMED = ("tsv", "tmx", "wiki")  # one file, read once from front to back
SGM_BYTES = 1 << 26
_SEGMENT = re.compile(r'<seg\s+id="?([^">]*)"?[^>]*>(.*?)</seg>', re.DOTALL | re.IGNORECASE)
# TMX elements whose content is the code of some other format, not text.
_TMX_CODES = {"bpt", "ept", "it", "ph", "ut"}


def read_rows(corpus: Corpus, paths: Sequence[Path], workers: int, advance: Advance) -> Sequences:
    """The rows of a corpus that is not used as it is. ``workers``: processes that read Wikipedia; ``advance`` is told
    of bytes where there is one file, read once. Raises DataError where a file is damaged or not aligned.
    """
    readers: dict[str, Callable[[Corpus, Sequence[Path]], Sequences]] = {
        "tsv": partial(_read_tsv, advance=advance),
        "moses": _read_moses,
        "sgm": _read_sgm,
        "tmx": partial(_read_tmx, advance=advance),
        "tatoeba": _read_tatoeba,
        "wiki": partial(_read_wiki, advance=advance, workers=workers),
    }
    return readers[corpus.format](corpus, paths)


def _read_tsv(corpus: Corpus, paths: Sequence[Path], advance: Advance) -> Sequences:
    """A sentence in each of the first columns; what follows is about the sentences."""
    width = len(corpus.languages)
    with open_compressed(paths[0], advance) as stream:
        for line in lines(stream, paths[0]):
            columns = line.split("\t")[:width]
            yield tuple(columns) if len(columns) == width else ("",) * width


def _read_moses(corpus: Corpus, paths: Sequence[Path]) -> Sequences:
    """One file a language in an archive, aligned by line."""
    check_archive(paths[0])
    with ExitStack() as stack:
        sides = [lines(stack.enter_context(open_member(paths[0], name)), paths[0]) for name in corpus.members]
        for number, row in enumerate(zip_longest(*sides), 1):
            if None in row:
                short = corpus.members[row.index(None)]
                raise DataError(f"{paths[0]}: {short} ends before its line {number}, the other file does not")
            yield row


def _read_sgm(corpus: Corpus, paths: Sequence[Path]) -> Sequences:
    """WMT's test sets: not quite XML, one ``<seg>`` a sentence, numbered within each document."""
    check_archive(paths[0])
    sides = []
    for name in corpus.members:
        with open_member(paths[0], name) as stream:
            content = stream.read(SGM_BYTES)
        if len(content) == SGM_BYTES:
            raise DataError(f"{paths[0]}: {name} has more than {SGM_BYTES:,} bytes; is this a test set?")
        sides.append(_SEGMENT.findall(content.decode("utf-8", "replace")))
    numbers = [[number for number, _ in side] for side in sides]
    if any(other != numbers[0] for other in numbers):
        raise DataError(f"{paths[0]}: the segments of {' and '.join(corpus.members)} are not numbered alike")
    yield from ((tuple(html.unescape(text) for _, text in row)) for row in zip(*sides))


def _read_tmx(corpus: Corpus, paths: Sequence[Path], advance: Advance) -> Sequences:
    """Translation memories: units ``<tu>`` of ``<tuv xml:lang="de"><seg>``."""
    unit: dict[str, str] = {}
    language, inside, code = "", False, 0
    text = Gathered()
    with open_compressed(paths[0], advance) as stream:
        for event in xml_events(stream, paths[0]):
            match event.kind, event.name:
                case "start", "tuv":
                    named = event.attributes.get("xml:lang") or event.attributes.get("lang", "")
                    language = re.split("[-_]", named.lower())[0]
                case "start" | "end", "seg":
                    if event.kind == "end":
                        unit.setdefault(language, text.take())
                    inside = event.kind == "start"
                case "start" | "end", name if name in _TMX_CODES:
                    code += 1 if event.kind == "start" else -1
                case "text", _:
                    if inside and not code:
                        text.add(event.text)
                case "end", "tu":
                    yield tuple(unit.get(wanted, "") for wanted in corpus.languages)
                    unit.clear()


def _read_tatoeba(corpus: Corpus, paths: Sequence[Path]) -> Sequences:
    """Tatoeba's exports: the sentences of either language by number, and which are translations of which."""
    *sentence_paths, link_path = paths
    with open_compressed(link_path) as stream:
        links = [tuple(line.split("\t")[:2]) for line in lines(stream, link_path)]
    sides: list[dict[str, str]] = []
    for side, path in enumerate(sentence_paths):
        wanted = {link[side] for link in links if len(link) == 2}
        with open_compressed(path) as stream:
            columns = (line.split("\t", 2) for line in lines(stream, path))
            sides.append({row[0]: row[2] for row in columns if len(row) == 3 and row[0] in wanted})
    for link in links:
        yield tuple(side.get(number, "") for side, number in zip(sides, link)) if len(link) == 2 else ("", "")


def _read_wiki(corpus: Corpus, paths: Sequence[Path], advance: Advance, workers: int) -> Sequences:
    with open_compressed(paths[0], advance) as stream:
        for sentence in read_wiki(stream, paths[0], corpus.languages[0], workers):
            yield (sentence,)
