"""The public API: load a pretrained model, fill masks, embed, score and translate sentences.

model = xlmtrain.load("runs/quickstart")
model.fill_mask("Die Katze <mask> auf dem Sofa.", lang="de", k=5)
model.embed(["Guten Morgen!", "Gute Nacht!"], lang="de")
model.translate(["Guten Morgen!"], source="de", target="en")
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch.nn import functional as F

from xlmtrain.config.evaluate import Pooling
from xlmtrain.config.prepare import TextConfig
from xlmtrain.config.train import Precision
from xlmtrain.config.translate import TranslationConfig
from xlmtrain.data.batch import Batch, make_batch, make_causal_batch
from xlmtrain.data.sequences import pair_sequences, sentence_sequences
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.evaluate.sentence_embeddings import by_length, embed
from xlmtrain.generate.translate import Translator
from xlmtrain.interop.bundle import PretrainedBundle, trained_keys
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.run import CheckpointChoice
from xlmtrain.model.translation_model import TranslationModel
from xlmtrain.runtime.device import ACCELERATORS, best_device
from xlmtrain.runtime.precision import autocast, cast_linear_layers, choose_precision

E = TypeVar("E", bound=Enum)
T = TypeVar("T")
_SURROGATES = re.compile("[\ud800-\udfff]")
_OTHER_MASK_SPELLING = re.compile(r"[\[<(] ?mask ?[\]>)]", re.IGNORECASE)


@dataclass(frozen=True)
class Prediction:
    """A subword predicted at a ``<mask>``, with its probability."""

    word: str
    probability: float


@dataclass(frozen=True)
class SentenceScore:
    """Log-likelihood of a sentence. ``log_probability``: in nats, summed over its ``tokens`` subwords."""

    log_probability: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """Return exp(-log_probability / tokens); nan for a sentence without tokens."""
        return math.exp(-self.log_probability / self.tokens) if self.tokens else math.nan


class PretrainedModel:
    """A model in evaluation mode, with the text pipeline it was trained with.

    Every method takes raw text and its language, ``lang``. They raise ConfigError for an unknown language, and
    DataError for a sentence with more tokens than positions. ``causal``: the model was trained by CLM alone, so there
    are no masks to fill. ``fills_masks``: it was trained by MLM or TLM, as far as is known. ``precision``: number
    format of matrix products, whatever autocast is around; auto asks the device. A model may be used by many threads at
    once, pickled, and inherited by forked processes.
    """

    def __init__(
        self,
        bundle: PretrainedBundle,
        device: torch.device | str = "cpu",
        precision: Precision | str = Precision.fp32,
    ) -> None:
        self.device, wanted = torch.device(device), _enum_value(Precision, "precision", precision)
        self.precision = choose_precision(wanted, self.device, "precision")
        self.model, self.text = cast_linear_layers(bundle.module(device), self.precision), bundle.pipeline()
        self.languages, self.step, self.causal = bundle.languages, bundle.provenance.step, bundle.causal
        self._objectives, self.fills_masks = list(trained_keys(bundle.provenance.settings)), bundle.fills_masks
        self._max_positions = bundle.config.max_positions
        _prepare_process()

    def tokenize(self, sentence: str, lang: str) -> list[str]:
        """Return the subwords of a sentence."""
        self._language(lang)
        checked_sentences([sentence])
        return self.text.tokens(sentence, lang)

    @torch.no_grad()
    def fill_mask(
        self, sentence: str, lang: str, k: int = 5, translation: tuple[str, str] | None = None
    ) -> list[list[Prediction]]:
        """Return the ``k`` most probable subwords at each ``<mask>``, most probable first.

        ``translation``: (sentence, language) to add as context, as in TLM. Raises DataError for a sentence without
        ``<mask>``, ConfigError for a model that was not trained by MLM or TLM.
        """
        if self.causal:
            raise ConfigError("the model was trained by CLM alone, which has no masks to fill")
        self._check_masked_model()
        if not isinstance(k, int) or k < 1:
            raise ConfigError(f"k={k!r}: give a number from 1 up")
        ids, language = self._ids(sentence, lang), self._language(lang)
        special = self.text.vocab.special
        if special.mask not in ids:
            other = _OTHER_MASK_SPELLING.search(sentence)
            raise DataError(f"no <mask> in {sentence!r}" + (f"; write it <mask>, not {other[0]}" if other else ""))
        if translation is None:
            sequences = sentence_sequences([ids], language, special)
        elif isinstance(translation, str) or len(translation) != 2:
            raise ConfigError(f"translation: a sentence and its language are needed, not {translation!r}")
        else:
            other_ids = self._ids(*translation)
            sequences = pair_sequences([ids], [other_ids], (language, self._language(translation[1])), special)
        batch = make_batch("mlm", sequences, sequences.tokens, sequences.tokens == special.mask)
        probabilities = self._logits(batch.to(self.device)).softmax(dim=1)
        best = probabilities.topk(min(k, probabilities.shape[1]))
        return [
            [Prediction(self.text.vocab.token(word), p) for word, p in zip(words, values)]
            for words, values in zip(best.indices.tolist(), best.values.tolist())
        ]

    def embed(
        self, sentences: Iterable[str], lang: str, pooling: Pooling | str = Pooling.mean, layer: int | None = None
    ) -> np.ndarray:
        """Return one vector per sentence, (sentences, dim) float32, in the given order.

        ``layer``: the layer whose hidden states are pooled; 0 for the embeddings, None for the last layer.
        """
        last = len(self.model.encoder.blocks)
        layer = last if layer is None else layer
        if not (isinstance(layer, int) and 0 <= layer <= last):
            raise ConfigError(f"layer={layer!r}: the model has 0 (the embeddings) to {last}")
        poolings = [_enum_value(Pooling, "pooling", pooling)]
        return self._vectors(self._all_ids(sentences, lang), lang, poolings, range(layer, layer + 1))[0, 0]

    def embed_layers(self, sentences: Iterable[str], lang: str) -> dict[Pooling, np.ndarray]:
        """Return :meth:`embed` for both poolings and every layer, (layers + 1, sentences, dim), in one pass."""
        return self.embed_ids(self._all_ids(sentences, lang), lang)

    def embed_ids(self, ids: Sequence[np.ndarray], lang: str) -> dict[Pooling, np.ndarray]:
        """Return :meth:`embed_layers` of tokenized sentences: ids of the model's vocabulary, each ending with EOS."""
        return dict(zip(Pooling, self._vectors(ids, lang, list(Pooling), range(len(self.model.encoder.blocks) + 1))))

    def _vectors(self, ids: Sequence[np.ndarray], lang: str, poolings: Sequence[Pooling], layers: range) -> np.ndarray:
        """Return (poolings, layers, sentences, dim)."""
        with autocast(self.precision, self.device):
            return embed(self.model, ids, self._language(lang), poolings, layers, self.causal)

    def _all_ids(self, sentences: Iterable[str], lang: str) -> list[np.ndarray]:
        return [self._ids(sentence, lang) for sentence in checked_sentences(sentences)]

    @torch.no_grad()
    def score(self, sentences: Iterable[str], lang: str) -> list[SentenceScore]:
        """Return pseudo-log-likelihoods: each subword is masked and predicted from all others (Salazar et al. 2020).

        A sentence of n subwords takes n forward passes. Delimiters are not scored. For a causal model these are
        log-likelihoods: each subword is predicted from those before it. Raises ConfigError for a model that was trained
        by translation or denoising alone.
        """
        language, ids, special = self._language(lang), self._all_ids(sentences, lang), self.text.vocab.special
        if self.causal:
            batches = (make_causal_batch(sentence_sequences([sentence], language, special)) for sentence in ids)
            totals = [-float(self._losses(batch)[:-1].cpu().double().sum()) for batch in batches]  # without EOS
            return [SentenceScore(total, len(sentence) - 1) for total, sentence in zip(totals, ids)]
        self._check_masked_model()
        copies = [(i, place) for i, sentence in enumerate(ids) for place in range(len(sentence) - 1)]
        sums = np.zeros(len(ids))
        for chosen in by_length([len(ids[i]) + 1 for i, _ in copies]):
            sequences = sentence_sequences([ids[copies[c][0]] for c in chosen], language, special)
            masked = np.zeros(sequences.tokens.shape, dtype=bool)
            masked[np.arange(len(chosen)), [copies[c][1] + 1 for c in chosen]] = True
            batch = make_batch("mlm", sequences, np.where(masked, special.mask, sequences.tokens), masked)
            np.subtract.at(sums, [copies[c][0] for c in chosen], self._losses(batch).double().cpu().numpy())
        return [SentenceScore(float(total), len(sentence) - 1) for total, sentence in zip(sums, ids)]

    def translate(
        self,
        sentences: Iterable[str],
        source: str,
        target: str,
        beam: int = 4,
        length_penalty: float = 1.0,
        temperature: float | None = None,
        seed: int = 0,
    ) -> list[str]:
        """Return the translation of each sentence; ``beam`` 1 searches greedily.

        The others are as in :class:`~xlmtrain.config.translate.TranslationConfig`. Raises ConfigError for a model
        without a decoder.
        """
        config = TranslationConfig(beam, length_penalty, temperature=temperature, seed=seed)
        found = checked_sentences(sentences)
        return [best[0].text for best in self.translator(source, target, config)(found, "sentences")]

    def translator(self, source: str, target: str, config: TranslationConfig) -> Translator:
        """Return the translation of streams of lines, n-best with scores. Raises ConfigError as :meth:`translate`."""
        self._language(source, "source")
        self._language(target, "target")
        if not isinstance(self.model, TranslationModel):
            raise ConfigError("the model has no decoder, so it cannot translate; it is an encoder only")
        return Translator(self.model, self.text, self.languages, source, target, config, self.precision)

    def _check_masked_model(self) -> None:
        """Raise ConfigError if the output layer of the encoder is known to be untrained."""
        if not self.fills_masks:
            raise ConfigError(
                f"the model was trained by {' and '.join(self._objectives)} alone, so it cannot predict masked words; "
                "use translate or embed, or train with data.mlm or data.tlm, too"
            )

    def _losses(self, batch: Batch) -> torch.Tensor:
        """Return the cross-entropy (N,) of each target."""
        batch = batch.to(self.device)
        return F.cross_entropy(self._logits(batch), batch.targets, reduction="none")

    def _logits(self, batch: Batch) -> torch.Tensor:
        """Return the logits of each target in fp32, (N, V)."""
        with autocast(self.precision, self.device):
            return self.model.logits(batch).float()

    def _ids(self, sentence: str, lang: str) -> np.ndarray:
        """Return the sentence's ids, ending with EOS."""
        self._language(lang)
        checked_sentences([sentence])
        ids = np.array([*self.text.ids(sentence, lang), self.text.vocab.special.eos])
        if len(ids) >= self._max_positions:  # plus the EOS that starts a sentence
            raise DataError(
                f"{len(ids) + 1} tokens are more than the model's {self._max_positions} positions: {sentence[:60]!r}"
            )
        return ids

    def _language(self, lang: str, name: str = "lang") -> int:
        if lang not in self.languages:
            raise ConfigError(f"{name}={lang}: the model knows {', '.join(self.languages)}")
        return self.languages.index(lang)


def load(
    path: str | Path,
    checkpoint: CheckpointChoice | str = CheckpointChoice.best,
    device: torch.device | str | None = None,
    codes: str | Path | None = None,
    text: TextConfig | None = None,
    precision: Precision | str = Precision.fp32,
) -> PretrainedModel:
    """Load a run directory, one of its checkpoints, a Hugging Face folder, or a ``.pth`` file of the original XLM.

    ``checkpoint``: of a run directory, its best or its last. ``device``: None takes a GPU if there is one. ``codes``
    (a file) and ``text``: for ``.pth`` files of the original XLM, which hold neither. ``precision``: of matrix
    products; auto takes bf16 or fp16 where the device is faster with it. Raises CheckpointError if nothing can be read.
    """
    if not isinstance(path, (str, Path)):
        raise ConfigError(f"path={path!r}: give the path of a model")
    device = check_device(device)
    bundle = read_model(Path(path).expanduser(), _enum_value(CheckpointChoice, "checkpoint", checkpoint), codes, text)
    return PretrainedModel(bundle, device, precision)


def check_device(device: torch.device | str | None) -> torch.device:
    """Return the device; for None the GPU if there is one. Raises ConfigError if this machine does not have it."""
    try:
        found = torch.device(best_device() if device is None else device)
    except RuntimeError:
        raise ConfigError(
            f"device={device}: not a device of torch; take cpu or one of {', '.join(ACCELERATORS)}"
        ) from None
    if found.type in ACCELERATORS and not torch.get_device_module(found).is_available():
        raise ConfigError(f"device={device}: there is none, or this torch is built without it; take cpu")
    return found


_CACHED_KERNELS = "64"
"""Kernels of oneDNN that are kept, 60 KB each. By default 1024: a new one for every shape of a batch."""


@cache
def _prepare_process() -> None:
    """Bound the memory of oneDNN, unless it is in use already, and let forked processes compute with one thread.

    A forked process lacks the OpenMP threads of its parent, and would wait for them.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _CACHED_KERNELS)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


def listed(items: Iterable[T], name: str) -> list[T]:
    """Return the items, also those of an iterator. Raises ConfigError for one string, or what has no items."""
    if isinstance(items, str) or not isinstance(items, Iterable):
        raise ConfigError(f"{name}: a list of {name} is needed, not {items!r}")
    return list(items)


def checked_sentences(sentences: Iterable[str]) -> list[str]:
    """Return the sentences. Raises ConfigError unless they are strings, DataError for one that is not Unicode."""
    found = listed(sentences, "sentences")
    for sentence in found:
        if not isinstance(sentence, str):
            raise ConfigError(f"a sentence is needed, as one string, not {sentence!r}")
        if _SURROGATES.search(sentence):
            raise DataError(f"bytes that were not decoded, in {sentence[:60]!r}; is the text, or the locale, UTF-8?")
    return found


def _enum_value(choices: type[E], name: str, value: E | str) -> E:
    try:
        return choices(value)
    except ValueError:
        raise ConfigError(f"{name}={value}: there are {', '.join(choice.value for choice in choices)}") from None
