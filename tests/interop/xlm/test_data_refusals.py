"""Binarized data of the original that is damaged, incomplete or hostile is refused with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import evil_pickles as evil
from tests.support.xlm_corpus import ENGLISH, GERMAN, refusal
from tests.support.xlm_files import COUNTS, WORDS, arrays, write_data
from xlmtrain.text.vocab import EOS


def test_dictionaries_that_differ(data: Path) -> None:
    other = [*WORDS[:-1], "The"]
    write_data(data / "valid.en.pth", ENGLISH, other)
    message = refusal(data)
    assert f"{data / 'valid.en.pth'}: its dictionary is not the one of {data / 'train.de.pth'}" in message


def test_sides_that_do_not_belong_together(data: Path) -> None:
    write_data(data / "valid.de-en.en.pth", ENGLISH[:3])
    assert "valid.de-en.de has 4 sentences, valid.de-en.en 3" in refusal(data)
    (data / "valid.de-en.en.pth").unlink()
    assert "valid.de-en.en.pth: missing, the other side is there" in refusal(data)


@pytest.mark.parametrize("name", ["train.en-de.de", "train.de-de.de", "train.de-fr.en"])
def test_names_of_no_pair(data: Path, name: str) -> None:
    write_data(data / f"{name}.pth", GERMAN)
    assert "two languages in alphabetical order" in refusal(data)


def test_no_training_data(data: Path) -> None:
    assert "no training data" in refusal(data / "nowhere")
    for path in data.glob("train.*"):
        path.unlink()
    assert "no training data" in refusal(data)


def test_output_that_exists(data: Path) -> None:
    output = data.parent / "prepared"
    output.mkdir()
    (output / "mine").write_text("x")
    assert f"output={output}: exists already" in refusal(data)
    assert (output / "mine").read_text() == "x"


def test_hostile_files(data: Path) -> None:
    path, marker = data / "valid.en.pth", data.parent / "marker"
    path.write_bytes(evil.archive(evil.live(marker)["os.system"][0]))
    assert f"{path}: asks for os.system" in refusal(data)
    assert not marker.exists()


def changed(words: dict[int, str], counts: dict[int, int] | None = None) -> dict[str, Any]:
    return {
        "words": [words.get(i, word) for i, word in enumerate(WORDS)],
        "counts": [(counts or {}).get(i, count) for i, count in enumerate(COUNTS)],
    }


BAD_DICTIONARIES: dict[str, tuple[dict[str, Any], str]] = {
    "special symbols elsewhere": (changed({2: "<mask>"}), "its first 14 words are not <s> to <special9>"),
    "a word twice": (changed({15: "the"}), "a word is there twice"),
    "white space": (changed({15: "das Haus"}), "its vocabulary cannot be kept; it needs words, without white space"),
    "a line end of Unicode": (changed({15: "a\u2028b"}), "without white space"),
    "no letters": (changed({15: ""}), "it needs words"),
    "no UTF-8": (changed({15: "a\udc80"}), "surrogates not allowed"),
    "growing counts": (changed({}, {17: 8}), "by falling counts"),
    "a negative count": (changed({}, {18: -1}), "the count of 'the' is not a number from 0"),
    "a huge count": (changed({}, {14: 1 << 63}), "the count of 'das@@' is not"),
    "a count that is no number": (changed({}, {14: "9"}), "the count of 'das@@' is not"),  # type: ignore[dict-item]
    "nothing but special symbols": ({"words": WORDS[:14], "counts": COUNTS[:14]}, "it needs words"),
}


@pytest.mark.parametrize("name", BAD_DICTIONARIES)
def test_bad_dictionaries(data: Path, name: str) -> None:
    given, message = BAD_DICTIONARIES[name]
    write_data(data / "train.de.pth", [[14]], **given)
    found = refusal(data)
    assert found.startswith(f"{data / 'train.de.pth'}: ")
    assert message in found


GOOD = arrays(GERMAN)
IDS, POSITIONS = GOOD["sentences"], GOOD["positions"]


def shifted(row: int, column: int, by: int) -> np.ndarray:
    positions = POSITIONS.copy()
    positions[row, column] += by
    return positions


def replaced(place: int, by: int, dtype: type = np.uint16) -> np.ndarray:
    ids = IDS.astype(dtype)
    ids[place] = by
    return ids


BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "no dictionary": ({"dico": None}, "'dico' is missing"),
    "a dictionary of another kind": ({"dico": {}}, "'id2word' is missing"),
    "a dictionary that is a number": ({"dico": 3}, "not binarized data"),
    "no sentences": ({"sentences": None}, "'sentences' is missing"),
    "no positions": ({"positions": None}, "'positions' is missing"),
    "positions without rows": ({"positions": POSITIONS[:0]}, "no sentence in it"),
    "positions in a row": ({"positions": POSITIONS.reshape(-1)}, "positions are not two columns of int64"),
    "positions of int32": ({"positions": POSITIONS.astype(np.int32)}, "positions are not two columns of int64"),
    "positions that are text": ({"positions": "x"}, "positions are not two columns of int64"),
    "sentences of int64": ({"sentences": IDS.astype(np.int64)}, "sentences are not a row of uint16 or int32"),
    "sentences in columns": ({"sentences": IDS[:10].reshape(5, 2)}, "sentences are not a row of uint16 or int32"),
    "sentences that are a number": ({"sentences": 3}, "sentences are not a row of uint16 or int32"),
    "a gap": ({"positions": shifted(2, 0, 1)}, "not one after the other"),
    "an overlap": ({"positions": shifted(2, 0, -1)}, "not one after the other"),
    "a first gap": ({"positions": shifted(0, 0, 1)}, "not one after the other"),
    "an end before the start": ({"positions": POSITIONS[:, ::-1].copy()}, "not one after the other"),
    "rows in another order": ({"positions": POSITIONS[::-1].copy()}, "not one after the other"),
    "an end outside": ({"positions": shifted(3, 1, 1)}, "not one after the other within the 11 ids"),
    "an end far outside": ({"positions": shifted(3, 1, (1 << 63) - 11)}, "not one after the other within the 11 ids"),
    "a negative end": ({"positions": shifted(0, 1, -10)}, "not one after the other within the 11 ids"),
    "ids after the end": ({"sentences": np.append(IDS, IDS[:2])}, "2 ids follow the last sentence"),
    "no ids": ({"sentences": IDS[:0]}, "not one after the other within the 0 ids"),
    "an id outside": ({"sentences": replaced(1, len(WORDS))}, "outside the vocabulary of 19"),
    "a negative id": ({"sentences": replaced(1, -1, np.int32)}, "outside the vocabulary of 19"),
    "a sentence without an end": ({"sentences": replaced(3, 14)}, "one does not end with </s>"),
    "an end in the wrong place": (
        {"positions": np.array([[0, 2]]), "sentences": np.array([14, EOS, 15], np.uint16)},
        "one does not end with </s>",
    ),
    "a sentence of less than nothing": (
        {
            "positions": np.array([[0, 2], [3, 2], [3, 5]]),
            "sentences": np.array([14, 15, EOS, 14, EOS, EOS], np.uint16),
        },
        "not one after the other",
    ),
    "an end inside": ({"sentences": replaced(1, EOS)}, "a special symbol is inside one"),
    "a mask inside": ({"sentences": replaced(1, 5)}, "a special symbol is inside one"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays(data: Path, name: str) -> None:
    changes, message = BAD_ARRAYS[name]
    write_data(data / "train.de.pth", GERMAN, **changes)
    found = refusal(data)
    assert found.startswith(f"{data / 'train.de.pth'}: ")
    assert message in found
