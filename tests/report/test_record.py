"""What a report reads from a run: samples as they were written, curves over tokens, the nearest preset."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from statistics import mean

import pytest
from report.pages import check_page
from tiny import tiny_config
from training import train_alone

from xlmtrain.config.load import compose
from xlmtrain.config.presets import nearest_preset
from xlmtrain.config.schema import ClassifyConfig
from xlmtrain.errors import CheckpointError
from xlmtrain.report import curves
from xlmtrain.report.charts import number
from xlmtrain.report.curves import reference, reference_note, reference_of
from xlmtrain.report.record import Piece, RunRecord, pieces
from xlmtrain.report.report import report
from xlmtrain.report.views import Views, view


@pytest.fixture(scope="module")
def run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "run"
    dictionary = path.with_name("en-de.tsv")
    dictionary.write_text("".join(f"{a}\t{b}\n" for a, b in zip("abcd", "uvwx")), encoding="utf-8")
    labelled = {lang: path.with_name(f"labelled.{lang}.tsv") for lang in ("en", "de")}
    labelled["en"].write_text("yes\tu v\nno\tx w\n", encoding="utf-8")
    labelled["de"].write_text("yes\ta b\nno\tc d\n", encoding="utf-8")
    watched = {
        "evaluate.translations": 20,
        "evaluate.dictionary": str(dictionary),
        "evaluate.classify": ClassifyConfig({"en": str(labelled["en"])}, {"de": str(labelled["de"])}),
    }
    train_alone(tiny_config(path, tiny_dataset, {"train.steps": 10, **watched}))
    return path


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
    drawn = {re.findall("<figcaption>(.*?)</figcaption>", chart)[0]: chart for chart in curves.charts([record], "")}
    hidden = drawn["Hidden words found, alone and aided by the translation (%)"]
    assert re.findall("</i>(.*?) <b>", hidden) == ["de-en alone", "en-de alone", "de-en aided", "en-de aided"]
    last = record.records[-1]
    means = [mean(last[f"retrieval/{d}_layer{layer}_cosine_top1"] for d in ("de-en", "en-de")) for layer in (0, 1)]
    found = re.findall("</i>(.*?) <b>(.*?)</b>", drawn["Translations found first, both ways (%)"])
    assert found == [(f"layer {layer}", number(value)) for layer, value in enumerate(means)]
    assert re.findall("</i>(.*?) <b>", drawn["Labels told in a language they were not learned in (%)"]) == [
        "de layer 0",
        "de layer 1",
    ]
    words = re.findall("</i>(.*?) <b>", drawn["Words translated by the embeddings (CSLS, %)"])
    assert words == ["forward P@1", "backward P@1", "forward P@10", "backward P@10"]
    assert "alone" not in drawn["Validation perplexity"]
    page = report([(record, Views(step=10))])
    check_page(page)
    assert f"<b>{last['valid/aided_acc']:.2f}</b>hidden words found aided, %" in page


def test_a_reference_is_made_of_a_run(run: Path) -> None:
    record = RunRecord(run)
    made = reference_of(record, "tiny", "python train.py", "letters", points=3)
    tokens, losses = record.curve("train/mlm_loss")
    assert made["curves"]["train/mlm_loss"][0] == [int(tokens[0]), pytest.approx(losses[0], rel=1e-3)]
    assert made["curves"]["train/mlm_loss"][-1] == [int(tokens[-1]), pytest.approx(losses[-1], rel=1e-3)]
    assert reference("no_such_preset") == {}


def test_the_dashed_lines_are_explained(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = RunRecord(run)
    monkeypatch.setattr(curves, "_DIRECTORY", tmp_path)
    made = reference_of(record, "tiny", "python train.py", "letters")
    assert reference_note(record, "tiny") == ""
    for data, note in (
        (made["data"], "Dashed: the preset tiny on the same text."),
        ("other", "Dashed: the preset tiny on other text (letters), to be compared by shape, not by level."),
    ):
        (tmp_path / "tiny.json").write_text(json.dumps({**made, "data": data}), encoding="utf-8")
        assert reference_note(record, "tiny") == note


@pytest.mark.parametrize("preset", [path.stem for path in Path(curves.__file__).with_name("reference").glob("*.json")])
def test_the_references_that_ship_are_of_presets(preset: str) -> None:
    assert compose("config", [f"experiment={preset}"]).run
    for name, points in reference(preset).items():
        tokens = [x for x, _ in points]
        assert tokens == sorted(tokens), name
        assert all(y > 0 for x, y in points if x > 0), name
