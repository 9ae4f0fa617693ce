"""A pretrained model with everything needed to use it. Every format is read into this and written from it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from xlmtrain.config.data import OBJECTIVES
from xlmtrain.config.evaluate import Pooling
from xlmtrain.config.families import ONE_SEPARATOR, PairLayout
from xlmtrain.config.finetune import TaskKind
from xlmtrain.config.manual import key_paths
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.old_names import current_metric, current_settings
from xlmtrain.config.phases import expand, given
from xlmtrain.config.prepare import TextConfig
from xlmtrain.config.schema import Config
from xlmtrain.errors import CheckpointError
from xlmtrain.metrics.energy import DeviceEnergy
from xlmtrain.model.classifier import Classifier
from xlmtrain.model.encoder import Encoder
from xlmtrain.model.language_model import LanguageModel, check_state_dict
from xlmtrain.model.translation_model import DECODER_TABLE, TranslationModel, decoder_part
from xlmtrain.runtime.typed_json import typed
from xlmtrain.text.bpe import Code
from xlmtrain.text.pipeline import TextPipeline, text_pipeline
from xlmtrain.text.tokenizer_json import TokenizerVocab
from xlmtrain.text.vocab import Vocab

M = TypeVar("M", bound=nn.Module)
_LANGUAGE = re.compile("[A-Za-z0-9_-]+")  # becomes part of a path


@dataclass
class Provenance:
    """Origin of a model, as far as its format records it.

    ``source``: the file or directory that was read. ``settings``: of the training run, as in its ``config.json``.
    ``corpora``: name -> number of sentences and tokens; ``files``: name -> names of its raw files. ``metrics``: of the
    last evaluation up to ``step``. ``seconds``, in steps, and ``energy``: of the whole run. ``software``: versions.
    """

    source: str
    step: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    corpora: dict[str, dict[str, int]] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0
    energy: list[DeviceEnergy] = field(default_factory=list)
    software: str = ""

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], source: str) -> Provenance:
        """Return the stored fields under today's names, with ``source``. Version 0.1.0 called the metrics "figures"."""
        metrics = stored.get("metrics", stored.get("figures", {}))
        return cls(
            source,
            stored.get("step", 0),
            current_settings(stored.get("settings", {})),
            stored.get("corpora", {}),
            {current_metric(name): value for name, value in metrics.items()},
            typed(dict[str, list[str]], stored.get("files", {})),
            typed(float, stored.get("seconds", 0.0)),
            typed(list[DeviceEnergy], stored.get("energy", [])),
            typed(str, stored.get("software", "")),
        )

    @property
    def prepared_data(self) -> Path | None:
        """The prepared data of the training run, if it is still there."""
        path = Path(self.settings.get("data", {}).get("path", ""))
        return path if (path / "dataset.json").is_file() else None

    def public(self) -> dict[str, Any]:
        """Return the fields as JSON to give away, without paths and other text of the user's machine."""
        words = {key for key, kind in key_paths(Config).items() if isinstance(kind, type) and issubclass(kind, Enum)}
        return {**asdict(self), "source": "", "settings": _numbers(self.settings, words)}


def _numbers(settings: Mapping[str, Any], words: set[str], prefix: str = "") -> dict[str, Any]:
    """Return the settings that are numbers or have a few possible values, ``words``; never a text."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found[name] = _numbers(value, words, f"{prefix}{name}.")
        elif name == "phases":
            found[name] = [_numbers(given(phase), words) for phase in value]
        elif isinstance(value, (bool, int, float)) or prefix + name in words:
            found[name] = value
    return found


def trained_keys(settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return objective -> its languages, pairs or directions, from the settings of a training run.

    Empty if the settings are not known.
    """
    phases = [phase for _, phase in expand(settings)] if settings.get("phases") else [settings]
    every = [phase.get("data", {}) for phase in phases]
    found = {
        objective: [key for data in every for key, weight in data.get(objective, {}).items() if weight]
        for objective in OBJECTIVES
    }
    return {objective: list(dict.fromkeys(keys)) for objective, keys in found.items() if keys}


def trained_causally(settings: Mapping[str, Any]) -> bool:
    """Return True if CLM is the only objective in the settings of a training run."""
    return trained_keys(settings).keys() == {"clm"}


class _WithoutInitialization(TorchFunctionMode):
    """Skips the functions of ``torch.nn.init``: for meta tensors, ``normal_`` imports TorchDynamo, for seconds."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(function, "__module__", None) == "torch.nn.init":
            return None
        return function(*args, **(kwargs or {}))


@dataclass
class ModelBundle(ABC, Generic[M]):
    """Weights, configuration, vocabulary and text processing of a model.

    ``languages``: in the order of their ids. ``weights``: its state dict. ``text`` and ``codes`` turn raw text into
    subwords of the vocabulary; ``codes`` is empty if they are not known. ``causal``: trained by CLM alone, so a
    position attends only to those up to it.
    """

    config: ModelConfig
    languages: list[str]
    vocab: Vocab
    weights: dict[str, torch.Tensor]
    text: TextConfig
    codes: list[Code]
    provenance: Provenance
    causal: bool = False

    def check(self) -> None:
        """Raise CheckpointError if the parts do not fit together, as in a file that was edited."""
        config, languages, where = self.config, self.languages, self.provenance.source
        layers = len({name.split(".")[2] for name in self.weights if name.startswith("encoder.blocks.")})
        if layers != config.layers:
            raise CheckpointError(f"{where}: has the weights of {layers} layers, its settings say {config.layers}")
        if min(config.heads, config.dim) < 1 or config.dim % config.heads:
            raise CheckpointError(f"{where}: its {config.heads} heads do not divide its width, {config.dim}")
        if not languages or len(set(languages)) < len(languages) or not all(map(_LANGUAGE.fullmatch, languages)):
            raise CheckpointError(
                f"{where}: its languages are {languages}; expected different names of letters, digits, _ and -"
            )
        try:
            model = self._meta_module()
        except (ArithmeticError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{where}: there is no model with its settings ({error})") from None
        check_state_dict(model, self.weights, where)

    def module(self, device: torch.device | str = "cpu") -> M:
        """Return the network with these weights, in evaluation mode. On the CPU it shares their memory."""
        model = self._meta_module()
        model.load_state_dict(self.weights, assign=True)
        return model.eval().to(device)

    @property
    def reads_text(self) -> bool:
        """Return whether raw text can be split into subwords."""
        return bool(self.codes) or isinstance(self.vocab, TokenizerVocab)

    def pipeline(self) -> TextPipeline:
        """Return the conversion from raw text to ids, the same as in training."""
        return text_pipeline(self.text, self.codes, self.vocab)

    def _meta_module(self) -> M:
        """Return the network on the meta device: no memory is allocated, no weight initialized."""
        with torch.device("meta"), _WithoutInitialization():
            return self._new_module()

    @abstractmethod
    def _new_module(self) -> M:
        """Return the network with new weights."""


@dataclass
class PretrainedBundle(ModelBundle[LanguageModel]):
    """A :class:`~xlmtrain.model.language_model.LanguageModel` or, with a decoder, a
    :class:`~xlmtrain.model.translation_model.TranslationModel`."""

    @property
    def has_decoder(self) -> bool:
        """Return whether the model translates."""
        return bool(decoder_part(self.weights))

    @property
    def fills_masks(self) -> bool:
        """Return whether the model was trained by MLM or TLM, as far as is known."""
        trained = trained_keys(self.provenance.settings)
        return not self.causal and (not trained or not trained.keys().isdisjoint({"mlm", "tlm"}))

    def _new_module(self) -> LanguageModel:
        shape = (self.config, len(self.vocab), len(self.languages), self.vocab.special)
        if self.has_decoder:
            return TranslationModel(*shape, share_embeddings=DECODER_TABLE not in self.weights)
        return LanguageModel(*shape)


@dataclass
class FinetunedBundle(ModelBundle[Classifier]):
    """A fine-tuned :class:`~xlmtrain.model.classifier.Classifier`.

    ``labels``: in the order of the outputs; empty for a regression. ``max_tokens``: longer texts were cut in training.
    ``pair``: separators and token types of pairs.
    """

    kind: TaskKind = TaskKind.classification
    labels: list[str] = field(default_factory=list)
    pooling: Pooling = Pooling.first
    max_tokens: int = 256
    pair: PairLayout = ONE_SEPARATOR

    @property
    def outputs(self) -> int:
        """Number of outputs of the head."""
        return len(self.labels) or 1

    def _new_module(self) -> Classifier:
        encoder = Encoder(self.config, len(self.vocab), len(self.languages), self.vocab.special.pad)
        return Classifier(encoder, self.outputs, self.kind is TaskKind.tokens, self.pooling)
