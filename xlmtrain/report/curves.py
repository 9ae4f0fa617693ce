"""The curves of runs, alone or compared, with the preset's own as a reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from xlmtrain.data.sampling import OBJECTIVES
from xlmtrain.diagnostics.presets import Reference
from xlmtrain.report.charts import Line, line_chart
from xlmtrain.report.record import RunRecord

_TOKENS = "tokens"
# Figure -> title, of the ones that every run has once.
_SINGLE = {
    "train/lr": "Learning rate",
    "train/grad_norm": "Gradient norm, before clipping",
    "speed/tokens_per_second": "Tokens per second",
}
# Figures of languages that meet or do not: charts of their own.
_MEETING = ("cloze_mono", "cloze_parallel", "retrieval", "zero_shot")
# What the reference curves hold.
_KEPT = ("train/mlm_loss", "train/tlm_loss", "train/clm_loss", "valid/")


def charts(runs: Sequence[RunRecord]) -> list[str]:
    """A chart for each kind of figure with a line for each language and objective; of several runs a chart for each
    figure with a line for each run."""
    past = runs[0].adviser.reference
    made = list(_of_one(runs[0], past.curves if past else {}) if len(runs) == 1 else _compared(runs))
    for name, title in _SINGLE.items():
        lines = [_line(run, name, run.name if len(runs) > 1 else title) for run in runs]
        floor = 0.0 if name != "train/grad_norm" else None
        made.append(line_chart(title, lines, _TOKENS, floor=floor))
    return made


def _of_one(run: RunRecord, past: Mapping[str, list[list[float]]]) -> Iterator[str]:
    losses = run.names("train/", "_loss")
    lines = [_line(run, name, _short(name, "_loss")) for name in losses]
    lines += [_past(past, name, _short(name, "_loss")) for name in losses if name in past]
    end = run.curve("train/loss")[0]
    if end:
        lines.append(Line("frequencies alone", [0.0, end[-1]], [run.adviser.entropy] * 2, reference=True))
    yield line_chart("Training loss (nats a token)", lines, _TOKENS)
    for suffix, title, log in (("_ppl", "Validation perplexity", True), ("_acc", "Validation accuracy (%)", False)):
        names = [
            name for name in run.names("valid/", suffix) if not _is_mean(name, suffix) and not _is_meeting(name, suffix)
        ]
        drawn = [_line(run, name, _short(name, suffix)) for name in names]
        drawn += [_past(past, name, _short(name, suffix)) for name in names if name in past]
        yield line_chart(title, drawn, _TOKENS, log)
    yield from _meeting(run, past)


def _meeting(run: RunRecord, past: Mapping[str, list[list[float]]]) -> Iterator[str]:
    """Words found with and without the translation in view, sentences found by each layer, words found by vectors."""
    names = [name for kind in _MEETING[:2] for name in run.names("valid/", f"_{kind}_acc")]
    lines = [_line(run, name, _short(name, "_acc")) for name in names]
    lines += [_past(past, name, _short(name, "_acc")) for name in names if name in past]
    yield line_chart("Hidden words found, alone and aided by the translation (%)", lines, _TOKENS, floor=0.0)
    layers: dict[str, list[str]] = {}
    for name in run.names("retrieval/", "_cosine_top1"):
        layers.setdefault(name.removesuffix("_cosine_top1").rpartition("_")[2], []).append(name)
    lines = [_mean(run, some, layer.replace("layer", "layer ")) for layer, some in layers.items()]
    yield line_chart("Translations found first, both ways (%)", lines, _TOKENS, floor=0.0)
    lines = [
        _line(run, name, _layer_label(name))
        for name in run.names("zero_shot/", "_centered")
        if not name.endswith("_source_centered")
    ]
    yield line_chart("Labels told in a language they were not learned in (%)", lines, _TOKENS, floor=0.0)
    lines = [
        _line(run, name, _word_label(name)) for name in run.names("bli/", "_csls_p1") + run.names("bli/", "_csls_p10")
    ]
    yield line_chart("Words translated by the embeddings (CSLS, %)", lines, _TOKENS, floor=0.0)


def _is_mean(name: str, suffix: str) -> bool:
    """Return True for a mean over languages or pairs, like ``valid/mlm_ppl``."""
    return name.partition("/")[2].removesuffix(suffix) in (*OBJECTIVES, *_MEETING)


def _is_meeting(name: str, suffix: str) -> bool:
    return name.removesuffix(suffix).endswith(_MEETING)


def _compared(runs: Sequence[RunRecord]) -> Iterator[str]:
    for prefix, suffix, log in (("train/", "_loss", False), ("valid/", "_ppl", True), ("valid/", "_acc", False)):
        names = dict.fromkeys(name for run in runs for name in run.names(prefix, suffix))
        for name in names:
            what = {"_loss": "training loss", "_ppl": "validation perplexity", "_acc": "validation accuracy (%)"}[
                suffix
            ]
            if prefix == "train/" or not _is_mean(name, suffix):
                lines = [_line(run, name, run.name) for run in runs]
                yield line_chart(f"{_short(name, suffix)}: {what}", lines, _TOKENS, log)


def reference_note(run: RunRecord) -> str:
    """What the dashed lines are; empty if there are none."""
    past = run.adviser.reference
    if past is None:
        return ""
    if past.trained_on == run.header.fingerprint_of("train"):
        return f"Dashed: the preset {past.preset} on the same text."
    if past.judged_on == run.header.fingerprint_of("valid"):
        return f"Dashed: the preset {past.preset}, trained on other text ({past.text}), validated on the same."
    return f"Dashed: the preset {past.preset} on other text ({past.text}), to be compared by shape, not by level."


def reference_of(run: RunRecord, points: int = 24) -> Reference:
    """What ``configs/reference`` may hold of a run: about ``points`` points of each curve."""
    curves = {}
    for name in run.names("", ""):
        if name.startswith(_KEPT):
            xs, ys = run.curve(name)
            every = max(1, len(xs) // points)
            kept = sorted({*range(0, len(xs), every), len(xs) - 1})
            curves[name] = [[int(xs[i]), float(f"{ys[i]:.4g}")] for i in kept]
    preset, changed = run.adviser.preset
    command = " ".join(["python train.py", f"experiment={preset}", *(f"{key}={new}" for key, _, new in changed)])
    corpora = run.header.corpora
    sources = dict.fromkeys(source for name in corpora if name.startswith("train.") for source in corpora[name].sources)
    text = f"{', '.join(sources)}; vocabulary of {len(run.vocab):,}"
    trained_on, judged_on = (run.header.fingerprint_of(split) for split in ("train", "valid"))
    return Reference(preset, command, text, trained_on, judged_on, curves)


def _line(run: RunRecord, name: str, label: str) -> Line:
    return Line(label, *run.curve(name))


def _mean(run: RunRecord, names: Sequence[str], label: str) -> Line:
    xs: list[float] = []
    curves: list[list[float]] = []
    for name in names:
        xs, ys = run.curve(name)
        curves.append(ys)
    return Line(label, xs, [sum(values) / len(values) for values in zip(*curves)])


def _layer_label(name: str) -> str:
    """``zero_shot/de_layer2_centered`` -> ``de layer 2``."""
    return name.partition("/")[2].rpartition("_")[0].replace("_layer", " layer ")


def _word_label(name: str) -> str:
    """``bli/en-de_csls_p1`` -> ``en-de P@1``."""
    direction, _, most = name.partition("/")[2].split("_")
    return f"{direction} P@{most[1:]}"


def _past(past: Mapping[str, list[list[float]]], name: str, label: str) -> Line:
    """What the preset's own run showed under the name of this run's line."""
    xs, ys = zip(*past[name])
    return Line(f"{label}, preset", xs, ys, reference=True, beside=label)


def _short(name: str, suffix: str) -> str:
    """``valid/de_mlm_ppl`` -> ``de MLM``, ``valid/de-en_cloze_parallel_ppl`` -> ``de-en cloze parallel``."""
    words = name.partition("/")[2].removesuffix(suffix).split("_")
    return " ".join(word.upper() if word in OBJECTIVES else word for word in words)
