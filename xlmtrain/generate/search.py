"""Translate a batch by greedy search, sampling or beam search, as the settings say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from xlmtrain.data.batch import EncoderInput
from xlmtrain.errors import NumericalError
from xlmtrain.generate.beam import BeamSettings, Hypothesis, beam_search
from xlmtrain.generate.greedy import greedy_search, sample
from xlmtrain.model.translation_model import TranslationModel
from xlmtrain.runtime.device import sum_dtype


def search(
    model: TranslationModel,
    source: EncoderInput,
    language: int,
    max_lengths: torch.Tensor,
    settings: BeamSettings,
    temperature: float | None,
    draw: Callable[[int], torch.Tensor],
) -> list[list[Hypothesis]]:
    """Return the translations of each sentence into ``language``, the best first; scores are nan unless from a beam.

    ``max_lengths`` (B,) as in :func:`greedy_search`. ``settings.num_beams`` of 1 is greedy search. ``temperature``:
    draw each token, with the uniform numbers (B, W) that ``draw`` returns for W tokens.
    """
    if temperature is not None:
        drawn = draw(int(max_lengths.max())).to(max_lengths.device, sum_dtype(max_lengths.device))
        found = sample(model, source, language, max_lengths, drawn, temperature)
    elif settings.num_beams > 1:
        translations = beam_search(model, source, language, max_lengths, settings)
        if not all(translations):
            raise NumericalError("the model's probabilities are no numbers; try precision=fp32, or another checkpoint")
        return translations
    else:
        found = greedy_search(model, source, language, max_lengths)
    return [[Hypothesis(ids, np.nan)] for ids in found]
