"""Translation token by token: always the most probable token, or one drawn from the model's distribution.

Letters: B sentences, R sentences that are not finished, V vocabulary, W tokens of the longest translation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from xlmtrain.data.batch import EncoderInput
from xlmtrain.generate.decoding import suppress_special_tokens, top_tokens, up_to_eos
from xlmtrain.model.translation_model import TranslationModel
from xlmtrain.runtime.precision import eval_mode
from xlmtrain.runtime.rng import generator

Choice = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""(logits (R, V), index in the batch of each sentence (R,), number of the token) -> tokens (R,)."""


def greedy_search(
    model: TranslationModel,
    source: EncoderInput,
    language: int,
    max_lengths: torch.Tensor,
    suppress_specials: bool = True,
) -> list[np.ndarray]:
    """Return the ids of each translation into ``language``, ending with ``</s>``; always the most probable token.

    ``max_lengths`` (B,): most tokens of each translation, both ``</s>`` counted, 3 or more. ``suppress_specials``:
    special tokens cannot be part of a translation; in the original they could.
    """
    return _token_by_token(
        model, source, language, max_lengths, lambda logits, _, __: top_tokens(logits, 1)[1][:, 0], suppress_specials
    )


def sample(
    model: TranslationModel,
    source: EncoderInput,
    language: int,
    max_lengths: torch.Tensor,
    numbers: torch.Tensor,
    temperature: float = 1.0,
) -> list[np.ndarray]:
    """Return translations with each token drawn from softmax(logits / ``temperature``), as :func:`greedy_search`.

    ``numbers`` (B, W): uniform in [0, 1), one for each token, from :func:`sampling_numbers`.
    """

    def draw(logits: torch.Tensor, sentences: torch.Tensor, number: int) -> torch.Tensor:
        logits = logits - logits.amax(dim=1, keepdim=True)  # so that none is infinite if the temperature is tiny
        cumulative = (logits / temperature).softmax(dim=1).to(numbers.dtype).cumsum(dim=1)
        threshold = numbers[sentences, number, None] * cumulative[:, -1:]
        return torch.searchsorted(cumulative, threshold, right=True)[:, 0].clamp(max=logits.shape[1] - 1)

    return _token_by_token(model, source, language, max_lengths, draw, suppress_specials=True)


def sampling_numbers(seed: int, purpose: str, indices: Sequence[tuple[int, ...]], tokens: int) -> torch.Tensor:
    """Return (B, ``tokens``) numbers, uniform in [0, 1), keyed by (seed, purpose, index of the sentence)."""
    return torch.from_numpy(np.stack([generator(seed, purpose, *index).random(tokens) for index in indices]))


def _token_by_token(
    model: TranslationModel,
    source: EncoderInput,
    language: int,
    max_lengths: torch.Tensor,
    choose: Choice,
    suppress_specials: bool,
) -> list[np.ndarray]:
    with eval_mode(model):
        tokens_left, longest = max_lengths - 2, int(max_lengths.max()) - 2
        device, eos = max_lengths.device, model.special.eos
        tokens = torch.full((len(max_lengths), longest + 1), eos, device=device)
        sentences, last = (
            torch.arange(len(max_lengths), device=device),
            torch.full_like(tokens[:, 0], model.special.bos),
        )
        suppressed = torch.tensor(
            model.special.but_eos() if suppress_specials else [], dtype=torch.int64, device=device
        )
        cache = model.start(source, 1, longest)
        for number in range(longest):
            logits = model.next_logits(last[:, None], language, cache)[:, 0]
            last = choose(suppress_special_tokens(logits, suppressed), sentences, number)
            tokens[sentences, number] = last
            finished = (last == eos) | (tokens_left[sentences] == number + 1)
            if finished.any():
                left = cache.drop(finished)
                sentences, last = sentences[left], last[left]
                if not len(sentences):
                    break
        return up_to_eos(tokens, eos)
