"""Translate raw lines: in order, sorted by length within a window, so that memory does not grow with their number.

Letters: N sentences of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, islice
from typing import NamedTuple

import numpy as np
import torch

from xlmtrain.config.train import Precision
from xlmtrain.config.translate import TranslationConfig
from xlmtrain.data.batch import encoder_input
from xlmtrain.data.sequences import sentence_sequences
from xlmtrain.errors import DataError
from xlmtrain.generate.beam import BeamSettings, Hypothesis
from xlmtrain.generate.decoding import max_target_lengths
from xlmtrain.generate.greedy import sampling_numbers
from xlmtrain.generate.search import search
from xlmtrain.model.translation_model import TranslationModel
from xlmtrain.runtime.precision import autocast
from xlmtrain.text.pipeline import TextPipeline


def no_progress(finished: int) -> None:
    """Show nothing."""


class Translation(NamedTuple):
    """A translation as raw ``text``, and ``tokenized``, split by blanks; ``score``: nan unless from a beam."""

    text: str
    tokenized: str
    score: float


class Translator:
    """Raw lines -> translations, with the text pipeline of the model.

    ``languages``: names of the model's languages by id; ``source`` and ``target`` are two of them. ``precision``: of
    matrix products, not auto.
    """

    def __init__(
        self,
        model: TranslationModel,
        text: TextPipeline,
        languages: Sequence[str],
        source: str,
        target: str,
        config: TranslationConfig,
        precision: Precision,
    ) -> None:
        self._model, self._text, self._config, self._precision = model, text, config, precision
        self._names, self._ids = (source, target), (languages.index(source), languages.index(target))

    def encode(self, lines: Iterable[str], where: str) -> Iterator[np.ndarray]:
        """Yield the ids of each line, ending with EOS.

        Raises DataError, which names ``where`` and the line, for more tokens than the model has positions.
        """
        positions = self._model.config.max_positions
        for number, line in enumerate(lines, 1):
            ids = np.array([*self._text.ids(line, self._names[0]), self._text.vocab.special.eos])
            if len(ids) >= positions:  # plus the EOS that starts a sentence
                raise DataError(
                    f"{where}:{number}: {len(ids) + 1} tokens are more than the model's {positions} positions; split "
                    f"the line into sentences: {line[:60]!r}"
                )
            yield ids

    def __call__(
        self, lines: Iterable[str], where: str, progress: Callable[[int], object] = no_progress
    ) -> Iterator[list[Translation]]:
        """Yield the translations of each line, the best first; a blank line has an empty one.

        ``progress``: as in :func:`translate_ids`. Raises DataError as :meth:`encode`.
        """
        ids = self.encode(lines, where)
        for hypotheses in translate_ids(self._model, ids, *self._ids, self._config, self._precision, progress):
            yield [
                Translation(self._text.text(ids[:-1], self._names[1]), self._text.vocab.decode(ids[:-1]), score)
                for ids, score in hypotheses
            ]


def translate_ids(
    model: TranslationModel,
    sentences: Iterable[np.ndarray],
    source: int,
    target: int,
    config: TranslationConfig,
    precision: Precision = Precision.fp32,
    progress: Callable[[int], object] = no_progress,
) -> Iterator[list[Hypothesis]]:
    """Yield up to ``config.n_best`` translations of each sentence, in order.

    ``sentences``: ids, ending with EOS. ``source``, ``target``: ids of their languages. ``precision``: of matrix
    products, not auto. ``progress``: called with the number of sentences that each batch finished; they are yielded
    when their whole window is.
    """
    sentences = iter(sentences)
    for first in count(0, config.window):
        window = list(islice(sentences, config.window))
        if not window:
            return
        found = [[Hypothesis(ids, 0.0)] for ids in window]  # an empty sentence is its own translation
        unreported = len(window)
        for chosen, max_lengths in _batches(model, window, config):
            batch = [window[i] for i in chosen]
            numbers = [first + i for i in chosen]
            with autocast(precision, _device(model)):
                made = _translate_batch(model, batch, numbers, max_lengths, source, target, config)
            for i, hypotheses in zip(chosen, made):
                found[i] = hypotheses[: config.n_best]
            progress(len(chosen))
            unreported -= len(chosen)
        progress(unreported)
        yield from found


def _batches(
    model: TranslationModel, window: Sequence[np.ndarray], config: TranslationConfig
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield (indices of a batch, its max_lengths (N,)) of all sentences that are not empty, the longest first."""
    lengths = torch.tensor([len(ids) + 1 for ids in window])
    ratio, extra = config.max_length_ratio, config.max_length_extra
    max_lengths = max_target_lengths(lengths, model.config.max_positions, ratio, extra).clamp(min=3)
    order = lengths.sort(descending=True, stable=True).indices[: int((lengths > 2).sum())].tolist()
    beams = config.beam if config.temperature is None else 1
    while order:
        size = max(1, config.batch_tokens // (int(max_lengths[order[0]]) * beams))
        yield order[:size], max_lengths[order[:size]]
        order = order[size:]


def _device(model: TranslationModel) -> torch.device:
    return model.encoder.token_embeddings.weight.device


def _translate_batch(
    model: TranslationModel,
    sentences: list[np.ndarray],
    numbers: Sequence[int],
    max_lengths: torch.Tensor,
    source: int,
    target: int,
    config: TranslationConfig,
) -> list[list[Hypothesis]]:
    """Return the translations of a batch; ``numbers``: of its sentences in the stream, which key what is drawn."""
    device = _device(model)
    inputs, max_lengths = (
        encoder_input(sentence_sequences(sentences, source, model.special)).to(device),
        max_lengths.to(device),
    )

    def draw(tokens: int) -> torch.Tensor:
        return sampling_numbers(config.seed, "translate", [(number,) for number in numbers], tokens)

    settings = BeamSettings(config.beam, config.length_penalty)
    return search(model, inputs, target, max_lengths, settings, config.temperature, draw)
