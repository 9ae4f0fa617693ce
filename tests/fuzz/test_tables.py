"""Tables: labelled text, lexicons, parallel text, word vectors."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fuzzing import attempt
from tests.support.mutations import compressed, damaged
from xlmtrain.evaluate.classification_data import labels_of, read_examples
from xlmtrain.evaluate.parallel_text import aligned_sentences
from xlmtrain.evaluate.word_translation import read_lexicon
from xlmtrain.interop.word_vectors import read_vectors
from xlmtrain.text.vocab import Vocab

LABELS = b"yes\tA good day .\nno\tA bad day .\nyes\tGood .\nno\tBad .\n"
NLI = (
    b"language\tgold_label\tsentence1\tsentence2\n"
    b'de\tneutral\tEin "Haus" .\t"Zwei ""H\xc3\xa4user"" ."\n'
    b"en\t-\ta\tb\nde\tcontradictory\tc\td\nde\tentailment\t\tf\n"
)
VECTORS = b"3 2\na 0.5 1\nb@@ -1e-3 2\nab 3 4\n"
VOCAB = Vocab([("a", 3), ("b@@", 2), ("ab", 1)])


@given(
    content=compressed(st.one_of(damaged(LABELS), damaged(NLI))),
    columns=st.sampled_from(((), ("label", "text"), ("language", "label", "text", "text"), ("_", "label", "text"))),
)
def test_labelled_text(place: Path, content: bytes, columns: tuple[str, ...]) -> None:
    path = place / "table"
    path.write_bytes(content)
    examples = attempt("labelled text", lambda: read_examples(path, "de", "task.train", columns), len(content))
    if examples is not None:
        assert all(example.label and all(example.texts) for example in examples)
        attempt("labels", lambda: labels_of("task", {"train": {"de": examples}}), len(content))


@given(content=compressed(damaged(b"source\ttarget\nhouse\tHaus\nday Tag\n\xc3\x9f\t\xc3\x9f\n")))
def test_lexicon(place: Path, content: bytes) -> None:
    path = place / "lexicon"
    path.write_bytes(content)
    assert all(all(entry) for entry in attempt("bilingual lexicon", lambda: read_lexicon(path), len(content)) or ())


@given(content=compressed(damaged(b"Ein Haus .\n\nGuten Tag .\n")))
def test_parallel_text(place: Path, content: bytes) -> None:
    (place / "side.de").write_bytes(content)
    (place / "side.en").write_bytes(b"A house .\n\nGood day .\n")
    sides = attempt("parallel text", lambda: aligned_sentences(f"{place}/side.{{lang}}", ["de", "en"]), len(content))
    assert sides is None or len(sides["de"]) == len(sides["en"])


@given(content=compressed(damaged(VECTORS)))
def test_word_vectors(place: Path, content: bytes) -> None:
    path = place / "vectors"
    path.write_bytes(content)
    found = attempt("word vectors", lambda: read_vectors(path, VOCAB, 2), len(content))
    if found is not None:
        ids, vectors = found
        assert vectors.shape == (len(ids), 2)
        assert np.isfinite(vectors).all()
        assert ((ids >= 14) & (ids < len(VOCAB))).all()


READERS: dict[bytes, Callable[[Path], Any]] = {
    b"\n": lambda path: Vocab.read(path),
    b" \n": lambda path: read_examples(path, "de", "task.train", ("label", "text")),
}


@pytest.mark.parametrize("line", READERS)
def test_little_that_becomes_much(place: Path, line: bytes) -> None:
    """A short line a million times, in a file of a few kilobytes: memory does not grow with it."""
    path = place / "bomb"
    path.write_bytes(gzip.compress(line * 1_000_000))
    attempt("decompression bombs", lambda: READERS[line](path), 0, fixed=28 << 20)
