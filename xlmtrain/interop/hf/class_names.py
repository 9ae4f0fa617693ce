"""Names of transformers' classes and of their modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from xlmtrain.config.families import Family


class HeadKind(str, Enum):
    """The head of a class of transformers, by the end of the class's name: for masked words, for texts, for words."""

    masked = "ForMaskedLM"
    texts = "ForSequenceClassification"
    words = "ForTokenClassification"


@dataclass(frozen=True)
class HfClass:
    """The classes of a family, all of which begin with ``name``.

    ``encoder``, ``block``, ``heads``: our module names, of the encoder, of a block and of each head, and theirs;
    queries, keys and values may be three modules. ``bias``: name of the output layer's bias while its matrix is tied.
    """

    name: str
    encoder: Mapping[str, str]
    block: Mapping[str, tuple[str, ...]]
    heads: Mapping[HeadKind, Mapping[str, str]]
    bias: str

    @property
    def prefix(self) -> str:
        """Beginning of the names of the encoder's weights."""
        return self.encoder["encoder.token_embeddings"].partition(".")[0] + "."


def _bert(class_name: str, name: str, heads: dict[HeadKind, dict[str, str]], bias: str) -> HfClass:
    """Return the classes with the encoder of BERT, named ``name``."""
    layer, ours = f"{name}.encoder.layer.{{}}", "encoder."
    return HfClass(
        class_name,
        {
            f"{ours}token_embeddings": f"{name}.embeddings.word_embeddings",
            f"{ours}position_embeddings": f"{name}.embeddings.position_embeddings",
            f"{ours}token_type_embeddings": f"{name}.embeddings.token_type_embeddings",
            f"{ours}embedding_norm": f"{name}.embeddings.LayerNorm",
        },
        {
            "attention.qkv": tuple(f"{layer}.attention.self.{part}" for part in ("query", "key", "value")),
            "attention.out": (f"{layer}.attention.output.dense",),
            "attention_norm": (f"{layer}.attention.output.LayerNorm",),
            "ffn.inner": (f"{layer}.intermediate.dense",),
            "ffn.outer": (f"{layer}.output.dense",),
            "ffn_norm": (f"{layer}.output.LayerNorm",),
        },
        heads,
        bias,
    )


_WORDS = {"head.out": "classifier"}
_ROBERTA_HEADS = {
    HeadKind.masked: {
        "head.transform.dense": "lm_head.dense",
        "head.transform.norm": "lm_head.layer_norm",
        "head": "lm_head.decoder",
    },
    HeadKind.texts: {"head.dense": "classifier.dense", "head.out": "classifier.out_proj"},
    HeadKind.words: _WORDS,
}
_MODERNBERT_HEAD = {"head.dense": "head.dense", "head.norm": "head.norm", "head.out": "classifier"}
CLASSES = {
    Family.bert: _bert(
        "Bert",
        "bert",
        {
            HeadKind.masked: {
                "head.transform.dense": "cls.predictions.transform.dense",
                "head.transform.norm": "cls.predictions.transform.LayerNorm",
                "head": "cls.predictions.decoder",
            },
            HeadKind.texts: {"head.dense": "bert.pooler.dense", "head.out": "classifier"},
            HeadKind.words: _WORDS,
        },
        "cls.predictions.bias",
    ),
    Family.roberta: _bert("Roberta", "roberta", _ROBERTA_HEADS, "lm_head.bias"),
    Family.xlm_roberta: _bert("XLMRoberta", "roberta", _ROBERTA_HEADS, "lm_head.bias"),
    Family.modernbert: HfClass(
        "ModernBert",
        {
            "encoder.token_embeddings": "model.embeddings.tok_embeddings",
            "encoder.embedding_norm": "model.embeddings.norm",
            "encoder.final_norm": "model.final_norm",
        },
        {
            "attention.qkv": ("model.layers.{}.attn.Wqkv",),
            "attention.out": ("model.layers.{}.attn.Wo",),
            "attention_norm": ("model.layers.{}.attn_norm",),
            "ffn.inner": ("model.layers.{}.mlp.Wi",),
            "ffn.outer": ("model.layers.{}.mlp.Wo",),
            "ffn_norm": ("model.layers.{}.mlp_norm",),
        },
        {
            HeadKind.masked: {
                "head.transform.dense": "head.dense",
                "head.transform.norm": "head.norm",
                "head": "decoder",
            },
            HeadKind.texts: _MODERNBERT_HEAD,
            HeadKind.words: _MODERNBERT_HEAD,
        },
        "decoder.bias",
    ),
    Family.jina_embeddings_v3: HfClass(
        "JinaEmbeddingsV3",
        {
            "encoder.token_embeddings": "roberta.embeddings.word_embeddings",
            "encoder.token_type_embeddings": "roberta.embeddings.token_type_embeddings",
            "encoder.embedding_norm": "roberta.emb_ln",
        },
        {
            "attention.qkv": ("roberta.encoder.layers.{}.mixer.Wqkv",),
            "attention.out": ("roberta.encoder.layers.{}.mixer.out_proj",),
            "attention_norm": ("roberta.encoder.layers.{}.norm1",),
            "ffn.inner": ("roberta.encoder.layers.{}.mlp.fc1",),
            "ffn.outer": ("roberta.encoder.layers.{}.mlp.fc2",),
            "ffn_norm": ("roberta.encoder.layers.{}.norm2",),
        },
        _ROBERTA_HEADS,
        "lm_head.bias",
    ),
}
"""All families but XLM, whose encoder has the names of the original XLM."""
XLM_HEADS = {HeadKind.texts: {"head.out": "sequence_summary.summary"}, HeadKind.words: _WORDS}


def class_name(family: Family, head: HeadKind) -> str:
    """Return the name of the class."""
    if family is Family.xlm:
        return "XLMWithLMHeadModel" if head is HeadKind.masked else f"XLM{head.value}"
    return CLASSES[family].name + head.value


def head_kind(architectures: object) -> HeadKind:
    """Return the head of the class that ``config.json`` names; without one that classifies, that for masked words."""
    names = architectures if isinstance(architectures, list) else []
    return next((kind for kind in HeadKind if any(str(name).endswith(kind.value) for name in names)), HeadKind.masked)


def weight_names(family: Family, layers: int, head: HeadKind) -> Iterator[tuple[str, list[str]]]:
    """Yield our name and theirs of every weight that the class may have."""
    chosen = CLASSES[family]
    for kind in ("weight", "bias"):
        for ours, theirs in (*chosen.encoder.items(), *chosen.heads[head].items()):
            yield f"{ours}.{kind}", [f"{theirs}.{kind}"]
        for layer in range(layers):
            for ours, several in chosen.block.items():
                yield f"encoder.blocks.{layer}.{ours}.{kind}", [f"{name.format(layer)}.{kind}" for name in several]
