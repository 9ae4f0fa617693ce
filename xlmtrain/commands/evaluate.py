"""Evaluate a model: perplexity, cloze on parallel text, bitext retrieval, bilingual lexicon, zero-shot classification.

    xlmtrain evaluate model=runs/quickstart data=prepared/sample
    xlmtrain evaluate model=mlm_ende_1024.pth data=prepared/ende split=test
    xlmtrain evaluate model=runs/quickstart retrieval=dev.{lang}.gz output=metrics.json
    xlmtrain evaluate model=runs/quickstart bilingual_lexicon=en-de.tsv
    xlmtrain evaluate model=runs/quickstart 'zero_shot_probe={train: {en: a.en.tsv}, test: {de: b.de.tsv}}'

``data``: perplexity and accuracy per language and pair, below the settings that they depend on. ``de-en_cloze_mono``
masks German words of the pairs; ``de-en_cloze_parallel`` masks the same words, and the model also reads the English
translation. Models trained by CLM, translation or denoising alone are evaluated by that, ``de-en_mt`` from German,
without masks (for BLEU: ``xlmtrain translate reference=``). The masks are fixed, so a model gets the same
numbers anywhere; the window length and the share of masked tokens default to those of the model's run. Compare models
only on the same data, window length and share.

``retrieval``: bitext retrieval, P@1 and MRR, by the sentence vectors of every layer.
``bilingual_lexicon``: word translation by the embedding table, P@k. Compare only models with the same vocabulary.
``zero_shot_probe``: a linear probe on every layer's hidden states, trained on one language and tested on others.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xlmtrain.config.data import DataConfig, MaskConfig, NoiseConfig
from xlmtrain.config.evaluate import EvaluateConfig, ZeroShotProbeConfig
from xlmtrain.config.load import parse_options
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Device, Precision, TrainConfig
from xlmtrain.config.validate import ABOVE_ZERO, SHARE_ABOVE_ZERO, ranged
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.validation import parallel_cloze_sets, validation_sets
from xlmtrain.errors import ConfigError
from xlmtrain.evaluate.parallel_text import aligned_sentences
from xlmtrain.evaluate.perplexity import evaluate_perplexity
from xlmtrain.evaluate.retrieval import retrieval_table, retrieve_by_layer
from xlmtrain.evaluate.word_translation import lexicon_languages, read_lexicon, translate_words, translation_table
from xlmtrain.evaluate.zero_shot import ZeroShotProbe, zero_shot_table
from xlmtrain.interop.bundle import PretrainedBundle, trained_keys
from xlmtrain.interop.formats import ModelOptions, read_model
from xlmtrain.interop.warm_start import matching_bundle
from xlmtrain.metrics.table import decimals
from xlmtrain.pretrained import PretrainedModel
from xlmtrain.runtime.atomic_io import write_json
from xlmtrain.runtime.distributed import Distributed, initialize
from xlmtrain.runtime.output_paths import new_file
from xlmtrain.runtime.precision import choose_precision


@dataclass
class EvaluateOptions(ModelOptions):
    """The settings of this command; data, retrieval, bilingual_lexicon or zero_shot_probe is needed."""

    data: str | None = None
    """Directory made by xlmtrain prepare or xlmtrain import, with the model's vocabulary."""

    retrieval: str | None = None
    """Raw text, plain or compressed; {lang} stands for the language. The files are parallel line by line."""

    bilingual_lexicon: str | None = None
    """Lines of a word and its translation, separated by a tab, or by a blank as in the MUSE format. The languages of
    the columns are taken from a file name like en-de.tsv."""

    zero_shot_probe: ZeroShotProbeConfig = field(default_factory=ZeroShotProbeConfig)
    """Labelled text: {train: {language: file}, test: {language: file}}, as evaluate.zero_shot_probe in training."""

    output: str | None = None
    """File for all metrics as JSON; it must not exist yet."""

    split: str = "valid"
    """For data: the split to evaluate on."""

    sequence_length: int | None = None
    """For data: tokens in a window of running text; null: as in the model's run, else 256."""

    pairs_per_batch: int | None = ranged(None, ABOVE_ZERO)
    """For data: pairs that are padded and masked as one batch; null: as in the model's run, else 32."""

    mask_prob: float | None = ranged(None, SHARE_ABOVE_ZERO)
    """For data: share of tokens that are masked; null: as in the model's run, else 0.15."""

    device: Device = Device.auto
    """Device to compute on."""

    precision: Precision = Precision.fp32
    """For data: number format of matrix products; vectors are always computed in fp32."""

    def problems(self) -> Iterator[str]:
        """Yield what is missing."""
        if not (self.data or self.retrieval or self.bilingual_lexicon or self.zero_shot_probe.train):
            yield "data: data, retrieval, bilingual_lexicon or zero_shot_probe is needed to evaluate on"


def main(argv: list[str]) -> None:
    """Print a table for each requested evaluation."""
    options = parse_options(EvaluateOptions, argv)
    bundle = read_model(options.model, options.checkpoint, options.codes)
    distributed = initialize(options.device)
    metrics: dict[str, Any] = {"model": options.model, "step": bundle.provenance.step}
    with new_file(options.output) if options.output is not None and distributed.is_main else nullcontext() as output:
        for line in _tasks(options, bundle, distributed, metrics):
            if distributed.is_main:
                print(line)
        if output is not None:
            write_json(output, metrics)
    distributed.close()


def _tasks(
    options: EvaluateOptions, bundle: PretrainedBundle, distributed: Distributed, metrics: dict[str, Any]
) -> Iterator[str]:
    """Yield the lines to print, and put the results into ``metrics``."""
    sentences = aligned_sentences(options.retrieval, bundle.languages) if options.retrieval else {}
    lexicon = Path(options.bilingual_lexicon) if options.bilingual_lexicon else None
    entries = read_lexicon(lexicon) if lexicon else []
    probe = _zero_shot_probe(options.zero_shot_probe, bundle) if options.zero_shot_probe.train else None
    if options.data:
        metrics["settings"], metrics["perplexity"] = _perplexity(options, options.data, bundle, distributed)
        yield ", ".join(f"{name}={value}" for name, value in metrics["settings"].items())
        yield from _perplexity_table(metrics["perplexity"])
    if probe is not None:
        metrics["zero_shot_probe"] = probe(bundle.module(distributed.device), distributed, lambda: False)
        yield from zero_shot_table(probe, metrics["zero_shot_probe"])
    if not distributed.is_main:
        return
    model = PretrainedModel(bundle, distributed.device)
    if sentences:
        vectors = {language: model.embed_layers(lines, language) for language, lines in sentences.items()}
        found = retrieve_by_layer(vectors, sentences, model.device)
        count = len(next(iter(sentences.values())))
        rows = [{"pooling": key[0], "layer": key[1], **asdict(r)} for key, results in found.items() for r in results]
        metrics["retrieval"] = {"file": options.retrieval, "sentences": count, "found": rows}
        yield f"{options.retrieval}: {count:,} sentences; top-1 (MRR)"
        yield retrieval_table(found)
    if lexicon:
        table, languages = model.model.encoder.token_embeddings.weight, lexicon_languages(lexicon, bundle.languages)
        words = translate_words(table, bundle.vocab, entries, languages, distributed.device)
        metrics["bilingual_lexicon"] = {"file": options.bilingual_lexicon, **asdict(words)}
        yield f"{options.bilingual_lexicon}:"
        yield from translation_table(words)


def _zero_shot_probe(files: ZeroShotProbeConfig, bundle: PretrainedBundle) -> ZeroShotProbe:
    return ZeroShotProbe(files, bundle.pipeline(), bundle.languages, bundle.config.max_positions, bundle.causal)


def _perplexity(
    options: EvaluateOptions, data: str, bundle: PretrainedBundle, distributed: Distributed
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the settings that figures depend on, and the figures."""
    dataset = Dataset(data)
    bundle = matching_bundle(bundle, dataset)
    keys = [name.split(".")[1] for name in dataset.header.corpora if name.startswith(f"{options.split}.")]
    if not keys:
        raise ConfigError(f"split={options.split}: {data} has {', '.join(sorted(dataset.header.corpora))}")
    languages, pairs = ([key for key in keys if ("-" in key) is pair] for pair in (False, True))
    evaluated = _evaluated(bundle, languages, pairs)
    if not evaluated:
        raise ConfigError(f"data={data}: has pairs only, and a model trained by CLM only is evaluated on running text")
    config = _settings(options, data, bundle, evaluated)
    precision = choose_precision(options.precision, distributed.device, "precision")
    sets = validation_sets(config, dataset, options.split)
    if bundle.fills_masks:
        sets += parallel_cloze_sets(config, dataset, options.split)
    if not sets:
        trained = ", ".join(trained_keys(bundle.provenance.settings))
        raise ConfigError(f"data={data}: nothing in {options.split} for what the model was trained by, {trained}")
    settings = {
        "data": data,
        "split": options.split,
        "sequence_length": config.data.sequence_length,
        "pairs_per_batch": config.evaluate.pairs_per_batch,
    } | ({"mask_prob": config.mask.prob} if bundle.fills_masks else {})
    return settings, evaluate_perplexity(bundle.module(distributed.device), sets, precision, distributed)


def _perplexity_table(metrics: dict[str, float]) -> Iterator[str]:
    """Yield a line for each language and pair, and for their means."""
    yield f"{'':24}{'perplexity':>12}{'accuracy':>12}"
    for name in (name.removesuffix("_ppl") for name in metrics if name.endswith("_ppl")):
        yield f"{name:24} {decimals(metrics[f'{name}_ppl'], 4):>11}{metrics[f'{name}_acc']:11.2f}%"


def _evaluated(bundle: PretrainedBundle, languages: list[str], pairs: list[str]) -> dict[str, Any]:
    """Return objective -> {key: weight}: what the model was trained by; if that is not known, all that it can do."""
    trained = trained_keys(bundle.provenance.settings)
    directions = [*trained.get("mt", []), *trained.get("bt", [])]
    if bundle.has_decoder and not trained:
        directions = [direction for pair in pairs for direction in (pair, "-".join(reversed(pair.split("-"))))]
    found = {
        "mlm": languages if bundle.fills_masks else [],
        "tlm": pairs if bundle.fills_masks else [],
        "clm": languages if bundle.causal or "clm" in trained else [],
        "mt": directions,
        "dae": trained.get("dae", []),
    }
    return {objective: dict.fromkeys(keys, 1.0) for objective, keys in found.items() if keys}


def _settings(options: EvaluateOptions, data: str, bundle: PretrainedBundle, evaluated: dict[str, Any]) -> Config:
    """Return the training settings that the validation sets are made from; ``evaluated``: as :func:`_evaluated`."""
    trained, positions = bundle.provenance.settings, bundle.config.max_positions
    length, pairs, masked = options.sequence_length, options.pairs_per_batch, options.mask_prob
    if length is None:
        length = trained.get("data", {}).get("sequence_length", min(256, positions))
    if pairs is None:
        pairs = trained.get("evaluate", {}).get("pairs_per_batch", EvaluateConfig.pairs_per_batch)
    if masked is None:
        masked = trained.get("mask", {}).get("prob", MaskConfig.prob)
    if not 3 <= length <= positions:
        raise ConfigError(f"sequence_length={length}: it is from 3 up to the model's {positions} positions")
    return Config(
        run="",
        model=bundle.config,
        data=DataConfig(
            path=data,
            **evaluated,
            sequence_length=length,
            sub_batch_tokens=2 * length,  # unused in evaluation, but must be valid
            max_sentence_length=1,
        ),
        mask=MaskConfig(prob=masked),
        noise=NoiseConfig(**trained.get("noise", {})),
        train=TrainConfig(batch_tokens=2 * length),
        evaluate=EvaluateConfig(pairs_per_batch=pairs),
    )
