"""XML as a stream of events, with declarations of entities refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from xml.parsers import expat

from xlmtrain.errors import DataError

MOST_CHARS = 1 << 26  # of one element's text, or one tag; the longest pages of Wikipedia have some 2 million
DEPTH = 200


@dataclass(frozen=True)
class Event:
    """``start`` of an element, ``text``, or ``end``."""

    kind: str
    name: str = ""
    text: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


class Gathered:
    """The text of an element, which comes in pieces."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._size = 0

    def add(self, text: str) -> None:
        """Append; raises DataError if there is more than any text has."""
        self._parts.append(text)
        self._size += len(text)
        if self._size > MOST_CHARS:
            raise DataError(f"an element of more than {MOST_CHARS:,} characters; is this text?")

    def take(self) -> str:
        """All of it; empty again."""
        text = "".join(self._parts)
        self.__init__()  # type: ignore[misc]
        return text


def xml_events(stream: BinaryIO, path: Path) -> Iterator[Event]:
    """The events of a document. Raises DataError with the line where it is not well-formed or declares entities:
    those can make a gigabyte of a line, or name files of this machine. No other file is ever read."""
    events: list[Event] = []
    depth = fed = 0

    def refuse(*_: object) -> None:
        raise DataError(f"{path}:{parser.CurrentLineNumber}: declares an entity; refused")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = lambda name, attributes: events.append(Event("start", name, "", attributes))
    parser.EndElementHandler = lambda name: events.append(Event("end", name))
    parser.CharacterDataHandler = lambda text: events.append(Event("text", "", text))
    while True:
        block = stream.read(1 << 16)
        fed += len(block)
        try:
            parser.Parse(block, not block)
        except expat.ExpatError as error:
            raise DataError(f"{path}:{error.lineno}: not well-formed ({expat.ErrorString(error.code)})") from error
        for event in events:
            depth += {"start": 1, "end": -1}.get(event.kind, 0)
            yield event
        events.clear()
        if depth > DEPTH or fed - parser.CurrentByteIndex > MOST_CHARS:
            raise DataError(f"{path}:{parser.CurrentLineNumber}: nested too deep, or a tag without end; refused")
        if not block:
            return
