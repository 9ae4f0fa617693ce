"""The sections of a report, from the first question (did it go well?) to the last (on which machine?).

A section that the run has nothing for is an empty list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html import escape
from typing import Any

import numpy as np

from xlmtrain.config.data import OBJECTIVES
from xlmtrain.diagnostics.baseline import nearest_preset
from xlmtrain.diagnostics.finding import Severity
from xlmtrain.metrics.energy import energy_text
from xlmtrain.metrics.table import decimals
from xlmtrain.metrics.timer import duration
from xlmtrain.report.charts import (
    COLORS,
    NUMBERED,
    Chart,
    Line,
    heat_map,
    heat_maps,
    line_chart,
    number,
    paired_scatter,
)
from xlmtrain.report.curves import curve_charts, reference_note
from xlmtrain.report.examples import cloze_accuracy, cloze_examples, predictions, translations
from xlmtrain.report.html import Block, Gallery, Html, Section, Table, tiles
from xlmtrain.report.model_views import PairAttention, SentencePca, SourceAttention, Views
from xlmtrain.report.run_data import RunData

_SMALL_MAPS = 16
_ENERGY = {"energy/measured_kwh": "of energy, measured", "energy/estimated_kwh": "of energy, estimated"}
_PLACES = ("run", "data.path")  # settings that differ between all runs
# Metric -> label, of those shown beside the run's status.
_LABELS = {
    f"valid/{objective}_{kind}": f"{objective.upper()} {words}"
    for objective in OBJECTIVES
    for kind, words in (("ppl", "perplexity"), ("acc", "accuracy, %"))
} | {
    "valid/cloze_mono_acc": "masked-word accuracy, sentence alone, %",
    "valid/cloze_parallel_acc": "masked-word accuracy, with translation, %",
    "valid/retrieval_acc": "bitext retrieval P@1, best layer, %",
    "valid/zero_shot_acc": "zero-shot accuracy, %",
    "valid/mt_bleu": "BLEU of translations, tokenized",
    "valid/round_trip_bleu": "BLEU of round trips, tokenized",
}


def place(run: RunData) -> str:
    """Return how many processes ran, and where."""
    return f"{run.environment['processes']} process(es) on {run.environment['device']}"


def totals(run: RunData) -> list[tuple[str, str]]:
    """Return (label, value) of what the run cost; empty before the first step."""
    if not run.last:
        return []
    seconds, tokens = run.last["progress/seconds"], run.last["progress/tokens"]
    memory = max(record.get("speed/peak_memory_gb", 0) for record in run.records)
    energy: dict[str, Any] = next((record for record in reversed(run.records) if record.keys() & _ENERGY.keys()), {})
    return [
        ("steps", f"{run.last['step']:,}"),
        ("tokens", number(tokens)),
        ("of training", duration(seconds)),
        ("tokens/s", number(tokens / max(seconds, 1e-9))),
        ("peak memory per process", f"{memory:.2f} GB"),
        *((label, energy_text(energy[name])) for name, label in _ENERGY.items() if name in energy),
    ]


def _best_metrics(run: RunData, step: int) -> dict[str, str]:
    """Return label -> value of the mean validation metrics at the step of the model that is shown."""
    last: dict[str, float] = next((record for record in reversed(run.evaluations) if record["step"] <= step), {})
    return {label: decimals(last[name]) for name, label in _LABELS.items() if name in last}


def status(run: RunData, views: Views) -> list[Block]:
    """Return the run in a few values, and its problems with their likely causes, or that there are none."""
    values = [("status", run.status.get("status", "unknown")), *totals(run), *_best_metrics(run, views.step).items()]
    blocks = []
    for finding in run.findings():
        causes = "".join(f"<li>{escape(cause)}</li>" for cause in finding.causes)
        kind = "finding error" if finding.severity is Severity.error else "finding"
        blocks.append(f'<div class="{kind}">{escape(finding.what)}{f"<ul>{causes}</ul>" if causes else ""}</div>')
    nothing = '<div class="finding ok">No plateau, divergence, overfitting or inefficiency found in the metrics.</div>'
    model = f"The views below are of the model at step {views.step:,}." if views.step else "It has no checkpoint yet."
    shown = f"{place(run)}. {model}"
    return [tiles(values), shown, Html("\n".join(blocks) or nothing)]


def comparison(runs: Sequence[tuple[RunData, Views]]) -> list[Block]:
    """Return a row of metrics for each run, and the settings in which they differ."""
    best = [_best_metrics(run, views.step) for run, views in runs]
    labels = list(dict.fromkeys(label for metrics in best for label in metrics))
    rows = []
    for (run, views), metrics in zip(runs, best):
        alone, together = cloze_accuracy(views.cloze)
        cloze = f"{alone:.0%} / {together:.0%}" if views.cloze else ""
        tokens = number(run.last.get("progress/tokens", 0))
        rows.append((run.name, tokens, *(metrics.get(label, "") for label in labels), cloze))
    header = ("run", "tokens", *labels, "masked words below, without / with translation")
    settings = []
    for key in dict.fromkeys(key for run, _ in runs for key in run.settings):
        values = [str(run.shown(run.settings.get(key))) for run, _ in runs]
        if key not in _PLACES and len(set(values)) > 1:
            settings.append((key, *values))
    names = ("setting", *(run.name for run, _ in runs))
    return [Table(header, rows), *([Table(names, settings, range(len(names)))] if settings else [])]


def curves(runs: Sequence[RunData]) -> Section:
    """Return all metrics over tokens; of a single run also its validation in numbers."""
    gallery = Gallery(curve_charts(runs))
    if len(runs) > 1:
        return Section("Curves", [gallery])
    note = reference_note(runs[0])
    numbers = [replace(section, folded=True) for section in validation(runs[0])]
    return Section("Curves", [*([note] if note else []), gallery, *numbers])


def validation(run: RunData) -> list[Section]:
    """Return perplexity and accuracy of each set, and BLEU, at every evaluation."""
    if not run.evaluations:
        return []
    names = [key.removesuffix("_ppl") for key in run.evaluations[0] if re.fullmatch(r"valid/.*_ppl", key)]
    names = [name for name in names if not name.endswith(("_cloze_mono", "_cloze_parallel"))]  # their means are enough
    bleu = [key for key in run.evaluations[0] if re.fullmatch(r"valid/.*_bleu", key)]
    rows = [
        (
            str(record["step"]),
            *(f"{decimals(record[f'{name}_ppl'])} ({record[f'{name}_acc']:.1f})" for name in names),
            *(f"{record[name]:.1f}" for name in bleu),
        )
        for record in run.evaluations
    ]
    header = ("step", *(name.removeprefix("valid/") for name in [*names, *bleu]))
    return [Section("Validation: perplexity (accuracy in %)", [Table(header, rows, left=())])]


def retrieval(runs: Sequence[tuple[RunData, Views]]) -> list[Section]:
    """Return bitext retrieval by the sentence embeddings of each layer."""
    several = len(runs) > 1
    rows = [
        (*([run.name] if several else []), pooling, str(layer), *(f"{r.top1:.1f} ({r.mrr:.3f})" for r in found))
        for run, views in runs
        for (pooling, layer), found in views.retrieval.items()
    ]
    if not rows:
        return []
    first = next(iter(next(views.retrieval for _, views in runs if views.retrieval).values()))
    header = [*(["run"] if several else []), "pooling", "layer", *(f"{r.direction} {r.scoring}" for r in first)]
    charts = [_retrieval_chart(runs, direction) for direction in dict.fromkeys(r.direction for r in first)]
    text = (
        "Each validation sentence is searched for among all of the other language, by cosine. Layer 0 is the token "
        "embeddings: shared names and numbers are enough to find some sentences there. The best layer is chosen on "
        "these same sentences, so its value is optimistic."
    )
    table = Section("All values: P@1 in % (mean reciprocal rank)", [Table(header, rows)], folded=True)
    gallery = Gallery([chart for chart in charts if chart])
    return [Section("Bitext retrieval by sentence embeddings", [text, gallery, table])]


def _retrieval_chart(runs: Sequence[tuple[RunData, Views]], direction: str) -> Chart | None:
    points: dict[str, dict[int, float]] = {}
    for run, views in runs:
        for (pooling, layer), found in views.retrieval.items():
            label = f"{run.name}, {pooling}" if len(runs) > 1 else f"{pooling} pooling"
            for result in found:
                if result.direction == direction and result.scoring == "cosine":
                    points.setdefault(label, {})[layer] = result.top1
    lines = [Line(label, list(values), list(values.values())) for label, values in points.items()]
    return line_chart(f"{direction}: bitext retrieval P@1 (%)", lines, "layer", floor=0.0)


def sentence_pca(name: str, pca: SentencePca | None) -> list[Section]:
    """Return translations on two principal components, with the texts of those that are numbered."""
    if pca is None:
        return []
    items = ""
    for pair in pca.texts[:NUMBERED]:
        spans = (f'<span><b style="color: {color}">●</b> {escape(text)}</span>' for text, color in zip(pair, COLORS))
        items += f"<li>{''.join(spans)}</li>"
    text = (
        "Sentence embeddings on their first two principal components, each linked with its translation. Short links "
        "and mixed colours mean that the languages share the space; two separate clouds mean that they do not."
    )
    title = f"{name}: sentences of layer {pca.layer}, {pca.share:.0%} of the variance"
    chart = paired_scatter(title, *pca.points, pca.languages)
    return [Section("PCA of sentence embeddings", [text, Gallery([chart], f'<ol class="pairs">{items}</ol>')])]


def attention_maps(name: str, pair: PairAttention | None) -> list[Section]:
    """Return the head with most attention to the other language, and an overview of all."""
    if pair is None:
        return []
    across = pair.across()
    layer, head = (int(i) for i in np.unravel_index(across.argmax(), across.shape))
    title = f"{name}: layer {layer + 1}, head {head + 1}: {across[layer, head]:.0%} of its attention across"
    large = heat_map(title, pair.weights[layer, head], pair.words, pair.words, pair.split)
    layers, heads = across.shape
    if layers * heads <= _SMALL_MAPS:
        each, columns = "layer.head", heads
        panels = [(f"{i + 1}.{j + 1}: {across[i, j]:.0%}", pair.weights[i, j]) for i, j in np.ndindex(layers, heads)]
    else:
        each, columns = "layer", layers
        panels = [(f"{i + 1}: {across[i].mean():.0%}", pair.weights[i].mean(axis=0)) for i in range(layers)]
    small = heat_maps(f"{name}: each {each}, and its share across", panels, columns, pair.split)
    text = (
        f"“{pair.truth}” is masked, the prediction is “{pair.guess}”. A row attends to the columns. The lines separate "
        "the two languages: the upper right and the lower left are attention across them."
    )
    return [Section("Attention across a sentence pair", [text, Gallery([large, small])])]


def source_attention(name: str, found: SourceAttention | None) -> list[Section]:
    """Return the head of the last layer that attends most sharply to the source, and an overview of its layer."""
    if found is None:
        return []
    last = found.weights[-1]
    head = int(last.max(axis=-1).mean(axis=-1).argmax())
    title = f"{name}: layer {len(found.weights)}, head {head + 1}, attention to the source"
    large = heat_map(title, last[head], found.translation, found.source)
    panels = [(f"head {number}", weights) for number, weights in enumerate(last, 1)]
    small = heat_maps(f"{name}: the heads of the last layer", panels, len(panels))
    text = "A row is a token of the model's translation, a column one of the source that it attends to."
    return [Section("Attention to the source", [text, Gallery([large, small])])]


def data(run: RunData) -> Section:
    """Return the corpora that the run was trained and validated on."""
    rows = [
        (name, f"{corpus.sentences:,}", f"{corpus.tokens:,}", f"{corpus.tokens / max(corpus.sentences, 1):.1f}")
        for name, corpus in run.header.corpora.items()
    ]
    text = (
        f"Vocabulary of {len(run.vocab):,}; its unigram entropy, the loss of a model that knows only the frequency of "
        f"each token, is {run.monitor.entropy:.2f}. Prepared as {run.shown(run.settings.get('data.path'))}, "
        f"fingerprint {run.header.fingerprint[:12]}."
    )
    return Section("Data", [Table(("corpus", "sentences", "tokens", "tokens per sentence"), rows), text])


def settings(run: RunData) -> Section:
    """Return the differences from the nearest preset, and all settings."""
    preset, changed = nearest_preset(run.settings)
    blocks: list[Block] = [f"As in the preset {preset}." if preset else "There is no preset to compare with."]
    if preset and changed:
        rows = [(key, _plain(old), run.shown(_plain(new))) for key, old, new in changed]
        blocks = [f"Nearest preset: {preset}. Differences:", Table(("setting", preset, "this run"), rows, range(3))]
    every = {key: run.shown(value) for key, value in run.settings.items()}
    return Section("Settings", [*blocks, Section("All settings", [_listed("setting", every)], folded=True)])


def environment(run: RunData) -> Section:
    """Return versions and machine."""
    found = run.environment | {"code": run.environment.get("code", "")[:12]}
    return Section("Environment", [_listed("name", found)])


def _listed(kind: str, values: dict[str, Any]) -> Table:
    return Table((kind, "value"), [(key, _plain(value)) for key, value in values.items()], range(2))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def model_sections(run: RunData, views: Views) -> Iterator[Section]:
    """Yield the sections of one run below its curves."""
    yield from cloze_examples(views.cloze)
    yield from predictions(run)
    yield from translations(run)
    yield from sentence_pca(run.name, views.pca)
    yield from attention_maps(run.name, views.attention)
    yield from source_attention(run.name, views.source_attention)
    yield data(run)
    yield settings(run)
    yield environment(run)
