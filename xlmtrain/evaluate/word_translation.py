"""Bilingual lexicon induction (BLI): translate words by nearest neighbours in the embedding table.

Letters: M candidates, D width.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from xlmtrain.errors import DataError
from xlmtrain.evaluate.knn import mean_of_nearest, ranks, similarities, unit_vectors
from xlmtrain.evaluate.tables import read_rows
from xlmtrain.metrics.table import format_table
from xlmtrain.text.vocab import Vocab

CSLS_NEIGHBOURS = 10
"""Neighbours k of CSLS."""

_HEADER = frozenset({"source", "target", "word", "translation", "en", "de", "english", "german", "englisch", "deutsch"})

Answers = dict[int, set[int]]
"""Id of a word -> ids of its translations."""


@dataclass(frozen=True)
class PrecisionAtK:
    """% of the ``queries`` with a right answer among the first 1, 5 and 10 of the ``candidates``.

    ``direction``: like ``en-de`` from English to German. ``among``: the candidates are all whole words of the
    vocabulary, or the lexicon's words of the target language. ``scoring``: cosine or csls.
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
    """Results of an embedding table on a lexicon.

    ``known``: number of the ``entries`` whose words are two different whole words of the vocabulary. ``cosine`` and
    ``distance`` (Euclidean): means over these, as in Table 5 of Lample & Conneau 2019. ``random_cosine`` and
    ``random_distance``: the same over pairs of words that are not translations.
    """

    entries: int
    known: int
    cosine: float
    random_cosine: float
    distance: float
    random_distance: float
    precision: list[PrecisionAtK]


def read_lexicon(path: Path) -> list[tuple[str, str]]:
    """Return (word, translation) of each line: the first two columns between tabs, or two words (MUSE format).

    A first line with the names of the columns is skipped. Raises DataError with file and line for anything else.
    """
    entries: list[tuple[str, str]] = []
    for number, cells in read_rows(path, "bilingual_lexicon"):
        columns = cells if len(cells) > 1 else cells[0].split()
        if len(columns) < 2 or not all(columns[:2]) or (len(columns) > 2 and len(cells) == 1):
            raise DataError(f"{path}:{number}: not a word, a tab and its translation: {' '.join(cells)[:60]!r}")
        if entries or not {column.casefold() for column in columns[:2]} <= _HEADER:
            entries.append((columns[0], columns[1]))
    if not entries:
        raise DataError(f"{path}: no entries in it")
    return entries


def lexicon_languages(path: Path, languages: Sequence[str]) -> tuple[str, str]:
    """Return the languages of the two columns, from a file name like ``en-de.tsv`` or ``name.en-de.txt``.

    They are called ``source`` and ``target`` if the name does not contain two of ``languages``.
    """
    for part in re.split("[._]", path.name):
        first, _, second = part.partition("-")
        if first != second and first in languages and second in languages:
            return first, second
    return "source", "target"


def translate_words(
    table: np.ndarray | torch.Tensor,
    vocab: Vocab,
    entries: Sequence[tuple[str, str]],
    languages: tuple[str, str] = ("source", "target"),
    device: torch.device | str = "cpu",
) -> WordTranslation:
    """Return the results in both directions, among both sets of candidates, by cosine and by CSLS.

    ``table``: (vocabulary, D). ``languages``: of the words and of the translations in ``entries``.

    An entry counts if both words are whole words of the vocabulary. The last piece of a split word looks like a whole
    word and cannot be distinguished. A word is matched in its own case if possible, else with the most frequent other
    case; an answer that differs by case only is right. A word is never a candidate for itself.

    CSLS of x and y is 2 cos(x, y) minus the mean cosine of y with the 10 nearest words of x's kind, and minus that of x
    likewise (Conneau et al. 2018). The last term is the same for all candidates and left out.
    Raises DataError if fewer than two entries count.
    """
    table = torch.as_tensor(table).detach().to(device, torch.float32)
    units = unit_vectors(table, device)
    words = np.flatnonzero(vocab.is_word).tolist()
    by_spelling: defaultdict[str, list[int]] = defaultdict(list)
    for id in words:
        by_spelling[vocab.token(id).lower()].append(id)  # most frequent first, as ids are

    def ids(word: str) -> list[int]:
        """Return the ids of the word in any case: the same case first, then the most frequent."""
        return sorted(by_spelling.get(word.lower(), []), key=lambda id: vocab.token(id) != word)

    pairs = [(ids(source), ids(target)) for source, target in entries]
    known = [(s, t) for s, t in pairs if s and t and s[0] != t[0]]
    if len(known) < 2:
        count = f"{len(known)} of its {len(entries):,} entries"
        raise DataError(f"bilingual_lexicon: {count} have two words that are whole in the vocabulary")
    left, right = (torch.tensor(side, device=device) for side in zip(*dict.fromkeys((s[0], t[0]) for s, t in known)))
    others = right.roll(len(right) // 2)  # no translations: half a lexicon away
    whole = torch.tensor(words, device=device)
    whole_hubness = _hubness(units, whole, whole)
    source, target = languages
    precision: list[PrecisionAtK] = []
    for direction, there in ((f"{source}-{target}", known), (f"{target}-{source}", [(t, s) for s, t in known])):
        sides = [sorted({word for pair in there for word in pair[side]}) for side in (0, 1)]
        sources, targets = (torch.tensor(side, device=device) for side in sides)
        answers: Answers = {s[0]: set() for s, _ in there}
        for s, t in there:
            answers[s[0]] |= set(t) - {s[0]}
        hubness = _hubness(units, targets, sources)
        for among, candidates, hubs in (("vocabulary", whole, whole_hubness), ("lexicon", targets, hubness)):
            precision += _precision(units, answers, candidates, hubs, direction, among)
    return WordTranslation(
        entries=len(entries),
        known=len(known),
        cosine=(units[left] * units[right]).sum(dim=1).mean().item(),
        random_cosine=(units[left] * units[others]).sum(dim=1).mean().item(),
        distance=(table[left] - table[right]).norm(dim=1).mean().item(),
        random_distance=(table[left] - table[others]).norm(dim=1).mean().item(),
        precision=precision,
    )


def _hubness(units: torch.Tensor, candidates: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    """Return the mean cosine (M,) of each candidate with its nearest ``sources``."""
    return mean_of_nearest(units[candidates], units[sources], CSLS_NEIGHBOURS, own=(candidates, sources))


def _precision(
    units: torch.Tensor, answers: Answers, candidates: torch.Tensor, hubness: torch.Tensor, direction: str, among: str
) -> Iterator[PrecisionAtK]:
    """Yield the results by cosine and by CSLS; ``candidates``: ids (M,), ``hubness``: (M,)."""
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
        rank = torch.cat(blocks).cpu()
        shares = (100 * (rank <= k).double().mean().item() for k in (1, 5, 10))
        yield PrecisionAtK(direction, among, scoring, len(queries), len(candidates), *shares)


def translation_table(found: WordTranslation) -> Iterator[str]:
    """Yield how much of the lexicon counted, how near translations are, and a row for each :class:`PrecisionAtK`."""
    yield f"{found.known:,} of {found.entries:,} entries are two different whole words of the vocabulary"
    yield f"cosine of translations {found.cosine:.4f}, of other words {found.random_cosine:.4f}"
    yield f"distance of translations {found.distance:.4f}, of other words {found.random_distance:.4f}"
    rows = []
    for row in found.precision:
        shares = (f"{share:.2f}%" for share in (row.p1, row.p5, row.p10))
        rows.append((row.direction, row.scoring, f"{row.candidates:,} {row.among}", f"{row.queries:,}", *shares))
    header = ("direction", "scoring", "among", "queries", "P@1", "P@5", "P@10")
    yield from format_table(rows, header, left=(0, 1)).splitlines()
