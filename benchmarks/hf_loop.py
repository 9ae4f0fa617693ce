"""A plain training loop around transformers' XLM."""

from __future__ import annotations

import torch
from transformers import XLMConfig, XLMWithLMHeadModel

from benchmarks.plain_loop import PlainLoop
from xlmtrain.config.schema import Config
from xlmtrain.data.batch import Batch
from xlmtrain.interop.xlm.conversion import to_xlm_state_dict
from xlmtrain.model.language_model import LanguageModel
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
            layer_norm_eps=model.norm_eps,
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


class HfLoopSystem(PlainLoop):
    """transformers' model in a plain loop."""

    def __init__(self, config: Config, weights: LanguageModel, device: torch.device) -> None:
        model = make_hf_model(config, weights)
        super().__init__(config, model, lambda model, batch: model(**make_hf_inputs(batch)).loss, device)
