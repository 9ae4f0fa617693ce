"""Sources of back-translation: the model's own translations of the text that it learns to produce.

Letters: B sentences.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import torch

from xlmtrain.config.data import BackTranslationConfig
from xlmtrain.data.batch import Batch, encoder_input
from xlmtrain.data.sequences import sentence_sequences
from xlmtrain.generate.beam import BeamSettings
from xlmtrain.generate.decoding import max_target_lengths
from xlmtrain.generate.greedy import sampling_numbers
from xlmtrain.generate.search import search
from xlmtrain.model.translation_model import TranslationModel

Translations = dict[tuple[int, int, tuple[int, ...]], np.ndarray]
"""(language, language to translate into, ids of a sentence) -> ids of its translation, ending with ``</s>``."""


def back_translate(
    model: TranslationModel,
    batch: Batch,
    config: BackTranslationConfig,
    seed: int,
    step: int,
    device: torch.device,
    known: Translations | None = None,
) -> Batch:
    """Return ``batch`` with the translations of its targets, by ``model`` on ``device``, as their sources.

    Before, the sources are the targets themselves, in the language to translate them into. ``batch`` is on the host
    before and after. Numbers that tokens are drawn with are keyed by the step and the sentence, so they depend neither
    on the processes nor on the micro-batches. ``known``: if these have all translations, they are taken; otherwise the
    new ones are added.
    """
    assert batch.source is not None, "back-translation has a source"
    own, language = int(batch.languages[0, 0]), int(batch.source.languages[0, 0])
    known = {} if known is None else known
    lengths = batch.lengths
    if lengths is None:
        lengths = torch.full((len(batch.tokens),), batch.tokens.shape[1])
    sentences = [tuple(row[:length]) for row, length in zip(batch.tokens.tolist(), lengths.tolist())]

    def draw(count: int) -> torch.Tensor:
        keys = [(step, zlib.crc32(np.array(ids, dtype=np.int64).tobytes())) for ids in sentences]
        return sampling_numbers(seed, "back-translation", keys, count)

    if any((own, language, ids) not in known for ids in sentences):
        source = replace(batch.source, languages=batch.languages).to(device)
        max_lengths = max_target_lengths(lengths, model.config.max_positions).to(device)
        found = search(model, source, language, max_lengths, BeamSettings(config.beam), config.temperature, draw)
        known.update({(own, language, ids): best[0].ids for ids, best in zip(sentences, found)})
    sources = sentence_sequences([known[own, language, ids] for ids in sentences], language, model.special)
    return replace(batch, source=encoder_input(sources))
