"""Whether the languages have met, as training asks now and then: translations found by sentence and by word vectors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from xlmtrain.config.schema import EvaluateConfig, Pooling
from xlmtrain.data.dataset import Dataset
from xlmtrain.evaluate.retrieval import retrieve
from xlmtrain.evaluate.sentence_embeddings import embed
from xlmtrain.evaluate.word_translation import read_dictionary, translate_words
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.process import Interrupted

MOST_TOKENS = 256
"""Sentences of more, or of more than the model has positions, are left out: they would decide how long this takes."""


class Alignment:
    """Looks for translations among the validation pairs and in a dictionary, as ``evaluate`` in the settings says.

    ``causal``: the model is trained by CLM alone. Raises DataError for a dictionary that cannot be read, or that the
    vocabulary has no two entries of.
    """

    def __init__(self, config: EvaluateConfig, dataset: Dataset, positions: int, causal: bool) -> None:
        self._vocab, self._causal = dataset.vocab, causal
        self._entries = read_dictionary(Path(config.bilingual_lexicon)) if config.bilingual_lexicon else []
        self._ids: dict[str, dict[int, list[np.ndarray]]] = {}  # pair -> language id -> sentences
        for pair in dataset.pairs("valid") if config.parallel_pairs else []:
            languages = [dataset.language_id(language) for language in pair.split("-")]
            sides = dataset.pair("valid", pair)
            lengths = np.stack([side.lengths() for side in sides])
            fits = lengths.max(axis=0) + 2 <= min(positions, MOST_TOKENS)
            usable = np.flatnonzero(fits & (lengths.min(axis=0) > 0))[: config.parallel_pairs]
            if len(usable):
                self._ids[pair] = {
                    language: [side.sentence(i).astype(np.int64) for i in usable]
                    for language, side in zip(languages, sides)
                }

    @property
    def metrics(self) -> list[str]:
        """Names of the figures that a checkpoint can be chosen by."""
        directions = [name for pair in self._ids for name in (pair, "-".join(reversed(pair.split("-"))))]
        return [f"valid/{name}_retrieval_acc" for name in directions] + ["valid/retrieval_acc"] * bool(directions)

    def __call__(self, model: LanguageModel, distributed: Distributed, stop: Callable[[], bool]) -> dict[str, float]:
        """Top-1 in % and MRR by the mean of each layer's states, and what the embedding table knows of the dictionary.

        ``valid/{source}-{target}_retrieval_acc`` is top-1 by cosine, of the layer that finds most in both directions of
        its pair; ``valid/retrieval_acc`` the mean. The sentences are shared out over the processes, and ``stop`` is
        asked before every batch of them; if it says so on any process, all of them raise Interrupted.
        """
        figures: dict[str, float] = {}
        for pair, sides in self._ids.items():
            figures |= self._retrieval(pair, sides, model, distributed, stop)
        if chosen := [value for name, value in figures.items() if name.startswith("valid/")]:
            figures["valid/retrieval_acc"] = sum(chosen) / len(chosen)
        if self._entries:
            figures |= distributed.run_on_all(lambda: self._words(model, distributed))
        # Processes choose checkpoints by these: not even the last bit may differ.
        return dict(
            zip(figures, (total / distributed.world_size for total in distributed.all_reduce_sum([*figures.values()])))
        )

    def _retrieval(
        self,
        pair: str,
        sides: dict[int, list[np.ndarray]],
        model: LanguageModel,
        distributed: Distributed,
        stop: Callable[[], bool],
    ) -> dict[str, float]:
        layers = range(len(model.encoder.blocks) + 1)
        share = (distributed.rank, distributed.world_size)

        def embed_share(ids: list[np.ndarray], language: int) -> np.ndarray:
            return embed(model, ids, language, [Pooling.mean], layers, self._causal, share, stop)[0]

        vectors = [
            distributed.all_reduce_array(distributed.run_on_all(partial(embed_share, ids, language)))
            for language, ids in sides.items()
        ]
        if distributed.all_reduce_sum([float(stop())])[0]:
            raise Interrupted
        texts = [[self._vocab.decode(sentence) for sentence in ids] for ids in sides.values()]
        first, second = pair.split("-")
        figures: dict[str, float] = {}
        for layer in layers:
            of_layer = {first: vectors[0][layer], second: vectors[1][layer]}
            for one in retrieve(of_layer, {first: texts[0], second: texts[1]}, distributed.device):
                name = f"retrieval/{one.direction}_layer{layer}_{one.scoring}"
                figures |= {f"{name}_top1": one.top1, f"{name}_mrr": one.mrr}
        directions = (f"{first}-{second}", f"{second}-{first}")
        top1 = {d: [figures[f"retrieval/{d}_layer{layer}_cosine_top1"] for layer in layers] for d in directions}
        best = max(layers, key=lambda layer: sum(top1[d][layer] for d in directions))
        return figures | {f"valid/{d}_retrieval_acc": top1[d][best] for d in directions}

    def _words(self, model: LanguageModel, distributed: Distributed) -> dict[str, float]:
        found = translate_words(model.encoder.token_embeddings.weight, self._vocab, self._entries, distributed.device)
        figures = {"words/cosine": found.cosine, "words/random_cosine": found.random_cosine}
        for one in found.precision:
            if one.among == "vocabulary":
                name = f"words/{one.direction}_{one.scoring}"
                figures |= {f"{name}_p1": one.p1, f"{name}_p5": one.p5, f"{name}_p10": one.p10}
        return figures
