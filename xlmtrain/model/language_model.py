"""From a batch to its loss. MLM, TLM and CLM differ in the batch alone, so there is one model and one loss.

Letters: B rows, T positions, N targets, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from xlmtrain.config.model import ModelConfig
from xlmtrain.errors import CheckpointError
from xlmtrain.model.encoder import Encoder
from xlmtrain.model.head import Head
from xlmtrain.model.kernels.linear_cross_entropy import TARGETS_MULTIPLE
from xlmtrain.model.kernels.tied_embedding import tied_embedding
from xlmtrain.text.vocab import XLM_IDS, SpecialIds

if TYPE_CHECKING:
    from xlmtrain.data.batch import Batch


MAX_LOGITS = 1 << 28
"""Logits in one piece in evaluation: 1 GiB."""


class LanguageModel(nn.Module):
    """Encoder and output layer.

    ``vocab_size``: entries of the vocabulary; ``languages``: number of languages; ``special``: ids of the vocabulary's
    special symbols.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, languages: int, special: SpecialIds = XLM_IDS) -> None:
        super().__init__()
        self.config, self.vocab_size, self.languages, self.special = config, vocab_size, languages, special
        self.encoder = Encoder(config, vocab_size, languages, special.pad)
        self.head = Head(config, vocab_size)

    @property
    def blocks(self) -> list[nn.Module]:
        """All Transformer blocks."""
        return list(self.encoder.blocks)

    def logits(self, batch: Batch) -> torch.Tensor:
        """Return logits (N, V) in fp32 at the batch's N targets only: the output layer is half of the work."""
        return self._head_of(batch)(*self._at_targets(batch)).float()

    def logits_in_parts(self, batch: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield logits (n, V) in fp32 and their targets (n,), at most ``MAX_LOGITS`` numbers at a time.

        For evaluation: CLM on 32,768 tokens with a vocabulary of 60,000 would make 8 GB of logits in one piece.
        """
        hidden, matrix = self._at_targets(batch)
        rows = max(1, MAX_LOGITS // self.vocab_size)
        for part, targets in zip(hidden.split(rows), batch.targets.split(rows)):
            yield self._head_of(batch)(part, matrix).float(), targets

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the cross-entropy summed over the batch's targets, in nats, () fp32; over those of each part, (P,)."""
        counts = [part.targets for part in batch.parts]
        return self.head(*self._at_targets(batch), batch.targets, counts=counts or None)

    def _head_of(self, batch: Batch) -> Head:
        """Return the output layer that predicts the batch's targets."""
        return self.head

    def _at_targets(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the hidden states (N, D) of the targets, and the embedding matrix (V, D)."""
        embeds, matrix = tied_embedding(self.encoder.token_embeddings, batch.tokens)
        inputs = (batch.tokens, batch.positions, batch.languages, batch.lengths, batch.causal)
        count = len(batch.targets)
        at = F.pad(batch.target_index, (0, -count % TARGETS_MULTIPLE))
        hidden = self.encoder(
            *inputs,
            input_embeds=embeds,
            at=at,
            row_groups=[(part.rows, part.length, part.padded) for part in batch.parts],
        )
        return hidden[:count], matrix


def check_state_dict(model: nn.Module, weights: dict[str, torch.Tensor], where: str) -> None:
    """Raise CheckpointError, naming the first weight, if ``weights`` from ``where`` are not those of ``model``."""
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    odd = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if odd:
        raise CheckpointError(
            f"{where}: does not fit the model: {odd[0]} is {found.get(odd[0])}, not {expected.get(odd[0])}"
        )
