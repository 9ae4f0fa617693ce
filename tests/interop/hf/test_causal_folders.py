"""A causal model stays causal in folders of transformers and in every other format."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import xlmtrain
from tests.support.tiny import tiny_config
from tests.support.training import train_alone
from xlmtrain.commands import checkpoint as checkpoint_tool
from xlmtrain.commands import evaluate as evaluate_tool
from xlmtrain.commands import export as tool
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.hf.parity import check_hf_parity

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="the tokenizers package is not installed")


@pytest.fixture(scope="module")
def causal_run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("causal") / "run"
    clm = {"data.mlm": {}, "data.tlm": {}, "data.clm": {"de": 1.0, "en": 1.0}, "evaluate.metric": "valid/clm_ppl"}
    train_alone(
        tiny_config(path, tiny_dataset, {**clm, "train.steps": 10, "train.save_every": 5, "train.keep_last": 2})
    )
    return path


def test_a_causal_model_stays_causal_in_every_format(causal_run: Path, tmp_path: Path) -> None:
    expected = xlmtrain.load(causal_run).score(["a d k n"], "de")[0].log_probability
    sentences = tmp_path / "text"
    sentences.write_text("a b c\nd\n")
    for number, forms in enumerate((["run", "xlm", "run", "hf"], ["hf", "run"], ["xlm", "hf", "xlm"])):
        model, given = causal_run, []
        for step, form in enumerate(forms):
            output = tmp_path / f"{number}-{step}-{form}"
            extra = [f"sentences={sentences}"] if form == "hf" else []
            tool.main([f"model={model}", f"format={form}", f"output={output}", *given, *extra])
            model, given = output, [f"codes={causal_run / 'codes'}"] if form == "xlm" else []
            loaded = xlmtrain.load(model, codes=causal_run / "codes" if form == "xlm" else None)
            assert loaded.causal
            assert loaded.score(["a d k n"], "de")[0].log_probability == pytest.approx(expected, rel=1e-6)
            with pytest.raises(ConfigError, match="no masks to fill"):
                loaded.fill_mask("a <mask>", "de")


def test_a_causal_mean_is_evaluated_causally(
    causal_run: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint_tool.main(["average", f"run={causal_run}", "last=1", f"output={tmp_path / 'mean'}"])
    capsys.readouterr()
    printed = []
    for model in (causal_run / "checkpoints" / "step-00000010", tmp_path / "mean"):
        evaluate_tool.main([f"model={model}", f"data={tiny_dataset}", "sequence_length=16"])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "valid/clm" in printed[0]


def test_a_causal_folder_is_causal_for_transformers(
    causal_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "causal model"
    tool.main([f"model={causal_run}", "format=hf", f"output={folder}"])
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "A causal language model" in card
    assert "fill-mask" not in card
    assert not (folder / "fill_mask.py").exists()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code[1], names)
    with torch.no_grad():
        longer = names["model"](torch.cat([names["inputs"]["input_ids"], torch.tensor([[14, 15]])], dim=1)).logits
    assert torch.allclose(longer[:, : names["logits"].shape[1]], names["logits"], atol=1e-5)  # later tokens are unseen
    config = json.loads((folder / "de" / "config.json").read_text())
    (folder / "de" / "config.json").write_text(json.dumps({**config, "causal": False}))
    with pytest.raises(DataError, match="transformers' logits differ"):
        check_hf_parity(folder, read_model(causal_run), {"de": ["a b c d"], "en": ["u v"]})
