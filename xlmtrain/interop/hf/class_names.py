"""Names of the modules in transformers' classes of BERT, RoBERTa, XLM-R and ModernBERT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from xlmtrain.config.families import Family


@dataclass(frozen=True)
class HfClass:
    """A class of transformers.

    ``modules``, ``block``: our module names, of the whole model and of a block, and theirs; queries, keys and values
    may be three modules. ``bias``: name of the output layer's bias while its matrix is tied.
    """

    architecture: str
    modules: Mapping[str, str]
    block: Mapping[str, tuple[str, ...]]
    bias: str

    @property
    def prefix(self) -> str:
        """Beginning of the names of the encoder's weights."""
        return self.modules["encoder.token_embeddings"].partition(".")[0] + "."


def _bert(architecture: str, name: str, head: dict[str, str], bias: str) -> HfClass:
    """Return a class with the encoder of BERT, named ``name``; the names of the ``head`` are its own."""
    layer, ours = f"{name}.encoder.layer.{{}}", "encoder."
    return HfClass(
        architecture,
        {
            f"{ours}token_embeddings": f"{name}.embeddings.word_embeddings",
            f"{ours}position_embeddings": f"{name}.embeddings.position_embeddings",
            f"{ours}token_type_embeddings": f"{name}.embeddings.token_type_embeddings",
            f"{ours}embedding_norm": f"{name}.embeddings.LayerNorm",
            **head,
        },
        {
            "attention.qkv": tuple(f"{layer}.attention.self.{part}" for part in ("query", "key", "value")),
            "attention.out": (f"{layer}.attention.output.dense",),
            "attention_norm": (f"{layer}.attention.output.LayerNorm",),
            "ffn.inner": (f"{layer}.intermediate.dense",),
            "ffn.outer": (f"{layer}.output.dense",),
            "ffn_norm": (f"{layer}.output.LayerNorm",),
        },
        bias,
    )


_ROBERTA_HEAD = {
    "head.transform.dense": "lm_head.dense",
    "head.transform.norm": "lm_head.layer_norm",
    "head": "lm_head.decoder",
}
CLASSES = {
    Family.bert: _bert(
        "BertForMaskedLM",
        "bert",
        {
            "head.transform.dense": "cls.predictions.transform.dense",
            "head.transform.norm": "cls.predictions.transform.LayerNorm",
            "head": "cls.predictions.decoder",
        },
        "cls.predictions.bias",
    ),
    Family.roberta: _bert("RobertaForMaskedLM", "roberta", _ROBERTA_HEAD, "lm_head.bias"),
    Family.xlm_roberta: _bert("XLMRobertaForMaskedLM", "roberta", _ROBERTA_HEAD, "lm_head.bias"),
    Family.modernbert: HfClass(
        "ModernBertForMaskedLM",
        {
            "encoder.token_embeddings": "model.embeddings.tok_embeddings",
            "encoder.embedding_norm": "model.embeddings.norm",
            "encoder.final_norm": "model.final_norm",
            "head.transform.dense": "head.dense",
            "head.transform.norm": "head.norm",
            "head": "decoder",
        },
        {
            "attention.qkv": ("model.layers.{}.attn.Wqkv",),
            "attention.out": ("model.layers.{}.attn.Wo",),
            "attention_norm": ("model.layers.{}.attn_norm",),
            "ffn.inner": ("model.layers.{}.mlp.Wi",),
            "ffn.outer": ("model.layers.{}.mlp.Wo",),
            "ffn_norm": ("model.layers.{}.mlp_norm",),
        },
        "decoder.bias",
    ),
}


def weight_names(family: Family, layers: int) -> Iterator[tuple[str, list[str]]]:
    """Yield our name and theirs of every weight that the family may have."""
    chosen = CLASSES[family]
    for kind in ("weight", "bias"):
        for ours, theirs in chosen.modules.items():
            yield f"{ours}.{kind}", [f"{theirs}.{kind}"]
        for layer in range(layers):
            for ours, several in chosen.block.items():
                yield f"encoder.blocks.{layer}.{ours}.{kind}", [f"{name.format(layer)}.{kind}" for name in several]
