"""Bitext retrieval, P@1: for each sentence, find its translation among all sentences of the other language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch

from xlmtrain.config.evaluate import Pooling
from xlmtrain.data.dataset import Dataset
from xlmtrain.evaluate.knn import mean_of_nearest, ranks, similarities, unit_vectors
from xlmtrain.metrics.table import format_table

MARGIN_NEIGHBOURS = 4
"""Neighbours k of the margin."""
MAX_TOKENS = 256
"""Sentences with more tokens, or more than the model has positions, are left out: they would dominate the cost."""


@dataclass(frozen=True)
class Retrieval:
    """Result of one direction: ``en-de`` looks for German sentences, given English ones.

    ``scoring``: cosine or margin. ``top1``: % of sentences whose translation ranks first. ``mrr``: mean of 1 / rank.
    """

    direction: str
    scoring: str
    top1: float
    mrr: float


def validation_pairs(dataset: Dataset, pair: str, positions: int, count: int) -> dict[str, list[np.ndarray]]:
    """Return language -> ids of the first ``count`` validation sentences of ``pair``, each with its EOS.

    Equal indices are translations of each other. Empty if no pair fits into ``positions``.
    """
    sides = dict(zip(pair.split("-"), dataset.pair("valid", pair)))
    lengths = np.stack([side.lengths() for side in sides.values()])
    fits = lengths.max(axis=0) + 2 <= min(positions, MAX_TOKENS)
    usable = np.flatnonzero(fits & (lengths.min(axis=0) > 0))[:count]
    if not len(usable):
        return {}
    return {language: [side.sentence(i).astype(np.int64) for i in usable] for language, side in sides.items()}


def retrieve(
    vectors: Mapping[str, np.ndarray], sentences: Mapping[str, Sequence[str]], device: torch.device | str = "cpu"
) -> list[Retrieval]:
    """Return the results of both directions of every two languages, by cosine and by margin.

    ``vectors``: language -> (N, D) of the aligned ``sentences``. The margin of x and y is their cosine over the mean of
    two means: the cosines of x with its 4 nearest neighbours in the other language, and those of y likewise (ratio
    margin of Artetxe & Schwenk 2019). It lowers the score of sentences that are near to everything.

    Texts repeat sentences, so several answers are right: all sentences that equal the translation, and the translations
    of all sentences that equal the query.
    """
    units = {language: unit_vectors(of_language, device) for language, of_language in vectors.items()}
    labels = {language: _labels(sentences[language]).to(device) for language in vectors}
    near = {pair: mean_of_nearest(units[pair[0]], units[pair[1]], MARGIN_NEIGHBOURS) for pair in permutations(units, 2)}
    results = []
    for source, target in near:
        found: dict[str, list[torch.Tensor]] = {"cosine": [], "margin": []}
        for block, cosines in similarities(units[source], units[target]):
            right = (labels[source][block, None] == labels[source]) | (labels[target][block, None] == labels[target])
            mean = (near[source, target][block, None] + near[target, source]) / 2
            found["cosine"].append(ranks(cosines, right))
            found["margin"].append(ranks(cosines / mean.clamp(min=1e-9), right))  # zero vectors have a mean of 0
        for scoring, blocks in found.items():
            rank = torch.cat(blocks).cpu().double()
            top1, mrr = 100 * (rank == 1).double().mean(), (1 / rank).mean()
            results.append(Retrieval(f"{source}-{target}", scoring, top1.item(), mrr.item()))
    return results


def retrieve_by_layer(
    vectors: Mapping[str, Mapping[Pooling, np.ndarray]],
    sentences: Mapping[str, Sequence[str]],
    device: torch.device | str = "cpu",
) -> dict[tuple[str, int], list[Retrieval]]:
    """Return (pooling, layer) -> :func:`retrieve`; ``vectors``: language -> pooling -> (layers, N, D)."""
    return {
        (pooling.value, layer): retrieve({lang: x[pooling][layer] for lang, x in vectors.items()}, sentences, device)
        for pooling, layers in next(iter(vectors.values())).items()
        for layer in range(len(layers))
    }


def _labels(sentences: Sequence[str]) -> torch.Tensor:
    """Return (N,) int64 labels that are equal where the sentences are."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(sentence, len(numbers)) for sentence in sentences])


def retrieval_table(found: Mapping[tuple[str, int], Sequence[Retrieval]]) -> str:
    """Return a table with a row for each pooling and layer, the keys of ``found``: top-1 in % and MRR."""
    shown = next(iter(found.values()))
    rows = [
        (pooling, str(layer), *(f"{result.top1:.2f}% ({result.mrr:.4f})" for result in results))
        for (pooling, layer), results in found.items()
    ]
    return format_table(rows, ("pooling", "layer", *(f"{result.direction} {result.scoring}" for result in shown)))
