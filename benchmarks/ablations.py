"""Run an ablation study over several seeds: train, evaluate or fine-tune, and print means and standard deviations.

    python -m benchmarks.ablations ablation=objectives data=prepared/everyday output=runs/everyday \\
        'retrieval=dev.{lang}' bilingual_lexicon=en-de.tsv data.sub_batch_tokens=512 train.steps=3000
    python -m benchmarks.ablations ablation=precision ...                     or masking, or sampling
    python -m benchmarks.ablations ablation=objectives ... \\
        train_file=train.en.tsv 'test_file=test.{lang}.tsv' optim.lr=3e-4
    python -m benchmarks.ablations ablation=recipe experiment=small_cpu data=prepared/ende output=runs/recipe \\
        train.steps=3000
    python -m benchmarks.ablations ablation=initialization experiment=mt_small_cpu pretrained=runs/mlm \\
        data=prepared/captions output=runs/captions train.steps=1000

Every run is a preset with the settings of its variant and the other settings given here. Finished runs are
kept in ``output``: the same command continues after an interruption, and a variant that two ablations share is trained
once. With ``train_file`` the models must be trained already; the other settings then go to the fine-tuning.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from xlmtrain.config.load import parse_args
from xlmtrain.config.validate import ABOVE_ZERO, CheckedSettings, ranged
from xlmtrain.finetune.scores import mean_and_deviation
from xlmtrain.metrics.loggers import read_records
from xlmtrain.metrics.table import format_table
from xlmtrain.runtime.atomic_io import read_json
from xlmtrain.runtime.program import user_errors

_PARTS = ["model.family=modernbert", "model.rope_theta=10000"]
_JINA = "parts=rotary,head_transform,token_types,gelu_head,added_languages"
_DECAY = "{name: decay, steps: 300, optim: {schedule: linear, warmup_steps: 0}}"


def _modern(*changes: str, schedule: str = "cosine", phases: str = "{name: masked, mask: {prob: 0.3}}") -> list[str]:
    """Return changes of modern_small_cpu as it was before this ablation, for runs of 1,000 steps."""
    return [f"optim.schedule={schedule}", f"phases=[{phases}]", *changes]


VARIANTS: dict[str, list[str]] = {
    "mlm_tlm": [],
    "mlm": ["data.tlm.de-en=0"],
    "clm": ["data.mlm.de=0", "data.mlm.en=0", "data.tlm.de-en=0", "data.clm={de: 1, en: 1}"],
    "masking-0.5": ["mask.inverse_frequency_exponent=0.5"],
    "fp32": ["train.precision=fp32"],
    "sampling-1": ["data.tlm.de-en=0", "data.sampling_alpha=1"],
    "sampling-0.7": ["data.tlm.de-en=0", "data.sampling_alpha=0.7"],
    "sampling-0.5": ["data.tlm.de-en=0", "data.sampling_alpha=0.5"],
    "pre_norm": ["parts=pre_norm", *_PARTS],
    "rotary": ["parts=rotary", *_PARTS],
    "gated": ["parts=gated", "model.ffn_dim=680", *_PARTS],  # 2/3 of 1,024, so as many parameters
    "no_biases": ["parts=no_biases", *_PARTS],
    "head_transform": ["parts=head_transform", *_PARTS],
    "masks-0.3": ["phases=[{name: masked, mask: {prob: 0.3}}]"],  # validation keeps 15 %
    "clm-first": [
        "phases=[{name: causal, steps: 700, data: {clm: {de: 1, en: 1}, mlm: {}, tlm: {}}}, "
        "{name: masked, steps: 2300, data: {clm: {}, mlm: {de: 1, en: 1}, tlm: {de-en: 1}}}]",
        "evaluate.metric=valid/tlm_ppl",
    ],
    "muon": ["optim.name=muon"],
    "modern": _modern(),
    "masks-0.4": _modern(phases="{name: masked, mask: {prob: 0.4}}"),
    "masks-falling": _modern(
        phases="{name: many, steps: 700, mask: {prob: 0.4}}, {name: few, steps: 300, mask: {prob: 0.15}}"
    ),
    "pairs-more": _modern("data.tlm.de-en=4"),
    "pairs-late": _modern(
        phases="{name: apart, steps: 500, mask: {prob: 0.3}, data: {tlm: {de-en: 0}}}, "
        "{name: pairs, steps: 500, data: {tlm: {de-en: 4}}}"
    ),
    "length-growing": _modern(
        phases="{name: short, steps: 700, mask: {prob: 0.3}}, {name: long, steps: 300, data: {sequence_length: 64}}"
    ),
    "batch-growing": _modern(  # as many tokens
        "optim.warmup_steps=200",
        "train.micro_batch_tokens=4096",
        phases="{name: small, steps: 600, mask: {prob: 0.3}, train: {batch_tokens: 1024}}, "
        "{name: middle, steps: 400, train: {batch_tokens: 2048}}, "
        "{name: large, steps: 148, train: {batch_tokens: 4096}}",
    ),
    "stable-decay": _modern(schedule="constant", phases=f"{{name: stable, steps: 700, mask: {{prob: 0.3}}}}, {_DECAY}"),
    "stable-decay-masks-0.4": _modern(
        schedule="constant", phases=f"{{name: stable, steps: 700, mask: {{prob: 0.4}}}}, {_DECAY}"
    ),
    "stable-decay-masks-0.4-pairs": _modern(
        "data.tlm.de-en=2",
        schedule="constant",
        phases=f"{{name: stable, steps: 700, mask: {{prob: 0.4}}}}, {_DECAY}",
    ),
    "stable-decay-masks-0.4-pairs-late": _modern(
        schedule="constant",
        phases="{name: stable, steps: 700, mask: {prob: 0.4}}, {name: decay, steps: 300, mask: {prob: 0.6}, "
        "data: {tlm: {de-en: 4}}, optim: {schedule: linear, warmup_steps: 0}}",
    ),
    "modern-pre_norm": _modern(f"{_JINA},pre_norm", *_PARTS),
    "modern-gated": _modern(f"{_JINA},gated", "model.ffn_dim=680", *_PARTS),
    "modern-no_biases": _modern(f"{_JINA},no_biases", *_PARTS),
    "adamw": _modern("optim.name=adamw"),
}
"""Name -> settings that differ from the preset; ``parts=`` is for ``benchmarks.with_parts``.

All variants but fp32 train in bf16.
"""

STARTS = {"-".join(sides): sides for sides in product(("pretrained", "random"), repeat=2)}
"""Name -> what encoder and decoder of a translation model begin from."""

ABLATIONS = {
    "objectives": ["mlm", "mlm_tlm", "clm"],
    "masking": ["mlm_tlm", "masking-0.5"],
    "precision": ["mlm_tlm", "fp32"],
    "sampling": ["sampling-1", "sampling-0.7", "sampling-0.5"],
    "recipe": [
        "mlm_tlm",
        "pre_norm",
        "rotary",
        "gated",
        "no_biases",
        "head_transform",
        "masks-0.3",
        "clm-first",
        "muon",
    ],
    "modern": [
        "modern",
        "masks-0.4",
        "masks-falling",
        "pairs-more",
        "pairs-late",
        "length-growing",
        "batch-growing",
        "stable-decay",
        "stable-decay-masks-0.4",
        "stable-decay-masks-0.4-pairs",
        "stable-decay-masks-0.4-pairs-late",
        "modern-pre_norm",
        "modern-gated",
        "modern-no_biases",
        "adamw",
    ],
    "initialization": list(STARTS),
}

Scores = dict[str, float]


@dataclass
class AblationOptions(CheckedSettings):
    """The settings of this program."""

    ablation: str = "???"
    """objectives (MLM, MLM + TLM, CLM), masking (frequency exponent 0 and 0.5), precision (bf16, fp32), sampling
    (language exponents 1, 0.7, 0.5; for data of unequal sizes), recipe (single changes of small_cpu), modern (single
    changes of modern_small_cpu, in 1,000 steps), or initialization (of encoder and decoder of a translation model: from
    ``pretrained``, or random)."""

    experiment: str = "quickstart"
    """Preset; with ablation=initialization one that trains translation, like mt_small_cpu or umt_ende."""

    pretrained: str | None = None
    """With ablation=initialization: the model to begin from."""

    data: str = "???"
    """Directory made by xlmtrain prepare, with de, en and pairs."""

    output: str = "???"
    """Directory of the runs."""

    seeds: int = ranged(3, ABOVE_ZERO)
    """Number of seeds, from 0 up; each variant is trained with each."""

    split: str = "valid"
    """Split of ``data`` to measure perplexity on; not with ablation=initialization."""

    retrieval: str | None = None
    """As for xlmtrain evaluate."""

    bilingual_lexicon: str | None = None
    """As for xlmtrain evaluate."""

    train_file: str | None = None
    """Labelled English text; with it, the models are fine-tuned instead."""

    test_file: str | None = None
    """With ``train_file``: labelled text to test on, ``{lang}`` standing for en and de."""

    def problems(self) -> Iterator[str]:
        if self.ablation not in ABLATIONS:
            yield f"ablation: {self.ablation}: must be one of {', '.join(ABLATIONS)}"
        if (self.train_file is None) != (self.test_file is None):
            yield "train_file: train_file= and test_file= need each other"
        if (self.ablation == "initialization") != (self.pretrained is not None):
            yield "pretrained: pretrained= and ablation=initialization need each other"
        if self.ablation == "modern" and self.experiment != "modern_small_cpu":
            yield "experiment: modern has changes of modern_small_cpu; set experiment=modern_small_cpu train.steps=1000"
        if self.ablation == "initialization" and self.experiment == "quickstart":
            yield "experiment: a preset that trains translation, like mt_small_cpu"
        if self.ablation == "initialization" and (self.train_file or self.retrieval or self.bilingual_lexicon):
            yield "ablation: initialization has the validation metrics of the runs only"


def main(argv: list[str]) -> None:
    """Complete every run, seed by seed, and print the table."""
    options, others = parse_args(AblationOptions, argv)
    variants = ABLATIONS[options.ablation]
    complete = _pretrain if options.train_file is None else _finetune
    scores: dict[str, list[Scores]] = {variant: [] for variant in variants}
    for seed in range(options.seeds):
        for variant in variants:
            scores[variant].append(complete(options, variant, seed, others))
    print(table(scores))


def _pretrain(options: AblationOptions, variant: str, seed: int, others: list[str]) -> Scores:
    """Train and evaluate one run, unless that is done."""
    run = Path(options.output) / f"{variant}-{seed}"
    status, output = run / "status.json", run / f"evaluation-{options.split}.json"
    if not (status.is_file() and read_json(status).get("status") == "done"):
        preset = [f"experiment={options.experiment}", f"data.path={options.data}", "train.precision=bf16"]
        if options.pretrained is None:
            preset.append("evaluate.metric=valid/clm_ppl" if variant == "clm" else "evaluate.metric=valid/mlm_ppl")
        _start("train", *preset, *others, *_settings(options, variant), f"seed={seed}", f"run={run}")
    records = read_records(run / "metrics.jsonl")
    last = {name: max(record.get(f"progress/{name}", 0) for record in records) for name in ("tokens", "seconds")}
    tokens = {"tokens, millions": last["tokens"] / 1e6, "seconds of training": last["seconds"]}
    if options.pretrained is not None:
        valid = next(record for record in reversed(records) if any(name.startswith("valid/") for name in record))
        return tokens | {name.removeprefix("valid/"): valid[name] for name in valid if name.startswith("valid/")}
    if not output.is_file():
        tasks = {"retrieval": options.retrieval, "bilingual_lexicon": options.bilingual_lexicon}
        given = [f"{name}={value}" for name, value in tasks.items() if value]
        data = [f"data={options.data}", f"split={options.split}"]
        parts = [word for word in _settings(options, variant) if word.startswith("parts=")]
        _start("evaluate", *parts, f"model={run}", "checkpoint=last", *data, f"output={output}", *given)
    return tokens | scores_of(read_json(output))


def _settings(options: AblationOptions, variant: str) -> list[str]:
    """Return the settings of a variant."""
    if options.pretrained is None:
        return VARIANTS[variant]
    found = {"pretrained": options.pretrained, "random": "null"}
    return [f"init.{side}={found[start]}" for side, start in zip(("encoder", "decoder"), STARTS[variant])]


def _finetune(options: AblationOptions, variant: str, seed: int, others: list[str]) -> Scores:
    """Fine-tune one run on English, unless that is done; return its scores in both languages."""
    assert options.test_file is not None
    task = Path(options.test_file).name.split(".")[0]
    run = Path(options.output) / "finetuned" / f"{task}-{variant}-{seed}"
    result = run / f"seed-{seed}" / "result.json"
    if not result.is_file():
        files = ", ".join(f"{lang}: {options.test_file.replace('{lang}', lang)}" for lang in ("en", "de"))
        model = [f"init.pretrained={Path(options.output) / f'{variant}-{seed}'}", f"run={run}", f"seeds=[{seed}]"]
        tests = [f"task.train={{en: {options.train_file}}}", f"task.test={{{files}}}"]
        _start("finetune", *model, *tests, *others)
    scores = read_json(result)["test"]
    return {
        f"{lang}, {key}": value
        for lang, some in scores.items()
        for key, value in (*some["metrics"].items(), ("majority", some["majority"]))
        if value is not None
    }


def scores_of(evaluation: dict[str, Any]) -> Scores:
    """Return the scores to compare from the JSON of xlmtrain evaluate; the two directions of a search are averaged."""
    scores = {name.partition("/")[2]: value for name, value in evaluation.get("perplexity", {}).items()}
    found = [row for row in evaluation.get("retrieval", {}).get("found", []) if row["pooling"] == "mean"]
    for (layer, scoring), rows in _grouped(found, "layer", "scoring"):
        scores[f"sentences, layer {layer}, {scoring}: top-1"] = mean(row["top1"] for row in rows)
        scores[f"sentences, layer {layer}, {scoring}: MRR"] = mean(row["mrr"] for row in rows)
    if "bilingual_lexicon" in evaluation:
        words = evaluation["bilingual_lexicon"]
        scores |= {"cosine of translations": words["cosine"], "of other words": words["random_cosine"]}
        for (among, scoring), rows in _grouped(words["precision"], "among", "scoring"):
            for k in (1, 5, 10):
                scores[f"words among {among}, {scoring}: P@{k}"] = mean(row[f"p{k}"] for row in rows)
    return scores


def _grouped(rows: list[dict[str, Any]], *keys: str) -> Iterator[tuple[tuple[Any, ...], list[dict[str, Any]]]]:
    """Yield the rows that have equal values of ``keys``, with these values, in the order of their first rows."""
    for values in dict.fromkeys(tuple(row[key] for key in keys) for row in rows):
        yield values, [row for row in rows if tuple(row[key] for key in keys) == values]


def table(scores: dict[str, list[Scores]]) -> str:
    """Return Markdown: a row per score, a column per variant, mean and standard deviation over the seeds."""
    rows = [
        (name, *(_mean_and_deviation([one[name] for one in seeds if name in one]) for seeds in scores.values()))
        for name in dict.fromkeys(name for seeds in scores.values() for one in seeds for name in one)
    ]
    header = ("score (seeds)", *(f"{name} ({len(seeds)})" for name, seeds in scores.items()))
    return format_table(rows, header, "markdown")


def _mean_and_deviation(values: list[float]) -> str:
    if not values:
        return ""
    digits, (center, deviation) = 3 if max(map(abs, values)) < 1 else 1, mean_and_deviation(values)
    return f"{center:,.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")


def _start(*command: str) -> None:
    """Run a command of xlmtrain; its output goes to stderr, so that stdout has the table alone."""
    parts = [word.removeprefix("parts=") for word in command if word.startswith("parts=")]
    program = ["benchmarks.with_parts", *parts] if parts else ["xlmtrain"]
    line = [*program, *(word for word in command if not word.startswith("parts="))]
    print(json.dumps(line), file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, "-m", *line], stdout=sys.stderr, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
