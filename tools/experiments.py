"""Compare ways of training over several seeds: train, evaluate, fine-tune, and print a table of means and deviations.

    python tools/experiments.py compare=objectives data=prepared/everyday output=runs/everyday \\
        'retrieval=dev.{lang}' dictionary=en-de.tsv data.sub_batch_tokens=512 train.steps=3000
    python tools/experiments.py compare=precision ...                            or masking, or sampling
    python tools/experiments.py compare=objectives ... learn=train.en.tsv 'judge=test.{lang}.tsv' optim.lr=3e-4

Every run is the preset quickstart with the changes of its variant and what else is given here. What is done is kept in
``output``: the same command goes on where it was stopped, and variants that comparisons share are trained once. With
``learn`` what else is given goes to the fine-tuning; the models must be there already.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from xlmtrain.config.load import parse_args, user_errors
from xlmtrain.errors import ConfigError
from xlmtrain.metrics.loggers import read_records
from xlmtrain.runtime.atomic_io import read_json

_ROOT = Path(__file__).parents[1]

VARIANTS = {
    "mlm_tlm": [],
    "mlm": ["data.tlm.de-en=0"],
    "clm": ["data.mlm.de=0", "data.mlm.en=0", "data.tlm.de-en=0", "data.clm={de: 1, en: 1}"],
    "masking-0.5": ["mask.inverse_frequency_exponent=0.5"],
    "fp32": ["train.precision=fp32"],
    "sampling-1": ["data.tlm.de-en=0", "data.sampling_alpha=1"],
    "sampling-0.7": ["data.tlm.de-en=0", "data.sampling_alpha=0.7"],
    "sampling-0.5": ["data.tlm.de-en=0", "data.sampling_alpha=0.5"],
}
"""Name -> what it changes. bf16 is given for all but fp32."""

COMPARISONS = {
    "objectives": ["mlm", "mlm_tlm", "clm"],
    "masking": ["mlm_tlm", "masking-0.5"],
    "precision": ["mlm_tlm", "fp32"],
    "sampling": ["sampling-1", "sampling-0.7", "sampling-0.5"],
}

Figures = dict[str, float]


@dataclass
class Experiments:
    """The settings of this tool."""

    compare: str = "???"
    """objectives (MLM, MLM + TLM, CLM), masking (frequency exponent 0 and 0.5), precision (bf16, fp32), or sampling
    (language exponents 1, 0.7, 0.5; for data of unequal sizes)."""

    data: str = "???"
    """Directory made by tools/prepare.py, of de, en and pairs."""

    output: str = "???"
    """Where the runs are."""

    seeds: int = 3
    """A run of each variant for each of so many seeds, from 0 up."""

    split: str = "valid"
    """Of ``data``: what perplexity is measured on."""

    retrieval: str | None = None
    """As for tools/evaluate.py."""

    dictionary: str | None = None
    """As for tools/evaluate.py."""

    learn: str | None = None
    """Labelled English text; with it, the models are fine-tuned instead."""

    judge: str | None = None
    """With ``learn``: labelled text to judge them on, ``{lang}`` standing for en and de."""


def main(argv: list[str]) -> None:
    """Bring every run as far as it is to come, seed by seed, and print the table."""
    options, others = parse_args(Experiments, argv)
    if options.compare not in COMPARISONS:
        raise ConfigError(f"compare={options.compare}: is none of {', '.join(COMPARISONS)}")
    if (options.learn is None) != (options.judge is None):
        raise ConfigError("learn= and judge= need each other")
    variants = COMPARISONS[options.compare]
    figures: dict[str, list[Figures]] = {variant: [] for variant in variants}
    for seed in range(options.seeds):
        for variant in variants:
            made = _finetuned(options, variant, seed, others) if options.learn else _run(options, variant, seed, others)
            figures[variant].append(made)
    print("\n".join(table(figures)))


def _run(options: Experiments, variant: str, seed: int, others: list[str]) -> Figures:
    """Train and evaluate, as far as that is not done."""
    run = Path(options.output) / f"{variant}-{seed}"
    metric = "evaluate.metric=valid/clm_ppl" if variant == "clm" else "evaluate.metric=valid/mlm_ppl"
    given = ["experiment=quickstart", f"data.path={options.data}", "train.precision=bf16", metric, *others]
    status = run / "status.json"
    if not (status.is_file() and read_json(status).get("status") == "done"):
        _program("train.py", *given, *VARIANTS[variant], f"seed={seed}", f"run={run}")
    output = run / f"evaluation-{options.split}.json"
    if not output.is_file():
        tasks = {"retrieval": options.retrieval, "bilingual_lexicon": options.dictionary}
        asked = [f"{name}={value}" for name, value in tasks.items() if value]
        _program(
            "tools/evaluate.py",
            f"model={run}",
            "checkpoint=last",
            f"data={options.data}",
            f"split={options.split}",
            f"output={output}",
            *asked,
        )
    tokens = max(record.get("progress/tokens", 0) for record in read_records(run / "metrics.jsonl"))
    return {"tokens, millions": tokens / 1e6, **figures_of(read_json(output))}


def _finetuned(options: Experiments, variant: str, seed: int, others: list[str]) -> Figures:
    """Fine-tune on English as far as that is not done: accuracy and macro F1 in both languages."""
    assert options.judge is not None
    task = Path(options.judge).name.split(".")[0]
    run = Path(options.output) / "finetuned" / f"{task}-{variant}-{seed}"
    result = run / f"seed-{seed}" / "result.json"
    if not result.is_file():
        files = ", ".join(f"{lang}: {options.judge.replace('{lang}', lang)}" for lang in ("en", "de"))
        _program(
            "tools/finetune.py",
            f"init.pretrained={Path(options.output) / f'{variant}-{seed}'}",
            f"run={run}",
            f"seeds=[{seed}]",
            f"task.train={{en: {options.learn}}}",
            f"task.test={{{files}}}",
            *others,
        )
    scores = read_json(result)["test"]
    return {f"{lang}, {what}": some[what] for lang, some in scores.items() for what in ("accuracy", "f1", "majority")}


def figures_of(evaluation: dict[str, Any]) -> Figures:
    """The figures to compare, of what tools/evaluate.py wrote; both directions of a search are one mean."""
    figures = {name.partition("/")[2]: value for name, value in evaluation.get("perplexity", {}).items()}
    found = [row for row in evaluation.get("retrieval", {}).get("found", []) if row["pooling"] == "mean"]
    for layer, scoring in dict.fromkeys((row["layer"], row["scoring"]) for row in found):
        rows = [row for row in found if (row["layer"], row["scoring"]) == (layer, scoring)]
        figures[f"sentences, layer {layer}, {scoring}: top-1"] = mean(row["top1"] for row in rows)
        figures[f"sentences, layer {layer}, {scoring}: MRR"] = mean(row["mrr"] for row in rows)
    if "bilingual_lexicon" in evaluation:
        words = evaluation["bilingual_lexicon"]
        figures |= {"cosine of translations": words["cosine"], "of other words": words["random_cosine"]}
        for among, scoring in dict.fromkeys((row["among"], row["scoring"]) for row in words["precision"]):
            rows = [row for row in words["precision"] if (row["among"], row["scoring"]) == (among, scoring)]
            for most in (1, 5, 10):
                figures[f"words among {among}, {scoring}: P@{most}"] = mean(row[f"p{most}"] for row in rows)
    return figures


def table(figures: dict[str, list[Figures]]) -> Iterator[str]:
    """Markdown: a line for each figure, a column for each variant, mean and deviation over the seeds."""
    yield "| | " + " | ".join(f"{name} ({len(some)})" for name, some in figures.items()) + " |"
    yield "| --- |" + " ---: |" * len(figures)
    for name in dict.fromkeys(name for some in figures.values() for one in some for name in one):
        cells = [_spread([one[name] for one in some if name in one]) for some in figures.values()]
        yield f"| {name} | " + " | ".join(cells) + " |"


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    digits = 3 if max(map(abs, values)) < 1 else 1
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):,.{digits}f}{deviation}"


def _program(*command: str) -> None:
    """Run one of the repository's programs; its output goes to the error stream, so that the table is alone."""
    print(json.dumps(command), file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, *command], cwd=_ROOT, stdout=sys.stderr, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
