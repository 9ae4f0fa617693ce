"""xlmtrain export format=hf compares the folder with the run; every way of asking gives the same answers."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import xlmtrain
from tests.support.tiny import tiny_config
from tests.support.training import train_alone
from xlmtrain.commands import export as tool
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.hf import export, parity
from xlmtrain.interop.hf.model import write_hf_folder
from xlmtrain.interop.xlm.conversion import write_xlm_checkpoint

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="the tokenizers package is not installed")


@pytest.fixture(scope="module")
def run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    train_alone(tiny_config(path, tiny_dataset, {"train.steps": 60, "evaluate.every": 20, "train.save_every": 20}))
    return path


@pytest.fixture(scope="module")
def folder(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "tiny model"
    tool.main([f"model={run}", "format=hf", f"output={path}"])
    return path


def test_the_tool_compares_and_says_so(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool.main([f"model={run}", "format=hf", f"output={tmp_path / 'out'}"])
    printed = capsys.readouterr().out
    for language in ("de", "en"):
        assert re.search(
            rf"^{language}: transformers gives the same ids for (\d+) of \1 sentences$", printed, re.MULTILINE
        )
    (tmp_path / "own.de").write_text("a b c\nd\n")
    (tmp_path / "own.en").write_text("u v\n")
    tool.main([f"model={run}", "format=hf", f"output={tmp_path / 'own'}", f"sentences={tmp_path}/own.{{lang}}"])
    assert "de: transformers gives the same ids for 2 of 2" in capsys.readouterr().out
    with pytest.raises(DataError, match="exists already"):
        tool.main([f"model={run}", "format=hf", f"output={tmp_path / 'out'}"])
    with pytest.raises(DataError, match=r"nowhere\.de: cannot read the sentences"):
        tool.main([f"model={run}", "format=hf", f"output={tmp_path / 'no'}", "sentences=nowhere.{lang}"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "own", "own.de", "own.en"]


def test_every_way_gives_the_same_guesses(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours, transformers', and the original's file after XLM -> ours -> Hugging Face -> ours -> XLM."""
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "fill_mask", raising=False)
    own_pipeline = __import__("fill_mask").XLMFillMask
    write_xlm_checkpoint(read_model(folder), tmp_path / "model.pth")
    models = [xlmtrain.load(folder), xlmtrain.load(tmp_path / "model.pth", codes=run / "codes")]
    for lang, sentence in (("de", "a <mask> k d"), ("en", "u <mask>, v!")):
        expected = [(guess.word, guess.probability) for guess in xlmtrain.load(run).fill_mask(sentence, lang)[0]]
        for model in models:
            again = [(guess.word, guess.probability) for guess in model.fill_mask(sentence, lang)[0]]
            assert [word for word, _ in again] == [word for word, _ in expected]
            assert [p for _, p in again] == pytest.approx([p for _, p in expected], rel=1e-5)
        pipelines = (
            transformers.pipeline("fill-mask", model=str(folder / lang), top_k=5),
            own_pipeline.from_pretrained(str(folder), lang, top_k=5),
        )
        for pipeline in pipelines:
            guesses = pipeline(sentence)
            assert [guess["token_str"].strip() for guess in guesses] == [word for word, _ in expected]
            assert [guess["score"] for guess in guesses] == pytest.approx([p for _, p in expected], rel=1e-3)
    with pytest.raises(ValueError, match="the model knows de, en"):
        own_pipeline.from_pretrained(str(folder), "fr")


def test_language_changes_the_folders_own_answer(folder: Path) -> None:
    """What the card warns of: without langs it answers, and otherwise."""
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    tokens = torch.tensor([[1, 14, 5, 20, 1]])
    with torch.no_grad():
        answers = [model(tokens, langs=torch.full_like(tokens, i)).logits for i in (0, 1)] + [model(tokens).logits]
    assert all((answers[i] - answers[j]).abs().max() > 1e-3 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_the_cards_example_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code
    monkeypatch.chdir(folder.parent)
    names: dict[str, Any] = {}
    exec(code[1], names)
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert names["logits"].shape[-1] == names["model"].config.vocab_size
    for expected in (
        "| de | 120 |",
        "| de_mlm |",
        "Language ids: de = 0, en = 1",
        "optim.lr=0.01",
        "cased, accents and umlauts kept",
    ):
        assert expected in card, expected
    assert re.search(r"compared with those of training on \d+ sentences of de, \d+ sentences of en", card)


def damaged(damage: str) -> Any:
    def write(model: PretrainedBundle, directory: Path) -> None:
        write_hf_folder(model, directory)
        if damage == "ids":
            file = directory / "de" / "tokenizer.json"
            file.write_text(
                file.read_text(encoding="utf-8")
                .replace('"a</w>"', '"tmp"')
                .replace('"b</w>"', '"a</w>"')
                .replace('"tmp"', '"b</w>"')
            )
        else:
            file = directory / damage / "model.safetensors"
            tensors = load_file(file)
            tensors["transformer.ffns.0.lin1.bias"][3] += 1e-3
            save_file(tensors, file, {"format": "pt"})

    return write


@pytest.mark.parametrize("damage", ["", "en", "ids"])
def test_a_folder_that_answers_otherwise_is_not_released(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(export, "write_hf_folder", damaged(damage))
    message = "other ids for .* sentences of de" if damage == "ids" else "transformers' logits differ by"
    with pytest.raises(DataError, match=message) as caught:
        tool.main([f"model={run}", "format=hf", f"output={tmp_path / 'out'}"])
    if damage == "ids":
        shown = str(caught.value).splitlines()[1:]
        assert len(shown) == 3 * parity.SHOWN
        assert shown[1].split("ours")[1] != shown[2].split("theirs")[1]
    assert not list(tmp_path.iterdir())


def test_without_transformers_it_is_said_how_to_get_them(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'xlmtrain\[hf\]'"):
        tool.main([f"model={run}", "format=hf", f"output={tmp_path / 'out'}"])
    assert not list(tmp_path.iterdir())


def test_without_its_data_the_run_needs_sentences(run: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(run, tmp_path / "run")
    settings = json.loads((moved / "config.json").read_text())
    settings["data"]["path"] = "gone"
    (moved / "config.json").write_text(json.dumps(settings))
    message = rf"sentences=\.\.\.\{{lang\}}: needed.* is not at gone \(looked in {re.escape(str(Path.cwd()))}\)"
    with pytest.raises(ConfigError, match=message):
        tool.main([f"model={moved}", "format=hf", f"output={tmp_path / 'out'}"])
