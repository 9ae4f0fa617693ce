"""A plain training loop around transformers' model."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedModel, XLMConfig, XLMWithLMHeadModel

from benchmarks.plain_loop import PlainLoop
from xlmtrain.config.families import Family
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.schema import Config
from xlmtrain.data.batch import Batch
from xlmtrain.interop.hf.class_names import HeadKind
from xlmtrain.interop.hf.class_weights import write_weights
from xlmtrain.interop.hf.families import family_settings
from xlmtrain.interop.xlm.conversion import to_xlm_state_dict
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.text.vocab import PAD


def make_hf_model(config: Config, weights: LanguageModel) -> PreTrainedModel:
    """Return transformers' model with the given weights."""
    model = config.model
    if model.family is not Family.xlm:
        return _make_family_model(model, weights)
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


def _make_family_model(config: ModelConfig, weights: LanguageModel) -> PreTrainedModel:
    settings = family_settings(config, PAD)
    with tempfile.TemporaryDirectory() as folder:
        write_weights(Path(folder) / "model.safetensors", weights.state_dict(), config, HeadKind.masked)
        AutoConfig.for_model(**settings, vocab_size=len(weights.head.bias), pad_token_id=PAD).save_pretrained(folder)
        return AutoModelForMaskedLM.from_pretrained(folder).train()


def make_hf_inputs(batch: Batch, model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return the arguments of ``model``, each (B, T); labels are -100 except at the targets."""
    labels = torch.full_like(batch.tokens, -100)
    labels.view(-1)[batch.target_index] = batch.targets
    inputs = {"input_ids": batch.tokens, "position_ids": batch.positions, "labels": labels}
    return inputs | ({"langs": batch.languages} if isinstance(model, XLMWithLMHeadModel) else {})


class HfLoopSystem(PlainLoop):
    """transformers' model in a plain loop."""

    def __init__(self, config: Config, weights: LanguageModel, device: torch.device) -> None:
        model = make_hf_model(config, weights)
        super().__init__(config, model, lambda called, batch: called(**make_hf_inputs(batch, model)).loss, device)
