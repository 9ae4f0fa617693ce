"""Documents keep their borders: on disk, in training and in validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tiny import tiny_config
from xlmtrain.config.prepare import (
    BpeConfig,
    CleanConfig,
    NewTokenizerConfig,
    PrepareConfig,
    SplitConfig,
    TokenizerModel,
)
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.data.validation import ValidationSet
from xlmtrain.prepare.pipeline import prepare
from xlmtrain.text.vocab import EOS

DOCUMENTS = [
    [f"Satz {line} von Text {number}, der {'sehr ' * (line % 5)}lang ist." for line in range(1 + 7 * number % 11)]
    for number in range(60)
]
VALID = [["Ein Satz.", "Noch einer, etwas länger."], ["Ganz allein."]]
REPEATED = [DOCUMENTS[4][0]], [VALID[0][1]]  # documents of which nothing is left


def prepared(output: Path, suffix: str, documents: bool = True, **settings: Any) -> Dataset:
    """Prepare ``DOCUMENTS``, as lines with blank lines, or as JSON lines with a document in each."""
    files = {}
    for name, texts in {"train": [*DOCUMENTS[:20], *REPEATED, *DOCUMENTS[20:]], "valid": VALID}.items():
        files[name] = output.with_name(f"{output.name}.{name}{suffix}")
        if suffix == ".jsonl":
            text = "".join(json.dumps({"text": "\n\n".join(one)}) + "\n" for one in texts)
        else:
            text = " \n\n".join("".join(f"{line}\n" for line in one) for one in texts)
        files[name].write_text(text, encoding="utf-8")
    splits = {name: SplitConfig(mono={"de": [str(path)]}) for name, path in files.items()}
    settings = {"bpe": BpeConfig(merges=50), "shard_mb": 1, **settings}
    config = PrepareConfig(
        output=str(output),
        **splits,
        documents=documents,
        clean=CleanConfig(drop_duplicates=True),
        workers=1,
        **settings,
    )
    prepare(config)
    return Dataset(output)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepared(tmp_path_factory.mktemp("documents") / "lines", ".de")


def texts_of(dataset: Dataset, name: str) -> list[tuple[int, ...]]:
    """The ids of each document, cut at sentences of EOS alone."""
    corpus, texts = dataset.corpus(name), [()]
    for sentence in corpus.sentences(range(len(corpus))):
        texts[-1] += tuple(sentence.tolist()) if len(sentence) > 1 else ()
        texts += [()] if len(sentence) == 1 else []
    return [text for text in texts if text]


def test_blank_lines_and_rows_of_tables_are_the_same_borders(dataset: Dataset, tmp_path: Path) -> None:
    table = prepared(tmp_path / "table", ".jsonl")
    without = prepared(tmp_path / "without", ".de", documents=False)
    for name, count in (("train.de", 60), ("valid.de", 2)):
        texts = texts_of(dataset, name)
        assert texts == texts_of(table, name)
        assert len(texts) == dataset.header.corpora[name].documents == table.header.corpora[name].documents == count
        (text,) = texts_of(without, name)
        assert sum(texts, ()) == text  # the same sentences, of which the repeated ones are left out
        assert without.header.corpora[name].documents == 0
    assert "documents" not in (tmp_path / "without" / "dataset.json").read_text()


def test_ids_of_a_new_tokenizer_keep_the_borders(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="the tokenizers library is an extra")
    new = NewTokenizerConfig(model=TokenizerModel.bpe, size=300)
    data = prepared(tmp_path / "data", ".jsonl", bpe=BpeConfig(), new_tokenizer=new)
    eos = data.vocab.special.eos
    corpus = data.corpus("train.de")
    ends = [index for index in range(len(corpus)) if corpus.sentence(index).tolist() == [eos]]
    assert len(ends) == data.header.corpora["train.de"].documents == 60


@pytest.mark.parametrize("objective", ["mlm", "clm"])
def test_a_sequence_is_a_piece_of_one_document(dataset: Dataset, objective: str) -> None:
    texts = texts_of(dataset, "train.de")
    changes = {f"data.{name}": {"de": 1.0} if name == objective else {} for name in ("mlm", "clm", "tlm")}
    config = tiny_config("run", dataset.path, {**changes, "data.sequence_length": 32, "data.sub_batch_tokens": 64})
    loader = Loader(config, dataset)
    (component,) = loader.sampler.components
    for epoch in (0, 1):
        pieces = []
        for index in range(component.source.sub_batch_count(epoch)):
            sequences = component.source.sequences(epoch, index)
            assert sequences.tokens.size <= 64
            for row, positions, length in zip(sequences.tokens, sequences.positions, sequences.lengths.tolist()):
                assert row[0] == EOS
                assert positions.tolist() == list(range(len(row)))
                pieces.append(tuple(row[1:length].tolist()))
        assert all(
            any(piece == text[at : at + len(piece)] for text in texts for at in range(len(text))) for piece in pieces
        )
        assert sorted(sum(pieces, ())) == sorted(sum(texts, ()))  # every token once an epoch
        assert len(pieces) == sum(-(-len(text) // 31) for text in texts)
    assert all(len(batch.targets) for batch in loader.make(0, loader.sampler.initial_state()).batches)


def test_windows_across_documents_are_a_choice(dataset: Dataset) -> None:
    changes = {"data.mlm": {"de": 1.0}, "data.tlm": {}, "data.across_documents": True}
    loader = Loader(tiny_config("run", dataset.path, changes), dataset)
    sequences = loader.sampler.components[0].source.sequences(0, 0)
    tokens = sequences.tokens.ravel()
    assert (sequences.lengths == sequences.tokens.shape[1]).all()
    assert ((tokens[1:] == EOS) & (tokens[:-1] == EOS)).any()


@pytest.mark.parametrize("max_tokens", [0, 100])
def test_validation_reads_documents(dataset: Dataset, max_tokens: int) -> None:
    config = tiny_config("run", dataset.path, {"data.sequence_length": 16, "evaluate.max_tokens": max_tokens})
    config.evaluate.batch_tokens = 64
    batches = [*ValidationSet(config, dataset, "train", "clm", "de").batches()]
    read = sum(int(batch.nonpad_tokens) - len(batch.tokens) for batch in batches)
    total = sum(len(text) for text in texts_of(dataset, "train.de"))
    assert read == total if max_tokens == 0 else 100 - 15 < read <= 100
    shared = [
        batch.tokens
        for rank in range(2)
        for batch in ValidationSet(config, dataset, "train", "mlm", "de").batches(rank, 2)
    ]
    assert sum(map(len, shared)) == sum(len(batch.tokens) for batch in batches)
    assert np.concatenate([one.ravel() for one in shared]).size > 0
