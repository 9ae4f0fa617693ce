"""The model card is filled from the run's records, says what they lack, and is what huggingface_hub reads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import mean, stdev

import pytest

from tests.support.tiny import tiny_config
from tests.support.training import records, train_alone
from xlmtrain.commands import export as tool
from xlmtrain.download.catalogue import licences_of
from xlmtrain.errors import ConfigError
from xlmtrain.interop.bundle import Provenance
from xlmtrain.interop.hf.card_records import CardFacts, environment_section, grams
from xlmtrain.metrics.energy import NVML, UNKNOWN, DeviceEnergy

hub = pytest.importorskip("huggingface_hub", reason="needs the extra hf")
BLANKS = ("Hardware Type", "Hours used", "Cloud Provider", "Compute Region", "Energy", "Carbon Emitted")


def blanks(card: str) -> dict[str, str]:
    """The section on the environment: title -> text."""
    return {
        title: text for title, text in re.findall(r"^- \*\*(.+?):\*\* (.*)$", card, re.MULTILINE) if title in BLANKS
    }


@pytest.fixture(scope="module")
def runs(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three runs that differ in the seed alone."""
    place = tmp_path_factory.mktemp("seeds")
    made = [place / f"seed-{seed}" for seed in range(3)]
    for seed, run in enumerate(made):
        changes = {"seed": seed, "train.steps": 3, "train.save_every": 3, "evaluate.every": 3}
        train_alone(tiny_config(run, tiny_dataset, changes))
    return made


@pytest.fixture(scope="module")
def card(runs: list[Path]) -> str:
    output = runs[0].parent / "exported"
    facts = ["provider=own cluster", "region=DEU", "licences={train.de: CC0}", *(f"seeds={run}" for run in runs[1:])]
    tool.main([f"model={runs[0]}", "format=hf", f"output={output}", *facts])
    return (output / "README.md").read_text(encoding="utf-8")


def test_every_blank_is_filled(card: str, runs: list[Path]) -> None:
    found = blanks(card)
    assert list(found) == list(BLANKS)
    assert not [title for title, text in found.items() if "not known" in text]
    (used,) = json.loads((runs[0] / "checkpoints" / "step-00000003" / "state.json").read_text())["progress"]["energy"]
    assert found["Cloud Provider"] == "own cluster"
    assert used["device"] in found["Hardware Type"]
    assert used["method"] in found["Energy"]
    assert f"{381 * used['joules'] / 3.6e6:.3g} g of CO2" in found["Carbon Emitted"]
    assert "| de | 120 | " in card
    assert "| train.de | CC0 |" in card
    assert "| train.en | not known |" in card
    sections = re.findall("^## (.*)$", card, re.MULTILINE)
    assert sections == re.findall("^## (.*)$", template("modelcard"), re.MULTILINE)[: len(sections)]


def template(name: str) -> str:
    path = Path(hub.__file__).parent / "templates" / f"{name}_template.md"
    text = path.read_text(encoding="utf-8")
    return re.sub(
        r" \[optional\]|^## (Model Examination|Technical Specifications|Glossary|More Information).*\n",
        "",
        text,
        flags=re.M,
    )


def test_the_hubs_own_tools_read_the_metadata(card: str, runs: list[Path]) -> None:
    data = hub.ModelCard(card).data
    assert (data.language, data.library_name, data.pipeline_tag) == (["de", "en"], "transformers", "fill-mask")
    assert data.co2_eq_emissions["geographical_location"] == "DEU"
    own = next(record for record in reversed(records(runs[0])) if "valid/mlm_ppl" in record)
    results = {(result.dataset_config, result.metric_type): result.metric_value for result in data.eval_results}
    assert results["de_mlm", "perplexity"] == pytest.approx(own["valid/de_mlm_ppl"], abs=1e-4)
    assert results["de-en_tlm", "accuracy"] == pytest.approx(own["valid/de-en_tlm_acc"], abs=1e-4)
    assert hub.ModelCardData(**{**data.to_dict(), "model-index": None}).to_dict()["tags"] == ["xlmtrain", "xlm"]


def test_the_spread_is_that_of_the_seeds(card: str, runs: list[Path], tmp_path: Path) -> None:
    values = [
        next(r["valid/de_mlm_ppl"] for r in records(run) if r["step"] == 3 and "valid/de_mlm_ppl" in r) for run in runs
    ]
    assert f"{mean(values):.2f} ± {stdev(values):.2f}" in card
    assert "3 runs that differ in the seed alone" in card
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_bytes((runs[1] / "config.json").read_bytes())
    for other, message in (
        (runs[0], "has the seed 0, as another run"),
        (changed(runs[1], tmp_path), "optim.lr$"),
        (tmp_path / "begun", "lacks metrics"),
    ):
        with pytest.raises(ConfigError, match=message):
            tool.main([f"model={runs[0]}", "format=hf", f"output={tmp_path / 'out'}", f"seeds={other}"])


def changed(run: Path, directory: Path) -> Path:
    settings = json.loads((run / "config.json").read_text())
    settings["optim"]["lr"] = 0.5
    (directory / "config.json").write_text(json.dumps(settings))
    return directory


def test_the_card_of_an_exported_folder_keeps_the_records(card: str, runs: list[Path], tmp_path: Path) -> None:
    own = [f"sentences={tmp_path}/text.{{lang}}"]
    for language in ("de", "en"):
        (tmp_path / f"text.{language}").write_text("a b c\n")
    tool.main([f"model={runs[0].parent / 'exported'}", "format=hf", f"output={tmp_path / 'again'}", *own])
    again = blanks((tmp_path / "again" / "README.md").read_text(encoding="utf-8"))
    for title in ("Hardware Type", "Hours used", "Energy"):
        assert again[title] == blanks(card)[title]
    assert again["Cloud Provider"] == again["Compute Region"] == "not known"
    assert again["Carbon Emitted"].startswith("not known")


def test_what_is_not_known_is_said() -> None:
    assert {text.partition(",")[0] for text in blanks(environment_section(Provenance(""), CardFacts())).values()} == {
        "not known"
    }
    parts = [DeviceEnergy("NVIDIA H200", NVML, 7200, 3.6e6), DeviceEnergy("NVIDIA H200 MIG", UNKNOWN, 3600)]
    origin = Provenance("", energy=parts)
    found = blanks(environment_section(origin, CardFacts(region="moon", grams_per_kwh=500)))
    assert found["Hardware Type"] == "NVIDIA H200 (2 device hours), NVIDIA H200 MIG (1 device hours)"
    assert found["Energy"] == "1 kWh (NVIDIA H200 1 kWh, measured by NVML counter; NVIDIA H200 MIG not known)"
    assert found["Carbon Emitted"] == "500 g of CO2 equivalents, at 500 g per kWh (as given)"
    assert grams(origin, CardFacts(region="moon")) is None
    assert grams(origin, CardFacts(region="FRA")) == pytest.approx(56)


def test_licences_come_from_the_catalogue_unless_given() -> None:
    files = ["news-crawl-de-2007.de.gz", "own.de"]
    known = licences_of(files, {})
    assert "statmt.org" in known[files[0]]
    assert known[files[1]] == "not known"
    assert licences_of(files, {"news-*": "mine", "*.de": "CC0"}) == {files[0]: "mine", files[1]: "CC0"}
