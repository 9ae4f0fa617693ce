"""Predict the subwords at ``<mask>`` with a trained model.

    xlmtrain fill-mask model=runs/quickstart lang=de "Die Katze <mask> auf dem Sofa."
    xlmtrain fill-mask model=runs/quickstart lang=de "Die Katze <mask> auf dem Sofa." \\
        translation="The cat is sleeping on the sofa." translation_lang=en
"""

from collections.abc import Iterator
from dataclasses import dataclass

from xlmtrain.config.load import parse_args
from xlmtrain.config.validate import ABOVE_ZERO, ranged
from xlmtrain.errors import ConfigError
from xlmtrain.interop.formats import ModelOptions
from xlmtrain.pretrained import load


@dataclass
class FillMaskOptions(ModelOptions):
    """The settings of this command; every other argument is a sentence."""

    lang: str = "???"
    """Language of the sentences."""

    k: int = ranged(5, ABOVE_ZERO)
    """Number of predictions for each <mask>."""

    translation: str | None = None
    """A translation of the sentence, as additional context."""

    translation_lang: str | None = None
    """Language of the translation."""

    def problems(self) -> Iterator[str]:
        if (self.translation is None) != (self.translation_lang is None):
            yield "translation: translation and translation_lang go together"


def main(argv: list[str]) -> None:
    """Print the most probable subwords for each ``<mask>`` of each sentence."""
    options, sentences = parse_args(FillMaskOptions, argv)
    if not sentences:
        raise ConfigError('no sentence given; put one with <mask> in quotes, like "Die Katze <mask> auf dem Sofa."')
    model = load(options.model, options.checkpoint, codes=options.codes)
    other = None
    if options.translation is not None and options.translation_lang is not None:
        other = (options.translation, options.translation_lang)
    for sentence in sentences:
        print(sentence)
        for number, predictions in enumerate(model.fill_mask(sentence, options.lang, options.k, other), 1):
            print(f"  <mask> {number}: " + "  ".join(f"{p.word} {p.probability:.3f}" for p in predictions))
