"""Export to a Hugging Face folder, which transformers then loads and which is compared with the model."""

from __future__ import annotations

import logging
from itertools import islice
from pathlib import Path
from typing import Any

from xlmtrain.config.families import Family
from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import ConfigError
from xlmtrain.interop.bundle import FinetunedBundle, ModelBundle, PretrainedBundle
from xlmtrain.interop.hf.card import model_card
from xlmtrain.interop.hf.card_records import CardFacts
from xlmtrain.interop.hf.class_names import class_name
from xlmtrain.interop.hf.classifier_card import classifier_card
from xlmtrain.interop.hf.classifier_config import head_of
from xlmtrain.interop.hf.model import write_hf_folder
from xlmtrain.interop.hf.parity import ParityReport, check_classifier_parity, check_hf_parity
from xlmtrain.model.translation_model import decoder_part
from xlmtrain.text.text_files import read_lines

try:
    import transformers
except ImportError:
    transformers = None  # type: ignore[assignment]

log = logging.getLogger(__name__)
MAX_SENTENCES = 1000
"""Sentences per language whose ids are compared."""
NO_FACTS = CardFacts()


def export_hf_folder(
    bundle: PretrainedBundle | FinetunedBundle,
    directory: Path,
    name: str,
    sentences: str | None,
    facts: CardFacts = NO_FACTS,
) -> ParityReport:
    """Write ``directory``, which the model card calls ``name``, and check that transformers gives the same results.

    ``sentences``: a file of raw text, with ``{lang}`` in place of the language; None takes the run's validation text,
    or the test files of a fine-tuning, if they still exist. ``facts``: for the model card. Raises ConfigError for a
    model with a decoder, or if there is no text or no transformers, DataError if results differ.
    """
    if isinstance(bundle, PretrainedBundle) and decoder_part(bundle.weights):
        raise ConfigError("format=hf: XLM in transformers has no decoder; export this model with format=xlm or run")
    config = bundle.config
    if bundle.causal and config.family is not Family.xlm:
        log.warning("the model was trained by CLM alone; the class for %s attends to all tokens", config.family.value)
    if transformers is None:
        raise ConfigError("format=hf: needs the transformers package; install it with: pip install 'xlmtrain[hf]'")
    if not hasattr(transformers, wanted := class_name(config.family, head_of(bundle))):
        raise ConfigError(
            f"format=hf: transformers {transformers.__version__} has no {wanted}; install a later version"
        )
    texts: dict[str, list[str]] = {}
    if bundle.reads_text:
        texts = {language: comparison_sentences(bundle, language, sentences) for language in bundle.languages}
    else:
        log.warning("the model has no BPE codes, so the folder has no tokenizer; give codes=FILE to have one")
    write_hf_folder(bundle, directory)
    if isinstance(bundle, FinetunedBundle):
        report = check_classifier_parity(directory, bundle, texts)
        card = classifier_card(bundle, name, report.sentences, report.difference)
    else:
        report = check_hf_parity(directory, bundle, texts)
        card = model_card(bundle, name, report.sentences, report.difference, facts)
    (directory / "README.md").write_text(card, encoding="utf-8")
    return report


def comparison_sentences(bundle: ModelBundle[Any], language: str, template: str | None) -> list[str]:
    """Return raw sentences of the run's own data, or of the file ``template``; raises ConfigError without either."""
    if template is not None:
        path = template.replace("{lang}", language)
        return [line for _, line in islice(read_lines(path, "sentences"), MAX_SENTENCES)]
    if isinstance(bundle, FinetunedBundle):
        files = bundle.provenance.settings.get("task", {}).get("test", {})
        path = files.get(language, next(iter(files.values()), ""))
        if not Path(path).is_file():
            raise ConfigError(f"sentences=...{{lang}}: needed, raw text to compare on; {path or 'a test file'} is gone")
        return [line.replace("\t", " ") for _, line in islice(read_lines(path, "sentences"), MAX_SENTENCES)]
    prepared = bundle.provenance.prepared_data
    if prepared is None:
        where = f"{bundle.provenance.settings.get('data', {}).get('path', '.')} (looked in {Path.cwd()})"
        raise ConfigError(
            f"sentences=...{{lang}}: needed, raw text to compare on; the run's own data is not at {where}"
        )
    dataset = Dataset(prepared)
    names = sorted(dataset.header.corpora, key=lambda name: not name.startswith("valid."))  # validation text first
    corpora = [dataset.corpus(name) for name in names if name.endswith(f".{language}")]
    places = ((corpus, i) for corpus in corpora for i in range(len(corpus)))
    return [dataset.vocab.decode(corpus.sentence(i)[:-1]) for corpus, i in islice(places, MAX_SENTENCES)]
