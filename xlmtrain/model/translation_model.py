"""From a source sentence to its translation: an encoder, a decoder, and the loss of the decoder's targets.

Letters: B rows, T positions of the target, S positions of the source, N targets, D width, V vocabulary. While
translations are generated: N sentences, P prefixes of each one's translation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from xlmtrain.config.data import SEQ2SEQ_OBJECTIVES, DataConfig
from xlmtrain.config.model import ModelConfig
from xlmtrain.model.attention import take_positions
from xlmtrain.model.decoder import Decoder, DecoderCache
from xlmtrain.model.head import Head
from xlmtrain.model.kernels.tied_embedding import tied_embedding
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.text.vocab import XLM_IDS, SpecialIds

if TYPE_CHECKING:
    from torch import nn

    from xlmtrain.data.batch import Batch, EncoderInput

ENCODER_TABLE, DECODER_TABLE = "encoder.token_embeddings.weight", "decoder.token_embeddings.weight"


class TranslationModel(LanguageModel):
    """A language model, whose encoder reads the source, and a decoder of the same size with an output layer of its own.

    Nothing is shared between the two, as in the original XLM. ``share_embeddings``: encoder and decoder use one token
    table. ``label_smoothing``: in training, share of a target that is spread over the vocabulary. Batches without a
    source go through the language model; translation does not use its output layer.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        languages: int,
        special: SpecialIds = XLM_IDS,
        share_embeddings: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(config, vocab_size, languages, special)
        self.share_embeddings, self.label_smoothing = share_embeddings, label_smoothing
        self.decoder = Decoder(config, vocab_size, languages, special.pad)
        self.decoder_head = Head(config, vocab_size)
        if share_embeddings:
            del self.decoder.token_embeddings

    @property
    def blocks(self) -> list[nn.Module]:
        """All Transformer blocks, the encoder's first."""
        return [*self.encoder.blocks, *self.decoder.blocks]

    @property
    def target_embeddings(self) -> nn.Embedding:
        """Table of the decoder's tokens."""
        return self.encoder.token_embeddings if self.share_embeddings else self.decoder.token_embeddings

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the cross-entropy summed over the batch's targets, in nats, () fp32; over those of each part, (P,).

        In training, every trained weight gets a gradient from every batch, if only zero: processes that reduce
        gradients together may have batches of different objectives.
        """
        if batch.source is None:
            loss = super().forward(batch)
            return loss + self._zero_of_decoder(batch.tokens.device) if self.training else loss
        smoothing = self.label_smoothing if self.training else 0.0
        loss = self.decoder_head(*self._at_targets(batch), batch.targets, smoothing)
        trained = [weight for weight in self.head.parameters() if weight.requires_grad and self.training]
        return loss + sum(0.0 * weight.sum() for weight in trained)

    def _zero_of_decoder(self, device: torch.device) -> torch.Tensor:
        """Return the loss, (), of a target of one token without anything to predict."""
        tokens = torch.zeros(1, 1, dtype=torch.int64, device=device)
        embeds, matrix = tied_embedding(self.target_embeddings, tokens)
        hidden = self.decoder(embeds, tokens, tokens, None, torch.zeros_like(embeds), None)
        return self.decoder_head(hidden[0, :0], matrix, tokens[0, :0])

    def _head_of(self, batch: Batch) -> Head:
        return self.head if batch.source is None else self.decoder_head

    def _at_targets(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the targets' hidden states (N, D), the decoder's if there is a source, and the matrix (V, D)."""
        source = batch.source
        if source is None:
            return super()._at_targets(batch)
        embeds, matrix = tied_embedding(self.target_embeddings, batch.tokens)
        hidden = self.decoder(
            embeds, batch.positions, batch.languages, batch.lengths, self.encode(source), source.lengths
        )
        return take_positions(hidden, batch.target_index), matrix

    def encode(self, source: EncoderInput) -> torch.Tensor:
        """Return the encoder's hidden states (B, S, D)."""
        return self.encoder(source.tokens, source.positions, source.languages, source.lengths)

    def start(self, source: EncoderInput, per_sentence: int, positions: int) -> DecoderCache:
        """Encode ``source``; return the cache for ``per_sentence`` prefixes of up to ``positions`` tokens of each."""
        lengths = source.lengths
        if lengths is None:
            lengths = torch.full(source.tokens.shape[:1], source.tokens.shape[1], device=source.tokens.device)
        return self.decoder.start(self.encode(source), lengths, per_sentence, positions)

    def next_logits(self, tokens: torch.Tensor, language: int, cache: DecoderCache) -> torch.Tensor:
        """Append a token, ``tokens`` (N, P), to each prefix in ``cache``; return the next logits, (N, P, V) fp32.

        ``language``: to translate into.
        """
        embeddings = self.target_embeddings
        hidden = self.decoder.step(embeddings(tokens), language, cache)
        return self.decoder_head(hidden, embeddings.weight).float()


def build_model(
    config: ModelConfig,
    data: DataConfig,
    vocab_size: int,
    languages: int,
    label_smoothing: float = 0.0,
    special: SpecialIds = XLM_IDS,
) -> LanguageModel:
    """Return the model that the objectives of ``data`` train: with a decoder if one of them needs it.

    ``special``: ids of the vocabulary's special symbols. The output layer of the language model is left out of
    training if no objective uses it.
    """
    if not data.needs_decoder:
        return LanguageModel(config, vocab_size, languages, special)
    model = TranslationModel(
        config,
        vocab_size,
        languages,
        special,
        share_embeddings=config.share_encoder_decoder_embeddings,
        label_smoothing=label_smoothing,
    )
    model.head.requires_grad_(not data.weights.keys() <= set(SEQ2SEQ_OBJECTIVES))
    return model


def as_decoder(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename a language model's weights to those of a translation model's decoder."""
    return {
        f"decoder_{name}" if name.startswith("head.") else f"decoder.{name.removeprefix('encoder.')}": value
        for name, value in weights.items()
    }


def decoder_part(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the decoder's weights of a translation model under a language model's names, the inverse of as_decoder.

    Empty for a language model. A tied token table is the encoder's.
    """
    part = {
        re.sub("^decoder_", "", re.sub(r"^decoder\.", "encoder.", name)): value
        for name, value in weights.items()
        if name.startswith("decoder")
    }
    return {ENCODER_TABLE: weights[ENCODER_TABLE], **part} if part else {}


def encoder_part(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of the language model in a translation model; all of them for a language model."""
    return {name: value for name, value in weights.items() if not name.startswith("decoder")}


@torch.no_grad()
def initialize_from(
    model: TranslationModel, encoder: Mapping[str, torch.Tensor], decoder: Mapping[str, torch.Tensor]
) -> list[str]:
    """Replace the initial weights by those of language models, of the shapes and vocabulary of ``model``.

    ``encoder``, ``decoder``: their state dicts; either may be empty. Returns the names of the weights that stay random:
    for the decoder, attention to the source and its norms. A tied token table is the encoder's.
    """
    weights = {**encoder, **as_decoder(decoder)}
    if model.share_embeddings and decoder:
        weights.setdefault(ENCODER_TABLE, weights[DECODER_TABLE])
        del weights[DECODER_TABLE]
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    return missing
