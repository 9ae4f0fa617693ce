"""The sections of a report with text to read: masked words, predictions and translations during training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape, unescape

from xlmtrain.evaluate.cloze import ClozeExample
from xlmtrain.evaluate.translation import TRANSLATION, read_examples
from xlmtrain.report.html import Block, Html, Section, Table
from xlmtrain.report.run_data import RunData
from xlmtrain.text.vocab import MASK, SPECIALS

_SENTENCES, _STEPS_SHOWN = 2, 5


def cloze_accuracy(examples: Sequence[ClozeExample]) -> tuple[float, float]:
    """Return the shares of masked words that were predicted without and with the translation in view."""
    total = max(len(examples), 1)
    alone = sum(example.mono == example.gold for example in examples)
    return alone / total, sum(example.parallel == example.gold for example in examples) / total


def cloze_examples(examples: Sequence[ClozeExample], shown: int = 10) -> list[Section]:
    """Return masked-word accuracy without and with the translation, and ``shown`` examples.

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
        if name.endswith(TRANSLATION):
            continue
        shown = [(step, text.splitlines()[:_SENTENCES]) for step, text in _some_steps(evaluations)]
        for i in range(min(len(lines) for _, lines in shown)):
            rows = [f"<tr><td class=n>{step:,}</td><td>{marked_sentence(lines[i])}</td></tr>" for step, lines in shown]
            title = f"<h3>{escape(name.replace('_', ' '))}</h3>" if i == 0 else ""
            head = "<thead><tr><th class=n>step</th><th>masked words as predicted</th></tr></thead>"
            body = f"<tbody>{''.join(rows)}</tbody>"
            parts.append(f'{title}<div class="wide"><table>{head}{body}</table></div>')
    note = "Right predictions are green. Of a wrong one, the masked word is struck out and the prediction follows."
    return [Section("Predictions during training", [note, Html("\n".join(parts))])] if parts else []


def _some_steps(evaluations: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return the first and last of ``evaluations``, and some between them."""
    chosen = sorted({round(i * (len(evaluations) - 1) / (_STEPS_SHOWN - 1)) for i in range(_STEPS_SHOWN)})
    return [evaluations[i] for i in chosen]


def translations(run: RunData) -> list[Section]:
    """Return translations of the same validation sentences at several steps of training."""
    parts: list[Block] = []
    for name, evaluations in run.samples.items():
        if not name.endswith(TRANSLATION):
            continue
        shown = [(f"{step:,}", read_examples(text)[:_SENTENCES]) for step, text in _some_steps(evaluations)]
        for i in range(min(len(found) for _, found in shown)):
            source, _, reference = shown[-1][1][i]
            rows = [("source", source), *((step, found[i][1]) for step, found in shown), ("reference", reference)]
            parts.append(Table(("step", name.removesuffix(TRANSLATION)), rows, left=(1,)))
    return [Section("Translations during training", parts)] if parts else []


def marked_sentence(line: str) -> str:
    """Return a line of evaluate/cloze's ``sample_predictions`` as HTML.

    ``[gold > predicted]`` and ``**[gold]**`` are coloured, subwords joined; a masked part of a word keeps a hyphen.
    Ends of sentences become dots.
    """
    text = unescape(line.partition(". ")[2]).replace(SPECIALS[MASK], "<mask>")
    words = re.sub(r"\*\*\[(\S+)\]\*\*|\[(\S+) > (\S+)\]|(\S+)", _marked_word, text)
    return re.sub(r"(· )+·", "·", words.replace("@@ ", "").replace("@@", "-").replace("&lt;/s&gt;", "·"))


def _marked_word(match: re.Match[str]) -> str:
    right, gold, predicted, word = (escape(text) if text else text for text in match.groups())
    if right:
        return f'<span class="right">{right}</span>'
    return word or f'<span class="wrong"><s>{gold}</s> {predicted}</span>'
