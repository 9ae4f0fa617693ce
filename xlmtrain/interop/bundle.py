"""A saved model with all that its use needs. Every format is read into this and written from it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import torch

from xlmtrain.config.prepare import TextConfig
from xlmtrain.config.schema import ModelConfig
from xlmtrain.errors import CheckpointError
from xlmtrain.model.language_model import LanguageModel, check_state_dict
from xlmtrain.text.bpe import Code
from xlmtrain.text.pipeline import TextPipeline
from xlmtrain.text.vocab import Vocab

_LANGUAGE = re.compile("[A-Za-z0-9_-]+")  # it becomes part of a path


@dataclass
class Provenance:
    """How the model came to be, as far as its format tells.

    ``source``: the file or directory it was read from. ``settings``: of the run, as in its ``config.json``.
    ``corpora``: name -> sentences and tokens. ``figures``: of the evaluation nearest to the checkpoint.
    """

    source: str
    step: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    corpora: dict[str, dict[str, int]] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)


@dataclass
class PretrainedBundle:
    """A model at rest.

    ``languages``: by language id. ``weights``: state dict of a :class:`~xlmtrain.model.language_model.LanguageModel`.
    ``text`` and ``codes`` turn raw text into the vocabulary's subwords; a model may come without codes.
    """

    config: ModelConfig
    languages: list[str]
    vocab: Vocab
    weights: dict[str, torch.Tensor]
    text: TextConfig
    codes: list[Code]
    history: Provenance

    @property
    def causal(self) -> bool:
        """Whether all of its training, as far as that is known, was causal: then so is its use."""
        data = self.history.settings.get("data", {})
        trained = {objective for objective in ("mlm", "tlm", "clm") if any(data.get(objective, {}).values())}
        return trained == {"clm"}

    def check(self) -> None:
        """Raise CheckpointError if the parts do not fit together: a file can say anything."""
        config, where = self.config, self.history.source
        blocks = {name.split(".")[2] for name in self.weights if name.startswith("encoder.blocks.")}
        if len(blocks) != config.layers:
            raise CheckpointError(f"{where}: has the weights of {len(blocks)} layers, its settings say {config.layers}")
        if config.heads < 1 or config.dim % config.heads:
            raise CheckpointError(f"{where}: its {config.heads} heads do not divide its width, {config.dim}")
        odd = [language for language in self.languages if not _LANGUAGE.fullmatch(language)]
        if odd or not self.languages or len(set(self.languages)) < len(self.languages):
            raise CheckpointError(
                f"{where}: its languages are {self.languages}; expected different names of letters, digits, _ and -"
            )
        try:
            model = self._empty()
        except (ArithmeticError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{where}: there is no model with its settings ({error})") from None
        check_state_dict(model, self.weights, where)

    def module(self, device: torch.device | str = "cpu") -> LanguageModel:
        """The network with these weights, in evaluation mode; on the CPU it shares their memory."""
        model = self._empty()
        model.load_state_dict(self.weights, assign=True)
        return model.eval().to(device)

    def _empty(self) -> LanguageModel:
        """The network without memory, and without the time for first weights that are replaced at once."""
        with torch.device("meta"):
            return LanguageModel(self.config, len(self.vocab), len(self.languages))

    def pipeline(self) -> TextPipeline:
        """From raw text to ids, as in its training."""
        return TextPipeline(self.text, self.codes, self.vocab)
