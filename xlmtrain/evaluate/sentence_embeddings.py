"""Sentence vectors: the hidden states of a layer, pooled over the sentence.

Letters: N sentences, B sentences of a batch, T positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

import numpy as np

from xlmtrain.config.evaluate import Pooling
from xlmtrain.data.batch import make_batch
from xlmtrain.data.sequences import sentence_sequences
from xlmtrain.model.classifier import pooled
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.precision import eval_mode
from xlmtrain.runtime.process import Interrupted

BATCH_TOKENS = 8192
"""Tokens in a forward pass, padding included."""
FREE_PADDING = 64
"""Tokens that take no longer than another forward pass."""


def embed(
    model: LanguageModel,
    ids: Sequence[np.ndarray],
    language: int,
    poolings: Sequence[Pooling],
    layers: range,
    causal: bool = False,
    batches: Iterable[list[int] | None] | None = None,
) -> np.ndarray:
    """Return (poolings, layers, N, D) float32 in the order of the arguments; layer 0 is the embeddings.

    ``ids``: each sentence with its EOS. ``batches``: indices of the sentences in each forward pass; None for one that
    is computed for other processes only. The vectors of all other sentences are zero. By default all are computed.
    Computed in evaluation mode; the model's mode is restored. A layer's states are those of an encoder that ends with
    it: a norm after the last block follows every layer.
    """
    weight, norm, last = model.encoder.token_embeddings.weight, model.encoder.final_norm, len(model.encoder.blocks)
    vectors = np.zeros((len(poolings), len(layers), len(ids), weight.shape[1]), dtype=np.float32)
    for chosen in by_length([len(sentence) + 1 for sentence in ids]) if batches is None else batches:
        sentences = [ids[i] for i in chosen] if chosen else [np.array([model.special.eos])]
        sequences = sentence_sequences(sentences, language, model.special)
        nothing = np.zeros(sequences.tokens.shape, dtype=bool)
        batch = make_batch("mlm", sequences, sequences.tokens, nothing).to(weight.device)
        with eval_mode(model):
            states = model.encoder.hidden_states(batch.tokens, batch.positions, batch.languages, batch.lengths, causal)
            for number, x in enumerate(islice(states, layers.start, layers.stop)):  # (B, T, D), zero at padding
                if norm is not None and layers[number] < last:
                    x = norm(x)
                for pooling, place in zip(poolings, vectors):
                    place[number, chosen or []] = pooled(x.float(), batch.lengths, pooling).cpu().numpy()
    return vectors


def embed_distributed(
    model: LanguageModel,
    texts: Mapping[str, tuple[int, Sequence[np.ndarray]]],
    causal: bool,
    distributed: Distributed,
    stop: Callable[[], bool],
) -> dict[str, np.ndarray]:
    """Return name -> (layers, N, D) mean-pooled vectors, the same on every rank; the sentences are split across ranks.

    ``texts``: name -> (language id, sentences with EOS). ``stop``: called before every batch. Raises Interrupted on
    all ranks if it returned True on any.
    """
    layers = range(len(model.encoder.blocks) + 1)
    vectors = {}
    for name, (language, ids) in texts.items():
        every = list(by_length([len(sentence) + 1 for sentence in ids]))
        batches = distributed.in_step(every[distributed.rank :: distributed.world_size], stop)
        mine = distributed.run_on_all(partial(embed, model, ids, language, [Pooling.mean], layers, causal, batches))[0]
        vectors[name] = distributed.all_reduce_array(mine)
    if distributed.all_reduce_sum([float(stop())])[0]:
        raise Interrupted
    return vectors


def by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield batches of indices, shortest first, of at most BATCH_TOKENS with padding (at least one index each).

    An eighth of a batch may be padding, and FREE_PADDING tokens in any case.
    """
    chosen: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        padded = lengths[index] * len(chosen)
        if chosen and (padded + lengths[index] > BATCH_TOKENS or padded - tokens > tokens // 8 + FREE_PADDING):
            yield chosen
            chosen, tokens = [], 0
        chosen.append(index)
        tokens += lengths[index]
    if chosen:
        yield chosen


def pca_2d(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """Project ``vectors`` (N, D) on their first two principal components; return (N, 2) and the share of variance.

    Signs are chosen so that each component's entry of greatest magnitude is positive.
    """
    centered = vectors - vectors.mean(axis=0)
    _, sizes, components = np.linalg.svd(centered.astype(np.float64), full_matrices=False)
    plane = components[:2]
    greatest = plane[np.arange(len(plane)), np.abs(plane).argmax(axis=1)]
    share = float((sizes[:2] ** 2).sum() / max((sizes**2).sum(), 1e-300))
    return centered @ (plane * np.sign(greatest)[:, None]).T, share
