"""Export to a Hugging Face folder that is compared with the model before anybody can use it."""

from __future__ import annotations

import logging
from itertools import islice
from pathlib import Path

from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.hf.card import model_card
from xlmtrain.interop.hf.model import write_hf_folder
from xlmtrain.interop.hf.parity import ParityReport, check_hf_parity, require_transformers
from xlmtrain.prepare.raw_files import open_bytes

log = logging.getLogger(__name__)
MAX_SENTENCES = 1000
"""Sentences per language whose ids are compared."""


def export_hf_folder(bundle: PretrainedBundle, directory: Path, name: str, sentences: str | None) -> ParityReport:
    """Write ``directory``, which the model card calls ``name``, and check that transformers gives the same results.

    ``sentences``: a file of raw text, with ``{lang}`` in place of the language; None takes the run's validation text,
    if that still exists. Raises ConfigError if there is no text or no transformers, DataError if results differ.
    """
    require_transformers()
    texts: dict[str, list[str]] = {}
    if bundle.codes:
        texts = {language: _sentences(bundle, language, sentences) for language in bundle.languages}
    else:
        log.warning("the model has no BPE codes, so the folder has no tokenizer; give codes=FILE to have one")
    write_hf_folder(bundle, directory)
    report = check_hf_parity(directory, bundle, texts)
    (directory / "README.md").write_text(model_card(bundle, report, name), encoding="utf-8")
    return report


def _sentences(bundle: PretrainedBundle, language: str, template: str | None) -> list[str]:
    if template is not None:
        path = Path(template.replace("{lang}", language))
        try:
            with open_bytes(path) as file:
                return [line.decode().removesuffix("\n") for line in islice(file, MAX_SENTENCES)]
        except (OSError, ValueError) as error:
            raise DataError(f"sentences={path}: cannot be read ({error})") from None
    prepared = Path(bundle.provenance.settings.get("data", {}).get("path", ""))
    if not (prepared / "dataset.json").is_file():
        raise ConfigError(
            "sentences=...{lang}: needed, raw text of each language to compare on; the run's own data is gone"
        )
    dataset = Dataset(prepared)
    names = sorted(dataset.header.corpora, key=lambda name: not name.startswith("valid."))  # validation text first
    corpora = [dataset.corpus(name) for name in names if name.endswith(f".{language}")]
    places = ((corpus, i) for corpus in corpora for i in range(len(corpus)))
    return [dataset.vocab.decode(corpus.sentence(i)[:-1]) for corpus, i in islice(places, MAX_SENTENCES)]
