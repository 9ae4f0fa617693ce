"""Beam search, for all sentences of a batch at once.

Letters: N sentences, n sentences that are not finished, K beams, V vocabulary, W tokens of the longest translation and
its ``</s>``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from xlmtrain.data.batch import EncoderInput
from xlmtrain.generate.decoding import suppress_special_tokens, top_tokens, up_to_eos
from xlmtrain.model.translation_model import TranslationModel
from xlmtrain.runtime.precision import eval_mode


@dataclass(frozen=True)
class BeamSettings:
    """Width and rules of the search.

    A finished translation of n tokens, ``</s>`` counted, scores (sum of its log-probabilities) / n^``length_penalty``.
    A sentence is finished once it has ``num_beams`` translations and no prefix can give a better one, or at once with
    ``early_stopping``. ``original_rules``: the rules of the original XLM. There, special tokens may be generated; a
    ``</s>`` counts while fewer than ``num_beams`` unfinished candidates rank above it; and a translation that is cut at
    its limit is scored with the token that no longer fits, not with ``</s>``.
    """

    num_beams: int = 4
    length_penalty: float = 1.0
    early_stopping: bool = False
    original_rules: bool = False


class Hypothesis(NamedTuple):
    """A translation: ``ids``, ending with ``</s>``, and its score."""

    ids: np.ndarray
    score: float


class _Finished:
    """The best translations found so far: ``scores`` (N, K), -inf where there is none, and ``tokens`` (N, K, W)."""

    def __init__(self, sentences: int, size: int, longest: int, device: torch.device, eos: int) -> None:
        self.scores = torch.full((sentences, size), -torch.inf, device=device)
        self.tokens = torch.full((sentences, size, longest), eos, device=device)

    def add(self, sentences: torch.Tensor, scores: torch.Tensor, tokens: torch.Tensor) -> None:
        """Add translations of ``sentences`` (n,), ``scores`` (n, C) and ``tokens`` (n, C, W), and keep the K best."""
        size = self.scores.shape[1]
        best = torch.cat([self.scores[sentences], scores], dim=1).topk(size)
        tokens = torch.cat([self.tokens[sentences], tokens], dim=1)
        self.scores[sentences], self.tokens[sentences] = best.values, _select(tokens, best.indices)


def beam_search(
    model: TranslationModel, source: EncoderInput, language: int, max_lengths: torch.Tensor, settings: BeamSettings
) -> list[list[Hypothesis]]:
    """Return up to ``settings.num_beams`` translations of each sentence into ``language``, the best first.

    ``max_lengths`` (N,): most tokens of each translation, both ``</s>`` counted, 3 or more.
    """
    with eval_mode(model):
        finished = _search(model, source, language, max_lengths, settings)
    return [
        [
            Hypothesis(ids, score)
            for ids, score in zip(up_to_eos(tokens, model.special.eos), scores)
            if score > -torch.inf
        ]
        for tokens, scores in zip(finished.tokens, finished.scores.tolist())
    ]


def _search(
    model: TranslationModel, source: EncoderInput, language: int, max_lengths: torch.Tensor, settings: BeamSettings
) -> _Finished:
    size, penalty, device = settings.num_beams, settings.length_penalty, max_lengths.device
    longest, special = int(max_lengths.max()) - 1, model.special
    suppressed = torch.tensor([] if settings.original_rules else special.but_eos(), dtype=torch.int64, device=device)
    finished = _Finished(len(max_lengths), size, longest, device, special.eos)
    cache = model.start(source, size, longest)
    sentences = torch.arange(len(max_lengths), device=device)
    prefixes = torch.full((len(max_lengths), size, longest), special.eos, device=device)
    last = torch.full_like(prefixes[:, :, 0], special.bos)
    sums = torch.full((len(max_lengths), size), -torch.inf, device=device)
    sums[:, 0] = 0.0  # all beams are the same at first: only one of them may have successors
    for number in range(longest):
        at_limit = max_lengths[sentences] == number + 2
        logits = model.next_logits(last, language, cache).flatten(0, 1)
        scores, beams, tokens = _candidates(
            suppress_special_tokens(logits, suppressed), sums, at_limit, settings, special.eos
        )
        # A later translation scores at most the best candidate's sum over the largest length.
        bound = scores[:, 0] / (max_lengths[sentences] - 1) ** penalty
        worst = finished.scores[sentences].amin(dim=1)
        stopped = (worst > -torch.inf) & (settings.early_stopping | (worst >= bound))

        ends = (tokens == special.eos) | at_limit[:, None]
        better = (~ends).cumsum(dim=1) if settings.original_rules else torch.arange(2 * size, device=device)
        offered = ends & (better < size) & ~stopped[:, None]
        if offered.any():
            normalized = (scores / (number + 1) ** penalty).masked_fill(~offered, -torch.inf)
            finished.add(sentences, normalized, _select(prefixes, beams))

        left = cache.drop(stopped | at_limit)
        if not len(left):
            break
        following = ends[left].sort(dim=1, stable=True).indices[:, :size]  # the best that do not end
        sums, beams, last = (x[left].gather(1, following) for x in (scores, beams, tokens))
        sentences, prefixes = sentences[left], _select(prefixes[left], beams)
        prefixes[:, :, number] = last
        cache.reorder(beams)
    return finished


def _candidates(
    logits: torch.Tensor, sums: torch.Tensor, at_limit: torch.Tensor, settings: BeamSettings, eos: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the best 2 K continuations of each sentence: their sums, beams and tokens, (n, 2 K), best first.

    ``logits``: (n K, V). ``sums``: log-probabilities of the prefixes, (n, K). 2 K, because K of them may be ``</s>``.
    """
    values, tokens = top_tokens(logits, min(2 * settings.num_beams, logits.shape[1]))
    largest = values[:, :1].clone()
    if not settings.original_rules:  # at the limit, only </s> may follow
        rows = at_limit.repeat_interleave(settings.num_beams).nonzero()[:, 0]
        values[rows] = -torch.inf
        values[rows, 0], tokens[rows, 0] = logits[rows, eos], eos
    normalizer = logits.sub_(largest).exp_().sum(dim=1, keepdim=True).log() + largest
    scores = (values - normalizer + sums.view(-1, 1)).view(len(sums), -1)
    best = scores.topk(2 * settings.num_beams)
    return best.values, best.indices // values.shape[1], tokens.view(len(sums), -1).gather(1, best.indices)


def _select(tokens: torch.Tensor, beams: torch.Tensor) -> torch.Tensor:
    """Return the rows ``beams`` (n, C) of ``tokens`` (n, K, W) of each sentence, (n, C, W)."""
    return tokens.gather(1, beams[:, :, None].expand(-1, -1, tokens.shape[2]))
