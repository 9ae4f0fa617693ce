"""The part of ``config.json`` that says what a fine-tuned model predicts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlmtrain.config.evaluate import Pooling
from xlmtrain.config.families import Family, PairLayout
from xlmtrain.config.finetune import TaskKind
from xlmtrain.config.model import ModelConfig
from xlmtrain.errors import ConfigError
from xlmtrain.interop.bundle import FinetunedBundle, ModelBundle
from xlmtrain.interop.hf.class_names import HeadKind
from xlmtrain.runtime.atomic_io import read_json
from xlmtrain.text.delimiters import pair_layout
from xlmtrain.text.tokenizer_json import TOKENIZER_FILE, parse_tokenizer

_PROBLEM_TYPES = {
    TaskKind.classification: "single_label_classification",
    TaskKind.regression: "regression",
    TaskKind.multilabel: "multi_label_classification",
}
_POOLING = {Pooling.first: "cls", Pooling.mean: "mean"}
_SUMMARY = {
    "summary_type": "first",
    "summary_use_proj": True,
    "summary_activation": None,
    "summary_proj_to_labels": True,
}
"""XLM's head: a linear map of the first hidden state."""


def head_of(bundle: ModelBundle[Any]) -> HeadKind:
    """Return the head of the class of transformers that holds the model."""
    if not isinstance(bundle, FinetunedBundle):
        return HeadKind.masked
    return HeadKind.words if bundle.kind is TaskKind.tokens else HeadKind.texts


def classifier_settings(bundle: FinetunedBundle) -> dict[str, Any]:
    """Return labels, kind of task and head. Raises ConfigError for a pooling that transformers' class does not have."""
    config = bundle.config
    labels = bundle.labels or ["LABEL_0"]
    found: dict[str, Any] = {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
    }
    if bundle.kind is TaskKind.tokens:
        return found
    found["problem_type"] = _PROBLEM_TYPES[bundle.kind]
    if config.family is Family.modernbert:
        return found | {"classifier_pooling": _POOLING[bundle.pooling]}
    if bundle.pooling is not Pooling.first:
        raise ConfigError(
            f"format=hf: transformers' class for {config.family.value} has no mean over the text; fine-tune with "
            "train.pooling=first"
        )
    return found | ({**_SUMMARY, "summary_first_dropout": config.dropout} if config.family is Family.xlm else {})


def classifier_fields(
    path: Path, settings: Mapping[str, Any], extra: Mapping[str, Any], head: HeadKind, config: ModelConfig
) -> dict[str, Any]:
    """Return the fields of a :class:`FinetunedBundle` that are not in a language model's.

    ``extra``: content of ``xlmtrain.json``. Raises ValueError for a head that cannot be read.
    """
    found = {int(i): str(label) for i, label in settings.get("id2label", {0: "LABEL_0", 1: "LABEL_1"}).items()}
    labels = [found[i] for i in range(len(found))]
    for key, only in _SUMMARY.items() if config.family is Family.xlm and head is HeadKind.texts else ():
        if settings.get(key, only) != only:
            raise ValueError(f"config.json: {key} is {settings[key]!r}, only {only!r} can be read")
    if settings.get("causal") is True:
        raise ValueError("config.json: causal is true; only classifiers that attend to all tokens can be read")
    kind = next((k for k, name in _PROBLEM_TYPES.items() if name == settings.get("problem_type")), None)
    if head is HeadKind.words:
        kind = TaskKind.tokens
    elif kind is None:  # as transformers decides
        kind = TaskKind.regression if len(labels) == 1 else TaskKind.classification
    if kind is TaskKind.regression and len(labels) != 1:
        raise ValueError(f"config.json: problem_type is regression, but there are {len(labels)} labels")
    mean = config.family is Family.modernbert and settings.get("classifier_pooling") == _POOLING[Pooling.mean]
    return {
        "kind": kind,
        "labels": [] if kind is TaskKind.regression else labels,
        "pooling": Pooling.mean if mean else Pooling.first,
        "max_tokens": extra.get("max_tokens", config.max_positions),
        "pair": _pair_layout(path, config),
    }


def _pair_layout(path: Path, config: ModelConfig) -> PairLayout:
    """Return the layout that the folder's tokenizer gives to pairs, with types only where the model is given them."""
    own, tokenizer = config.parts.classifier.pair, path / TOKENIZER_FILE
    if not tokenizer.is_file():
        return own
    file = path / "tokenizer_config.json"
    inputs = (read_json(file) if file.is_file() else {}).get("model_input_names", ["token_type_ids"])
    separators, types = pair_layout(parse_tokenizer(tokenizer.read_bytes(), str(tokenizer)))
    return PairLayout(separators, types and own.token_types and "token_type_ids" in inputs)
