"""From a batch to its loss. MLM, TLM and CLM differ in the batch alone, so there is one model and one loss.

This is the module that is wrapped for data parallelism.
"""

from __future__ import annotations

import torch
from torch import nn

from xlmtrain.config.schema import ModelConfig
from xlmtrain.data.batch import Batch
from xlmtrain.errors import CheckpointError
from xlmtrain.model.embedding import look_up
from xlmtrain.model.encoder import Encoder
from xlmtrain.model.head import Head
from xlmtrain.text.vocab import PAD


class LanguageModel(nn.Module):
    """Encoder and output layer.

    ``vocab_size``: entries of the vocabulary; ``languages``: how many languages.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, languages: int) -> None:
        super().__init__()
        self.config, self.vocab_size, self.languages = config, vocab_size, languages
        self.encoder = Encoder(config, vocab_size, languages, PAD)
        self.head = Head(config.dim, vocab_size, config.tie_embeddings)

    def logits(self, batch: Batch) -> torch.Tensor:
        """Logits (N, V) in fp32 at the batch's N targets, and nowhere else: the output layer is half of the work."""
        return self.head(*self._at_targets(batch)).float()

    def forward(self, batch: Batch, embedded: torch.Tensor | None = None) -> torch.Tensor:
        """Cross-entropy summed over the batch's targets, in nats.

        ``embedded`` (B, T, D): the tokens' embeddings, if they have been looked up already.
        """
        return self.head(*self._at_targets(batch, embedded), batch.targets)

    def _at_targets(self, batch: Batch, embedded: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states (N, D) of the targets, and the embeddings (V, D)."""
        table = self.encoder.token_embeddings.weight
        if embedded is None:
            embedded, table = look_up(self.encoder.token_embeddings, batch.tokens)
        hidden = self.encoder(batch.tokens, batch.positions, batch.languages, batch.lengths, batch.causal, embedded)
        return hidden.flatten(0, 1).index_select(0, batch.target_index), table


def check_fit(model: nn.Module, weights: dict[str, torch.Tensor], where: str) -> None:
    """Raise CheckpointError, naming the first weight, if ``weights`` from ``where`` are not those of ``model``."""
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    odd = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if odd:
        raise CheckpointError(
            f"{where}: does not fit the model: {odd[0]} is {found.get(odd[0])}, not {expected.get(odd[0])}"
        )
