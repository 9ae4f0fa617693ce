"""The training loop of the original XLM, written from its description and as plain as it was.

Separate projections for queries, keys and values, attention in single operations, a GELU of Python operations, the
output layer at the targets only, and an Adam that loops over the tensors. State dicts have the original's names.

Letters: B rows, T positions, D width, H heads, N targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.worker import BatchFeed
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.schema import Config
from xlmtrain.data.batch import Batch
from xlmtrain.interop.xlm.conversion import to_xlm_state_dict
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.precision import autocast
from xlmtrain.text.vocab import PAD


class _Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.attention_dropout
        self.q_lin, self.k_lin, self.v_lin, self.out_lin = (nn.Linear(config.dim, config.dim) for _ in range(4))

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        rows, length, dim = x.shape

        def split(part: torch.Tensor) -> torch.Tensor:
            return part.view(rows, length, self.heads, -1).transpose(1, 2)

        q, k, v = split(self.q_lin(x)), split(self.k_lin(x)), split(self.v_lin(x))
        scores = torch.matmul(q / math.sqrt(q.shape[-1]), k.transpose(2, 3))  # (B, H, T, T)
        scores.masked_fill_(padding[:, None, None, :].expand_as(scores), -float("inf"))
        weights = F.softmax(scores.float(), dim=-1).type_as(scores)
        weights = F.dropout(weights, p=self.dropout, training=self.training)
        mixed = torch.matmul(weights, v).transpose(1, 2).contiguous().view(rows, length, dim)
        return self.out_lin(mixed)


class _FeedForward(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.lin1, self.lin2 = nn.Linear(config.dim, 4 * config.dim), nn.Linear(4 * config.dim, config.dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.lin1(x)
        x = 0.5 * x * (1.0 + torch.erf(x / math.sqrt(2.0)))
        return F.dropout(self.lin2(x), p=self.dropout, training=self.training)


class XlmModel(nn.Module):
    """The encoder with its output layer tied to the token embeddings."""

    def __init__(self, config: ModelConfig, vocab_size: int, languages: int) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.position_embeddings = nn.Embedding(config.max_positions, config.dim)
        self.lang_embeddings = nn.Embedding(languages, config.dim)
        self.embeddings = nn.Embedding(vocab_size, config.dim, padding_idx=PAD)
        self.layer_norm_emb = nn.LayerNorm(config.dim, eps=config.norm_eps)
        layers = range(config.layers)
        self.attentions = nn.ModuleList(_Attention(config) for _ in layers)
        self.layer_norm1 = nn.ModuleList(nn.LayerNorm(config.dim, eps=config.norm_eps) for _ in layers)
        self.ffns = nn.ModuleList(_FeedForward(config) for _ in layers)
        self.layer_norm2 = nn.ModuleList(nn.LayerNorm(config.dim, eps=config.norm_eps) for _ in layers)
        self.pred_layer = nn.ModuleDict({"proj": nn.Linear(config.dim, vocab_size)})
        self.pred_layer["proj"].weight = self.embeddings.weight

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy over the targets of an MLM batch, in nats."""
        tokens = batch.tokens
        rows, length = tokens.shape
        lengths = torch.full((rows,), length, device=tokens.device) if batch.lengths is None else batch.lengths
        token_mask = torch.arange(length, device=tokens.device) < lengths[:, None]
        x = self.embeddings(tokens) + self.position_embeddings(batch.positions)
        x = x + self.lang_embeddings(batch.languages)
        x = F.dropout(self.layer_norm_emb(x), p=self.dropout, training=self.training)
        x = x * token_mask[..., None].to(x.dtype)
        for attention, norm1, ffn, norm2 in zip(self.attentions, self.layer_norm1, self.ffns, self.layer_norm2):
            mixed = F.dropout(attention(x, ~token_mask), p=self.dropout, training=self.training)
            x = norm1(x + mixed)
            x = norm2(x + ffn(x))
            x = x * token_mask[..., None].to(x.dtype)
        chosen = torch.zeros(rows * length, dtype=torch.bool, device=tokens.device)
        chosen = chosen.index_fill_(0, batch.target_index, True).view(rows, length, 1).expand_as(x)
        scores = self.pred_layer["proj"](x[chosen].view(-1, x.shape[-1]))  # (N, V)
        return F.cross_entropy(scores, batch.targets, reduction="mean")


class XlmAdam(torch.optim.Optimizer):
    """Adam of the original: a Python loop over the tensors, eps added to the uncorrected second moment."""

    def __init__(self, parameters: list[nn.Parameter], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "step": 0})
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            group["step"] += 1
            beta1, beta2 = group["betas"]
            size = group["lr"] * math.sqrt(1 - beta2 ** group["step"]) / (1 - beta1 ** group["step"])
            for p in group["params"]:
                if p.grad is None:
                    continue
                first, second = self.state[p]["exp_avg"], self.state[p]["exp_avg_sq"]
                first.mul_(beta1).add_(p.grad, alpha=1 - beta1)
                second.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                p.addcdiv_(first, second.sqrt().add_(group["eps"]), value=-size)


class XlmSystem:
    """The original's model, optimizer and loop."""

    def __init__(self, config: Config, weights: LanguageModel, device: torch.device) -> None:
        self.model = XlmModel(config.model, len(weights.head.bias), len(config.data.mlm))
        self.model.load_state_dict(to_xlm_state_dict(weights.state_dict()))
        self.model.to(device)
        optim = config.optim
        self._optimizer = XlmAdam(list(self.model.parameters()), optim.lr, (optim.beta1, optim.beta2), optim.eps)
        self._clip, self._precision, self._device = optim.clip_grad_norm, config.train.precision, device

    def loss(self, batch: Batch) -> float:
        return float(self.model(batch))

    def train(self, feed: BatchFeed) -> None:
        for data in feed:
            batch = data.batches[0].to(self._device)
            with autocast(self._precision, self._device):
                loss = self.model(batch)
            self._optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
            self._optimizer.step()
            feed.step_done(loss.detach())
