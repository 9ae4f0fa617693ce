"""Lines that look damaged: each kind is found, and ordinary text is none of them."""

from __future__ import annotations

import unicodedata

import pytest

from tests.support.repository import REPOSITORY
from xlmtrain.text.suspects import find_suspects

GOOD = "\u00c4rger mit \u00bbM\u00dcLL\u00ab \u2013 na\u00efve caf\u00e9s, AT&T; R&D, 5 \u20ac \u201eso\u201c \u221a2"
UMLAUTS = "\u00fc \u00e4 \u00f6 \u00df \u201eso\u201c \u2019"


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("decomposed", unicodedata.normalize("NFD", "gr\u00f6\u00dfer")),
        ("invisible", "Wort\u00adteil"),
        ("invisible", "Auf\u200clage"),
        ("html_entities", "Tom &amp; Jerry"),
        ("html_entities", "gr&ouml;&szlig;er"),
        ("html_entities", "&#8222;so&#x201c;"),
        ("escapes", r"gr\u00fcn"),
        ("escapes", "gr%C3%BCn"),
        ("escapes", "gr=C3=BCn"),
        ("escapes", "gr\u00fcn".encode("utf-7").decode()),
        ("line_breaks", "eins\rzwei"),
        ("line_breaks", "eins\u2028zwei\x0c"),
        *(("mojibake", word.encode().decode("cp1252")) for word in UMLAUTS.replace("\u201c", "\u201d").split()[:4]),
        *(("mojibake", word.encode().decode("latin-1")) for word in UMLAUTS.split()),
        *(("mojibake", word.encode().decode("mac-roman")) for word in UMLAUTS.split()),
        *(("mojibake", word.encode().decode("cp437")) for word in UMLAUTS.split()[:4]),
        *(("mojibake", word.encode().decode("cp850")) for word in UMLAUTS.split()[:4]),
        ("mojibake", "\u00e2\u20ac\u0153so\u00e2\u20ac\ufffd"),
        *(("mojibake", word.encode().decode("iso8859-2")) for word in UMLAUTS.split()[:4]),
        *(("mojibake", word.encode().decode("cp1251")) for word in UMLAUTS.split()[:4]),
        ("mojibake", "gr\ufffd\ufffder"),
    ],
)
def test_each_kind_is_found_with_its_lines(kind: str, line: str) -> None:
    found = dict(find_suspects([GOOD.encode(), line.encode(), b"gr\xfcn", f"x {line} y".encode()]))
    assert found[kind] == [1, 3]
    assert not set(found) - {kind, "line_breaks"}  # Latin-1 shows controls, NEL among them


@pytest.mark.parametrize("line", ['<seg id="1">Gut.</seg>', "  <!DOCTYPE html>", '{"text": "Gut."}', '[{"a": 1}'])
def test_markup_begins_a_line(line: str) -> None:
    assert list(find_suspects([GOOD.encode(), line.encode(), f"x {line}".encode()])) == [("markup", [1])]


@pytest.mark.parametrize("line", ['"Gut.","Good."', '"So ""gut"".";"x"', '12,"Gut."', '3\t"Gut."\tpos'])
def test_cells_of_a_table_begin_a_line(line: str) -> None:
    lines = [b'"Gut.", sagte er, "1,2"', b"12, 13", line.encode(), f"x {line}".encode()]
    assert list(find_suspects(lines)) == [("cells", [2])]


def test_ordinary_text_is_not_suspected() -> None:
    with_plus = b"Intel+AMD-CPUs, C++AMP-Code, ein REST+API-Zugang, die Mo+AOK-Karte"
    assert list(find_suspects([GOOD.encode(), with_plus])) == []
    for path in sorted((REPOSITORY / "data" / "sample").glob("*.??")):
        assert list(find_suspects(path.read_bytes().split(b"\n"))) == []
