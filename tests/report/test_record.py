"""What a report reads from a run: samples as they were written, curves over tokens, the nearest preset."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest

from tests.support.pages import check_page, legend
from xlmtrain.config.load import compose
from xlmtrain.config.schema import flatten
from xlmtrain.diagnostics import baseline
from xlmtrain.diagnostics.baseline import nearest_preset
from xlmtrain.errors import CheckpointError, ConfigError
from xlmtrain.report.charts import number
from xlmtrain.report.curves import curve_charts, reference_note, reference_of
from xlmtrain.report.examples import marked_sentence
from xlmtrain.report.model_views import Views, view
from xlmtrain.report.report import report_page
from xlmtrain.report.run_data import RunData


def test_samples_are_read_as_they_were_written() -> None:
    text = "1. &lt;/s> ein@@ [Hund > &lt;special1>] **[bellt]** .\n2. a"
    assert [marked_sentence(line) for line in text.splitlines()] == [
        '· ein<span class="wrong"><s>Hund</s> &lt;mask&gt;</span> <span class="right">bellt</span> .',
        "a",
    ]


def test_samples_of_every_evaluation(run: Path) -> None:
    samples = RunData(run).samples
    assert set(samples) == {"de_mlm", "en_mlm", "de-en_tlm"}
    for evaluations in samples.values():
        assert [step for step, _ in evaluations] == [0, 5, 10]
        masked = [re.sub(r"\*\*\[(\S+)\]\*\*|\[(\S+) > \S+\]", r"[\1\2]", text) for _, text in evaluations]
        assert masked[0] == masked[1] == masked[2]  # the same sentences and masks each time
        assert "[" in masked[0].splitlines()[0]


def test_evaluations_stand_at_the_tokens_seen(run: Path) -> None:
    record = RunData(run)
    tokens, losses = record.curve("train/loss")
    assert tokens == [r["progress/tokens"] for r in record.records if "train/loss" in r]
    assert len(losses) == 10
    assert record.curve("valid/mlm_ppl")[0] == [0.0, tokens[4], tokens[9]]


def test_no_run_is_no_report(tiny_dataset: Path) -> None:
    with pytest.raises(CheckpointError, match=r"metrics.jsonl: missing; is this a run directory"):
        RunData(tiny_dataset)


def test_the_nearest_preset_and_its_differences() -> None:
    settings = flatten(compose("config", ["experiment=small_cpu", "run=x", "optim.lr=1"]))
    assert nearest_preset(settings) == ("small_cpu", [("optim.lr", 2e-3, 1.0)])


def test_a_failed_run_and_a_name_are_reported(run: Path, tmp_path: Path) -> None:
    record = RunData(run)
    record.name = "<b>run"
    record.status = {"status": "failed", "reason": "NumericalError: the gradient is not finite"}
    page = report_page([(record, Views(step=10))])
    check_page(page)
    assert "The run ended with an error: NumericalError: the gradient is not finite" in page
    assert "<h1>&lt;b&gt;run</h1>" in page


def test_views_of_a_model(run: Path) -> None:
    """The tiny text has no whole words to mask, so there is no attention; retrieval and PCA there are."""
    record = RunData(run)
    views = view(record, "de", 5)
    assert views.cloze == []
    assert set(views.retrieval) == {(pooling, layer) for pooling in ("mean", "first") for layer in (0, 1)}
    assert views.pca is not None
    assert views.pca.points[0].shape == views.pca.points[1].shape == (24, 2)  # one of the 25 pairs has an empty side
    assert 0 < views.pca.share <= 1
    check_page(report_page([(record, views)]))


def test_cross_lingual_curves(run: Path) -> None:
    """Both directions of a layer are one line, their mean."""
    record = RunData(run)
    drawn = {chart.title: chart for chart in curve_charts([record])}

    def entries(title: str) -> list[str]:
        """Return the names of the legend's entries without their values."""
        return [entry.rpartition(" ")[0] for entry in legend(drawn[title])]

    kinds = ("sentence alone", "with translation")
    assert entries("Masked-word accuracy (%)") == [f"{pair}, {kind}" for kind in kinds for pair in ("de-en", "en-de")]
    last = record.evaluations[-1]
    means = [mean(last[f"retrieval/{d}_layer{layer}_cosine_top1"] for d in ("de-en", "en-de")) for layer in (0, 1)]
    assert legend(drawn["Bitext retrieval P@1, mean of both directions (%)"]) == [
        f"layer {layer} {number(value)}" for layer, value in enumerate(means)
    ]
    assert entries("Zero-shot accuracy (%)") == ["de layer 0", "de layer 1"]
    assert entries("Bilingual lexicon induction from embeddings, CSLS (%)") == [
        "en-de P@1",
        "de-en P@1",
        "en-de P@10",
        "de-en P@10",
    ]
    assert not any("alone" in entry for entry in legend(drawn["Validation perplexity"]))
    page = report_page([(record, Views(step=10))])
    check_page(page)
    assert f"<b>{last['valid/cloze_parallel_acc']:.2f}</b>masked-word accuracy, with translation, %" in page


def test_a_reference_is_made_of_a_run(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = RunData(run)
    made = reference_of(record, points=3)
    tokens, losses = record.curve("train/mlm_loss")
    assert made.curves["train/mlm_loss"][0] == [int(tokens[0]), pytest.approx(losses[0], rel=1e-3)]
    assert made.curves["train/mlm_loss"][-1] == [int(tokens[-1]), pytest.approx(losses[-1], rel=1e-3)]
    assert f"xlmtrain train experiment={made.preset} " in made.command
    assert "train.steps=10" in made.command
    monkeypatch.setattr(baseline, "REFERENCES", tmp_path)
    (tmp_path / "any name.json").write_text(made.as_json(), encoding="utf-8")
    assert baseline.find_reference(record.settings, "", "") == made
    assert baseline.find_reference({"model.dim": 1}, made.trained_on, made.judged_on) is None


def test_of_several_references_the_one_on_the_same_text_is_taken(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = reference_of(RunData(run))
    monkeypatch.setattr(baseline, "REFERENCES", tmp_path)
    others = [replace(made, trained_on="other", text="1"), replace(made, trained_on="x", judged_on="y", text="2")]
    for one in [*others, made]:
        (tmp_path / f"{one.text[:1]}.json").write_text(one.as_json(), encoding="utf-8")
    assert baseline.find_reference(made.settings, made.trained_on, made.judged_on) == made
    assert baseline.find_reference(made.settings, "new", made.judged_on) in (others[0], made)
    assert baseline.find_reference(made.settings, "x", made.judged_on) == others[1]


def test_a_damaged_reference_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baseline, "REFERENCES", tmp_path)
    (tmp_path / "small_cpu.json").write_text('{"preset": "small_cpu"}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"small_cpu.json: no reference as xlmtrain report makes them"):
        baseline.find_reference({}, "", "")


def test_the_dashed_lines_are_explained(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baseline, "REFERENCES", tmp_path)
    made = replace(reference_of(RunData(run)), text="letters")
    assert reference_note(RunData(run)) == ""
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
        assert reference_note(RunData(run)) == note


def test_a_reference_is_cut_at_the_tokens_of_the_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value beside the run's is that of the same tokens, and is left out if no point of the reference is near."""
    made = reference_of(RunData(run))
    end = made.curves["valid/de_mlm_ppl"][-1][0]
    monkeypatch.setattr(baseline, "REFERENCES", tmp_path)
    for factor, value, entry in ((1.04, 23.0, " (preset 25)"), (1.5, 0.1, "")):
        points = [[0, 100.0], [end / 2, 50.0], [end * factor, value], [end * 9, 1.0]]
        longer = {**made.curves, "valid/de_mlm_ppl": points}
        (tmp_path / "tiny.json").write_text(replace(made, curves=longer).as_json(), encoding="utf-8")
        (chart,) = (chart for chart in curve_charts([RunData(run)]) if chart.title == "Validation perplexity")
        assert legend(chart)[0].partition(" (")[2] == entry.partition(" (")[2]
        dashed = chart.draw().axes[0].lines[3]
        assert list(dashed.get_xdata()) == [0, end / 2, end]
        assert dashed.get_ydata() == pytest.approx([100.0, 50.0, 25.0 if entry else 25.05])


@pytest.mark.parametrize("path", sorted(baseline.REFERENCES.glob("*.json")), ids=lambda path: path.stem)
def test_the_references_that_ship_are_of_presets(path: Path) -> None:
    found = baseline.ReferenceCurve.from_json(path.read_text(encoding="utf-8"))
    settings = flatten(compose("config", [f"experiment={found.preset}"]))
    assert found.settings == baseline.settings_that_matter(settings)
    assert baseline.find_reference(settings, found.trained_on, found.judged_on) == found
    for name, points in found.curves.items():
        tokens = [x for x, _ in points]
        assert tokens == sorted(tokens), name
        assert all(y > 0 for x, y in points if x > 0), name
