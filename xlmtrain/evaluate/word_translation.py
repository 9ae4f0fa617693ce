"""Translating words by the embedding table, held against a dictionary."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from xlmtrain.errors import DataError
from xlmtrain.evaluate.knn import mean_of_nearest, ranks, similarities, unit_vectors
from xlmtrain.evaluate.parallel_text import read_parallel_lines
from xlmtrain.metrics.table import format_table
from xlmtrain.text.vocab import CONTINUATION, SPECIALS, Vocab

NEIGHBOURS = 10
"""The k of CSLS."""

Answers = dict[int, set[int]]
"""Id of a word -> ids of its translations."""


@dataclass(frozen=True)
class PrecisionAtK:
    """% of the ``queries`` with a right answer among the first 1, 5 and 10 of so many ``candidates``.

    ``direction``: forward from the dictionary's first column to its second, or backward. ``among``: what the candidates
    are, all whole words of the vocabulary, or the dictionary's words of the other language.
    """

    direction: str
    among: str
    scoring: str
    queries: int
    candidates: int
    p1: float
    p5: float
    p10: float


@dataclass(frozen=True)
class WordTranslation:
    """What the table knows of a dictionary.

    Of its ``entries``, in ``known`` both words are in the vocabulary, and different entries of it. ``cosine`` and
    ``distance`` (Euclidean): means over these, as in Table 5 of Lample & Conneau 2019; ``random_cosine`` and
    ``random_distance``: the same of words that are no translations.
    """

    entries: int
    known: int
    cosine: float
    random_cosine: float
    distance: float
    random_distance: float
    precision: list[PrecisionAtK]


def read_dictionary(path: Path) -> list[tuple[str, str]]:
    """The first two columns of a file with tabs; or both words of each line, apart by a blank (the MUSE format).

    Raises DataError with file and line for what is neither.
    """
    entries = []
    for number, (line,) in read_parallel_lines("dictionary", {"": path}):
        columns = [column.strip() for column in line.split("\t")] if "\t" in line else line.split()
        if not line:
            continue
        if len(columns) < 2 or not all(columns[:2]) or (len(columns) > 2 and "\t" not in line):
            raise DataError(f"{path}:{number}: not a word, a tab and its translation: {line[:60]!r}")
        entries.append((columns[0], columns[1]))
    if not entries:
        raise DataError(f"{path}: no entries in it")
    return entries


def translate_words(
    table: np.ndarray | torch.Tensor,
    vocab: Vocab,
    entries: Sequence[tuple[str, str]],
    device: torch.device | str = "cpu",
) -> WordTranslation:
    """Both directions over both sets of candidates, by cosine and by CSLS; ``table``: (vocabulary, D).

    Only entries count whose words both are in the vocabulary as a whole (it has the last pieces of split words in the
    same form, they cannot be told apart). Case matters only where it can: a word stands for the vocabulary's word of
    that spelling, or else for the most frequent that differs by case; an answer that differs by case is right.
    A word is never a candidate for itself: "in" is "in" in both languages, and nothing is learned from that.

    CSLS of x and y is 2 cos(x, y) minus the mean cosine of y with the 10 nearest of the words that x is one of, and of
    x likewise (Conneau et al. 2018); the latter is the same for all candidates and left out.
    Raises DataError if no entry counts.
    """
    table = torch.as_tensor(table).detach().to(device, torch.float32)
    units, words = unit_vectors(table, device), _WholeWords(vocab)
    pairs = [(s, t) for s, t in ((words.ids(source), words.ids(target)) for source, target in entries) if s and t]
    known = [(s, t) for s, t in pairs if s[0] != t[0]]
    if len(known) < 2:
        raise DataError(
            f"dictionary: {len(known)} of its {len(entries):,} entries have two words that are whole in the vocabulary"
        )
    left, right = (torch.tensor(side, device=device) for side in zip(*dict.fromkeys((s[0], t[0]) for s, t in known)))
    others = right.roll(len(right) // 2)  # half a dictionary on
    whole = torch.tensor(words.all, device=device)
    common = _hubness(units, whole, whole)
    precision: list[PrecisionAtK] = []
    for direction, there in (("forward", known), ("backward", [(t, s) for s, t in known])):
        sides = [sorted({word for pair in there for word in pair[side]}) for side in (0, 1)]
        sources, targets = (torch.tensor(side, device=device) for side in sides)
        hubness = _hubness(units, targets, sources)
        for among, candidates, hubs in (("vocabulary", whole, common), ("dictionary", targets, hubness)):
            precision += _precision(units, _answers(there), candidates, hubs, direction, among)
    return WordTranslation(
        entries=len(entries),
        known=len(known),
        cosine=(units[left] * units[right]).sum(dim=1).mean().item(),
        random_cosine=(units[left] * units[others]).sum(dim=1).mean().item(),
        distance=(table[left] - table[right]).norm(dim=1).mean().item(),
        random_distance=(table[left] - table[others]).norm(dim=1).mean().item(),
        precision=precision,
    )


class _WholeWords:
    """The vocabulary's entries that are no special symbol and do not go on; ``all``: their ids."""

    def __init__(self, vocab: Vocab) -> None:
        whole = range(len(SPECIALS), len(vocab))
        self.all = [id for id in whole if not vocab.word(id).endswith(CONTINUATION)]
        self._vocab = vocab
        self._by_spelling: defaultdict[str, list[int]] = defaultdict(list)
        for id in self.all:
            self._by_spelling[vocab.word(id).lower()].append(id)  # most frequent first, as ids are

    def ids(self, word: str) -> list[int]:
        """The word's id and those that differ by case only: the same case first, then the more frequent."""
        same = self._by_spelling.get(word.lower(), [])
        return sorted(same, key=lambda id: self._vocab.word(id) != word)


def _answers(pairs: Sequence[tuple[list[int], list[int]]]) -> Answers:
    answers: defaultdict[int, set[int]] = defaultdict(set)
    for source, target in pairs:
        answers[source[0]].update(target)
        answers[source[0]].discard(source[0])
    return answers


def _hubness(units: torch.Tensor, candidates: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    """How near each candidate (M,) is to those of ``sources`` that it is nearest to."""
    return mean_of_nearest(units[candidates], units[sources], NEIGHBOURS, own=(candidates, sources))


def _precision(
    units: torch.Tensor, answers: Answers, candidates: torch.Tensor, hubness: torch.Tensor, direction: str, among: str
) -> Iterator[PrecisionAtK]:
    """By cosine and by CSLS; ``candidates``: ids (M,), ``hubness``: of each (M,)."""
    queries = torch.tensor([*answers], device=units.device)
    place = {id: number for number, id in enumerate(candidates.tolist())}
    found: dict[str, list[torch.Tensor]] = {"cosine": [], "csls": []}
    for block, cosines in similarities(units[queries], units[candidates]):
        right = torch.zeros(cosines.shape, dtype=torch.bool)
        for row, query in enumerate(queries[block].tolist()):
            right[row, [place[id] for id in answers[query]]] = True
        right = right.to(units.device)
        cosines.masked_fill_(queries[block, None] == candidates, -torch.inf)
        found["cosine"].append(ranks(cosines, right))
        found["csls"].append(ranks(2 * cosines - hubness, right))
    for scoring, blocks in found.items():
        rank = torch.cat(blocks)
        shares = (100 * (rank <= most).double().mean().item() for most in (1, 5, 10))
        yield PrecisionAtK(direction, among, scoring, len(queries), len(candidates), *shares)


def translation_table(found: WordTranslation) -> Iterator[str]:
    """Yield how much of the dictionary counted, how near translations are, and a row for each :class:`Precision`."""
    yield f"{found.known:,} of {found.entries:,} entries are two different whole words of the vocabulary"
    yield f"cosine of translations {found.cosine:.4f}, of other words {found.random_cosine:.4f}"
    yield f"distance of translations {found.distance:.4f}, of other words {found.random_distance:.4f}"
    rows = [
        (
            *(one.direction, one.scoring, f"{one.candidates:,} {one.among}", f"{one.queries:,}"),
            *(f"{share:.2f}%" for share in (one.p1, one.p5, one.p10)),
        )
        for one in found.precision
    ]
    header = ("direction", "scoring", "among", "queries", "P@1", "P@5", "P@10")
    yield from format_table(rows, header, left=(0, 1)).splitlines()
