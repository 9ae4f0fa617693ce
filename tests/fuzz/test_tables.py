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
from tests.support.translation import bundle_of, small_model
from xlmtrain.config.finetune import TaskConfig, TaskKind
from xlmtrain.evaluate.classification_data import labels_of, read_examples
from xlmtrain.evaluate.parallel_text import aligned_sentences
from xlmtrain.evaluate.word_translation import read_lexicon
from xlmtrain.finetune.tagged_text import read_tagged
from xlmtrain.finetune.tasks import make_task
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.word_vectors import read_vectors
from xlmtrain.text.vocab import Vocab

LABELS = b"yes\tA good day .\nno\tA bad day .\nyes\tGood .\nno\tBad .\n"
NLI = (
    b"language\tgold_label\tsentence1\tsentence2\n"
    b'de\tneutral\tEin "Haus" .\t"Zwei ""H\xc3\xa4user"" ."\n'
    b"en\t-\ta\tb\nde\tcontradictory\tc\td\nde\tentailment\t\tf\n"
)
TAGGED = b"-DOCSTART- -X- O\n\nword label\nIm B-PP O\nHaus I-PP B-LOC\n\n. . O\n"
TREEBANK = b"# text = Im\n1-2\tIm\t_\t_\t_\t_\t_\t_\t_\t_\n1\tIn\tin\tADP\t_\t_\t0\troot\t_\t_\n\n"
VECTORS = b"3 2\na 0.5 1\nb@@ -1e-3 2\nab 3 4\n"
VOCAB = Vocab([("a", 3), ("b@@", 2), ("ab", 1)])


@pytest.fixture(scope="module")
def saved() -> PretrainedBundle:
    return bundle_of(small_model())


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


@given(
    content=compressed(st.one_of(damaged(TAGGED), damaged(TREEBANK))),
    columns=st.sampled_from(((), ("text", "label"), ("_", "label", "text"))),
)
def test_tagged_text(place: Path, content: bytes, columns: tuple[str, ...]) -> None:
    path = place / "tagged"
    path.write_bytes(content)
    for sentence in attempt("words with labels", lambda: read_tagged(path, "task.train", columns), len(content)) or ():
        assert all(map(all, (sentence.words, sentence.tags)))
        assert len(sentence.words) == len(sentence.tags) > 0


@given(content=compressed(damaged(b"text\tscore\nA day .\t1.5\nGood .\t-2\n")), kind=st.sampled_from(TaskKind))
def test_examples_of_every_task(place: Path, saved: PretrainedBundle, content: bytes, kind: TaskKind) -> None:
    path = place / "table"
    path.write_bytes(content)
    task = make_task(TaskConfig(kind, {"de": str(path)}, {}, {"de": str(path)}))
    attempt(f"text for {kind.value}", lambda: task.encode_files({"train": {"de": str(path)}}, saved), len(content))


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
