"""What a report reads from a run: samples as they were written, curves over tokens, the nearest preset."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean

import pytest

from tests.support.pages import check_page, legend
from xlmtrain.config.load import compose
from xlmtrain.diagnostics import presets
from xlmtrain.diagnostics.presets import nearest_preset
from xlmtrain.errors import CheckpointError, ConfigError
from xlmtrain.report import curves
from xlmtrain.report.charts import number
from xlmtrain.report.curves import reference_note, reference_of
from xlmtrain.report.record import Piece, RunRecord, pieces
from xlmtrain.report.report import report
from xlmtrain.report.views import Views, view


def test_samples_are_read_as_they_were_written() -> None:
    text = "1. &lt;/s> ein@@ [Hund > &lt;special1>] **[bellt]** .\n2. a"
    assert pieces(text) == [
        [Piece("</s>"), Piece("ein@@"), Piece("Hund", "<mask>"), Piece("bellt", "bellt"), Piece(".")],
        [Piece("a")],
    ]


def test_samples_of_every_evaluation(run: Path) -> None:
    samples = RunRecord(run).samples
    assert set(samples) == {"de_mlm", "en_mlm", "de-en_tlm"}
    for moments in samples.values():
        assert [step for step, _ in moments] == [0, 5, 10]
        words = [[[piece.word for piece in s] for s in sentences] for _, sentences in moments]
        assert words[0] == words[1] == words[2]  # the same sentences and masks each time
        assert any(piece.guess is not None for piece in moments[0][1][0])


def test_evaluations_stand_at_the_tokens_seen(run: Path) -> None:
    record = RunRecord(run)
    tokens, losses = record.curve("train/loss")
    assert tokens == [r["progress/tokens"] for r in record.records if "train/loss" in r]
    assert len(losses) == 10
    assert record.curve("valid/mlm_ppl")[0] == [0.0, tokens[4], tokens[9]]


def test_no_run_is_no_report(tiny_dataset: Path) -> None:
    with pytest.raises(CheckpointError, match=r"metrics.jsonl: missing; is this a run directory"):
        RunRecord(tiny_dataset)


def test_the_nearest_preset_and_its_differences() -> None:
    settings = json.loads(json.dumps(asdict(compose("config", ["experiment=small_cpu", "run=x", "optim.lr=1"]))))
    assert nearest_preset(settings) == ("small_cpu", [("optim.lr", 2e-3, 1.0)])


def test_a_failed_run_and_what_is_in_a_name_are_told(run: Path, tmp_path: Path) -> None:
    record = RunRecord(run)
    record.name = "<b>run"
    record.status = {"status": "failed", "reason": "NumericalError: the gradient is not finite"}
    page = report([(record, Views(step=10))])
    check_page(page)
    assert "The run ended with an error: NumericalError: the gradient is not finite" in page
    assert "<h1>&lt;b&gt;run</h1>" in page


def test_views_of_a_model(run: Path) -> None:
    """The tiny text has no whole words to hide, so there is no attention; retrieval and map there are."""
    record = RunRecord(run)
    views = view(record, "de", 5)
    assert views.recovered == []
    assert set(views.retrieval) == {(pooling, layer) for pooling in ("mean", "first") for layer in (0, 1)}
    assert views.pairs is not None
    assert views.pairs.points[0].shape == views.pairs.points[1].shape == (25, 2)
    assert 0 < views.pairs.share <= 1
    check_page(report([(record, views)]))


def test_curves_of_languages_that_meet(run: Path) -> None:
    """Both directions of a layer are one line, their mean."""
    record = RunRecord(run)
    drawn = {re.findall('aria-label="(.*?)"', chart)[0]: chart for chart in curves.charts([record])}
    hidden = drawn["Hidden words found, alone and aided by the translation (%)"]
    assert [name for name, _ in legend(hidden)] == [
        "de-en cloze mono",
        "en-de cloze mono",
        "de-en cloze parallel",
        "en-de cloze parallel",
    ]
    last = record.records[-1]
    means = [mean(last[f"retrieval/{d}_layer{layer}_cosine_top1"] for d in ("de-en", "en-de")) for layer in (0, 1)]
    assert legend(drawn["Translations found first, both ways (%)"]) == [
        (f"layer {layer}", number(value)) for layer, value in enumerate(means)
    ]
    assert [name for name, _ in legend(drawn["Labels told in a language they were not learned in (%)"])] == [
        "de layer 0",
        "de layer 1",
    ]
    assert [name for name, _ in legend(drawn["Words translated by the embeddings (CSLS, %)"])] == [
        "en-de P@1",
        "de-en P@1",
        "en-de P@10",
        "de-en P@10",
    ]
    assert "cloze" not in drawn["Validation perplexity"]
    page = report([(record, Views(step=10))])
    check_page(page)
    assert f"<b>{last['valid/cloze_parallel_acc']:.2f}</b>hidden words found aided, %" in page


def test_a_reference_is_made_of_a_run(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = RunRecord(run)
    made = reference_of(record, points=3)
    tokens, losses = record.curve("train/mlm_loss")
    assert made.curves["train/mlm_loss"][0] == [int(tokens[0]), pytest.approx(losses[0], rel=1e-3)]
    assert made.curves["train/mlm_loss"][-1] == [int(tokens[-1]), pytest.approx(losses[-1], rel=1e-3)]
    assert f"python train.py experiment={made.preset} " in made.command
    assert "train.steps=10" in made.command
    monkeypatch.setattr(presets, "REFERENCES", tmp_path)
    (tmp_path / "any name.json").write_text(made.as_json(), encoding="utf-8")
    assert presets.find_reference(made.preset, "", "") == made
    assert presets.find_reference("no_such_preset", made.trained_on, made.judged_on) is None


def test_of_several_references_the_one_on_the_same_text_is_taken(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = reference_of(RunRecord(run))
    monkeypatch.setattr(presets, "REFERENCES", tmp_path)
    others = [replace(made, trained_on="other", text="1"), replace(made, trained_on="x", judged_on="y", text="2")]
    for one in [*others, made]:
        (tmp_path / f"{one.text[:1]}.json").write_text(one.as_json(), encoding="utf-8")
    assert presets.find_reference(made.preset, made.trained_on, made.judged_on) == made
    assert presets.find_reference(made.preset, "new", made.judged_on) in (others[0], made)
    assert presets.find_reference(made.preset, "x", made.judged_on) == others[1]


def test_a_damaged_reference_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "REFERENCES", tmp_path)
    (tmp_path / "small_cpu.json").write_text('{"preset": "small_cpu"}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"small_cpu.json: no reference as tools/report.py makes them"):
        presets.find_reference("small_cpu", "", "")


def test_the_dashed_lines_are_explained(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "REFERENCES", tmp_path)
    made = replace(reference_of(RunRecord(run)), text="letters")
    assert reference_note(RunRecord(run)) == ""
    for trained_on, judged_on, note in (
        (made.trained_on, made.judged_on, f"Dashed: the preset {made.preset} on the same text."),
        (
            "x",
            made.judged_on,
            f"Dashed: the preset {made.preset}, trained on other text (letters), validated on the same.",
        ),
        ("x", "y", f"Dashed: the preset {made.preset} on other text (letters), to be compared by shape, not by level."),
    ):
        (tmp_path / "tiny.json").write_text(
            replace(made, trained_on=trained_on, judged_on=judged_on).as_json(), encoding="utf-8"
        )
        assert reference_note(RunRecord(run)) == note


@pytest.mark.parametrize("path", sorted(presets.REFERENCES.glob("*.json")), ids=lambda path: path.stem)
def test_the_references_that_ship_are_of_presets(path: Path) -> None:
    found = presets.Reference(**json.loads(path.read_text(encoding="utf-8")))
    assert compose("config", [f"experiment={found.preset}"]).run
    assert presets.find_reference(found.preset, found.trained_on, found.judged_on) == found
    for name, points in found.curves.items():
        tokens = [x for x, _ in points]
        assert tokens == sorted(tokens), name
        assert all(y > 0 for x, y in points if x > 0), name
