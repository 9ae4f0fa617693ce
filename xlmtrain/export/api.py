"""Using a trained model: from a run directory to answers, in a few lines.

model = load("runs/quickstart")
model.fill_mask("Die Katze <mask> auf dem Sofa.", "de")
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import torch

from xlmtrain.config.load import from_json
from xlmtrain.config.schema import ModelConfig
from xlmtrain.data.batch import make_batch
from xlmtrain.data.rows import Rows, pair_rows, sentence_rows
from xlmtrain.errors import CheckpointError, ConfigError, DataError
from xlmtrain.objective import LanguageModel
from xlmtrain.runtime.files import read_json
from xlmtrain.text.binarize import Header
from xlmtrain.text.pipeline import TextPipeline
from xlmtrain.text.vocab import EOS, MASK
from xlmtrain.train.checkpoint import CheckpointStore, read_checkpoint


@dataclass(frozen=True)
class Guess:
    """A subword that may stand at a ``<mask>``, and its probability."""

    word: str
    probability: float


class Pretrained:
    """A model in evaluation mode on the CPU, with the text pipeline it was trained with."""

    def __init__(self, model: LanguageModel, text: TextPipeline, languages: list[str], step: int) -> None:
        self.model, self.text, self.languages, self.step = model.eval(), text, languages, step

    def fill_mask(
        self, sentence: str, language: str, k: int = 5, translation: tuple[str, str] | None = None
    ) -> list[list[Guess]]:
        """The ``k`` likeliest subwords at each ``<mask>`` of a raw sentence, likeliest first.

        ``translation``: (sentence, language) that the model sees too, as in TLM. Raises ConfigError for a language
        the model does not have, DataError for a sentence without ``<mask>`` or too long for the model.
        """
        ids = self._ids(sentence, language)
        if MASK not in ids:
            raise DataError(f"no <mask> in {sentence!r}")
        if translation is None:
            rows = sentence_rows([np.array(ids)], self._language(language))
        else:
            languages = (self._language(language), self._language(translation[1]))
            other = self._ids(*translation)
            rows = pair_rows([np.array(ids)], [np.array(other)], languages)
        longest = self.model.encoder.position_embeddings.num_embeddings
        if rows.positions.max() >= longest:
            raise DataError(f"{rows.positions.max() + 1} tokens are more than the model's {longest} positions")
        return self._guesses(rows, k)

    @torch.no_grad()
    def _guesses(self, rows: Rows, k: int) -> list[list[Guess]]:
        probabilities = self.model.logits(make_batch("mlm", rows, rows.tokens, rows.tokens == MASK)).softmax(dim=1)
        best = probabilities.topk(min(k, probabilities.shape[1]))
        return [
            [Guess(self.text.vocab.word(word), p) for word, p in zip(words, values)]
            for words, values in zip(best.indices.tolist(), best.values.tolist())
        ]

    def _ids(self, sentence: str, language: str) -> list[int]:
        self._language(language)
        return [*self.text.ids(sentence, language), EOS]

    def _language(self, language: str) -> int:
        if language not in self.languages:
            raise ConfigError(f"lang={language}: the model knows {', '.join(self.languages)}")
        return self.languages.index(language)


class Which(str, Enum):
    """A run's best checkpoint by its metric (its last if there is no best), or its last."""

    best = "best"
    last = "last"


def load(run: str | Path, which: Which | str = Which.best) -> Pretrained:
    """The model of a run directory.

    Raises CheckpointError if it is none, or has no checkpoint.
    """
    which = Which(which)  # a plain "best" will do
    run = Path(run)
    if not (run / "config.json").is_file():
        raise CheckpointError(f"run={run}: not a run directory, it has no config.json")
    settings = read_json(run / "config.json")["model"]
    store = CheckpointStore(run / "checkpoints", keep_last=1)
    best = store.best_step() if which is Which.best else None
    checkpoint = read_checkpoint(store.path(best)) if best is not None else store.latest()
    if checkpoint is None:
        raise CheckpointError(f"run={run}: no checkpoint yet")
    text, languages = TextPipeline.from_prepared(run), Header.read(run).languages
    model = LanguageModel(from_json(ModelConfig, settings), len(text.vocab), len(languages))
    model.load_state_dict(checkpoint.model)
    return Pretrained(model, text, languages, checkpoint.state["progress"]["step"])
