"""Settings of the training text, its masks and its noise."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from xlmtrain.config.piecewise import parse_points, value_at
from xlmtrain.config.validate import ABOVE_ZERO, NOT_NEGATIVE, SHARE, SHARE_ABOVE_ZERO, SHARE_BELOW_ONE, ranged


@dataclass
class MaskConfig:
    """Masking for MLM and TLM."""

    prob: float = ranged(0.15, SHARE_ABOVE_ZERO)
    """Share of tokens that are selected as prediction targets."""

    mask_token_prob: float = ranged(0.8, SHARE)
    """Share of the selected tokens that are replaced by ``<mask>``."""

    random_token_prob: float = ranged(0.1, SHARE)
    """Share of the selected tokens that are replaced by a random token. The others are left unchanged."""

    inverse_frequency_exponent: float = ranged(0.0, NOT_NEGATIVE)
    """Tokens are selected with weight count^-exponent, so frequent tokens are selected less often. 0: all tokens alike;
    the paper used 0.5."""

    def problems(self) -> Iterator[str]:
        total = self.mask_token_prob + self.random_token_prob
        if total > 1 + 1e-9:
            yield f"mask_token_prob: its sum with mask.random_token_prob is {total}, more than 1"


@dataclass
class NoiseConfig:
    """Noise of the source in denoising; the defaults are those of the published unsupervised translation."""

    shuffle_distance: float = ranged(3.0, NOT_NEGATIVE)
    """How far words are shuffled: two words d apart swap their order with probability (k - d)^2 / (2 k^2) for k =
    shuffle_distance, if d < k, and no word moves by k positions or more. 0: no shuffling; otherwise above 1."""

    drop_prob: float = ranged(0.1, SHARE_BELOW_ONE)
    """Probability that a word is dropped. A sentence keeps at least one word."""

    blank_prob: float = ranged(0.1, SHARE_BELOW_ONE)
    """Probability that a word is replaced by ``<mask>``, each of its subwords by one."""

    whole_words: bool = False
    """Move, drop and blank whole words. Off: single subwords, as in the original XLM."""

    def problems(self) -> Iterator[str]:
        if 0 < self.shuffle_distance <= 1:
            moves = f"shuffle_distance: {self.shuffle_distance} moves no word"
            yield f"{moves}; give 0 or a number above 1, the distance of neighbours"


@dataclass
class BackTranslationConfig:
    """Search for the translations that back-translation trains on. Each has at most 1.3 times the tokens of its
    sentence and 5 more, as in the original XLM."""

    beam: int = ranged(1, ABOVE_ZERO)
    """Width of the beam search. 1: the most probable token at each place, as in the original XLM."""

    temperature: float | None = ranged(None, ABOVE_ZERO)
    """Draw each token from the model's distribution, sharper below 1 and flatter above, instead of searching."""

    steps_per_translation: int = ranged(1, ABOVE_ZERO)
    """Steps in a row that train on the same sentences and translations, which the first of them makes. The objectives
    of a batch, too, are drawn at that step. Above 1, less of the time is spent on translating."""

    def problems(self) -> Iterator[str]:
        if self.temperature is not None and self.beam > 1:
            yield f"temperature: draws tokens; with bt.beam={self.beam} the most probable ones are searched for"


OBJECTIVES = ("mlm", "tlm", "clm", "mt", "dae", "bt")
"""The keys of ``data`` that have weights. Metrics of a step are in this order."""

SEQ2SEQ_OBJECTIVES = ("mt", "dae", "bt")
"""The objectives of the decoder, which reads a source."""

LENGTHS = ("sequence_length", "sub_batch_tokens", "max_sentence_length")
"""The keys of ``data`` that are lengths in tokens."""


@dataclass
class DataConfig:
    """Training data: the mixture of objectives and languages, and the sizes of sequences and sub-batches."""

    path: str = "???"
    """Directory of a prepared data set, made by ``xlmtrain prepare`` or ``xlmtrain import``."""

    mlm: dict[str, float] = field(default_factory=dict)
    """Weight of masked language modelling per language, e.g. ``{en: 1, de: 1}``."""

    tlm: dict[str, float] = field(default_factory=dict)
    """Weight of translation language modelling per pair, e.g. ``{de-en: 1}``."""

    clm: dict[str, float] = field(default_factory=dict)
    """Weight of causal language modelling per language, e.g. ``{en: 1}``."""

    mt: dict[str, float] = field(default_factory=dict)
    """Weight of translation per direction, e.g. ``{de-en: 1, en-de: 1}``: a decoder predicts the second language from
    the first. Both directions read the pair ``de-en``."""

    dae: dict[str, float] = field(default_factory=dict)
    """Weight of denoising per language, e.g. ``{en: 1, de: 1}``: the decoder restores a sentence from a noisy copy of
    it, with the noise of ``noise``."""

    bt: dict[str, float] = field(default_factory=dict)
    """Weight of back-translation per direction, e.g. ``{de-en: 1, en-de: 1}``. ``de-en`` reads English text: the model
    translates it into German, with its weights of that step, and learns to translate the result back."""

    loss_weight: dict[str, str] = field(default_factory=dict)
    """Factor of an objective's loss, 1 where none is given: a number, or a piecewise-linear function of the step like
    ``{dae: "0:1,100000:0.1,300000:0"}``, the original XLM's lambda, of a phase from its start on. An objective is not
    sampled while its factor is 0."""

    sampling_alpha: float = ranged(0.7, SHARE)
    """Each sub-batch is sampled from one objective and one language or pair. An objective's probability is proportional
    to the sum of its weights; within it, a language's to weight x sentences^alpha. 1: corpus sizes count fully; 0: only
    the weights count."""

    sequence_length: int = ranged(256, ABOVE_ZERO)
    """Most tokens in a sequence of MLM or CLM: a window of the running text of one language, or, where the data keeps
    the borders of documents, a document or a piece of it."""

    across_documents: bool = False
    """Cut windows of the running text, across the borders of documents, even where the data keeps them."""

    sub_batch_tokens: int = ranged(8192, ABOVE_ZERO)
    """Tokens in a sub-batch, padding included, of both sides in translation and denoising; back-translation counts its
    text twice, as its translations have yet to be made. All sequences of a sub-batch have one objective and one
    language or pair. A global batch consists of a whole number of sub-batches, which are distributed over the
    processes."""

    max_sentence_length: int = ranged(100, ABOVE_ZERO)
    """TLM and the objectives of the decoder leave out sentences of more tokens than this, delimiters not counted, and
    pairs with such a side."""

    @property
    def weights(self) -> dict[str, dict[str, float]]:
        """The weights above 0 by objective and key, objectives without any left out."""
        found = {name: {key: w for key, w in getattr(self, name).items() if w > 0} for name in OBJECTIVES}
        return {name: by_key for name, by_key in found.items() if by_key}

    @property
    def seq2seq_share(self) -> float:
        """Share of the sub-batches that a decoder is trained on."""
        return self.share_of(SEQ2SEQ_OBJECTIVES)

    def share_of(self, objectives: Collection[str]) -> float:
        """Return the share of the sub-batches that are of ``objectives``."""
        shares = {name: sum(by_key.values()) for name, by_key in self.weights.items()}
        return sum(share for name, share in shares.items() if name in objectives) / sum(shares.values())

    @property
    def needs_decoder(self) -> bool:
        """True if an objective trains a decoder."""
        return any(name in self.weights for name in SEQ2SEQ_OBJECTIVES)

    @property
    def reads_sentences(self) -> bool:
        """True if an objective reads sentences, not running text alone."""
        return "tlm" in self.weights or self.needs_decoder

    @property
    def longest_row(self) -> int:
        """Most tokens of a row, both sides counted."""
        return max(self.sequence_length, 2 * (self.max_sentence_length + 2) if self.reads_sentences else 0)

    def loss_factor(self, objective: str, step: int) -> float:
        """Return the factor of the loss of ``objective`` at ``step``, from 0."""
        return value_at(self.loss_weight.get(objective, "1"), step)

    def problems(self) -> Iterator[str]:
        length, sub_batch = self.sequence_length, self.sub_batch_tokens
        if 0 < length < 3:
            yield f"sequence_length: {length} leaves no token between the first and the last"
        if {"mlm", "clm"} & self.weights.keys() and length > 0 and sub_batch % length:
            yield f"sub_batch_tokens: {sub_batch} is no multiple of data.sequence_length={length}"
        if self.reads_sentences and sub_batch < 2 * (self.max_sentence_length + 2):
            yield f"sub_batch_tokens: {sub_batch} cannot hold one pair of data.max_sentence_length each"
        weights = {f"{name}.{key}": w for name in OBJECTIVES for key, w in getattr(self, name).items()}
        for key, weight in weights.items():
            if not 0 <= weight < math.inf:
                yield f"{key}: {weight} is no weight; give a number from 0 up"
        if not self.weights:
            yield f"mlm: nothing to train on; give {', '.join(f'data.{name}' for name in OBJECTIVES)} a weight"
        yield from self._loss_weight_problems()

    def _loss_weight_problems(self) -> Iterator[str]:
        steps = {0}
        for name, text in self.loss_weight.items():
            if not isinstance(text, str):
                return  # CheckedSettings complains
            try:
                steps |= {step for step, _ in parse_points(text)}
            except ValueError as error:
                yield f"loss_weight.{name}: {text} is not like 0.5 or 0:1,100000:0.1,300000:0: {error}"
                return
            if name not in OBJECTIVES:
                yield f"loss_weight.{name}: is none of {', '.join(OBJECTIVES)}"
        for step in sorted(steps) if self.weights else []:
            if not any(self.loss_factor(name, step) for name in self.weights):
                yield f"loss_weight: all objectives have the factor 0 at step {step}; nothing is left to train on"
                return
