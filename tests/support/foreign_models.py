"""Models of transformers' families with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from xlmtrain.text.vocab import PAD

transformers = pytest.importorskip("transformers", reason="transformers is not installed")


SIZE = {"vocab_size": 54, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "pad_token_id": PAD}


BERT = {**SIZE, "intermediate_size": 48, "max_position_embeddings": 32}


ROBERTA = {
    **SIZE,
    "intermediate_size": 128,
    "max_position_embeddings": 35,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}


MODERN = {**BERT, "local_attention": 8, "bos_token_id": 1, "eos_token_id": 1, "cls_token_id": 1, "sep_token_id": 1}


CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", BERT),
    "roberta": ("RobertaConfig", ROBERTA),
    "xlm_roberta": ("XLMRobertaConfig", ROBERTA),
    "modernbert": ("ModernBertConfig", MODERN),
    "jina_embeddings_v3": ("JinaEmbeddingsV3Config", {**ROBERTA, "max_position_embeddings": 32}),
}


FAMILIES = list(CONFIGS)


def foreign(family: str, folder: Path | None = None, **changes: Any) -> Any:
    """A model of transformers with random weights, biases and norms included, saved into ``folder``."""
    transformers.logging.disable_progress_bar()
    name, values = CONFIGS[family]
    if not hasattr(transformers, name):
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    config = getattr(transformers, name)(**{**values, **changes})
    torch.manual_seed(3)
    model = transformers.AutoModelForMaskedLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    if folder is not None:
        model.save_pretrained(folder)
    return model
