"""Binarized data of the original: eight small files, and their refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlmtrain.config.prepare import TextConfig
from xlmtrain.errors import DataError
from xlmtrain.interop.xlm.data import import_data
from xlmtrain.text.vocab import UNK

GERMAN = [[14, 15], [], [17], [14, UNK, 15, 15]]


ENGLISH = [[18, 16], [16], [18], [18]]


def refusal(data: Path) -> str:
    """Why ``data`` is not imported; nothing is left behind."""
    before = sorted(data.parent.iterdir())
    with pytest.raises(DataError) as caught:
        import_data(data, data.parent / "prepared", None, TextConfig())
    assert sorted(data.parent.iterdir()) == before
    assert str(caught.value).isprintable()
    return str(caught.value)
