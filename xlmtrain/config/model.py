"""Settings of the network and of its first weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from xlmtrain.config.families import PARTS, Family, Parts
from xlmtrain.config.validate import ABOVE_ZERO, NOT_NEGATIVE, SHARE, ranged


class Activation(str, Enum):
    """Non-linearity of the feed-forward layers; ``gelu`` is the exact (erf) form."""

    gelu = "gelu"
    relu = "relu"


@dataclass
class ModelConfig:
    """Transformer encoder; the defaults are those of xlm-mlm-ende-1024."""

    dim: int = ranged(1024, ABOVE_ZERO)
    """Width of the hidden states."""

    layers: int = ranged(6, ABOVE_ZERO)
    """Number of Transformer blocks."""

    heads: int = ranged(8, ABOVE_ZERO)
    """Number of attention heads; must divide ``dim``."""

    max_positions: int = ranged(512, ABOVE_ZERO)
    """Longest sequence in tokens; the size of the position table, if there is one."""

    dropout: float = ranged(0.1, SHARE)
    """Dropout probability after the embeddings, the attention and the feed-forward layers."""

    attention_dropout: float = ranged(0.1, SHARE)
    """Dropout probability of the attention weights."""

    activation: Activation = Activation.gelu
    """Non-linearity of the feed-forward layers, gated in modernbert."""

    sinusoidal_positions: bool = False
    """Use fixed sinusoidal position embeddings instead of learned ones."""

    language_embeddings: bool = True
    """Add a learned embedding of the token's language to every token. Families other than xlm start with zeros, and
    are exported with the vector of one language each."""

    tie_embeddings: bool = True
    """Share one matrix between the token embeddings and the output layer."""

    share_encoder_decoder_embeddings: bool = False
    """Share the token embeddings between the encoder and the decoder of a translation model. The original XLM does
    not."""

    family: Family = Family.xlm
    """Architecture: ``xlm``, or that of BERT, of RoBERTa and XLM-R, of ModernBERT, or of Jina Embeddings v3 (XLM-R with
    rotary positions), which Hugging Face's classes load."""

    ffn_dim: int = ranged(0, NOT_NEGATIVE)
    """Width inside the feed-forward layers; 0: four times ``dim``, which XLM always has."""

    norm_eps: float = ranged(1e-12, ABOVE_ZERO)
    """Added to the variance in norms; RoBERTa and ModernBERT have 1e-5."""

    token_types: int = ranged(2, ABOVE_ZERO)
    """All families but xlm and modernbert: rows of the table of token types. All tokens have type 0."""

    global_every: int = ranged(3, ABOVE_ZERO)
    """modernbert: of this many blocks the first attends to all positions, the others to nearby ones."""

    local_attention: int = ranged(128, ABOVE_ZERO)
    """modernbert: the nearby positions, half of them on each side."""

    rope_theta: float = ranged(160000.0, ABOVE_ZERO)
    """modernbert, jina_embeddings_v3: base of the rotary positions in blocks that attend to all positions."""

    local_rope_theta: float = ranged(10000.0, ABOVE_ZERO)
    """modernbert: base of the rotary positions in blocks that attend to nearby positions."""

    @property
    def parts(self) -> Parts:
        """The parts of the family."""
        return PARTS[self.family]

    @property
    def ffn_width(self) -> int:
        """Width inside the feed-forward layers."""
        return self.ffn_dim or 4 * self.dim

    @property
    def block_weights(self) -> int:
        """Number of weights in the matrices of a block."""
        return (4 * self.dim + (3 if self.parts.gated else 2) * self.ffn_width) * self.dim

    def problems(self) -> Iterator[str]:
        if self.family is Family.xlm and (self.ffn_width, self.norm_eps) != (4 * self.dim, 1e-12):
            yield "ffn_dim, norm_eps: fixed in the family xlm; leave them out, or choose another model.family"
        if self.family is not Family.xlm and self.sinusoidal_positions:
            yield f"sinusoidal_positions: not in the family {self.family.value}"
        if self.parts.rotary and self.heads > 0 and self.dim // self.heads % 2:
            yield f"heads: rotary positions need an even size of heads, not {self.dim // self.heads}"
        if self.heads > 0 and self.dim % self.heads:
            yield f"heads: {self.heads} does not divide model.dim={self.dim}"
        if self.sinusoidal_positions and self.dim % 2:
            yield f"dim: {self.dim} is odd, which model.sinusoidal_positions cannot use"


@dataclass
class InitConfig:
    """Initial weights; random by default. Used when a run begins, not when it resumes."""

    pretrained: str | None = None
    """Model to start from: a run directory, one of its checkpoints, a Hugging Face folder, or a ``.pth`` file of the
    original XLM. The data must have the model's vocabulary, or its tokenizer extended by ``extend_tokenizer``, and only
    languages that the model knows."""

    encoder: str | None = None
    """Model to start the encoder of a translation model from, in the formats of ``pretrained``. If that model has a
    decoder, only its encoder is used."""

    decoder: str | None = None
    """Model to start the decoder from, in the same formats. If that model has a decoder, that one is used. What a
    language model lacks, attention to the source and its norms, stays random."""

    word_vectors: list[str] = field(default_factory=list)
    """Files of word vectors for the token embeddings, in word2vec text format with ``model.dim`` numbers per word. For
    a word in several files, the last file is used."""

    @property
    def models(self) -> list[str]:
        """All models to start from."""
        return [path for path in (self.pretrained, self.encoder, self.decoder) if path is not None]

    def problems(self) -> Iterator[str]:
        if self.pretrained is not None and len(self.models) > 1:
            yield "pretrained: sets encoder and decoder; remove it, or remove init.encoder and init.decoder"
