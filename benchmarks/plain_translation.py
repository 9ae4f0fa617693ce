"""A plain training loop of translation around torch's own Transformer layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.plain_loop import PlainLoop
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.schema import Config
from xlmtrain.data.batch import Batch, EncoderInput, encoder_input
from xlmtrain.data.sequences import sentence_sequences
from xlmtrain.generate.decoding import max_target_lengths, up_to_eos
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.precision import eval_mode
from xlmtrain.text.vocab import EOS, PAD, XLM_IDS

# Our names -> torch's, of the parts of a block. The norms are numbered in their order.
_PARTS = (
    (r"blocks\.(\d+)\.", r"layers.\1."),
    (r"cross_attention\.out\.", "multihead_attn.out_proj."),
    (r"cross_attention\.(query|key_value)\.", r"multihead_attn.\1_"),
    (r"attention\.qkv\.", "self_attn.in_proj_"),
    (r"attention\.out\.", "self_attn.out_proj."),
    (r"ffn\.inner\.", "linear1."),
    (r"ffn\.outer\.", "linear2."),
    (r"cross_attention_norm\.", "norm2."),
    (r"attention_norm\.", "norm1."),
    (r"(?<=encoder\.layers\.)(\d+)\.ffn_norm\.", r"\1.norm2."),
    (r"(?<=decoder\.layers\.)(\d+)\.ffn_norm\.", r"\1.norm3."),
)


def _torch_names(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of a translation model under the names of :class:`PlainTranslationModel`."""
    renamed: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        for pattern, new in _PARTS:
            name = re.sub(pattern, new, name)
        renamed[name] = weight
    for name in [name for name in renamed if ".query_" in name]:
        other = renamed.pop(name.replace(".query_", ".key_value_"))
        renamed[name.replace(".query_", ".in_proj_")] = torch.cat([renamed.pop(name), other])
    return renamed


class _Side(nn.Module):
    """Embeddings and layers of one side; the layers are torch's."""

    def __init__(self, config: ModelConfig, vocab_size: int, languages: int, layer_class: type[nn.Module]) -> None:
        super().__init__()
        self.token_embeddings = nn.Embedding(vocab_size, config.dim, padding_idx=PAD)
        self.position_embeddings = nn.Embedding(config.max_positions, config.dim)
        self.language_embeddings = nn.Embedding(languages, config.dim)
        self.embedding_norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        shape = (config.dim, config.heads, 4 * config.dim, config.dropout, "gelu", config.norm_eps)
        self.layers = nn.ModuleList(layer_class(*shape, batch_first=True) for _ in range(config.layers))
        for layer in self.layers:
            layer.dropout = nn.Identity()  # within the feed-forward layer, where the model has none

    def embed(self, tokens: torch.Tensor, positions: torch.Tensor, languages: torch.Tensor) -> torch.Tensor:
        x = self.token_embeddings(tokens) + self.position_embeddings(positions) + self.language_embeddings(languages)
        return self.dropout(self.embedding_norm(x))


class PlainTranslationModel(nn.Module):
    """Encoder, decoder and output layer, with the arithmetic of our model."""

    def __init__(self, config: ModelConfig, vocab_size: int, languages: int) -> None:
        super().__init__()
        self.encoder = _Side(config, vocab_size, languages, nn.TransformerEncoderLayer)
        self.decoder = _Side(config, vocab_size, languages, nn.TransformerDecoderLayer)
        self.decoder_head = nn.Linear(config.dim, vocab_size)
        self.decoder_head.weight = self.decoder.token_embeddings.weight

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the mean loss per target."""
        source = batch.source
        assert source is not None
        y = self.decode(batch.tokens, batch.positions, batch.languages, self.encode(source), source)
        labels = torch.full_like(batch.tokens, -100)
        labels.view(-1)[batch.target_index] = batch.targets
        return F.cross_entropy(self.decoder_head(y).flatten(0, 1).float(), labels.flatten())

    def encode(self, source: EncoderInput) -> torch.Tensor:
        """Return the hidden states of the source."""
        x = self.encoder.embed(source.tokens, source.positions, source.languages)
        for layer in self.encoder.layers:
            x = layer(x, src_key_padding_mask=source.tokens == PAD)
        return x

    def decode(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        languages: torch.Tensor,
        encoded: torch.Tensor,
        source: EncoderInput,
    ) -> torch.Tensor:
        """Return the hidden states of the translation."""
        y = self.decoder.embed(tokens, positions, languages)
        causal = torch.ones(y.shape[1], y.shape[1], dtype=torch.bool, device=y.device).triu(1)
        for layer in self.decoder.layers:
            y = layer(y, encoded, tgt_mask=causal, memory_key_padding_mask=source.tokens == PAD, tgt_is_causal=True)
        return y

    def greedy(self, source: EncoderInput, language: int, max_lengths: torch.Tensor) -> list[np.ndarray]:
        """Return the ids of translations, with ``</s>``, that begin anew with every token: these layers have no cache.

        ``max_lengths``: as for our own greedy search.
        """
        tokens = torch.full((len(max_lengths), 1), EOS, device=max_lengths.device)
        left, encoded = max_lengths - 2, self.encode(source)
        for number in range(int(left.max())):
            positions = torch.arange(number + 1, device=tokens.device).expand_as(tokens)
            y = self.decode(tokens, positions, torch.full_like(tokens, language), encoded, source)
            logits = self.decoder_head(y[:, -1])
            logits[:, XLM_IDS.but_eos()] = -torch.inf
            ended = (number > 0) & (tokens[:, -1] == EOS) | (left <= number)
            tokens = torch.cat([tokens, logits.argmax(dim=1).masked_fill(ended, EOS)[:, None]], dim=1)
            if (tokens[:, -1] == EOS).all():
                break
        return up_to_eos(F.pad(tokens[:, 1:], (0, 1), value=EOS), EOS)


class PlainTranslationSystem(PlainLoop):
    """torch's layers in a plain loop."""

    model: PlainTranslationModel

    def __init__(self, config: Config, weights: LanguageModel, device: torch.device) -> None:
        model = PlainTranslationModel(config.model, weights.vocab_size, weights.languages)
        named = _torch_names({n: w for n, w in weights.state_dict().items() if not n.startswith("head.")})
        table = {"decoder_head.weight": weights.state_dict()["decoder.token_embeddings.weight"]}
        model.load_state_dict({**named, **table})
        super().__init__(config, model, lambda model, batch: model(batch), device)

    def with_sources(self, batch: Batch) -> Batch:
        """Return the batch with translations of its sentences as sources if it is one of back-translation."""
        if batch.objective != "bt":
            return batch
        assert batch.source is not None
        language, positions = int(batch.source.languages[0, 0]), self.model.encoder.position_embeddings.num_embeddings
        max_lengths = max_target_lengths((batch.tokens != PAD).sum(dim=1), positions)
        with eval_mode(self.model):
            found = self.model.greedy(replace(batch.source, languages=batch.languages), language, max_lengths)
        source = encoder_input(sentence_sequences(found, language, XLM_IDS))
        return replace(batch, source=source.to(batch.tokens.device))
