"""Finding a sentence's translation among all sentences of the other language by their vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import torch

from xlmtrain.errors import ConfigError, DataError
from xlmtrain.evaluate.knn import mean_of_nearest, ranks, similarities, unit_vectors
from xlmtrain.evaluate.parallel_text import read_parallel_lines
from xlmtrain.metrics.table import format_table

NEIGHBOURS = 4
"""The k of the margin."""


@dataclass(frozen=True)
class Retrieval:
    """How well translations are found.

    ``direction``: ``en-de`` finds German sentences for English ones. ``scoring``: cosine or margin. ``top1``: % of the
    sentences whose translation came first; ``mrr``: mean of 1 / rank.
    """

    direction: str
    scoring: str
    top1: float
    mrr: float


def aligned_sentences(template: str, languages: Sequence[str]) -> dict[str, list[str]]:
    """The sentences of each language that has a file, line by line translations of each other.

    ``template``: path of the files, ``{lang}`` standing for the language. A line that is blank in one language is left
    out in all. Raises ConfigError if fewer than two languages have a file, DataError for files that do not match.
    """
    if "{lang}" not in template:
        raise ConfigError(f"retrieval={template}: has no {{lang}} in it to stand for each language")
    paths = {language: Path(template.replace("{lang}", language)) for language in languages}
    found = {language: path for language, path in paths.items() if path.is_file()}
    if len(found) < 2:
        raise ConfigError(
            f"retrieval={template}: files of two of the model's languages are needed, there is "
            f"{', '.join(map(str, found.values())) or 'none'} (the model knows {', '.join(languages)})"
        )
    lines = [line for _, line in read_parallel_lines("retrieval", found) if all(line)]
    if not lines:
        raise DataError(f"retrieval={template}: no sentences in {', '.join(map(str, found.values()))}")
    return dict(zip(found, map(list, zip(*lines))))


def retrieve(
    vectors: Mapping[str, np.ndarray], sentences: Mapping[str, Sequence[str]], device: torch.device | str = "cpu"
) -> list[Retrieval]:
    """Both directions of each two languages, by cosine and by margin.

    ``vectors``: language -> (N, D) of the aligned ``sentences``. The margin of x and y is their cosine over the mean of
    the mean cosines of x with the 4 sentences of the other language nearest to it, and of y likewise (the ratio margin
    of Artetxe & Schwenk 2019); it takes a sentence down that is near to everything.

    Text often repeats a sentence. So the right answers are all sentences that read as the translation does, and the
    translations of all sentences that read as the one in question; ties with wrong answers count as lost
    (:func:`~xlmtrain.evaluate.knn.ranks`).
    """
    units = {language: unit_vectors(of_language, device) for language, of_language in vectors.items()}
    labels = {language: _labels(sentences[language]).to(device) for language in vectors}
    near = {pair: mean_of_nearest(units[pair[0]], units[pair[1]], NEIGHBOURS) for pair in permutations(units, 2)}
    results = []
    for source, target in near:
        found: dict[str, list[torch.Tensor]] = {"cosine": [], "margin": []}
        for block, cosines in similarities(units[source], units[target]):
            right = (labels[source][block, None] == labels[source]) | (labels[target][block, None] == labels[target])
            usual = (near[source, target][block, None] + near[target, source]) / 2
            found["cosine"].append(ranks(cosines, right))
            found["margin"].append(ranks(cosines / usual.clamp(min=1e-9), right))  # of zeros only, it would be 0 / 0
        for scoring, blocks in found.items():
            rank = torch.cat(blocks).double()
            top1, mrr = 100 * (rank == 1).double().mean(), (1 / rank).mean()
            results.append(Retrieval(f"{source}-{target}", scoring, top1.item(), mrr.item()))
    return results


def _labels(sentences: Sequence[str]) -> torch.Tensor:
    """(N,) numbers that are the same where the sentences are."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(sentence, len(numbers)) for sentence in sentences])


def retrieval_table(found: Mapping[tuple[str, int], Sequence[Retrieval]]) -> str:
    """Return a table with a row for each pooling and layer, the keys of ``found``: top-1 in % and MRR."""
    shown = next(iter(found.values()))
    rows = [
        (pooling, str(layer), *(f"{one.top1:.2f}% ({one.mrr:.4f})" for one in results))
        for (pooling, layer), results in found.items()
    ]
    return format_table(rows, ("pooling", "layer", *(f"{one.direction} {one.scoring}" for one in shown)))
