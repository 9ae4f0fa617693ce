"""Comparison of an exported folder, as transformers loads it, with the model that it was written from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from xlmtrain.data.batch import make_batch, make_causal_batch
from xlmtrain.data.sequences import sentence_sequences
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.text.vocab import EOS, PAD, SPECIALS, UNK

try:
    import transformers
except ImportError:
    transformers = None  # type: ignore[assignment]

TOLERANCE = 1e-5
"""Of a logit, relative to the largest one if that is above 1."""
LOGIT_SENTENCES = 32
"""Sentences per language whose logits are compared. Ids are compared for all sentences."""
SHOWN = 5


@dataclass(frozen=True)
class ParityReport:
    """``sentences``: language -> how many were compared, with equal ids. ``difference``: the largest of two logits."""

    sentences: dict[str, int]
    difference: float


def require_transformers() -> None:
    """Raise ConfigError with the command that installs it if transformers is missing."""
    if transformers is None:
        raise ConfigError("format=hf: needs the transformers package; install it with: pip install 'xlmtrain[hf]'")


@torch.no_grad()
def check_hf_parity(folder: Path, bundle: PretrainedBundle, sentences: Mapping[str, Sequence[str]]) -> ParityReport:
    """Compare transformers with ``bundle``: ids of raw ``sentences`` (by language), and logits of some of them.

    A model without BPE codes has no tokenizer; its logits are compared on random ids. Both compute in fp64, as far as
    transformers allows, so that rounding does not hide a difference. Raises DataError, with the first sentences that
    differ, if an id differs, or a logit by more than ``TOLERANCE``.
    """
    transformers.logging.disable_progress_bar()
    # The folder itself serves all languages, a subfolder one; a model of one language has no subfolder.
    homes = {language: folder / language if len(bundle.languages) > 1 else folder for language in bundle.languages}
    ids = {
        language: _checked_ids(home, bundle, language, sentences[language]) if bundle.codes else _random_ids(bundle)
        for language, home in homes.items()
    }
    ours, largest = bundle.module().double(), 0.0
    for place in dict.fromkeys([folder, *homes.values()]):
        theirs = transformers.AutoModelForMaskedLM.from_pretrained(place).double().eval()
        for index, language in enumerate(bundle.languages):
            if place not in (folder, homes[language]):
                continue
            for row in ids[language]:
                sequence = sentence_sequences([np.array(row[1:])], index)
                if bundle.causal:
                    batch = make_causal_batch(sequence)
                else:
                    batch = make_batch("mlm", sequence, sequence.tokens, sequence.tokens != PAD)
                expected = ours.logits(batch)  # (T, V); T - 1 if causal
                tokens = torch.tensor([row])
                langs = {"langs": torch.full_like(tokens, index)} if place != homes[language] else {}
                found = theirs(tokens, **langs).logits[0, : len(expected)]  # (T, V + unlisted symbols)
                difference = float((found[:, : len(bundle.vocab)] - expected).abs().max())
                largest = max(largest, difference)
                if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
                    raise DataError(
                        f"{place}: transformers' logits differ by {difference:.2g} on {row}; nothing was exported"
                    )
    return ParityReport({language: len(texts) for language, texts in sentences.items()}, largest)


def _random_ids(bundle: PretrainedBundle) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    size = (LOGIT_SENTENCES, min(bundle.config.max_positions, 64) - 2)
    tokens = torch.randint(len(SPECIALS), len(bundle.vocab), size, generator=generator)
    return [[EOS, *row, EOS] for row in tokens.tolist()]


def _checked_ids(folder: Path, bundle: PretrainedBundle, language: str, sentences: Sequence[str]) -> list[list[int]]:
    """Compare the ids of all sentences; return those that fit the model's positions, for the logits."""
    tokenizer, pipeline = transformers.AutoTokenizer.from_pretrained(folder), bundle.pipeline()
    differing, fitting = [], []
    for sentence in sentences:
        expected = [EOS, *pipeline.ids(sentence, language), EOS]
        # Ids behind the vocabulary are unlisted symbols, which are read as UNK.
        found = [i if i < len(bundle.vocab) else UNK for i in tokenizer(sentence)["input_ids"]]
        if found != expected:
            differing.append((sentence, expected, found))
        elif len(expected) <= bundle.config.max_positions:
            fitting.append(expected)
    if differing:
        shown = (
            f"  {sentence!r}\n    ours   {_words(bundle, expected)}\n    theirs {_words(bundle, found)}"
            for sentence, expected, found in differing[:SHOWN]
        )
        raise DataError(
            f"transformers' tokenizer gives other ids for {len(differing)} of {len(sentences)} sentences of {language};"
            " nothing was exported. The first ones:\n" + "\n".join(shown)
        )
    return fitting[:LOGIT_SENTENCES]


def _words(bundle: PretrainedBundle, ids: Sequence[int]) -> str:
    return " ".join(bundle.vocab.word(i) for i in ids)
