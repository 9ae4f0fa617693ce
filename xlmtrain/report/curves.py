"""Training curves of a run or of several, with the preset's recorded run as a reference."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from xlmtrain.config.data import OBJECTIVES
from xlmtrain.diagnostics.baseline import ReferenceCurve, nearest_preset, settings_that_matter
from xlmtrain.report.charts import Chart, Line, line_chart
from xlmtrain.report.run_data import RunData

_TOKENS = "tokens"
# Metric -> title, of those that have one value a step.
_SINGLE = {
    "train/lr": "Learning rate",
    "train/grad_norm": "Gradient norm, before clipping",
    "speed/tokens_per_second": "Tokens per second",
    "speed/generate_share": "Share of the time spent on back-translating",
}
# Cross-lingual metrics, which have charts of their own.
_CROSS_LINGUAL = ("_cloze_mono", "_cloze_parallel", "_retrieval", "_zero_shot")
_COMPARED = {
    ("train/", "_loss"): "training loss",
    ("valid/", "_ppl"): "validation perplexity",
    ("valid/", "_acc"): "validation accuracy (%)",
    ("valid/", "_bleu"): "validation BLEU",
}
# Metric -> name in a legend; others are language and objective.
_LABELS = {
    r"average/(.+)_(?:ppl|acc|bleu)": r"\1, averaged weights",
    r"valid/(.+)_cloze_mono_\w+": r"\1, sentence alone",
    r"valid/(.+)_cloze_parallel_\w+": r"\1, with translation",
    r"valid/(.+)_mt_bleu": r"\1",
    r"valid/(.+)_round_trip_bleu": r"\1 and back",
    r"zero_shot/(.+)_layer(\d+)_centered": r"\1 layer \2",
    r"bli/(.+)_csls_p(\d+)": r"\1 P@\2",
}
_REFERENCE_METRICS = ("train/mlm_loss", "train/tlm_loss", "train/clm_loss", "valid/")
_Curves = Mapping[str, list[list[float]]]


def curve_charts(runs: Sequence[RunData]) -> list[Chart]:
    """Return the charts of all metrics over tokens.

    Of one run, a chart for each kind of metric with a line for each language and objective; of several runs, a chart
    for each metric with a line for each run.
    """
    past = runs[0].monitor.reference
    made = list(_of_one(runs[0], past.curves if past else {}) if len(runs) == 1 else _compared(runs))
    for name, title in _SINGLE.items():
        lines = [Line(run.name if len(runs) > 1 else title, *run.curve(name)) for run in runs]
        floor, phases = None if name == "train/grad_norm" else 0.0, runs[0].phases if len(runs) == 1 else []
        made.append(line_chart(title, lines, _TOKENS, floor=floor, phases=phases))
    return [chart for chart in made if chart]


def _of_one(run: RunData, past: _Curves) -> Iterator[Chart | None]:
    chart = partial(line_chart, phases=run.phases)
    lines = _lines(run, past, run.names("train/", "_loss"))
    if end := run.curve("train/loss")[0]:
        lines.append(Line("unigram entropy", [0.0, end[-1]], [run.monitor.entropy] * 2, reference=True))
    yield chart("Training loss (nats per token)", lines, _TOKENS)
    titles = {"_ppl": "Validation perplexity", "_acc": "Validation accuracy (%)", "_bleu": "Validation BLEU"}
    for suffix, title in titles.items():
        names = [name for name in run.per_language(suffix) if not name.removesuffix(suffix).endswith(_CROSS_LINGUAL)]
        averaged = [name for name in run.names("average/", suffix) if name.replace("average", "valid", 1) in names]
        yield chart(title, _lines(run, past, names + averaged), _TOKENS, log=suffix == "_ppl")

    cloze = run.per_language("_cloze_mono_acc") + run.per_language("_cloze_parallel_acc")
    layers: dict[str, list[str]] = {}
    for name in run.names("retrieval/", "_cosine_top1"):
        layers.setdefault(name.removesuffix("_cosine_top1").rpartition("_layer")[2], []).append(name)
    retrieval = [_mean(run, names, f"layer {layer}") for layer, names in layers.items()]
    zero_shot = [name for name in run.names("zero_shot/", "_centered") if not name.endswith("_source_centered")]
    lexicon = run.names("bli/", "_csls_p1") + run.names("bli/", "_csls_p10")
    for title, lines in (
        ("Masked-word accuracy (%)", _lines(run, past, cloze)),
        ("Bitext retrieval P@1, mean of both directions (%)", retrieval),
        ("Zero-shot accuracy (%)", _lines(run, past, zero_shot)),
        ("Bilingual lexicon induction from embeddings, CSLS (%)", _lines(run, past, lexicon)),
    ):
        yield chart(title, lines, _TOKENS, floor=0.0)


def _compared(runs: Sequence[RunData]) -> Iterator[Chart | None]:
    for (prefix, suffix), what in _COMPARED.items():
        for name in dict.fromkeys(name for run in runs for name in run.names(prefix, suffix)):
            if prefix == "train/" or any(name in run.per_language(suffix) for run in runs):
                lines = [Line(run.name, *run.curve(name)) for run in runs]
                yield line_chart(f"{_label(name)}: {what}", lines, _TOKENS, log=suffix == "_ppl")


def reference_note(run: RunData) -> str:
    """Return an explanation of the dashed lines; empty if there are none."""
    past = run.monitor.reference
    if past is None:
        return ""
    if past.trained_on == run.header.fingerprint_of("train"):
        return f"Dashed: the preset {past.preset} on the same text."
    if past.judged_on == run.header.fingerprint_of("valid"):
        return f"Dashed: the preset {past.preset}, trained on other text ({past.text}), validated on the same."
    return f"Dashed: the preset {past.preset} on other text ({past.text}), to be compared by shape, not by level."


def reference_of(run: RunData, points: int = 24) -> ReferenceCurve:
    """Return a run as ``configs/reference`` holds it, with about ``points`` points of each curve."""
    curves = {}
    for name in run.names("", ""):
        if name.startswith(_REFERENCE_METRICS):
            xs, ys = run.curve(name)
            kept = sorted({*range(0, len(xs), max(1, len(xs) // points)), len(xs) - 1})
            curves[name] = [[int(xs[i]), float(f"{ys[i]:.4g}")] for i in kept]
    preset, changed = nearest_preset(run.settings)
    command = " ".join(["xlmtrain train", f"experiment={preset}", *(f"{key}={new}" for key, _, new in changed)])
    corpora = run.header.corpora
    sources = dict.fromkeys(source for name in corpora if name.startswith("train.") for source in corpora[name].sources)
    text = f"{', '.join(sources)}; vocabulary of {len(run.vocab):,}"
    trained_on, judged_on = (run.header.fingerprint_of(split) for split in ("train", "valid"))
    return ReferenceCurve(preset, command, text, trained_on, judged_on, settings_that_matter(run.settings), curves)


def _lines(run: RunData, past: _Curves, names: Sequence[str]) -> list[Line]:
    """Return a line for each name, and then the reference's of those that it has, as far as the run has come."""
    lines = [Line(_label(name), *run.curve(name)) for name in names]
    references = [_reference_line(line, past[name]) for line, name in zip(lines, names) if name in past and line.xs]
    return lines + references


def _reference_line(line: Line, points: Sequence[Sequence[float]]) -> Line:
    """Return the reference beside ``line``, cut at the tokens that the run has seen.

    Its value there is given if the reference has a point near it; between distant points it is not known.
    """
    xs, ys = np.array(points).T
    end = min(line.xs[-1], xs[-1])
    near = bool(np.abs(xs - end).min() <= 0.05 * end)
    before = xs < end
    cut = [*ys[before].tolist(), float(np.interp(end, xs, ys))]
    return Line(f"{line.name}, preset", [*xs[before].tolist(), end], cut, reference=True, beside=line.name, valued=near)


def _mean(run: RunData, names: Sequence[str], label: str) -> Line:
    curves = [run.curve(name) for name in names]
    return Line(label, curves[-1][0], [sum(values) / len(values) for values in zip(*(ys for _, ys in curves))])


def _label(name: str) -> str:
    """``valid/de_mlm_ppl`` -> ``de MLM``, ``valid/de-en_cloze_parallel_ppl`` -> ``de-en, with translation``."""
    for pattern, label in _LABELS.items():
        if match := re.fullmatch(pattern, name):
            return match.expand(label)
    language, _, objective = name.partition("/")[2].rpartition("_")[0].rpartition("_")
    return f"{language} {objective.upper() if objective in OBJECTIVES else objective}".strip()
