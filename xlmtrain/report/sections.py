"""The sections of a report, from the first question (did it go well?) to the last (on which machine?)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import numpy as np

from xlmtrain.data.sampling import OBJECTIVES
from xlmtrain.diagnostics.baseline import nearest_preset
from xlmtrain.diagnostics.finding import Severity
from xlmtrain.evaluate.cloze import ClozeExample
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
from xlmtrain.report.html import Block, Fold, Gallery, Html, Section, Table, tiles
from xlmtrain.report.model_views import AttentionView, SentencePca, Views
from xlmtrain.report.run_data import Piece, RunData

_SENTENCES, _STEPS_SHOWN = 2, 5
_SMALL_MAPS = 16
# Metric -> label, beside perplexity and accuracy of each objective.
_LABELS = {
    "valid/cloze_mono_acc": "masked-word accuracy, sentence alone, %",
    "valid/cloze_parallel_acc": "masked-word accuracy, with translation, %",
    "valid/retrieval_acc": "bitext retrieval P@1, best layer, %",
    "valid/zero_shot_acc": "zero-shot accuracy, %",
}


def totals(run: RunData) -> list[tuple[str, str]]:
    """Return (label, value) of what the run cost; empty before the first step."""
    last = run.last
    if not last:
        return []
    seconds, tokens = last["progress/seconds"], last["progress/tokens"]
    memory = max(record.get("speed/peak_memory_gb", 0) for record in run.records)
    return [
        ("steps", f"{last['step']:,}"),
        ("tokens", number(tokens)),
        ("of training", duration(seconds)),
        ("tokens/s", number(tokens / max(seconds, 1e-9))),
        ("peak memory per process", f"{memory:.2f} GB"),
    ]


def overview(run: RunData, views: Views) -> list[Block]:
    """Return the run in a few values."""
    values = [("status", run.status.get("status", "unknown")), *totals(run)]
    values += [(_metric_label(name), f"{value:.2f}") for name, value in _best_metrics(run, views.step)]
    where = f"{run.environment['processes']} process(es) on {run.environment['device']}"
    return [tiles(values), f"{where}. The views below are of the model at step {views.step:,}."]


def findings(run: RunData) -> Html:
    """Return the problems with their likely causes, or that there are none."""
    blocks = []
    for finding in run.findings():
        causes = "".join(f"<li>{escape(cause)}</li>" for cause in finding.causes)
        kind = "finding error" if finding.severity is Severity.error else "finding"
        blocks.append(f'<div class="{kind}">{escape(finding.what)}{f"<ul>{causes}</ul>" if causes else ""}</div>')
    nothing = '<div class="finding ok">No plateau, divergence, overfitting or inefficiency found in the metrics.</div>'
    return Html("\n".join(blocks) or nothing)


def curves(runs: Sequence[RunData]) -> Section:
    """Return all metrics over tokens; of a single run also its validation in numbers."""
    if len(runs) > 1:
        return Section("Curves", [Gallery(curve_charts(runs))])
    note, table = reference_note(runs[0]), validation(runs[0])
    blocks: list[Block] = [note] if note else []
    blocks.append(Gallery(curve_charts(runs)))
    return Section("Curves", [*blocks, *(Fold(section.title, section.blocks) for section in table)])


def validation(run: RunData) -> list[Section]:
    """Return perplexity and accuracy of each set at every evaluation; nothing if there was none."""
    evaluations = [record for record in run.records if any(key.startswith("valid/") for key in record)]
    if not evaluations:
        return []
    names = [key.removesuffix("_ppl") for key in evaluations[0] if key.startswith("valid/") and key.endswith("_ppl")]
    names = [name for name in names if not name.endswith(("_cloze_mono", "_cloze_parallel"))]  # their means are enough
    rows = [
        (str(record["step"]), *(f"{record[f'{name}_ppl']:.2f} ({record[f'{name}_acc']:.1f})" for name in names))
        for record in evaluations
    ]
    header = ("step", *(name.removeprefix("valid/") for name in names))
    return [Section("Validation: perplexity (accuracy in %)", [Table(header, rows, left=())])]


def cloze_accuracy(examples: Sequence[ClozeExample]) -> tuple[float, float]:
    """Return the shares of masked words that were predicted without and with the translation in view."""
    total = max(len(examples), 1)
    alone = sum(example.mono == example.gold for example in examples)
    return alone / total, sum(example.parallel == example.gold for example in examples) / total


def cloze(examples: Sequence[ClozeExample], shown: int = 10) -> list[Section]:
    """Return masked-word accuracy without and with the translation, and ``shown`` examples; nothing without any.

    Examples that only the translation solved come first, in at most half of the rows.
    """
    if not examples:
        return []
    alone, together = cloze_accuracy(examples)
    solved = [example for example in examples if example.parallel == example.gold != example.mono]
    others = [example for example in examples if example not in solved]
    rows = [
        (example.sentence, example.translation, example.gold, example.mono, example.parallel)
        for example in [*solved[: shown // 2], *others][:shown]
    ]
    text = (
        f"One word was masked in each of {len(examples)} validation sentences. Masked-word accuracy (first guess): "
        f"{together:.1%} with the translation in view, {alone:.1%} without. If both are equal, there is no "
        "cross-lingual transfer yet. Examples that only the translation solved come first."
    )
    header = ("sentence", "translation", "masked", "guess without", "guess with")
    return [Section("Masked words without and with the translation", [text, Table(header, rows, left=range(5))])]


def predictions(run: RunData) -> list[Section]:
    """Return the same masked sentences at several steps of training."""
    parts = []
    for name, evaluations in run.samples.items():
        chosen = sorted({round(i * (len(evaluations) - 1) / (_STEPS_SHOWN - 1)) for i in range(_STEPS_SHOWN)})
        for sentence in range(min(_SENTENCES, len(evaluations[-1][1]))):
            rows = "".join(
                f"<tr><td class=n>{step:,}</td><td>{_sentence(sentences[sentence])}</td></tr>"
                for step, sentences in (evaluations[place] for place in chosen)
            )
            head = f"<h3>{escape(name.replace('_', ' '))}</h3>" if sentence == 0 else ""
            parts.append(
                f'{head}<div class="wide"><table><thead><tr><th class=n>step</th><th>masked words as predicted'
                f"</th></tr></thead><tbody>{rows}</tbody></table></div>"
            )
    note = "Right predictions are green. Of a wrong one, the masked word is struck out and the prediction follows."
    return [Section("Predictions during training", [note, Html("\n".join(parts))])] if parts else []


def retrieval(runs: Sequence[tuple[RunData, Views]]) -> list[Section]:
    """Return bitext retrieval by the sentence embeddings of each layer; nothing without validation pairs."""
    rows = []
    for run, views in runs:
        for (pooling, layer), found in views.retrieval.items():
            cells = [f"{one.top1:.1f} ({one.mrr:.3f})" for one in found]
            rows.append((*((run.name,) if len(runs) > 1 else ()), pooling, str(layer), *cells))
    if not rows:
        return []
    first = next(iter(next(views.retrieval for _, views in runs if views.retrieval).values()))
    header = ["pooling", "layer", *(f"{one.direction} {one.scoring}" for one in first)]
    header = ["run", *header] if len(runs) > 1 else header
    charts = [_retrieval_chart(runs, direction) for direction in dict.fromkeys(one.direction for one in first)]
    text = (
        "Each validation sentence is searched for among all of the other language, by cosine. Layer 0 is the token "
        "embeddings: shared names and numbers are enough to find some sentences there. The best layer is chosen on "
        "these same sentences, so its value is optimistic."
    )
    table = Fold("All values: P@1 in % (mean reciprocal rank)", [Table(header, rows)])
    return [
        Section("Bitext retrieval by sentence embeddings", [text, Gallery([chart for chart in charts if chart]), table])
    ]


def _retrieval_chart(runs: Sequence[tuple[RunData, Views]], direction: str) -> Chart | None:
    lines = []
    for run, views in runs:
        for pooling in dict.fromkeys(pooling for pooling, _ in views.retrieval):
            points = [
                (layer, one.top1)
                for (p, layer), found in views.retrieval.items()
                for one in found
                if p == pooling and one.direction == direction and one.scoring == "cosine"
            ]
            label = f"{run.name}, {pooling}" if len(runs) > 1 else f"{pooling} pooling"
            lines.append(Line(label, [x for x, _ in points], [y for _, y in points]))
    return line_chart(f"{direction}: bitext retrieval P@1 (%)", lines, "layer", floor=0.0)


def sentence_pca(name: str, pca: SentencePca | None) -> list[Section]:
    """Return translations on two principal components, with the texts of those that are numbered."""
    if pca is None:
        return []
    title = f"{name}: sentences of layer {pca.layer}, {pca.share:.0%} of the variance"
    items = "".join(
        "<li>"
        + "".join(f'<span><b style="color: {color}">●</b> {escape(text)}</span>' for text, color in zip(pair, COLORS))
        + "</li>"
        for pair in pca.texts[:NUMBERED]
    )
    text = (
        "Sentence embeddings on their first two principal components, each linked with its translation. Short links "
        "and mixed colours mean that the languages share the space; two separate clouds mean that they do not."
    )
    chart = paired_scatter(title, *pca.points, pca.languages)
    return [Section("PCA of sentence embeddings", [text, Gallery([chart], f'<ol class="pairs">{items}</ol>')])]


def attention(name: str, view: AttentionView | None) -> list[Section]:
    """Return the head with most attention to the other language, and an overview of all."""
    if view is None:
        return []
    across = view.across()
    layer, head = (int(i) for i in np.unravel_index(across.argmax(), across.shape))
    title = f"{name}: layer {layer + 1}, head {head + 1}: {across[layer, head]:.0%} of its attention across"
    large = heat_map(title, view.weights[layer, head], view.words, view.split)
    layers, heads = across.shape
    if layers * heads <= _SMALL_MAPS:
        panels = [
            (f"{i + 1}.{j + 1}: {across[i, j]:.0%}", view.weights[i, j]) for i in range(layers) for j in range(heads)
        ]
        title, columns = f"{name}: each layer.head, and its share across", heads
    else:
        panels = [(f"{i + 1}: {across[i].mean():.0%}", view.weights[i].mean(axis=0)) for i in range(layers)]
        title, columns = f"{name}: each layer, and its share across", layers
    text = (
        f"“{view.truth}” is masked, the prediction is “{view.guess}”. A row attends to the columns. The lines separate "
        "the two languages: the upper right and the lower left are attention across them."
    )
    small = heat_maps(title, panels, columns, view.split)
    return [Section("Attention across a sentence pair", [text, Gallery([large, small])])]


def data(run: RunData) -> Section:
    """Return the corpora that the run was trained and validated on."""
    rows = [
        (name, f"{corpus.sentences:,}", f"{corpus.tokens:,}", f"{corpus.tokens / max(corpus.sentences, 1):.1f}")
        for name, corpus in run.header.corpora.items()
    ]
    text = (
        f"Vocabulary of {len(run.vocab):,}; its unigram entropy, the loss of a model that knows only the frequency of "
        f"each token, is {run.monitor.entropy:.2f}. Prepared as {run.settings.get('data.path')}, fingerprint "
        f"{run.header.fingerprint[:12]}."
    )
    return Section("Data", [Table(("corpus", "sentences", "tokens", "tokens per sentence"), rows), text])


def settings(run: RunData) -> Section:
    """Return the differences from the nearest preset, and all settings."""
    preset, changed = nearest_preset(run.settings)
    blocks: list[Block] = [f"As in the preset {preset}." if preset else "There is no preset to compare with."]
    if preset and changed:
        rows = [(key, _plain(old), _plain(new)) for key, old, new in changed]
        blocks = [f"Nearest preset: {preset}. Differences:", Table(("setting", preset, "this run"), rows, range(3))]
    rows_of_all = [(key, _plain(value)) for key, value in run.settings.items()]
    return Section("Settings", [*blocks, Fold("All settings", [Table(("setting", "value"), rows_of_all, range(2))])])


def environment(run: RunData) -> Section:
    """Return versions and machine."""
    found = run.environment | {"code": run.environment.get("code", "")[:12]}
    rows = [(key, _plain(value)) for key, value in found.items()]
    return Section("Environment", [Table(("name", "value"), rows, range(2))])


def comparison(runs: Sequence[tuple[RunData, Views]], differing: Sequence[Sequence[str]]) -> list[Block]:
    """Return a row of metrics for each run, and the settings in which they differ."""
    names = list(dict.fromkeys(name for run, views in runs for name, _ in _best_metrics(run, views.step)))
    rows = []
    for run, views in runs:
        values, last = dict(_best_metrics(run, views.step)), run.last
        alone, together = cloze_accuracy(views.cloze)
        rows.append(
            (
                run.name,
                number(last["progress/tokens"]) if last else "0",
                *(f"{values[name]:.2f}" if name in values else "" for name in names),
                f"{alone:.0%} / {together:.0%}" if views.cloze else "",
            )
        )
    header = ("run", "tokens", *map(_metric_label, names), "masked words below, without / with translation")
    blocks: list[Block] = [Table(header, rows)]
    if differing:
        blocks.append(Table(("setting", *(run.name for run, _ in runs)), differing, range(1 + len(runs))))
    return blocks


def model_sections(run: RunData, views: Views) -> Iterator[Section]:
    """Yield the sections of one run below its curves."""
    yield from cloze(views.cloze)
    yield from predictions(run)
    yield from sentence_pca(run.name, views.pca)
    yield from attention(run.name, views.attention)
    yield data(run)
    yield settings(run)
    yield environment(run)


def _best_metrics(run: RunData, step: int) -> list[tuple[str, float]]:
    """Return the mean validation metrics at the step of the model that is shown."""
    found = [record for record in run.records if record["step"] <= step and "valid/" in "".join(record)]
    names = [n for o in OBJECTIVES for n in (f"valid/{o}_ppl", f"valid/{o}_acc")] + list(_LABELS)
    return [(name, found[-1][name]) for name in names if found and name in found[-1]]


def _metric_label(name: str) -> str:
    if name in _LABELS:
        return _LABELS[name]
    objective, kind = name.partition("/")[2].split("_")
    return f"{objective.upper()} {'perplexity' if kind == 'ppl' else 'accuracy, %'}"


def _sentence(words: Sequence[Piece]) -> str:
    """Join subwords; ends of sentences become dots, a masked part of a word keeps a hyphen."""
    text = " ".join(_word(piece) for piece in words).replace("@@ ", "").replace("@@", "-").replace("&lt;/s&gt;", "·")
    return re.sub(r"(· )+·", "·", text)


def _word(piece: Piece) -> str:
    if piece.guess is None:
        return escape(piece.word)
    if piece.guess == piece.word:
        return f'<span class="right">{escape(piece.word)}</span>'
    return f'<span class="wrong"><s>{escape(piece.word)}</s> {escape(piece.guess)}</span>'


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
