"""Find lines that look damaged: by a wrong encoding, by HTML, by line ends of another system."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

from xlmtrain.text.moses import INVISIBLE

_INVISIBLE = re.compile(f"[{INVISIBLE}]")
# The bytes 80 to BF as Windows-1252 and Latin-1 show them: the rest of a UTF-8 character after its first byte.
_TAIL = "[\u0080-\u00bf" + bytes({*range(0x80, 0xA0)} - {0x81, 0x8D, 0x8F, 0x90, 0x9D}).decode("cp1252") + "]"
_MOJIBAKE = re.compile(
    f"[\u00c2\u00c3]{_TAIL}|\u00e2{_TAIL}{{2}}|\u00ef\u00bf\u00bd|\ufffd"  # UTF-8 read as Windows-1252; lost characters
    "|\u221a[\u00a7\u2202\u222b\u00fc\u00ba\u00d1\u00f1]"  # Mac Roman
    "|\u201a\u00c4[\u00fb\u00fa\u00f9\u00ec\u00f4\u00b6]"
    "|\u0102[\u0084\u0096\u009c\u009f\u00a4\u00b6\u013d\u015b\u017a\u201e\u2013]"  # Latin-2, Windows-1250
    "|\u0413[\u00a4\u00b6\u0458\u045a\u045f]"  # Windows-1251
    "|\u251c[\u00f1\u00c2\u2562\u255d\u255c\u0192\u00a4\u2524]"  # as code page 437 or 850
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_ESCAPE = re.compile(
    r"\\u00[89a-fA-F][0-9a-fA-F]|[%=]C3[%=][89AB][0-9A-F]"
    r"|(?<![A-Z])\+A[M-P][AEIMQUYcgkosw048]-(?![A-Z])"  # UTF-7
)
_CELLS = re.compile(r'^[ \t]*(?:"(?:[^"\n]|"")*"|\d+)[,;\t]"', re.MULTILINE)
_MARKUP = re.compile(r"^[ \t]*(?:<[!?]\w|</?\w+(?:[ \t]+[\w:-]+=|>.*</|>[ \t\r]*$)|\[?\{[ \t]*\")", re.MULTILINE)
_LINE_BREAKS = "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


def _search(expression: re.Pattern[str], needed: Sequence[str]) -> Callable[[str], bool]:
    """Return a test for ``expression``. Every match has one of ``needed`` in it, which are looked for first: faster."""
    return lambda text: any(part in text for part in needed) and expression.search(text) is not None


SUSPECTS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "decomposed": (
        "hold letters and accents as separate characters (not NFC); text.normalize_unicode=true, the default, composes "
        "them, without it words are split",
        lambda text: not unicodedata.is_normalized("NFC", text),
    ),
    "invisible": (
        "hold invisible characters like soft hyphens; text.normalize_unicode=true, the default, removes them, without "
        "it words are split",
        lambda text: _INVISIBLE.search(text) is not None,
    ),
    "mojibake": (
        "look like UTF-8 that was read in another encoding, like '\u00c3\u00bc' for '\u00fc', or hold characters that "
        "were lost (U+FFFD); convert the file again",
        _search(_MOJIBAKE, [*"\u00c2\u00c3\u00e2\u00ef\ufffd\u221a\u201a\u0102\u0413\u251c"]),
    ),
    "html_entities": (
        "hold HTML entities like &amp; or &#252;; unescape the text",
        lambda text: "&" in text and any(html.unescape(found) != found for found in _ENTITY.findall(text)),
    ),
    "escapes": (
        "hold letters as escapes like \\u00fc, %C3%BC, =C3=BC or +APw-; decode the text",
        _search(_ESCAPE, ("\\u00", "%C3", "=C3", "+A")),
    ),
    "markup": (
        'begin like XML, HTML or JSON, as <seg id=...> or {"text": ...} do; give the text inside',
        _search(_MARKUP, ("<", "{")),
    ),
    "cells": (
        'begin like a line of CSV, as "a","b" and 12;"a" do; name the file .csv, or give the text alone',
        _search(_CELLS, (',"', ';"', '\t"')),
    ),
    "line_breaks": (
        "hold a carriage return, form feed or U+2028 inside; only LF and CRLF end a line, so sentences may be joined",
        lambda text: any(character in text for character in _LINE_BREAKS),
    ),
}
"""Kind -> what such lines are and what to do, and a test of a line or of a whole text."""


def find_suspects(lines: Sequence[bytes]) -> Iterator[tuple[str, list[int]]]:
    """Yield each kind of :data:`SUSPECTS` that occurs, and the indices of its lines. Lines may not be UTF-8."""
    text = b"\n".join(lines).decode(errors="ignore")
    for kind, (_, is_suspect) in SUSPECTS.items():
        if is_suspect(text):
            yield kind, [index for index, line in enumerate(text.split("\n")) if is_suspect(line)]
