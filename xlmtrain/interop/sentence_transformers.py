"""Export to a folder that ``SentenceTransformer(folder)`` of sentence-transformers loads, with its own classes.

config.json model.safetensors tokenizer.json ...   the encoder, as AutoModel and AutoTokenizer load it
modules.json 1_Pooling/config.json                 encoder, then pooling
sentence_bert_config.json                          the longest text in tokens
README.md                                          the model card
de/ en/                                            instead of all this a folder each, where languages differ
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from xlmtrain.config.evaluate import Pooling
from xlmtrain.config.families import Family
from xlmtrain.config.model import ModelConfig
from xlmtrain.errors import ConfigError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.hf.card import EXAMPLES
from xlmtrain.interop.hf.model import write_hf_folder
from xlmtrain.interop.hf.parity import TOLERANCE
from xlmtrain.interop.hf.tokenizer import add_delimiters
from xlmtrain.interop.sentence_encoder import (
    VectorChoice,
    check_vectors,
    choose_vectors,
    comparison_rows,
    cut_after,
    language_folders,
)
from xlmtrain.model.classifier import pooled
from xlmtrain.runtime.atomic_io import read_json, write_json

try:
    import transformers
except ImportError:
    transformers = None  # type: ignore[assignment]

_ENCODER = re.compile(r"(bert|roberta|model|transformer)\.")
"""Weights of the encoder in transformers' classes; the others are of the output layer."""
_MODES = {"mean_tokens": Pooling.mean, "cls_token": Pooling.first}
_CARD = """---
language: [{languages}]
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [sentence-transformers, feature-extraction, sentence-similarity]
---
# {name}

Sentence vectors of {dim} dimensions for text in {languages}, from a model pretrained for {step:,} steps with xlmtrain.

## Use

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}")
vectors = model.encode(["{example}", "..."])
print(model.similarity(vectors, vectors))  # cosines
```

Raw text goes in; the language is built in. Text of more than {positions} tokens is cut off there.

## Vectors

{choice} Before the export they were compared with xlmtrain's on {count:,} sentences: numbers differ by at most
{difference:.1e}. The model was not fine-tuned for similarity.

{training}
"""


def export_sentence_transformer(
    bundle: PretrainedBundle, directory: Path, name: str, lang: str | None, data: str | None, sentences: str | None
) -> tuple[VectorChoice, dict[str, float]]:
    """Write ``directory``, called ``name``; return the choice, and folder -> largest difference from ``embed``.

    ``lang``: language that is built in; None writes a subfolder for each, if they differ. ``data``: as for
    :func:`choose_vectors`; ``sentences``: as for :func:`export_hf_folder`. Raises ConfigError for a model that
    transformers has no class for, or without transformers, DataError if vectors differ.
    """
    if transformers is None:
        raise ConfigError("format=sentence-transformers: needs transformers; install it: pip install 'xlmtrain[hf]'")
    family = bundle.config.family
    if bundle.causal and family is not Family.xlm:
        raise ConfigError(
            f"format=sentence-transformers: the model was trained by CLM alone, but the class for {family.value} "
            "attends to all tokens"
        )
    folders, choice, differences = language_folders(bundle, lang, directory, name), choose_vectors(bundle, data), {}
    for folder in folders:
        _write_encoder(folder.path, cut_after(folder.model, choice.layer), choice.pooling)
        rows = comparison_rows(bundle, folder, sentences)
        encoder = _Encoder(folder.path, bundle.config, choice.pooling)
        differences[folder.title] = check_vectors(encoder, bundle, folder, choice, rows, TOLERANCE)
        fields = folder.card_fields(choice, bundle, len(rows), differences[folder.title])
        example = EXAMPLES.get(folder.languages[0], "...").replace(" <mask>", "")
        (folder.path / "README.md").write_text(_CARD.format(example=example, **fields), encoding="utf-8")
    return choice, differences


class _Encoder:
    """The exported encoder, loaded by transformers, and its pooling."""

    def __init__(self, folder: Path, config: ModelConfig, pooling: Pooling) -> None:
        transformers.logging.disable_progress_bar()
        self._model = transformers.AutoModel.from_pretrained(folder, **_options(config)).eval()
        self._pooling = pooling

    @torch.no_grad()
    def __call__(self, ids: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
        """Return the vectors (N, D) of ids (N, T); ``mask``: (N, T), 0 at padding."""
        states = self._model(ids, attention_mask=mask).last_hidden_state * mask[..., None]
        vectors: np.ndarray = pooled(states, mask.sum(dim=1), self._pooling).numpy()
        return vectors


def _write_encoder(folder: Path, bundle: PretrainedBundle, pooling: Pooling) -> None:
    """Write the model without its output layer, the tokenizer, and the files of sentence-transformers."""
    write_hf_folder(bundle, folder)
    for name in ("fill_mask.py", "xlmtrain.json"):  # of use for the whole model only
        (folder / name).unlink(missing_ok=True)
    add_delimiters(bundle.vocab, folder)
    path = folder / "model.safetensors"
    weights = safetensors.torch.load(path.read_bytes())  # not mapped, as the file is written anew
    kept = {name: weight for name, weight in weights.items() if _ENCODER.match(name)}
    path.write_bytes(safetensors.torch.save(kept, {"format": "pt"}))
    settings = read_json(folder / "config.json")
    settings["architectures"] = [
        re.sub("ForMaskedLM|WithLMHeadModel", "Model", name) for name in settings["architectures"]
    ]
    write_json(folder / "config.json", settings)
    kinds = ("sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling")  # as of all versions
    modules = [{"idx": i, "name": str(i), "path": ("", "1_Pooling")[i], "type": kind} for i, kind in enumerate(kinds)]
    write_json(folder / "modules.json", modules)
    (folder / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{mode}": pooling is mode_pooling for mode, mode_pooling in _MODES.items()}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": bundle.config.dim, **modes})
    limits = {"max_seq_length": bundle.config.max_positions, "do_lower_case": False}
    write_json(folder / "sentence_bert_config.json", {**limits, "model_args": _options(bundle.config)})


def _options(config: ModelConfig) -> dict[str, bool]:
    """Return the options of the class: those of BERT and RoBERTa would add a pooler with random weights."""
    return {"add_pooling_layer": False} if config.parts.token_types else {}
