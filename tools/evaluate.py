"""How good a model is: perplexity on prepared text, translations of sentences and of words found by their vectors.

    python tools/evaluate.py model=runs/quickstart data=prepared/sample
    python tools/evaluate.py model=mlm_ende_1024.pth data=prepared/ende split=test
    python tools/evaluate.py model=runs/quickstart retrieval=dev.{lang}.gz dictionary=en-de.tsv output=figures.json
    python tools/evaluate.py model=runs/quickstart 'classify={train: {en: train.en.tsv}, test: {de: test.de.tsv}}'

``data``: perplexity and accuracy per language and pair. ``de-en_alone`` and ``de-en_aided`` are words of the German
sentences of pairs, without and with the English in view: what the translation tells the model. A model trained by CLM
is judged by that, too. The masks are fixed, so the same model gets the same figures anywhere; a run's own windows and
share of masked tokens are the defaults. Models compare on the same data, in windows of the same length, only.

``retrieval``: every sentence is looked for among all sentences of the other language, by every layer's vectors.
``dictionary``: every word is looked for in the embedding table. Models compare with the same vocabulary only.
``classify``: a linear probe learns labels from every layer's states of texts in one language, and is tried on others.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from xlmtrain.config.load import parse_args, user_errors
from xlmtrain.config.schema import (
    Config,
    DataConfig,
    Device,
    EvaluateConfig,
    MaskConfig,
    Precision,
    TrainConfig,
    ZeroShotProbeConfig,
)
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.validation import parallel_cloze_sets, validation_sets
from xlmtrain.errors import ConfigError
from xlmtrain.evaluate.perplexity import evaluate
from xlmtrain.evaluate.retrieval import Retrieval, aligned_sentences, retrieval_table, retrieve
from xlmtrain.evaluate.word_translation import read_dictionary, translate_words, translation_table
from xlmtrain.evaluate.zero_shot import ZeroShot, zero_shot_table
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.run import CheckpointChoice
from xlmtrain.interop.warm_start import matching_weights
from xlmtrain.pretrained import PretrainedModel
from xlmtrain.runtime.atomic_io import write_json
from xlmtrain.runtime.distributed import Distributed, initialize
from xlmtrain.runtime.output_paths import new_file
from xlmtrain.runtime.precision import choose_precision


@dataclass
class Evaluate:
    """The settings of this tool; one of data, retrieval, dictionary and classify is needed."""

    model: str = "???"
    """A run directory, one of its checkpoints, a Hugging Face folder, or a .pth file of the original program."""

    data: str | None = None
    """Directory made by tools/prepare.py or tools/import_data.py, with the model's vocabulary."""

    retrieval: str | None = None
    """Raw sentences, line by line translations of each other; {lang} stands for the language. Plain or compressed."""

    dictionary: str | None = None
    """Lines of a word, a tab and its translation; or, as in MUSE's dictionaries, apart by a blank."""

    classify: ZeroShotProbeConfig = field(default_factory=ZeroShotProbeConfig)
    """Labelled text: {train: {language: file}, test: {language: file}}, as evaluate.zero_shot_probe in training."""

    output: str | None = None
    """File for all figures as JSON; it must not exist yet."""

    split: str = "valid"
    """data: which of its splits."""

    which: CheckpointChoice = CheckpointChoice.best
    """Which of a run's checkpoints."""

    codes: str | None = None
    """For a .pth file: the BPE codes of its data, in fastBPE's format. Retrieval needs them."""

    sequence_length: int | None = None
    """data: tokens in a window of running text; null: as in the model's run, or 256."""

    pairs_per_batch: int | None = None
    """data: pairs that are padded to one length, and drawn masks for, together; null: as in the model's run, or 32."""

    device: Device = Device.auto
    """Where to compute."""

    precision: Precision = Precision.fp32
    """data: how precisely; the vectors are always fp32."""


def main(argv: list[str]) -> None:
    """Print a table for each of the tasks that there is something given for."""
    options, others = parse_args(Evaluate, argv)
    if others:
        raise ConfigError(f"not understood: {' '.join(others)}")
    if not (options.data or options.retrieval or options.dictionary or options.classify.train):
        raise ConfigError("data=, retrieval=, dictionary= or classify=: one is needed, it says what to evaluate on")
    saved = read_model(options.model, options.which, options.codes)
    distributed = initialize(options.device)
    figures: dict[str, Any] = {"model": options.model, "step": saved.provenance.step}
    with new_file(Path(options.output)) if options.output and distributed.is_main else nullcontext() as output:
        for line in _tasks(options, saved, distributed, figures):
            if distributed.is_main:
                print(line)
        if output is not None:
            write_json(output, figures)
    distributed.close()


def _tasks(
    options: Evaluate, saved: PretrainedBundle, distributed: Distributed, figures: dict[str, Any]
) -> Iterator[str]:
    """The lines to print; what they say goes into ``figures``."""
    sentences = aligned_sentences(options.retrieval, saved.languages) if options.retrieval else {}
    entries = read_dictionary(Path(options.dictionary)) if options.dictionary else []
    task = _labels(options.classify, saved) if options.classify.train else None
    if options.data:
        figures["perplexity"] = _perplexity(options, options.data, saved, distributed)
        yield from _perplexity_table(figures["perplexity"])
    if task is not None:
        figures["classify"] = task(saved.module(distributed.device), distributed, lambda: False)
        yield from zero_shot_table(task, figures["classify"])
    if not distributed.is_main:
        return
    model = PretrainedModel(saved, distributed.device)
    if sentences:
        found = _retrieval(model, sentences)
        count = len(next(iter(sentences.values())))
        rows = [{"pooling": key[0], "layer": key[1], **asdict(one)} for key, some in found.items() for one in some]
        figures["retrieval"] = {"file": options.retrieval, "sentences": count, "found": rows}
        yield f"{options.retrieval}: {count:,} sentences; top-1 (MRR)"
        yield retrieval_table(found)
    if entries:
        words = translate_words(model.model.encoder.token_embeddings.weight, saved.vocab, entries, distributed.device)
        figures["dictionary"] = {"file": options.dictionary, **asdict(words)}
        yield f"{options.dictionary}:"
        yield from translation_table(words)


def _labels(files: ZeroShotProbeConfig, saved: PretrainedBundle) -> ZeroShot:
    return ZeroShot(files, saved.pipeline(), saved.languages, saved.config.max_positions, saved.causal)


def _retrieval(model: PretrainedModel, sentences: dict[str, list[str]]) -> dict[tuple[str, int], list[Retrieval]]:
    """By pooling and layer."""
    vectors = {language: model.embed_layers(lines, language) for language, lines in sentences.items()}
    return {
        (pooling.value, layer): retrieve(
            {lang: v[pooling][layer] for lang, v in vectors.items()}, sentences, model.device
        )
        for pooling, layers in next(iter(vectors.values())).items()
        for layer in range(len(layers))
    }


def _perplexity(options: Evaluate, data: str, saved: PretrainedBundle, distributed: Distributed) -> dict[str, float]:
    dataset = Dataset(data)
    saved = replace(saved, weights=matching_weights(saved, saved.config, dataset), languages=dataset.languages)
    keys = [name.split(".")[1] for name in dataset.header.corpora if name.startswith(f"{options.split}.")]
    if not keys:
        raise ConfigError(f"split={options.split}: {data} has {', '.join(sorted(dataset.header.corpora))}")
    config = _settings(options, data, saved, keys)
    precision = choose_precision(options.precision, distributed.device)
    sets = validation_sets(config, dataset, options.split)
    if not saved.causal:
        sets += parallel_cloze_sets(config, dataset, options.split)
    return evaluate(saved.module(distributed.device), sets, precision, distributed)


def _perplexity_table(figures: dict[str, float]) -> Iterator[str]:
    """A line for each language and pair, and for their means."""
    yield f"{'':24}{'perplexity':>12}{'accuracy':>12}"
    for name in (name.removesuffix("_ppl") for name in figures if name.endswith("_ppl")):
        yield f"{name:24}{figures[f'{name}_ppl']:12.4f}{figures[f'{name}_acc']:11.2f}%"


def _settings(options: Evaluate, data: str, saved: PretrainedBundle, keys: list[str]) -> Config:
    """What the validation sets are made by, in settings of training."""
    trained, positions = saved.provenance.settings, saved.config.max_positions
    length, pairs = options.sequence_length, options.pairs_per_batch
    if length is None:
        length = trained.get("data", {}).get("sequence_length", min(256, positions))
    if pairs is None:
        pairs = trained.get("evaluate", {}).get("pairs_per_batch", EvaluateConfig.pairs_per_batch)
    if not 3 <= length <= positions:
        raise ConfigError(f"sequence_length={length}: it is from 3 up to the model's {positions} positions")
    if pairs < 1:
        raise ConfigError(f"pairs_per_batch={pairs}: it is 1 or more")
    running = {key: 1.0 for key in keys if "-" not in key}
    if saved.causal and not running:
        raise ConfigError(f"data={data}: has pairs only, and a model trained by CLM alone is judged on running text")
    return Config(
        run="",
        model=saved.config,
        data=DataConfig(
            path=data,
            mlm={} if saved.causal else running,
            tlm={} if saved.causal else {key: 1.0 for key in keys if "-" in key},
            clm=running if saved.causal or any(trained.get("data", {}).get("clm", {}).values()) else {},
            sequence_length=length,
            sub_batch_tokens=2 * length,  # nothing is drawn: sizes that allow any length
            max_sentence_length=1,
        ),
        mask=MaskConfig(prob=trained.get("mask", {}).get("prob", MaskConfig.prob)),
        train=TrainConfig(batch_tokens=2 * length),
        evaluate=EvaluateConfig(pairs_per_batch=pairs),
    )


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
