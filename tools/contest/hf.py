"""A plain loop around transformers' XLM."""

from __future__ import annotations

import torch
from torch import nn
from transformers import XLMConfig, XLMWithLMHeadModel

from xlmtrain.config.schema import Config
from xlmtrain.data.batch import Batch
from xlmtrain.data.loader import StepData
from xlmtrain.export.original import to_original
from xlmtrain.model.block import LAYER_NORM_EPS
from xlmtrain.objective import LanguageModel
from xlmtrain.runtime.precision import autocast
from xlmtrain.text.vocab import PAD

CPU = torch.device("cpu")


class Loop:
    """What one writes around transformers' model: AdamW as torch has it by default, clipping, autocast for bf16."""

    def __init__(self, config: Config, weights: LanguageModel) -> None:
        vocab_size, languages = len(weights.head.bias), len(config.data.mlm)
        model = config.model
        self.model = XLMWithLMHeadModel(
            XLMConfig(
                vocab_size=vocab_size,
                emb_dim=model.dim,
                n_layers=model.layers,
                n_heads=model.heads,
                max_position_embeddings=model.max_positions,
                dropout=model.dropout,
                attention_dropout=model.attention_dropout,
                n_langs=languages,
                layer_norm_eps=LAYER_NORM_EPS,
                pad_token_id=PAD,
            )
        )
        named = to_original(weights.state_dict()).items()
        self.model.load_state_dict({n if n.startswith("pred_layer") else f"transformer.{n}": t for n, t in named})
        self.model.train()
        optim = config.optim
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), optim.lr, (optim.beta1, optim.beta2), optim.eps, optim.weight_decay
        )
        self._clip, self._precision = optim.clip_grad_norm, config.train.precision

    def _forward(self, batch: Batch) -> torch.Tensor:
        labels = torch.full_like(batch.tokens, -100)
        labels.view(-1)[batch.target_index] = batch.targets
        return self.model(batch.tokens, langs=batch.languages, position_ids=batch.positions, labels=labels).loss

    def loss(self, batch: Batch) -> float:
        """See :class:`contest.worker.Trains`."""
        return float(self._forward(batch))

    def step(self, data: StepData) -> float:
        """See :class:`contest.worker.Trains`."""
        (batch,) = data.batches
        with autocast(self._precision, CPU):
            loss = self._forward(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())
