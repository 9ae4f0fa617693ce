"""A plain training loop around transformers' XLM."""

from __future__ import annotations

import torch
from torch import nn
from transformers import XLMConfig, XLMWithLMHeadModel

from benchmarks.worker import BatchFeed
from xlmtrain.config.schema import Config
from xlmtrain.data.batch import Batch
from xlmtrain.interop.xlm.conversion import to_xlm_state_dict
from xlmtrain.model.block import LAYER_NORM_EPS
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.precision import autocast
from xlmtrain.text.vocab import PAD


def make_hf_model(config: Config, weights: LanguageModel) -> XLMWithLMHeadModel:
    """Return transformers' model with the given weights."""
    model = config.model
    hf_model = XLMWithLMHeadModel(
        XLMConfig(
            vocab_size=len(weights.head.bias),
            emb_dim=model.dim,
            n_layers=model.layers,
            n_heads=model.heads,
            max_position_embeddings=model.max_positions,
            dropout=model.dropout,
            attention_dropout=model.attention_dropout,
            n_langs=len(config.data.mlm),
            layer_norm_eps=LAYER_NORM_EPS,
            pad_token_id=PAD,
        )
    )
    named = to_xlm_state_dict(weights.state_dict()).items()
    hf_model.load_state_dict({n if n.startswith("pred_layer") else f"transformer.{n}": t for n, t in named})
    return hf_model.train()


def make_hf_inputs(batch: Batch) -> dict[str, torch.Tensor]:
    """Return the model's arguments, each (B, T); labels are -100 except at the targets."""
    labels = torch.full_like(batch.tokens, -100)
    labels.view(-1)[batch.target_index] = batch.targets
    return {"input_ids": batch.tokens, "langs": batch.languages, "position_ids": batch.positions, "labels": labels}


class HfLoopSystem:
    """transformers' model with PyTorch's default AdamW, gradient clipping, and autocast for bf16."""

    def __init__(self, config: Config, weights: LanguageModel, device: torch.device) -> None:
        self.model = make_hf_model(config, weights)
        self.model.to(device)  # type: ignore[arg-type]
        self._called = torch.compile(self.model) if config.train.compile else self.model
        optim = config.optim
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(), optim.lr, (optim.beta1, optim.beta2), optim.eps, optim.weight_decay
        )
        self._clip, self._precision, self._device = optim.clip_grad_norm, config.train.precision, device

    def loss(self, batch: Batch) -> float:
        return float(self.model(**make_hf_inputs(batch)).loss)

    def train(self, feed: BatchFeed) -> None:
        for data in feed:
            inputs = make_hf_inputs(data.batches[0].to(self._device))
            with autocast(self._precision, self._device):
                loss = self._called(**inputs).loss
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
            self._optimizer.step()
            self._optimizer.zero_grad()
            feed.step_done(loss.detach())
