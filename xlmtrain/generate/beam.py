"""Beam search, for all sentences of a batch at once.

Letters: N sentences, n sentences that are not finished, K beams, V vocabulary, W words of the longest translation and
its ``</s>``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from xlmtrain.data.batch import EncoderInput
from xlmtrain.generate.decoding import bar_special_words, evaluation, top_words, up_to_eos
from xlmtrain.model.translation_model import TranslationModel
from xlmtrain.text.vocab import EOS


@dataclass(frozen=True)
class BeamSettings:
    """Width and rules of the search.

    A finished translation of n tokens, ``</s>`` counted, scores (sum of its log-probabilities) / n^``length_penalty``.
    A sentence is finished once it has ``size`` translations and no prefix can give a better one, or at once with
    ``early_stopping``. ``original_rules``: the rules of the original XLM. There, special words may be generated; a
    ``</s>`` counts while fewer than ``size`` unfinished candidates rank above it; and a translation that is cut at its
    limit is scored with the word that no longer fits, not with ``</s>``.
    """

    size: int = 4
    length_penalty: float = 1.0
    early_stopping: bool = False
    original_rules: bool = False


class Hypothesis(NamedTuple):
    """A translation: ``ids``, ending with ``</s>``, and its score."""

    ids: np.ndarray
    score: float


class _Finished:
    """The best translations found so far: ``scores`` (N, K), -inf where there is none, and ``words`` (N, K, W)."""

    def __init__(self, sentences: int, size: int, longest: int, device: torch.device) -> None:
        self.scores = torch.full((sentences, size), -torch.inf, device=device)
        self.words = torch.full((sentences, size, longest), EOS, device=device)

    def offer(self, sentences: torch.Tensor, scores: torch.Tensor, words: torch.Tensor) -> None:
        """Add translations of ``sentences`` (n,), ``scores`` (n, C) and ``words`` (n, C, W), and keep the K best."""
        size = self.scores.shape[1]
        best = torch.cat([self.scores[sentences], scores], dim=1).topk(size)
        words = torch.cat([self.words[sentences], words], dim=1)
        self.scores[sentences], self.words[sentences] = best.values, _select(words, best.indices)


def beam_search(
    model: TranslationModel, source: EncoderInput, language: int, limits: torch.Tensor, settings: BeamSettings
) -> list[list[Hypothesis]]:
    """Return up to ``settings.size`` translations of each sentence into ``language``, the best first.

    ``limits`` (N,): most tokens of each translation, both ``</s>`` counted, 3 or more.
    """
    with evaluation(model):
        finished = _search(model, source, language, limits, settings)
    return [
        [Hypothesis(ids, score) for ids, score in zip(up_to_eos(words), scores) if score > -torch.inf]
        for words, scores in zip(finished.words, finished.scores.tolist())
    ]


def _search(
    model: TranslationModel, source: EncoderInput, language: int, limits: torch.Tensor, settings: BeamSettings
) -> _Finished:
    size, penalty, device = settings.size, settings.length_penalty, limits.device
    longest = int(limits.max()) - 1
    finished = _Finished(len(limits), size, longest, device)
    cache = model.start(source, size, longest)
    sentences = torch.arange(len(limits), device=device)
    prefixes = torch.full((len(limits), size, longest), EOS, device=device)
    last = prefixes[:, :, 0]
    sums = torch.full((len(limits), size), -torch.inf, device=device)
    sums[:, 0] = 0.0  # all beams are the same at first: only one of them may have successors
    for number in range(longest):
        at_limit = limits[sentences] == number + 2
        logits = model.next_logits(last, language, cache).flatten(0, 1)
        scores, beams, words = _candidates(logits, sums, at_limit, settings)
        # A later translation scores at most the best candidate's sum over the largest length.
        bound = scores[:, 0] / (limits[sentences] - 1) ** penalty
        worst = finished.scores[sentences].amin(dim=1)
        stopped = (worst > -torch.inf) & (settings.early_stopping | (worst >= bound))

        ends = (words == EOS) | at_limit[:, None]
        better = (~ends).cumsum(dim=1) if settings.original_rules else torch.arange(2 * size, device=device)
        offered = ends & (better < size) & ~stopped[:, None]
        if offered.any():
            normalized = (scores / (number + 1) ** penalty).masked_fill(~offered, -torch.inf)
            finished.offer(sentences, normalized, _select(prefixes, beams))

        left = cache.drop(stopped | at_limit)
        if not len(left):
            break
        following = ends[left].sort(dim=1, stable=True).indices[:, :size]  # the best that do not end
        sums, beams, last = (x[left].gather(1, following) for x in (scores, beams, words))
        sentences, prefixes = sentences[left], _select(prefixes[left], beams)
        prefixes[:, :, number] = last
        cache.reorder(beams)
    return finished


def _candidates(
    logits: torch.Tensor, sums: torch.Tensor, at_limit: torch.Tensor, settings: BeamSettings
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the best 2 K continuations of each sentence: their sums, beams and words, (n, 2 K), best first.

    ``logits``: (n K, V). ``sums``: log-probabilities of the prefixes, (n, K). 2 K, because K of them may be ``</s>``.
    """
    if not settings.original_rules:
        bar_special_words(logits)
    values, words = top_words(logits, min(2 * settings.size, logits.shape[1]))
    largest = values[:, :1].clone()
    if not settings.original_rules:  # at the limit, only </s> may follow
        rows = at_limit.repeat_interleave(settings.size).nonzero()[:, 0]
        values[rows] = -torch.inf
        values[rows, 0], words[rows, 0] = logits[rows, EOS], EOS
    normalizer = logits.sub_(largest).exp_().sum(dim=1, keepdim=True).log() + largest
    scores = (values - normalizer + sums.view(-1, 1)).view(len(sums), -1)
    best = scores.topk(2 * settings.size)
    return best.values, best.indices // values.shape[1], words.view(len(sums), -1).gather(1, best.indices)


def _select(words: torch.Tensor, beams: torch.Tensor) -> torch.Tensor:
    """Return the rows ``beams`` (n, C) of ``words`` (n, K, W) of each sentence, (n, C, W)."""
    return words.gather(1, beams[:, :, None].expand(-1, -1, words.shape[2]))
