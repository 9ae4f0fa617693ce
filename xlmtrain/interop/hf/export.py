"""Export to a Hugging Face folder, which transformers then loads and which is compared with the model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from xlmtrain.config.families import Family
from xlmtrain.data.batch import make_batch, make_causal_batch
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.sequences import window_sequences
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.hf.card import model_card
from xlmtrain.interop.hf.card_records import CardFacts
from xlmtrain.interop.hf.model import write_hf_folder
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.model.translation_model import decoder_part
from xlmtrain.text.text_files import read_lines
from xlmtrain.text.vocab import UNK

try:
    import transformers
except ImportError:
    transformers = None  # type: ignore[assignment]

log = logging.getLogger(__name__)
MAX_SENTENCES = 1000
"""Sentences per language whose ids are compared."""
LOGIT_SENTENCES = 32
"""Sentences per language whose logits are compared, too."""
TOLERANCE = 1e-5
"""Of a logit, relative to the largest one if that is above 1."""
SHOWN = 5
NO_FACTS = CardFacts()


@dataclass(frozen=True)
class ParityReport:
    """``sentences``: language -> how many were compared, with equal ids. ``difference``: the largest of two logits."""

    sentences: dict[str, int]
    difference: float


def export_hf_folder(
    bundle: PretrainedBundle, directory: Path, name: str, sentences: str | None, facts: CardFacts = NO_FACTS
) -> ParityReport:
    """Write ``directory``, which the model card calls ``name``, and check that transformers gives the same results.

    ``sentences``: a file of raw text, with ``{lang}`` in place of the language; None takes the run's validation text,
    if that still exists. ``facts``: for the model card. Raises ConfigError for a model with a decoder, or if there is
    no text or no transformers, DataError if results differ.
    """
    if decoder_part(bundle.weights):
        raise ConfigError("format=hf: XLM in transformers has no decoder; export this model with format=xlm or run")
    config = bundle.config
    if bundle.causal and config.family is not Family.xlm:
        log.warning("the model was trained by CLM alone; the class for %s attends to all tokens", config.family.value)
    if transformers is None:
        raise ConfigError("format=hf: needs the transformers package; install it with: pip install 'xlmtrain[hf]'")
    texts: dict[str, list[str]] = {}
    if bundle.reads_text:
        texts = {language: _sentences(bundle, language, sentences) for language in bundle.languages}
    else:
        log.warning("the model has no BPE codes, so the folder has no tokenizer; give codes=FILE to have one")
    write_hf_folder(bundle, directory)
    report = check_hf_parity(directory, bundle, texts)
    card = model_card(bundle, name, report.sentences, report.difference, facts)
    (directory / "README.md").write_text(card, encoding="utf-8")
    return report


def _sentences(bundle: PretrainedBundle, language: str, template: str | None) -> list[str]:
    if template is not None:
        path = template.replace("{lang}", language)
        return [line for _, line in islice(read_lines(path, "sentences"), MAX_SENTENCES)]
    prepared = Path(bundle.provenance.settings.get("data", {}).get("path", ""))
    if not (prepared / "dataset.json").is_file():
        where = f"{prepared} (looked in {Path.cwd()})"
        raise ConfigError(
            f"sentences=...{{lang}}: needed, raw text to compare on; the run's own data is not at {where}"
        )
    dataset = Dataset(prepared)
    names = sorted(dataset.header.corpora, key=lambda name: not name.startswith("valid."))  # validation text first
    corpora = [dataset.corpus(name) for name in names if name.endswith(f".{language}")]
    places = ((corpus, i) for corpus in corpora for i in range(len(corpus)))
    return [dataset.vocab.decode(corpus.sentence(i)[:-1]) for corpus, i in islice(places, MAX_SENTENCES)]


@torch.no_grad()
def check_hf_parity(folder: Path, bundle: PretrainedBundle, sentences: Mapping[str, Sequence[str]]) -> ParityReport:
    """Compare transformers with ``bundle``: ids of raw ``sentences`` (by language), and logits of some of them.

    A model without BPE codes has no tokenizer; its logits are compared on random ids. Both compute in fp64, as far as
    transformers allows, so that rounding does not hide a difference. Raises DataError, with the first sentences that
    differ, if an id differs, or a logit by more than ``TOLERANCE``.
    """
    transformers.logging.disable_progress_bar()
    xlm = bundle.config.family is Family.xlm
    # The folder itself serves all languages, a subfolder one; a model of one language has no subfolder.
    homes = {language: home if (home := folder / language).is_dir() else folder for language in bundle.languages}
    ids = {language: _ids(home, bundle, language, sentences) for language, home in homes.items()}
    places = {home: [language] for language, home in homes.items()}
    if (folder / "config.json").is_file():
        places[folder] = bundle.languages
    ours, largest = bundle.module().double(), 0.0
    for place, languages in places.items():
        theirs = transformers.AutoModelForMaskedLM.from_pretrained(place).double().eval()
        for index, row in [(bundle.languages.index(name), row) for name in languages for row in ids[name]]:
            tokens, expected = torch.tensor([row]), _logits(ours, row, index, bundle.causal and xlm)
            langs = {"langs": torch.full_like(tokens, index)} if xlm and len(languages) > 1 else {}
            found = theirs(tokens, **langs).logits[0, : len(expected), : len(bundle.vocab)]
            difference = float((found - expected).abs().max())
            largest = max(largest, difference)
            if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
                raise DataError(
                    f"{place}: transformers' logits differ by {difference:.2g} on {row}; nothing was exported"
                )
    return ParityReport({language: len(texts) for language, texts in sentences.items()}, largest)


def _logits(model: LanguageModel, row: Sequence[int], language: int, causal: bool) -> torch.Tensor:
    """Return logits (T, V) for the ids ``row``; (T - 1, V) if causal."""
    sequence = window_sequences(np.array([row]), language)
    if causal:
        return model.logits(make_causal_batch(sequence))
    return model.logits(make_batch("mlm", sequence, sequence.tokens, np.ones(sequence.tokens.shape, dtype=bool)))


def _ids(
    folder: Path, bundle: PretrainedBundle, language: str, sentences: Mapping[str, Sequence[str]]
) -> list[list[int]]:
    """Compare the ids of all sentences; return those that fit the model's positions, to compare logits on."""
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
        found = tokenizer(sentence, add_special_tokens=bool(bundle.codes))["input_ids"]
        # Ids behind the vocabulary are unlisted symbols, which are read as UNK. A tokenizer may add no special ones.
        found = (
            [i if i < len(bundle.vocab) else UNK for i in found] if bundle.codes else [special.bos, *found, special.eos]
        )
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
