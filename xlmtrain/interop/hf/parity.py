"""Does an exported folder give the model's own answers? Asked of transformers itself, before anybody relies on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from xlmtrain.data.batch import make_batch
from xlmtrain.data.sequences import sentence_sequences
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.text.vocab import EOS, PAD, SPECIALS, UNK

try:
    import transformers
except ImportError:
    transformers = None  # type: ignore[assignment]

TOLERANCE = 1e-5
COMPUTED = 32
"""Sentences of each language whose logits are compared; the ids of all of them are."""
SHOWN = 5


@dataclass(frozen=True)
class ParityReport:
    """``sentences``: language -> how many had the same ids. ``difference``: the largest between two logits."""

    sentences: dict[str, int]
    difference: float


def require_transformers() -> None:
    """Raises ConfigError, saying how to install it, if transformers is missing."""
    if transformers is None:
        raise ConfigError("format=hf: needs the transformers package; install it with: pip install 'xlmtrain[hf]'")


@torch.no_grad()
def check_hf_parity(folder: Path, model: PretrainedBundle, sentences: Mapping[str, Sequence[str]]) -> ParityReport:
    """Compare what transformers makes of ``folder`` with ``model``: ids of raw ``sentences`` (by language), and logits.

    A model without BPE codes has no tokenizer; logits are then compared on random ids. The fp32 weights are computed
    with in fp64 as far as transformers allows, so that what is seen is a difference and not rounding. Raises DataError,
    showing the first sentences that differ, if one id differs, or a logit by more than 1e-5 (of the largest, where that
    is above 1).
    """
    transformers.logging.disable_progress_bar()
    # The folder itself is for all languages, its subfolders for one each; a model of one language has none.
    homes = {language: folder / language if len(model.languages) > 1 else folder for language in model.languages}
    if model.codes:
        texts = {language: _check_ids(homes[language], model, language, sentences[language]) for language in homes}
    else:
        texts = {language: _random_ids(model) for language in homes}
    ours, difference = model.module().double(), 0.0
    for place in dict.fromkeys([folder, *homes.values()]):
        theirs = transformers.AutoModelForMaskedLM.from_pretrained(place).double().eval()
        for index, language in enumerate(model.languages):
            if place not in (folder, homes[language]):
                continue
            for ids in texts[language]:
                row = sentence_sequences([np.array(ids[1:])], index)
                expected = ours.logits(make_batch("mlm", row, row.tokens, row.tokens != PAD))  # (T, V)
                tokens = torch.tensor([ids])
                langs = {"langs": torch.full_like(tokens, index)} if place != homes[language] else {}
                found = theirs(tokens, **langs).logits[0]  # (T, V and those that are never predicted)
                apart = float((found[:, : len(model.vocab)] - expected).abs().max())
                difference = max(difference, apart)
                if not apart <= TOLERANCE * max(1.0, float(expected.abs().max())):
                    raise DataError(
                        f"{place}: transformers' logits differ by {apart:.2g} on {ids}; nothing was exported"
                    )
    return ParityReport({language: len(texts) for language, texts in sentences.items()}, difference)


def _random_ids(model: PretrainedBundle) -> list[list[int]]:
    drawn = torch.Generator().manual_seed(0)
    size = (COMPUTED, min(model.config.max_positions, 64) - 2)
    tokens = torch.randint(len(SPECIALS), len(model.vocab), size, generator=drawn)
    return [[EOS, *row, EOS] for row in tokens.tolist()]


def _check_ids(folder: Path, model: PretrainedBundle, language: str, sentences: Sequence[str]) -> list[list[int]]:
    """The ids of those sentences that the model has positions for."""
    tokenizer, pipeline = transformers.AutoTokenizer.from_pretrained(folder), model.pipeline()
    differing, fitting = [], []
    for sentence in sentences:
        expected = [EOS, *pipeline.ids(sentence, language), EOS]
        # Ids behind the vocabulary are read as UNK.
        found = [i if i < len(model.vocab) else UNK for i in tokenizer(sentence)["input_ids"]]
        if found != expected:
            differing.append((sentence, expected, found))
        elif len(expected) <= model.config.max_positions:
            fitting.append(expected)
    if differing:
        shown = (
            f"  {sentence!r}\n    ours   {_words(model, expected)}\n    theirs {_words(model, found)}"
            for sentence, expected, found in differing[:SHOWN]
        )
        raise DataError(
            f"transformers' tokenizer gives other ids for {len(differing)} of {len(sentences)} sentences of {language};"
            " nothing was exported. The first ones:\n" + "\n".join(shown)
        )
    return fitting[:COMPUTED]


def _words(model: PretrainedBundle, ids: Sequence[int]) -> str:
    return " ".join(model.vocab.word(i) for i in ids)
