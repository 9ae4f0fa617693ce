"""Batches of translation as a plain loop takes them: a number of pairs at random, padded to the longest of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np

from xlmtrain.config.schema import Config
from xlmtrain.data.batch import make_seq2seq_batch
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import StepBatches
from xlmtrain.data.sequences import sentence_sequences


def shuffled_steps(config: Config, dataset: Dataset) -> Iterator[StepBatches]:
    """Yield batches of pairs drawn at random, without end: the directions of ``data.mt`` in turn.

    Pairs have at most ``data.max_sentence_length`` tokens on each side. A batch has as many pairs as have
    ``train.batch_tokens`` tokens without padding on average.
    """
    rng, directions = np.random.default_rng(0), list(config.data.mt)
    corpora = {direction: dataset.pair("train", direction) for direction in directions}
    lengths = np.stack([side.lengths() for side in corpora[directions[0]]])
    usable = np.flatnonzero((lengths.max(axis=0) <= config.data.max_sentence_length) & (lengths.min(axis=0) > 0))
    pairs = round(config.train.batch_tokens / (lengths[:, usable] + 2).sum(axis=0).mean())
    for step in count():
        direction = directions[step % len(directions)]
        chosen = rng.choice(usable, pairs).tolist()
        languages = map(dataset.language_id, direction.split("-"))
        source, target = (
            sentence_sequences(corpus.sentences(chosen), language)
            for corpus, language in zip(corpora[direction], languages)
        )
        yield StepBatches(step, [make_seq2seq_batch("mt", source, target)], {"mt": 1.0}, [], {})
