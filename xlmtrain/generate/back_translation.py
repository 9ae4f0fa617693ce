"""Sources of back-translation: the model's own translations of the text that it learns to produce.

Letters: B sentences.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

import torch

from xlmtrain.config.data import BackTranslationConfig
from xlmtrain.data.batch import Batch, encoder_input
from xlmtrain.data.sequences import sentence_sequences
from xlmtrain.generate.beam import BeamSettings
from xlmtrain.generate.decoding import max_target_lengths
from xlmtrain.generate.greedy import sampling_numbers
from xlmtrain.generate.search import search
from xlmtrain.model.translation_model import TranslationModel


def back_translate(
    model: TranslationModel, batch: Batch, config: BackTranslationConfig, seed: int, step: int, device: torch.device
) -> Batch:
    """Return ``batch`` with the translations of its targets, by ``model`` on ``device``, as their sources.

    Before, the sources are the targets themselves, in the language to translate them into. ``batch`` is on the host
    before and after. Numbers that tokens are drawn with are keyed by the step and the sentence, so they depend neither
    on the processes nor on the micro-batches.
    """
    assert batch.source is not None, "back-translation has a source"
    language, tokens = int(batch.source.languages[0, 0]), batch.tokens.numpy()
    lengths = batch.lengths
    if lengths is None:
        lengths = torch.full((len(tokens),), tokens.shape[1])

    def draw(count: int) -> torch.Tensor:
        keys = [(step, zlib.crc32(row[:length].tobytes())) for row, length in zip(tokens, lengths.tolist())]
        return sampling_numbers(seed, "back-translation", keys, count)

    sentences = replace(batch.source, languages=batch.languages).to(device)
    max_lengths = max_target_lengths(lengths, model.config.max_positions).to(device)
    found = search(model, sentences, language, max_lengths, BeamSettings(config.beam), config.temperature, draw)
    sources = sentence_sequences([best[0].ids for best in found], language, model.special)
    return replace(batch, source=encoder_input(sources))
