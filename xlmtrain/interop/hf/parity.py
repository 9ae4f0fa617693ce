"""Comparison of an exported folder, as transformers loads it, with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xlmtrain.config.families import Family
from xlmtrain.data.batch import make_batch, make_causal_batch
from xlmtrain.data.sequences import window_sequences
from xlmtrain.errors import DataError
from xlmtrain.interop.bundle import FinetunedBundle, ModelBundle, PretrainedBundle
from xlmtrain.interop.hf.class_names import HeadKind
from xlmtrain.interop.hf.classifier_config import head_of
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.text.vocab import UNK

try:
    import transformers
except ImportError:
    transformers = None  # type: ignore[assignment]

LOGIT_SENTENCES = 32
"""Sentences per language whose logits are compared, too."""
TOLERANCE = 1e-5
"""Of a logit, relative to the largest one if that is above 1."""
SHOWN = 5


@dataclass(frozen=True)
class ParityReport:
    """``sentences``: language -> how many were compared, with equal ids. ``difference``: the largest of two logits."""

    sentences: dict[str, int]
    difference: float


@torch.no_grad()
def check_hf_parity(folder: Path, bundle: PretrainedBundle, sentences: Mapping[str, Sequence[str]]) -> ParityReport:
    """Compare transformers with ``bundle``: ids of raw ``sentences`` (by language), and logits of some of them.

    A model without BPE codes has no tokenizer; its logits are compared on random ids. Both compute in fp64, as far as
    transformers allows, so that rounding does not hide a difference. Raises DataError, with the first sentences that
    differ, if an id differs, or a logit by more than ``TOLERANCE``.
    """
    transformers.logging.disable_progress_bar()
    xlm = bundle.config.family is Family.xlm
    homes = _homes(folder, bundle)
    ids = {
        language: matching_ids(home, bundle, language, sentences, bool(bundle.codes))
        for language, home in homes.items()
    }
    places = {home: [language] for language, home in homes.items()}
    if (folder / "config.json").is_file():
        places[folder] = bundle.languages
    ours, largest = bundle.module().double(), 0.0
    for place, languages in places.items():
        theirs = transformers.AutoModelForMaskedLM.from_pretrained(place).double().eval()
        for index, row in [(bundle.languages.index(name), row) for name in languages for row in ids[name]]:
            tokens, expected = torch.tensor([row]), row_logits(ours, row, index, bundle.causal and xlm)
            langs = {"langs": torch.full_like(tokens, index)} if xlm and len(languages) > 1 else {}
            found = theirs(tokens, **langs).logits[0, : len(expected), : len(bundle.vocab)]
            difference = float((found - expected).abs().max())
            largest = max(largest, difference)
            if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
                raise DataError(
                    f"{place}: transformers' logits differ by {difference:.2g} on {row}; nothing was exported"
                )
    return ParityReport({language: len(texts) for language, texts in sentences.items()}, largest)


def _homes(folder: Path, bundle: ModelBundle[Any]) -> dict[str, Path]:
    """Return each language's folder: the folder itself serves all languages, a subfolder one, if there is one."""
    return {language: home if (home := folder / language).is_dir() else folder for language in bundle.languages}


@torch.no_grad()
def check_classifier_parity(
    folder: Path, bundle: FinetunedBundle, sentences: Mapping[str, Sequence[str]]
) -> ParityReport:
    """Compare transformers with a fine-tuned ``bundle``: ids of texts and pairs, and logits of padded batches of both.

    In fp64, as :func:`check_hf_parity`, which has the same arguments and errors.
    """
    transformers.logging.disable_progress_bar()
    ours, largest = bundle.module().double(), 0.0
    kinds = {HeadKind.texts: "SequenceClassification", HeadKind.words: "TokenClassification"}
    loader = getattr(transformers, f"AutoModelFor{kinds[head_of(bundle)]}")
    for language, home in _homes(folder, bundle).items():
        rows = matching_ids(home, bundle, language, sentences, bool(bundle.codes))
        tokenizer = transformers.AutoTokenizer.from_pretrained(home)
        batches: list[dict[str, list[list[int]]]] = [{"input_ids": rows}]
        if not ours.of_words:
            batches.append(_pairs(tokenizer, bundle, language, sentences[language]))
        places = [place for place in dict.fromkeys([home, folder]) if (place / "config.json").is_file()]
        for place, batch in product(places, batches):
            theirs = loader.from_pretrained(place).double().eval()
            given = tokenizer.pad(batch, padding=True, return_tensors="pt")
            tokens, index = given["input_ids"], bundle.languages.index(language)
            lengths, everywhere = given["attention_mask"].sum(dim=1), given["attention_mask"].bool()
            sequences = window_sequences(tokens.numpy(), index)._replace(lengths=lengths.numpy())
            made = make_batch("classification", sequences, tokens.numpy(), everywhere.numpy())
            expected = ours.logits(replace(made, token_types=given.get("token_type_ids")))
            langs = {}
            if bundle.config.family is Family.xlm and place == folder and len(bundle.languages) > 1:
                langs = {"langs": torch.full_like(tokens, index)}
            found = theirs(**given, **langs).logits
            difference = float(((found[everywhere] if ours.of_words else found) - expected).abs().max())
            largest = max(largest, difference)
            if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
                raise DataError(f"{place}: transformers' logits differ by {difference:.2g}; nothing was exported")
    return ParityReport({language: len(texts) for language, texts in sentences.items()}, largest)


def _pairs(tokenizer: Any, bundle: FinetunedBundle, language: str, texts: Sequence[str]) -> dict[str, list[list[int]]]:
    """Return ids and token types of pairs of neighbouring texts. Raises DataError if transformers has other ids."""
    pipeline, special, found = bundle.pipeline(), bundle.vocab.special, []
    for first, second in pairwise(texts[: LOGIT_SENTENCES + 1]):
        left, right = pipeline.ids(first, language), pipeline.ids(second, language)
        row = [special.bos, *left, *[special.eos] * bundle.pair.separators, *right, special.eos]
        given = tokenizer(first, second)
        # Ids behind the vocabulary are unlisted symbols, which are read as UNK.
        if [i if i < len(bundle.vocab) else UNK for i in given["input_ids"]] != row:
            raise DataError(
                f"transformers' tokenizer gives other ids for the pair {first!r}, {second!r}; nothing was exported"
            )
        if len(row) <= bundle.config.max_positions:
            found.append({"input_ids": row, **{key: given[key] for key in given if key == "token_type_ids"}})
    return {key: [row[key] for row in found] for key in found[0]} if found else {"input_ids": []}


def row_logits(model: LanguageModel, row: Sequence[int], language: int, causal: bool) -> torch.Tensor:
    """Return logits (T, V) for the ids ``row``; (T - 1, V) if causal."""
    sequence = window_sequences(np.array([row]), language)
    if causal:
        return model.logits(make_causal_batch(sequence))
    return model.logits(make_batch("mlm", sequence, sequence.tokens, np.ones(sequence.tokens.shape, dtype=bool)))


def matching_ids(
    folder: Path,
    bundle: ModelBundle[Any],
    language: str,
    sentences: Mapping[str, Sequence[str]],
    add_special_tokens: bool,
) -> list[list[int]]:
    """Compare the ids of all sentences; return those that fit the model's positions, to compare numbers on.

    ``add_special_tokens``: of the tokenizer, which may not be able to. Raises DataError for other ids.
    """
    if not bundle.reads_text:
        size = (LOGIT_SENTENCES, min(bundle.config.max_positions, 64) - 2)
        generator = torch.Generator().manual_seed(0)
        ordinary = torch.from_numpy(np.flatnonzero(~bundle.vocab.is_special))
        chosen: list[list[int]] = ordinary[torch.randint(len(ordinary), size, generator=generator)].tolist()
        return chosen
    tokenizer, pipeline = transformers.AutoTokenizer.from_pretrained(folder), bundle.pipeline()
    special = bundle.vocab.special
    differing, fitting = [], []
    for sentence in sentences[language]:
        expected = [special.bos, *pipeline.ids(sentence, language), special.eos]
        found = tokenizer(sentence, add_special_tokens=add_special_tokens)["input_ids"]
        if bundle.codes:  # ids behind the vocabulary are unlisted symbols, which are read as UNK
            found = [i if i < len(bundle.vocab) else UNK for i in found]
        if not add_special_tokens:
            found = [special.bos, *found, special.eos]
        if found != expected:
            ours, theirs = (" ".join(map(bundle.vocab.token, ids)) for ids in (expected, found))
            differing.append(f"  {sentence!r}\n    ours   {ours}\n    theirs {theirs}")
        elif len(expected) <= bundle.config.max_positions:
            fitting.append(expected)
    if differing:
        raise DataError(
            f"transformers' tokenizer gives other ids for {len(differing)} of {len(sentences[language])} sentences of "
            f"{language}; nothing was exported. The first ones:\n" + "\n".join(differing[:SHOWN])
        )
    return fitting[:LOGIT_SENTENCES]
