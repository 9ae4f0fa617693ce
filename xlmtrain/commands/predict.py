"""Predict labels, numbers or tags of words with a fine-tuned model.

    xlmtrain predict model=runs/intents lang=de "Wie wird das Wetter?"            one text; two texts are two arguments
    xlmtrain predict model=runs/mrpc lang=en pair=true "He left." "He went away."
    xlmtrain predict model=runs/intents lang=de file=intent.test.de.tsv output=predictions.tsv
    xlmtrain predict model=exports/ner lang=en file=eng.testb output=eng.testb.predicted

A file has the layouts of ``xlmtrain finetune``, and may lack labels; with labels, the scores are printed, too. The
output has a line of index and prediction for each text, as GLUE wants them, or a word and its tag in each line.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xlmtrain.config.finetune import TaskKind
from xlmtrain.config.load import parse_args
from xlmtrain.config.validate import CheckedSettings
from xlmtrain.errors import ConfigError
from xlmtrain.evaluate.classification_data import Encoded, Example, read_examples
from xlmtrain.finetune.scores import require_libraries, result_table
from xlmtrain.finetune.tagged_text import TaggedSentence, read_tagged
from xlmtrain.finetuned import FinetunedModel, load_finetuned
from xlmtrain.runtime.output_paths import new_file

log = logging.getLogger(__name__)


@dataclass
class PredictOptions(CheckedSettings):
    """The settings of this command; every other argument is a text."""

    model: str = "???"
    """The directory of a fine-tuning, one of its seeds, or a Hugging Face folder of a classifier."""

    lang: str = "???"
    """Language of the texts."""

    file: str | None = None
    """A file of texts, in the layouts of xlmtrain finetune, with or without labels."""

    output: str | None = None
    """A new file for the predictions; null prints them."""

    columns: list[str] = field(default_factory=list)
    """Content of each column of the file, as task.columns of xlmtrain finetune; label may be left out."""

    pair: bool = False
    """The two texts of the command line are a pair."""

    def problems(self) -> Iterator[str]:
        """Yield values that exclude each other."""
        if self.output is not None and self.file is None:
            yield "output: needs file"
        if self.columns and self.columns.count("text") not in (1, 2):
            yield f"columns: {self.columns}; give text once or twice, and _ for every column that is not used"


def main(argv: list[str]) -> None:
    """Predict for a file, or for the texts of the command line."""
    options, texts = parse_args(PredictOptions, argv)
    if bool(texts) == (options.file is not None):
        raise ConfigError("give file=..., or texts in quotes")
    model = load_finetuned(options.model)
    if options.file is None:
        print("\n".join(_shown(model, texts, options)))
        return
    read = _tagged if model.kind is TaskKind.tokens else _texts
    lines, scores = read(model, Path(options.file), options)
    if options.output is None:
        print("\n".join(lines))
    else:
        with new_file(options.output) as path:
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print("\n".join([*scores, f"predictions: {options.output}"]))


def _shown(model: FinetunedModel, texts: Sequence[str], options: PredictOptions) -> Iterator[str]:
    """Yield a line for each text."""
    if options.pair and len(texts) != 2:
        raise ConfigError(f"pair: needs two texts, here are {len(texts)}")
    given = [(texts[0], texts[1])] if options.pair else list(texts)
    if model.kind is TaskKind.regression:
        yield from (f"{value:.3f}" for value in model.regress(given, options.lang))
    elif model.kind is TaskKind.tokens:
        for words in model.tag(list(texts), options.lang):
            yield "  ".join(f"{word.word}/{word.tag}" for word in words)
    else:
        for row in model.classify(given, options.lang):
            yield "  ".join(f"{label} {value:.3f}" for label, value in list(row.items())[:5])


def _texts(model: FinetunedModel, path: Path, options: PredictOptions) -> tuple[list[str], list[str]]:
    """Return the lines of the output, and the table of scores if the file has labels."""
    numeric = model.kind is TaskKind.regression
    examples = read_examples(path, options.lang, "file", options.columns, numeric, is_label=model.task.is_label)
    predicted = model.predict([e.texts[0] if len(e.texts) == 1 else e.texts for e in examples], options.lang)
    cells = [",".join(value) if isinstance(value, list) else value for value in predicted]
    lines = [f"{index}\t{f'{cell:.3f}' if numeric else cell}" for index, cell in enumerate(cells)]
    labels = [example.label for example in examples]
    return ["index\tprediction", *lines], _scores(model, path, examples, labels, lambda _: cells, options.lang)


def _tagged(model: FinetunedModel, path: Path, options: PredictOptions) -> tuple[list[str], list[str]]:
    """Return lines of words and tags, and the table of scores if the file has the model's labels."""
    sentences = read_tagged(path, "file", options.columns, may_lack_label=True)
    tagged = model.tag([sentence.words for sentence in sentences], options.lang)
    lines = [line for words in tagged for line in (*(f"{word.word}\t{word.tag}" for word in words), "")][:-1]

    def fitting(file: Encoded) -> list[str]:
        return [word.tag for words, places in zip(tagged, file.positions or []) for word in words[: len(places)]]

    labels = [tag for sentence in sentences for tag in sentence.tags]
    return lines, _scores(model, path, sentences, labels, fitting, options.lang)


def _scores(
    model: FinetunedModel,
    path: Path,
    examples: Sequence[Example | TaggedSentence],
    labels: Sequence[str],
    predicted: Callable[[Encoded], Sequence[Any]],
    lang: str,
) -> list[str]:
    """Return the table of scores, empty unless all ``labels`` are the model's; warn if only some are.

    ``predicted``: the cells that the model predicts for the targets of the encoded ``examples``.
    """
    known = sum(map(model.task.is_label, labels))
    if not any(labels):
        return []
    if known < len(labels):
        log.warning("%s: %d of %d labels are not the model's; no scores", path, len(labels) - known, len(labels))
        return []
    require_libraries()
    file = model.task.encode({lang: examples}, model.bundle)[lang]
    targets = np.array([model.task.target(cell) for cell in predicted(file)], np.float64)
    return result_table({lang: [model.task.score(targets, file)]}, [lang])
