"""Read XML element by element; declarations of entities are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from xlmtrain.errors import DataError

MAX_ELEMENT_BYTES = 1 << 26  # the longest pages of Wikipedia have some 2 million characters
MAX_DEPTH = 200


def xml_elements(stream: BinaryIO, path: Path, tag: str) -> Iterator[Element]:
    """Yield each element ``tag`` as soon as it is complete. No other file is ever read.

    Raises DataError with the line if the document is not well-formed, has an element of more than MAX_ELEMENT_BYTES,
    or declares an entity: entities can make a gigabyte of a line, or name files of this machine.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    collector = _ElementCollector(tag)
    parser.EntityDeclHandler = collector.refuse_entity
    parser.StartElementHandler = collector.start
    parser.EndElementHandler = collector.end
    parser.CharacterDataHandler = collector.data
    pending = 0
    while True:
        block = stream.read(1 << 16)
        pending += len(block)
        try:
            parser.Parse(block, not block)
        except expat.ExpatError as error:
            raise DataError(f"{path}:{error.lineno}: not well-formed ({expat.ErrorString(error.code)})") from error
        except DataError as error:
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

    def __init__(self, tag: str) -> None:
        self.complete: list[Element] = []
        self._tag, self._depth = tag, 0
        self._builder: TreeBuilder | None = None

    def refuse_entity(self, *_: object) -> None:
        raise DataError("declares an entity")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise DataError("nested too deep")
        if name == self._tag:
            self._builder = TreeBuilder()
        if self._builder is not None:
            self._builder.start(name, attributes)

    def end(self, name: str) -> None:
        self._depth -= 1
        if self._builder is not None:
            self._builder.end(name)
            if name == self._tag:
                self.complete.append(self._builder.close())
                self._builder = None

    def data(self, text: str) -> None:
        if self._builder is not None:
            self._builder.data(text)
