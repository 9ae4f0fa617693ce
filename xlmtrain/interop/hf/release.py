"""Hugging Face folders that were compared with the model before anybody can use them."""

from __future__ import annotations

import logging
from itertools import islice
from pathlib import Path

from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.hf.card import model_card
from xlmtrain.interop.hf.model import write_hugging_face
from xlmtrain.interop.hf.parity import ParityReport, check_hf_parity, require_transformers
from xlmtrain.prepare.raw_files import open_bytes

log = logging.getLogger(__name__)
COMPARED = 1000
"""Sentences of each language."""


def release(model: PretrainedBundle, directory: Path, name: str, sentences: str | None) -> ParityReport:
    """Fill ``directory``, which will be called ``name``, and hold it against ``model``.

    ``sentences``: a file of raw text, ``{lang}`` standing for each language; None takes the text the model was
    validated on, if that is still there. Raises ConfigError if there is no text or no transformers, DataError if the
    folder gives other answers than the model.
    """
    require_transformers()
    texts: dict[str, list[str]] = {}
    if model.codes:
        texts = {language: _sentences(model, language, sentences) for language in model.languages}
    else:
        log.warning("the model has no BPE codes, so the folder has no tokenizer; give codes=FILE to have one")
    write_hugging_face(model, directory)
    agreement = check_hf_parity(directory, model, texts)
    (directory / "README.md").write_text(model_card(model, agreement, name), encoding="utf-8")
    return agreement


def _sentences(model: PretrainedBundle, language: str, template: str | None) -> list[str]:
    if template is not None:
        path = Path(template.replace("{lang}", language))
        try:
            with open_bytes(path) as file:
                return [line.decode().removesuffix("\n") for line in islice(file, COMPARED)]
        except (OSError, ValueError) as error:
            raise DataError(f"sentences={path}: cannot be read ({error})") from None
    prepared = Path(model.history.settings.get("data", {}).get("path", ""))
    if not (prepared / "dataset.json").is_file():
        raise ConfigError(
            "sentences=...{lang}: needed, raw text of each language to compare on; the run's own data is gone"
        )
    dataset = Dataset(prepared)
    names = sorted(dataset.header.corpora, key=lambda name: not name.startswith("valid."))  # validation text first
    corpora = [dataset.corpus(name) for name in names if name.endswith(f".{language}")]
    places = ((corpus, i) for corpus in corpora for i in range(len(corpus)))
    return [dataset.vocab.decode(corpus.sentence(i)[:-1]) for corpus, i in islice(places, COMPARED)]
