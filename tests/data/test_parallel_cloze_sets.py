"""Cloze on parallel text: the same words are masked with and without the translation, and nothing else differs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.tiny import tiny_config
from xlmtrain.data.batch import Batch
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.validation import ParallelClozeSet, parallel_cloze_sets
from xlmtrain.text.vocab import EOS, MASK, PAD


def sides(data: Path, masked: str, max_pairs: int = 0) -> tuple[ParallelClozeSet, ParallelClozeSet]:
    config, dataset = tiny_config("run", data), Dataset(data)
    mono, parallel = (
        ParallelClozeSet(config, dataset, "valid", "de-en", masked, there, max_pairs) for there in (False, True)
    )
    return mono, parallel


def rows(batch: Batch) -> list[tuple[list[int], list[int], list[int]]]:
    """Tokens, positions and languages of each row, without the padding."""
    lengths = [batch.tokens.shape[1]] * len(batch.tokens) if batch.lengths is None else batch.lengths.tolist()
    return [
        (batch.tokens[i, :n].tolist(), batch.positions[i, :n].tolist(), batch.languages[i, :n].tolist())
        for i, n in enumerate(lengths)
    ]


def whole(batch: Batch) -> torch.Tensor:
    """The tokens before any were masked."""
    return batch.tokens.flatten().scatter(0, batch.target_index, batch.targets).view_as(batch.tokens)


@pytest.mark.parametrize(("masked", "other"), [("de", "en"), ("en", "de")])
def test_both_mask_the_same_words(tiny_dataset: Path, masked: str, other: str) -> None:
    mono, parallel = sides(tiny_dataset, masked)
    assert (mono.name, parallel.name) == (
        f"valid/{masked}-{other}_cloze_mono",
        f"valid/{masked}-{other}_cloze_parallel",
    )
    dataset, seen = Dataset(tiny_dataset), []
    corpora = dict(zip(("de", "en"), dataset.pair("valid", "de-en")))
    pairs = [[corpora[lang].sentence(i).tolist() for lang in ("de", "en")] for i in range(25)]
    first, second = list(mono.batches()), list(parallel.batches())
    assert len(first) == len(second) > 1
    for one, both in zip(first, second):
        assert torch.equal(one.targets, both.targets)
        assert (one.tokens.flatten()[one.target_index] == MASK).all()
        assert (both.tokens.flatten()[both.target_index] == MASK).all()
        assert int((both.tokens == MASK).sum()) == int((one.tokens == MASK).sum()) == len(one.targets)
        for (tokens, positions, languages), (pair_tokens, pair_positions, pair_languages) in zip(rows(one), rows(both)):
            german_ends = pair_tokens.index(EOS, 1) + 1
            mine = slice(0, german_ends) if masked == "de" else slice(german_ends, None)
            assert pair_tokens[mine] == tokens
            assert pair_positions[mine] == positions == [*range(len(tokens))]
            assert pair_languages[mine] == languages == [dataset.language_id(masked)] * len(tokens)
            assert MASK not in pair_tokens[german_ends:] if masked == "de" else MASK not in pair_tokens[:german_ends]
            assert MASK in tokens[1:-1]
            assert tokens[0] == tokens[-1] == EOS
        assert torch.equal(whole(one), torch.where(one.tokens == MASK, whole(one), one.tokens))
        seen += [tokens for tokens, _, _ in rows(Batch(**{**vars(both), "tokens": whole(both)}))]
    expected = [[EOS, *german, EOS, *english] for german, english in pairs if len(german) > 1]
    assert sorted(seen) == sorted(expected)


def test_about_the_share_that_training_masks(tiny_dataset: Path) -> None:
    for chosen in sides(tiny_dataset, "de"):
        hidden = sum(len(batch.targets) for batch in chosen.batches())
        words = sum(int(((whole(b) != PAD) & (whole(b) != EOS) & (b.languages == 0)).sum()) for b in chosen.batches())
        assert 0.1 < hidden / words < 0.3  # 15 %, and at least one in each of these short sentences


@pytest.mark.parametrize("place", [0, 1])
def test_processes_share_them(tiny_dataset: Path, place: int) -> None:
    chosen = sides(tiny_dataset, "en")[place]
    every = list(chosen.batches())
    parts = [list(chosen.batches(rank, 2)) for rank in range(2)]
    assert len(every) > 2
    for number, batch in enumerate(every):
        part = parts[number % 2][number // 2]
        assert torch.equal(part.tokens, batch.tokens)
        assert torch.equal(part.target_index, batch.target_index)


def test_the_first_pairs_only(tiny_dataset: Path) -> None:
    corpora = Dataset(tiny_dataset).pair("valid", "de-en")
    usable = [i for i in range(25) if len(corpora[0].sentence(i)) > 1][:6]
    mono, _ = sides(tiny_dataset, "de", max_pairs=6)
    found = [row[0] for batch in mono.batches() for row in rows(Batch(**{**vars(batch), "tokens": whole(batch)}))]
    assert sorted(found) == sorted([EOS, *corpora[0].sentence(i).tolist()] for i in usable)


def test_every_side_of_every_pair(tiny_dataset: Path) -> None:
    names = [one.name for one in parallel_cloze_sets(tiny_config("run", tiny_dataset), Dataset(tiny_dataset))]
    assert names == [
        "valid/de-en_cloze_mono",
        "valid/de-en_cloze_parallel",
        "valid/en-de_cloze_mono",
        "valid/en-de_cloze_parallel",
    ]
    assert parallel_cloze_sets(tiny_config("run", tiny_dataset), Dataset(tiny_dataset), "test") == []
