"""Files of binarized data as the original XLM writes them."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xlmtrain.text.vocab import EOS, SPECIALS

WORDS = [*SPECIALS, "das@@", "Haus", "house", "größe", "the"]
COUNTS = [0] * len(SPECIALS) + [9, 7, 7, 2, 0]
FORMATS = ["torch", "torch, protocol 2", "old torch", "old torch, protocol 2", "pickle", "pickle 2", "pickle 3"]


@contextmanager
def dictionary_class(package: str = "xlm") -> Iterator[Any]:
    """The class ``{package}.data.dictionary.Dictionary``, importable meanwhile, as pickling it needs."""
    names = [package, f"{package}.data", f"{package}.data.dictionary"]
    cls = type("Dictionary", (), {"__module__": names[-1]})
    modules = {name: types.ModuleType(name) for name in names}
    modules[names[-1]].Dictionary = cls  # type: ignore[attr-defined]
    sys.modules.update(modules)
    try:
        yield cls
    finally:
        for name in names:
            del sys.modules[name]


def dictionary(cls: Any, words: list[str] = WORDS, counts: list[int] = COUNTS) -> Any:
    """A Dictionary of these words."""
    result = cls()
    result.id2word = dict(enumerate(words))
    result.word2id = {word: i for i, word in enumerate(words)}
    result.counts = dict(zip(words, counts))
    result.bos_index, result.eos_index, result.pad_index, result.unk_index = range(4)
    return result


def arrays(sentences: list[list[int]], dtype: type = np.uint16) -> dict[str, np.ndarray]:
    """``positions`` and ``sentences`` of sentences without EOS."""
    ends = np.cumsum([len(sentence) + 1 for sentence in sentences]) - 1
    starts = np.array([0, *(ends[:-1] + 1)])
    ids = [id for sentence in sentences for id in (*sentence, EOS)]
    return {"positions": np.stack([starts, ends], axis=1).astype(np.int64), "sentences": np.array(ids, dtype=dtype)}


def write(path: Path, content: Any, form: str = "torch") -> None:
    """``content`` in one of the FORMATS."""
    if "torch" in form:
        protocol = 2 if "protocol 2" in form else 4
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=form.startswith("torch"))
    else:
        path.write_bytes(pickle.dumps(content, int(form[-1]) if form[-1].isdigit() else 4))


def write_data(
    path: Path, sentences: list[list[int]], /, words: list[str] = WORDS, counts: list[int] = COUNTS, **changes: Any
) -> None:
    """An intact file, but for ``changes`` to its entries; None takes one out."""
    with dictionary_class() as cls:
        content = {"dico": dictionary(cls, words, counts), **arrays(sentences), "unk_words": {"x": 1}} | changes
        write(path, {key: value for key, value in content.items() if value is not None})
