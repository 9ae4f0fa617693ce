"""Convert a model from one format to another.

    xlmtrain export model=runs/quickstart format=hf output=exports/quickstart
    xlmtrain export model=runs/quickstart format=hf output=exports/quickstart provider=own region=DEU
    xlmtrain export model=runs/quickstart format=sentence-transformers lang=de output=exports/vectors-de
    xlmtrain export model=runs/quickstart format=onnx output=exports/quickstart-onnx
    xlmtrain export model=runs/quickstart format=xlm output=exports/quickstart.pth
    xlmtrain export model=mlm_ende_1024.pth codes=codes_ende format=run output=runs/released
    xlmtrain export model=exports/quickstart format=run output=runs/again
    xlmtrain export model=runs/intents format=hf output=exports/intents
    xlmtrain export model=runs/quickstart format=vectors output=exports/quickstart.vec
    xlmtrain export model=runs/quickstart format=projector output=runs/quickstart/tensorboard/projector

``model`` is a run directory, one of its checkpoints, a Hugging Face folder, a ``.pth`` file of the original XLM, or the
directory of a fine-tuning, which becomes a folder for transformers' pipelines (format=hf only).
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from xlmtrain.config.load import parse_options
from xlmtrain.config.prepare import TextConfig
from xlmtrain.config.validate import NOT_NEGATIVE, CheckedSettings, ranged
from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import ConfigError
from xlmtrain.interop.bundle import FinetunedBundle, PretrainedBundle
from xlmtrain.interop.formats import ExportFormat, ModelOptions, read_any_model
from xlmtrain.interop.hf.card_records import CardFacts
from xlmtrain.interop.hf.export import export_hf_folder
from xlmtrain.interop.onnx import export_onnx
from xlmtrain.interop.run import seed_metrics, write_run
from xlmtrain.interop.sentence_transformers import export_sentence_transformer
from xlmtrain.interop.word_vectors import write_projector, write_vectors
from xlmtrain.interop.xlm.conversion import write_xlm_checkpoint
from xlmtrain.runtime.output_paths import new_directory, new_file

_VECTOR_EXPORTS = {
    ExportFormat.sentence_transformers: export_sentence_transformer,
    ExportFormat.onnx: export_onnx,
}


@dataclass
class ExportOptions(ModelOptions, CheckedSettings):
    """The settings of this command."""

    format: ExportFormat = ExportFormat.hf
    """The format to write."""

    output: str = "???"
    """The file or directory to write; it must not exist yet."""

    lowercase: bool = False
    """For a .pth file: its text was lower-cased."""

    remove_accents: bool = False
    """For a .pth file: accents were stripped from its text."""

    lang: str | None = None
    """sentence-transformers, onnx: the language to build in; null: a folder for each, if the languages differ."""

    sentences: str | None = None
    """hf, sentence-transformers, onnx: raw text to compare results on, {lang} for the language; null: the run's
    validation text, or the test files of a fine-tuning."""

    region: str | None = None
    """hf: where the model was trained, for the model card: a country by its code in ISO 3166, such as DEU, which gives
    the grams of CO2 per kWh, or another name."""

    provider: str | None = None
    """hf: who ran the machines, for the model card."""

    grams_per_kwh: float | None = ranged(None, NOT_NEGATIVE)
    """hf: grams of CO2 equivalents per kWh where the model was trained; null: those of the country ``region``."""

    licences: dict[str, str] = field(default_factory=dict)
    """hf: licences of the text for the model card, by the names of the raw files, e.g. ``{news.*: CC0}``; those of
    xlmtrain download are known."""

    seeds: list[str] = field(default_factory=list)
    """hf: runs that differ from the model's in the seed alone; the model card gives means and standard deviations."""

    data: str | None = None
    """sentence-transformers, onnx: prepared data whose validation pairs choose layer and pooling; projector: from which
    words get their languages; null: the run's."""


def main(argv: list[str]) -> None:
    """Convert the model and print the path written."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse_options(ExportOptions, argv)
    text = None
    if options.lowercase or options.remove_accents:
        text = TextConfig(lowercase=options.lowercase, remove_accents=options.remove_accents)
    bundle = read_any_model(options.model, options.checkpoint, options.codes, text)
    if isinstance(bundle, FinetunedBundle):
        if options.format is not ExportFormat.hf:
            raise ConfigError(f"format={options.format.value}: a fine-tuned model is exported with format=hf")
        with new_directory(options.output) as path:
            _write_hf(options, bundle, path)
    elif options.format in (ExportFormat.xlm, ExportFormat.vectors):
        with new_file(options.output) as path:
            (write_xlm_checkpoint if options.format is ExportFormat.xlm else write_vectors)(bundle, path)
    else:
        with new_directory(options.output) as path:
            _write_directory(options, bundle, path)
    print(f"{options.format.value}: {options.output}")


def _write_directory(options: ExportOptions, bundle: PretrainedBundle, directory: Path) -> None:
    if options.format is ExportFormat.run:
        write_run(bundle, directory)
    elif options.format is ExportFormat.projector:
        data = options.data or bundle.provenance.settings.get("data", {}).get("path")
        if data is None:
            raise ConfigError("data: needed, the prepared data from which words get their languages")
        write_projector(bundle, Dataset(data), directory)
    elif options.format in _VECTOR_EXPORTS:
        name = Path(options.output).name
        export = _VECTOR_EXPORTS[options.format]
        choice, differences = export(bundle, directory, name, options.lang, options.data, options.sentences)
        print(choice.describe(bundle.config.layers))
        for folder, difference in differences.items():
            print(f"{folder}: numbers differ from the model's by at most {difference:.1e}")
    else:
        _write_hf(options, bundle, directory)


def _write_hf(options: ExportOptions, bundle: PretrainedBundle | FinetunedBundle, directory: Path) -> None:
    seeds = seed_metrics(options.seeds, bundle.provenance)
    facts = CardFacts(options.provider, options.region, options.grams_per_kwh, options.licences, seeds)
    report = export_hf_folder(bundle, directory, Path(options.output).name, options.sentences, facts)
    for language, count in report.sentences.items():
        print(f"{language}: transformers gives the same ids for {count:,} of {count:,} sentences")
    print(f"largest difference between two logits: {report.difference:.1e}")
