"""Read XML that may be hostile, as a stream: any elements, and the units of a translation memory (TMX)."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import IO
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from xlmtrain.errors import DataError

MAX_ELEMENT_BYTES = 1 << 26  # the longest pages of Wikipedia have some 2 million characters
MAX_DEPTH = 200
# TMX elements whose content is the code of some other format, not text.
_TMX_CODES = {"bpt", "ept", "it", "ph", "ut"}


def tmx_units(stream: IO[bytes] | BufferedIOBase, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (first line, code of a language in lower case -> text) of each unit ``<tu>`` of a translation memory.

    A code is that of the file with hyphens, like ``de-at``. The text has no line breaks; of several texts with the same
    code the first counts. Raises DataError as :func:`xml_elements`.
    """
    for line, unit in xml_elements(stream, path, "tu"):
        segments: dict[str, str] = {}
        for variant in unit.iter("tuv"):
            code = variant.get("xml:lang") or variant.get("lang") or ""
            segment = variant.find("seg")
            if segment is not None:
                segments.setdefault(code.lower().replace("_", "-"), _tmx_text(segment).replace("\n", " "))
        yield line, segments


def text_in(segments: dict[str, str], language: str) -> str | None:
    """Return the text of a unit in a language or a variety of it: ``de`` has the text of ``de-at``, too."""
    code = language.lower().replace("_", "-")
    return next((text for named, text in segments.items() if f"{named}-".startswith(f"{code}-")), None)


def _tmx_text(element: Element) -> str:
    """Return the text of a segment without the codes of other formats in it."""
    parts = [element.text or ""]
    for child in element:
        parts += ["" if child.tag in _TMX_CODES else _tmx_text(child), child.tail or ""]
    return "".join(parts)


def xml_elements(stream: IO[bytes] | BufferedIOBase, path: Path, tag: str) -> Iterator[tuple[int, Element]]:
    """Yield (first line, element) of each element ``tag`` as soon as it is complete. No other file is ever read.

    Raises DataError with the line if the document is not well-formed, has an element of more than MAX_ELEMENT_BYTES,
    or declares an entity: entities can make a gigabyte of a line, or name files of this machine.
    """
    parser = expat.ParserCreate()
    collector = _ElementCollector(tag, parser)
    parser.buffer_text = True
    parser.EntityDeclHandler, parser.SkippedEntityHandler = collector.refuse_entity, collector.refuse_unknown_entity
    parser.StartElementHandler, parser.EndElementHandler = collector.start, collector.end
    parser.CharacterDataHandler = collector.data
    pending = 0
    while True:
        block = stream.read(1 << 16)
        pending += len(block)
        try:
            parser.Parse(block, not block)
        except expat.ExpatError as error:
            raise DataError(f"{path}:{error.lineno}: not well-formed ({expat.ErrorString(error.code)})") from error
        except (DataError, LookupError, ValueError) as error:  # the latter of encodings that Python does not have
            raise DataError(f"{path}:{parser.CurrentLineNumber}: {error}; refused") from None
        if collector.complete:
            pending = 0
            yield from collector.complete
            collector.complete.clear()
        if pending > MAX_ELEMENT_BYTES:
            raise DataError(f"{path}: more than {MAX_ELEMENT_BYTES:,} bytes without a complete <{tag}>; refused")
        if not block:
            return


class _ElementCollector:
    """Handlers for expat that build the elements of one tag."""

    def __init__(self, tag: str, parser: expat.XMLParserType) -> None:
        self.complete: list[tuple[int, Element]] = []
        self._tag, self._parser = tag, parser
        self._depth = self._line = 0
        self._builder: TreeBuilder | None = None

    def refuse_entity(self, *_: object) -> None:
        raise DataError("declares an entity")

    def refuse_unknown_entity(self, name: str, *_: object) -> None:
        raise DataError(f"uses the entity {name[:50]}, which it does not declare")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise DataError("nested too deep")
        if name == self._tag:
            self._builder, self._line = TreeBuilder(), self._parser.CurrentLineNumber
        if self._builder is not None:
            self._builder.start(name, attributes)

    def end(self, name: str) -> None:
        self._depth -= 1
        if self._builder is not None:
            self._builder.end(name)
            if name == self._tag:
                self.complete.append((self._line, self._builder.close()))
                self._builder = None

    def data(self, text: str) -> None:
        if self._builder is not None:
            self._builder.data(text)
