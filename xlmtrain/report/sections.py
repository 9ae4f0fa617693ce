"""The parts of a report, from the first question (did it go well?) to the last (on which machine?)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Any

import numpy as np

from xlmtrain.data.sampling import OBJECTIVES
from xlmtrain.evaluate.cloze import ClozeExample
from xlmtrain.metrics.timer import duration
from xlmtrain.report.charts import Line, heat_map, heat_maps, line_chart, linked_points, number
from xlmtrain.report.page import folded, grid, paragraph, section, table, tiles
from xlmtrain.report.record import Piece, RunRecord
from xlmtrain.report.views import AttentionView, PairMap, Views

_SENTENCES, _MOMENTS, _WORDS_SHOWN = 2, 5, 10
_SMALL_MAPS = 16
_SPOKEN = {
    "valid/cloze_mono_acc": "hidden words found alone, %",
    "valid/cloze_parallel_acc": "hidden words found aided, %",
    "valid/retrieval_acc": "translations found, %",
    "valid/zero_shot_acc": "labels told in a new language, %",
}


def summary(run: RunRecord, views: Views) -> str:
    """The run in a few figures."""
    last, env = run.last, run.environment
    figures = [("status", run.status.get("status", "unknown"))]
    if last:
        seconds, tokens = last["progress/seconds"], last["progress/tokens"]
        figures += [
            ("steps", f"{last['step']:,}"),
            ("tokens", number(tokens)),
            ("of training", duration(seconds)),
            ("tokens/s", number(tokens / max(seconds, 1e-9))),
            ("peak memory a process", f"{max(r.get('speed/peak_memory_gb', 0) for r in run.records):.2f} GB"),
        ]
    figures += [(_spoken(name), f"{value:.2f}") for name, value in _best_figures(run, views.step)]
    where = f"{env['processes']} process(es) on {env['device']}; the model below is that of step {views.step:,}."
    return tiles(figures) + paragraph(where)


def findings(run: RunRecord) -> str:
    """What is wrong and what may be the cause, or that nothing is."""
    blocks = []
    for finding in run.findings():
        causes = "".join(f"<li>{escape(cause)}</li>" for cause in finding.causes)
        kind = "finding grave" if finding.grave else "finding"
        blocks.append(f'<div class="{kind}">{escape(finding.what)}{f"<ul>{causes}</ul>" if causes else ""}</div>')
    if not blocks:
        blocks.append('<div class="finding well">No plateau, divergence, overfitting or waste in the figures.</div>')
    return "\n".join(blocks)


def recovery(recovered: Sequence[ClozeExample]) -> str:
    """Does a translation help?"""
    if not recovered:
        return ""
    total = len(recovered)
    alone = sum(item.mono == item.gold for item in recovered) / total
    together = sum(item.parallel == item.gold for item in recovered) / total
    given_away = [item for item in recovered if item.parallel == item.gold != item.mono]
    others = [item for item in recovered if item not in given_away]
    shown = [*given_away[: _WORDS_SHOWN // 2], *others][:_WORDS_SHOWN]
    rows = [(i.sentence, i.translation, i.gold, i.mono, i.parallel) for i in shown]
    return section(
        "Does a translation help?",
        paragraph(
            f"One word was hidden in each of {total} validation sentences. The model's first guess is right in "
            f"{together:.1%} with the translation in view, in {alone:.1%} without. If the two do not differ, the "
            "languages have not met. Some that only the translation gave away come first."
        ),
        table(("sentence", "translation", "hidden", "guess without", "guess with"), rows),
    )


def masked_sentences(run: RunRecord) -> str:
    """The same masked sentences at several moments of training."""
    parts = []
    for name, moments in run.samples.items():
        chosen = sorted({round(i * (len(moments) - 1) / max(_MOMENTS - 1, 1)) for i in range(_MOMENTS)})
        for sentence in range(min(_SENTENCES, len(moments[-1][1]))):
            rows = "".join(
                f"<tr><td class=n>{moments[place][0]:,}</td><td>{_sentence(moments[place][1][sentence])}</td></tr>"
                for place in chosen
            )
            head = f"<h3>{escape(name.replace('_', ' '))}, sentence {sentence + 1}</h3>" if sentence == 0 else ""
            parts.append(
                f'{head}<div class="wide"><table><thead><tr><th class=n>step</th><th>hidden words as the model fills '
                f"them</th></tr></thead><tbody>{rows}</tbody></table></div>"
            )
    note = "Right guesses are green; of a wrong one, the hidden word is struck out and the guess follows."
    return section("Masked sentences over time", paragraph(note), *parts) if parts else ""


def retrieval(runs: Sequence[tuple[RunRecord, Views]]) -> str:
    """How many translations are found by each layer's sentence vectors."""
    charts, rows = [], []
    directions = dict.fromkeys(one.direction for _, v in runs for found in v.retrieval.values() for one in found)
    for direction in directions:
        lines = []
        for run, views in runs:
            for pooling in dict.fromkeys(pooling for pooling, _ in views.retrieval):
                points = [
                    (layer, one.top1)
                    for (p, layer), found in views.retrieval.items()
                    for one in found
                    if p == pooling and one.direction == direction and one.scoring == "cosine"
                ]
                label = f"{run.name}, {pooling}" if len(runs) > 1 else f"{pooling} of the states"
                lines.append(Line(label, [x for x, _ in points], [y for _, y in points]))
        charts.append(line_chart(f"{direction}: translations found first (%)", lines, "layer", floor=0.0))
    for run, views in runs:
        for (pooling, layer), found in views.retrieval.items():
            cells = [f"{one.top1:.1f} ({one.mrr:.3f})" for one in found]
            rows.append((*((run.name,) if len(runs) > 1 else ()), pooling, str(layer), *cells))
    if not rows:
        return ""
    some = next(v.retrieval for _, v in runs if v.retrieval)
    header = ["pooling", "layer", *(f"{one.direction} {one.scoring}" for one in next(iter(some.values())))]
    header = ["run", *header] if len(runs) > 1 else header
    return section(
        "Translations found by sentence vectors",
        paragraph(
            "Each validation sentence is looked for among all of the other language, by cosine. Layer 0 is the "
            "embeddings. Sentences that share names and numbers are found by these alone, so layer 0 is not at zero."
        ),
        grid(charts),
        folded("All figures: top-1 in % (mean reciprocal rank)", table(header, rows, range(1, len(header)))),
    )


def pair_map(name: str, pairs: PairMap | None) -> str:
    """Translations in a plane."""
    if pairs is None:
        return ""
    title = f"{name}: sentences of layer {pairs.layer}, {pairs.share:.0%} of the variance"
    return section(
        "A map of translation pairs",
        paragraph(
            "Sentence vectors in the plane of their two principal components, each linked with its translation. Short "
            "links, and colours that mix, mean that the languages share the space; two clouds that they do not."
        ),
        grid([linked_points(title, *pairs.points, pairs.languages, pairs.texts)]),
    )


def attention(name: str, view: AttentionView | None) -> str:
    """The head that looks across most, then all of them."""
    if view is None:
        return ""
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
    small = heat_maps(title, panels, columns, view.words, view.split)
    return section(
        "Attention across a sentence pair",
        paragraph(
            f"“{view.truth}” is hidden, the model guesses “{view.guess}”. A row looks at the columns; the lines part "
            "the two languages, so the upper right and the lower left are looks across."
        ),
        grid([large, small]),
    )


def data(run: RunRecord) -> str:
    """What the run was trained and judged on."""
    rows = [
        (name, f"{c.sentences:,}", f"{c.tokens:,}", f"{c.tokens / max(c.sentences, 1):.1f}")
        for name, c in run.header.corpora.items()
    ]
    text = (
        f"Vocabulary of {len(run.vocab):,}; knowing the frequency of each token alone gives a loss of "
        f"{run.adviser.entropy:.2f}. Prepared as {run.settings.get('data.path')}, fingerprint "
        f"{run.header.fingerprint[:12]}."
    )
    return section("Data", table(("corpus", "sentences", "tokens", "a sentence"), rows, (1, 2, 3)), paragraph(text))


def settings(run: RunRecord) -> str:
    """The differences from the nearest preset, and everything."""
    preset, changed = run.adviser.preset
    if changed:
        rows = [(key, _plain(old), _plain(new)) for key, old, new in changed]
        shown = paragraph(f"Nearest preset: {preset}. What differs:") + table(("setting", preset, "this run"), rows)
    else:
        shown = paragraph(f"As in the preset {preset}.")
    full = table(("setting", "value"), [(key, _plain(value)) for key, value in run.settings.items()])
    return section("Settings", shown, folded("All settings", full))


def environment(run: RunRecord) -> str:
    """Versions and machine."""
    found = run.environment | {"code": run.environment.get("code", "")[:12]}
    return section("Environment", table(("what", "value"), [(key, _plain(value)) for key, value in found.items()]))


def comparison(runs: Sequence[tuple[RunRecord, Views]], differing: Iterable[Sequence[str]]) -> str:
    """A line for each run, and the settings in which they differ."""
    names = list(dict.fromkeys(name for run, views in runs for name, _ in _best_figures(run, views.step)))
    rows = []
    for run, views in runs:
        figures = dict(_best_figures(run, views.step))
        last = run.last
        total = len(views.recovered) or 1
        words = sum(i.parallel == i.gold for i in views.recovered) / total
        alone = sum(i.mono == i.gold for i in views.recovered) / total
        rows.append(
            (
                run.name,
                number(last["progress/tokens"]) if last else "0",
                *(f"{figures[name]:.2f}" if name in figures else "" for name in names),
                f"{alone:.0%} / {words:.0%}" if views.recovered else "",
            )
        )
    header = ("run", "tokens", *map(_spoken, names), "hidden words found without / with translation")
    changed = list(differing)
    parts = [table(header, rows, range(1, len(header)))]
    if changed:
        parts.append(table(("setting", *(run.name for run, _ in runs)), changed))
    return "\n".join(parts)


def _best_figures(run: RunRecord, step: int) -> list[tuple[str, float]]:
    """The mean validation figures at the step of the model that is looked at."""
    found = [record for record in run.records if record["step"] <= step and "valid/" in "".join(record)]
    names = [n for o in OBJECTIVES for n in (f"valid/{o}_ppl", f"valid/{o}_acc")] + list(_SPOKEN)
    return [(name, found[-1][name]) for name in names if found and name in found[-1]]


def _spoken(name: str) -> str:
    if name in _SPOKEN:
        return _SPOKEN[name]
    objective, what = name.partition("/")[2].split("_")
    return f"{objective.upper()} {'perplexity' if what == 'ppl' else 'accuracy, %'}"


def _sentence(words: Sequence[Piece]) -> str:
    """Subwords joined, ends of sentences as dots; a hidden part of a word keeps a hyphen for the rest."""
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


def ordered(run: RunRecord, views: Views) -> Iterator[str]:
    """The sections of one run below its curves."""
    yield recovery(views.recovered)
    yield masked_sentences(run)
    yield pair_map(run.name, views.pairs)
    yield attention(run.name, views.attention)
    yield data(run)
    yield settings(run)
    yield environment(run)
