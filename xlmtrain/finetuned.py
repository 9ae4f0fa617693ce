"""The public API of fine-tuned models: labels of texts and words, and numbers, for raw text.

model = xlmtrain.load_finetuned("runs/intents")
model.classify(["Wie wird das Wetter?"], lang="de")[0]  # {"weather/find": 0.98, ...}, the most probable first
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from xlmtrain.config.finetune import TaskKind
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.evaluate.classification_data import Encoded, Example, encode, language_id
from xlmtrain.finetune.batches import evaluation_batches
from xlmtrain.finetune.scores import entity_spans
from xlmtrain.finetune.tasks import task_of
from xlmtrain.finetune.words import Sentence, SplitSentence, joined, split_sentence
from xlmtrain.interop.bundle import FinetunedBundle
from xlmtrain.interop.formats import read_finetuned_model
from xlmtrain.pretrained import check_device, checked_sentences, listed

Text = str | tuple[str, str]


@dataclass(frozen=True)
class TaggedWord:
    """A word and its most probable tag. A word behind the longest text of the model has the probability 0."""

    word: str
    tag: str
    probability: float


@dataclass(frozen=True)
class Entity:
    """Neighbouring words of one kind: the words from ``start`` up to, but without, ``end``.

    ``probability``: the mean of those of its tags.
    """

    label: str
    text: str
    start: int
    end: int
    probability: float


class FinetunedModel:
    """A fine-tuned model in evaluation mode, with its text processing.

    Every method takes raw text and its language, ``lang``, and cuts texts to the length of training. They raise
    ConfigError for an unknown language and for a model of another kind.
    """

    def __init__(self, bundle: FinetunedBundle, device: torch.device | str = "cpu") -> None:
        self.model, self.text, self.device = bundle.module(device), bundle.pipeline(), torch.device(device)
        self.kind, self.labels, self.languages = bundle.kind, bundle.labels, bundle.languages
        self.bundle, self.task = bundle, task_of(bundle)

    def classify(self, texts: Iterable[Text], lang: str) -> list[dict[str, float]]:
        """Return the probability of each label for each text, or pair of texts, the most probable label first.

        With ``kind=multilabel`` they are independent: labels above 0.5 are predicted.
        """
        self._check_kind("classify", TaskKind.classification, TaskKind.multilabel)
        logits = torch.from_numpy(self._text_logits(texts, lang))
        values = logits.softmax(dim=1) if self.kind is TaskKind.classification else logits.sigmoid()
        return [
            {self.labels[i]: float(row[i]) for i in row.argsort(descending=True, stable=True).tolist()}
            for row in values
        ]

    def regress(self, texts: Iterable[Text], lang: str) -> list[float]:
        """Return the number predicted for each text, or pair of texts."""
        self._check_kind("regress", TaskKind.regression)
        return [float(row[0]) for row in self._text_logits(texts, lang)]

    def tag(self, sentences: Iterable[Sentence], lang: str) -> list[list[TaggedWord]]:
        """Return each sentence's words with their tags, those of their first subwords.

        A sentence is raw text, or a list of its words.
        """
        self._check_kind("tag", TaskKind.tokens)
        result = []
        for split, probabilities in self._split(sentences, lang):
            known = split.starts[: np.searchsorted(split.starts, len(probabilities))]
            tags = self._best(probabilities[known]) + [(self._no_tag, 0.0)] * (len(split.words) - len(known))
            result.append([TaggedWord(word, *tag) for word, tag in zip(split.words, tags)])
        return result

    def entities(
        self, sentences: Iterable[Sentence], lang: str, aggregation_strategy: Literal["first", "simple"] = "first"
    ) -> list[list[Entity]]:
        """Return the entities of each sentence: neighbouring words of one kind; ``B-`` begins one, ``O`` is none.

        ``aggregation_strategy``: ``first`` takes the tags of the words, as in training and its scores; ``simple`` those
        of all subwords, as transformers' pipeline of that name, whose answers it gives.
        """
        self._check_kind("entities", TaskKind.tokens)
        if aggregation_strategy not in ("first", "simple"):
            raise ConfigError(f"aggregation_strategy={aggregation_strategy}: there are first, simple")
        result = []
        for (words, starts, _, pieces), probabilities in self._split(sentences, lang):
            simple = aggregation_strategy == "simple"
            units = np.arange(len(probabilities)) if simple else starts[: np.searchsorted(starts, len(probabilities))]
            best = self._best(probabilities[units])
            found = []
            for label, start, end in entity_spans([tag for tag, _ in best]):
                first, last = (np.searchsorted(starts, units[[start, end - 1]], side="right") - 1).tolist()
                text = joined(self.text.vocab, pieces[start:end]) if simple else " ".join(words[start:end])
                score = float(np.mean([score for _, score in best[start:end]]))
                found.append(Entity(label, text, first, last + 1, score))
            result.append(found)
        return result

    def predict(self, texts: Iterable[Any], lang: str) -> list[Any]:
        """Return the answer to each text, by the model's kind: a label, a number, a list of labels, or of tags."""
        if self.kind is TaskKind.regression:
            return list(self.regress(texts, lang))
        if self.kind is TaskKind.tokens:
            return [[word.tag for word in words] for words in self.tag(texts, lang)]
        if self.kind is TaskKind.multilabel:
            rows = self.classify(texts, lang)
            return [sorted(label for label, value in row.items() if value > 0.5) for row in rows]
        return [next(iter(row)) for row in self.classify(texts, lang)]

    def logits(self, file: Encoded) -> np.ndarray:
        """Return the outputs (M, C) float32 for the targets of encoded examples."""
        found = np.zeros((len(file.labels), self.bundle.outputs), np.float32)
        for batch, places in evaluation_batches(file, 0, 1):
            with torch.no_grad():
                found[places] = self.model.logits(batch.to(self.device)).cpu().numpy()
        return found

    @property
    def _no_tag(self) -> str:
        return "O" if "O" in self.labels else self.labels[0]

    def _check_kind(self, method: str, *kinds: TaskKind) -> None:
        if self.kind not in kinds:
            raise ConfigError(f"{method}: this model was fine-tuned with task.kind={self.kind.value}")

    def _best(self, probabilities: np.ndarray) -> list[tuple[str, float]]:
        """Return the most probable label of each row and its probability."""
        return [(self.labels[int(row.argmax())], float(row.max())) for row in probabilities]

    def _text_logits(self, texts: Iterable[Text], lang: str) -> np.ndarray:
        sides = [(text,) if isinstance(text, str) else tuple(text) for text in listed(texts, "texts")]
        checked_sentences([part for side in sides for part in side])
        if len({len(side) for side in sides}) > 1:
            raise DataError("texts: give single texts, or pairs of texts, not both")
        if not sides:
            return np.zeros((0, self.bundle.outputs), np.float32)
        config, limit, pair = self.bundle.config, self.bundle.max_tokens, self.bundle.pair
        given = {lang: [Example("", side) for side in sides]}, self.text, self.languages, config.max_positions
        return self.logits(encode("lang", *given, lambda _: 0, limit, pair)[lang])

    def _split(self, sentences: Iterable[Sentence], lang: str) -> Iterator[tuple[SplitSentence, np.ndarray]]:
        """Yield each sentence with the probabilities (N, C) of its subwords, of those within the longest text."""
        language = language_id("lang", lang, self.languages)
        given = [
            checked_sentences([s])[0] if isinstance(s, str) else checked_sentences(s)
            for s in listed(sentences, "sentences")
        ]
        most = min(self.bundle.max_tokens, self.bundle.config.max_positions - 2)
        special, split = self.text.vocab.special, [split_sentence(self.text, sentence, lang) for sentence in given]
        rows = [np.array([*parts.ids[:most], special.eos]) for parts in split]
        places = [np.arange(1, len(row)) for row in rows]
        file = Encoded(rows, np.zeros(sum(map(len, places)), np.int64), language, places, special)
        values = torch.from_numpy(self.logits(file)).softmax(dim=1).numpy()
        for n, parts in enumerate(split):
            yield parts, values[file.targets(n)]


def load_finetuned(path: str | Path, device: torch.device | str | None = None) -> FinetunedModel:
    """Load the directory of a fine-tuning, one of its seeds, or a Hugging Face folder of a classifier.

    Of several seeds the best on the validation text is taken, without one the first. ``device``: None takes the GPU if
    there is one. Raises CheckpointError if nothing can be read.
    """
    return FinetunedModel(read_finetuned_model(path), check_device(device))
