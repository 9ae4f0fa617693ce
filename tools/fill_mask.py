"""Ask a trained model what stands at ``<mask>``.

    python tools/fill_mask.py model=runs/quickstart lang=de "Die Katze <mask> auf dem Sofa."
    python tools/fill_mask.py model=runs/quickstart lang=de "Die Katze <mask> auf dem Sofa." \\
        translation="The cat is sleeping on the sofa." translation_lang=en
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import sys
from dataclasses import dataclass

from xlmtrain.config.load import parse_args, user_errors
from xlmtrain.errors import ConfigError
from xlmtrain.interop.run import CheckpointChoice
from xlmtrain.pretrained import load


@dataclass
class FillMask:
    """The settings of this tool; every other argument is a sentence."""

    model: str = "???"
    """A run directory, one of its checkpoints, a Hugging Face folder, or a .pth file of the original program."""

    lang: str = "???"
    """Language of the sentences."""

    k: int = 5
    """Number of words to show for each <mask>."""

    checkpoint: CheckpointChoice = CheckpointChoice.best
    """The checkpoint of a run to use."""

    codes: str | None = None
    """For a .pth file: the BPE codes of its data, in fastBPE's format."""

    translation: str | None = None
    """A translation that the model sees too."""

    translation_lang: str | None = None
    """Its language."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k: {self.k} is less than 1")
        if (self.translation is None) != (self.translation_lang is None):
            raise ConfigError("translation and translation_lang go together")


def main(argv: list[str]) -> None:
    """Print the best words for each ``<mask>`` of each sentence."""
    options, sentences = parse_args(FillMask, argv)
    if not sentences:
        raise ConfigError('no sentence given; put one with <mask> in quotes, like "Die Katze <mask> auf dem Sofa."')
    model = load(options.model, options.checkpoint, codes=options.codes)
    other = None
    if options.translation is not None and options.translation_lang is not None:
        other = (options.translation, options.translation_lang)
    for sentence in sentences:
        print(sentence)
        for number, guesses in enumerate(model.fill_mask(sentence, options.lang, options.k, other), 1):
            print(f"  <mask> {number}: " + "  ".join(f"{guess.word} {guess.probability:.3f}" for guess in guesses))


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
