"""The data card tells sources, licences and what cleaning left, and is what huggingface_hub reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xlmtrain.commands import prepare, show_data
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.prepare import data_card

hub = pytest.importorskip("huggingface_hub", reason="needs the extra hf")


def test_the_card_of_prepared_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ["Die Katze schläft.", "Der Hund schläft.", "Die Katze schläft.", "", "Ein Vogel singt."]
    (tmp_path / "wikipedia-de.de.gz").write_text("\n".join(lines) + "\n")  # a name of the catalogue
    (tmp_path / "own.en").write_text("The dog sleeps.\nA bird sings.\n")
    (tmp_path / "held.de").write_text("Ein Vogel singt.\n")
    text = ["train.mono={de: [wikipedia-de.de.gz], en: [own.en]}", "valid.mono={de: [held.de]}"]
    prepare.main(["output=mine", *text, "bpe.merges=20", "workers=1", "clean.drop_duplicates=true"])
    show_data.main(["data=mine", "card=README.md", "licences={own.*: CC0}"])
    assert capsys.readouterr().out.endswith("card: README.md\n")
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    data = hub.DatasetCard(card).data
    assert (data.language, data.pretty_name, data.size_categories) == (["de", "en"], "mine", "n<1K")
    assert data.multilinguality == ["multilingual"]
    assert re.search(r"\| train.de \| wikipedia-de.de.gz \| 5 \| 2 \| CC BY-SA 4.0 ", card)
    assert "| train.en | own.en | 2 | 2 | CC0 |" in card
    assert "| valid.de | held.de | 1 | 1 | not known |" in card
    assert "| corpus | lines | empty | decontaminate | drop_duplicates | sentences |" in card
    assert "| train.de | 5 | 1 | 1 | 1 | 2 |" in card
    assert str(tmp_path) not in card
    with pytest.raises(DataError, match="exists already"):
        show_data.main(["data=mine", "card=README.md"])
    with pytest.raises(ConfigError, match=r"card: .* give data="):
        show_data.main(["card=README.md"])
    monkeypatch.setattr(data_card, "huggingface_hub", None)
    with pytest.raises(ConfigError, match="pip install"):
        show_data.main(["data=mine", "card=other.md"])


@pytest.mark.parametrize(("size", "short"), [(10**3, "1K"), (10**5, "100K"), (10**6, "1M"), (10**10, "10B")])
def test_sizes_as_the_hub_writes_them(size: int, short: str) -> None:
    assert data_card._short(size) == short
