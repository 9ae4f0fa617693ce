"""Translation word by word: always the most probable word, or one drawn from the model's distribution.

Letters: B sentences, R sentences that are not finished, V vocabulary, W words of the longest translation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from xlmtrain.data.batch import EncoderInput
from xlmtrain.generate.decoding import bar_special_words, evaluation, top_words, up_to_eos
from xlmtrain.model.translation_model import TranslationModel
from xlmtrain.runtime.rng import generator
from xlmtrain.text.vocab import EOS

Choice = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""(logits (R, V), index in the batch of each sentence (R,), number of the word) -> words (R,)."""


def greedy_search(
    model: TranslationModel, source: EncoderInput, language: int, limits: torch.Tensor, bar_specials: bool = True
) -> list[np.ndarray]:
    """Return the ids of each translation into ``language``, ending with ``</s>``; always the most probable word.

    ``limits`` (B,): most tokens of each translation, both ``</s>`` counted, 3 or more. ``bar_specials``: special words
    cannot be part of a translation; in the original they could.
    """
    return _word_by_word(
        model, source, language, limits, lambda logits, _, __: top_words(logits, 1)[1][:, 0], bar_specials
    )


def sample(
    model: TranslationModel,
    source: EncoderInput,
    language: int,
    limits: torch.Tensor,
    numbers: torch.Tensor,
    temperature: float = 1.0,
) -> list[np.ndarray]:
    """Return translations with each word drawn from softmax(logits / ``temperature``), as :func:`greedy_search`.

    ``numbers`` (B, W): uniform in [0, 1), one for each word, from :func:`sampling_numbers`.
    """

    def draw(logits: torch.Tensor, sentences: torch.Tensor, number: int) -> torch.Tensor:
        cumulative = (logits / temperature).softmax(dim=1).double().cumsum(dim=1)
        threshold = numbers[sentences, number, None] * cumulative[:, -1:]
        return torch.searchsorted(cumulative, threshold, right=True)[:, 0].clamp(max=logits.shape[1] - 1)

    return _word_by_word(model, source, language, limits, draw, bar_specials=True)


def sampling_numbers(seed: int, purpose: str, indices: Sequence[tuple[int, ...]], words: int) -> torch.Tensor:
    """Return (B, ``words``) numbers, uniform in [0, 1), keyed by (seed, purpose, index of the sentence)."""
    return torch.from_numpy(np.stack([generator(seed, purpose, *index).random(words) for index in indices]))


def _word_by_word(
    model: TranslationModel,
    source: EncoderInput,
    language: int,
    limits: torch.Tensor,
    choose: Choice,
    bar_specials: bool,
) -> list[np.ndarray]:
    with evaluation(model):
        words_left, longest = limits - 2, int(limits.max()) - 2
        words = torch.full((len(limits), longest + 1), EOS, device=limits.device)
        sentences, last = torch.arange(len(limits), device=limits.device), words[:, 0]
        cache = model.start(source, 1, longest)
        for number in range(longest):
            logits = model.next_logits(last[:, None], language, cache)[:, 0]
            last = choose(bar_special_words(logits) if bar_specials else logits, sentences, number)
            words[sentences, number] = last
            finished = (last == EOS) | (words_left[sentences] == number + 1)
            if finished.any():
                left = cache.drop(finished)
                sentences, last = sentences[left], last[left]
                if not len(sentences):
                    break
        return up_to_eos(words)
