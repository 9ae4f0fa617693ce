"""A model trained by CLM alone, in use."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.pages import check_page
from tests.support.tiny import tiny_config
from tests.support.training import train_alone
from xlmtrain.commands import evaluate as evaluate_tool
from xlmtrain.errors import ConfigError
from xlmtrain.pretrained import PretrainedModel, load
from xlmtrain.report.model_views import view
from xlmtrain.report.report import report_page
from xlmtrain.report.run_data import RunData


@pytest.fixture(scope="module")
def causal(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of CLM alone."""
    path = tmp_path_factory.mktemp("causal") / "run"
    clm = {"data.mlm": {}, "data.tlm": {}, "data.clm": {"de": 1.0, "en": 1.0}, "evaluate.metric": "valid/clm_ppl"}
    train_alone(tiny_config(path, tiny_dataset, {**clm, "train.steps": 30, "evaluate.every": 10}))
    return path


@pytest.fixture(scope="module")
def model(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> PretrainedModel:
    """A model of masked words beside it."""
    path = tmp_path_factory.mktemp("masked") / "run"
    train_alone(tiny_config(path, tiny_dataset, {"train.steps": 1}))
    return load(path)


def inputs(model: PretrainedModel, text: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[1, *model.text.ids(text, "de"), 1]])
    return ids, torch.arange(ids.shape[1])[None], torch.zeros_like(ids)


def test_a_causal_model_sees_what_is_before(causal: Path, model: PretrainedModel) -> None:
    mine = load(causal)
    assert mine.causal
    assert not model.causal
    first = mine.embed(["a b c", "d e"], "de", pooling="first")
    assert (first[0] == first[1]).all()
    whole, part = (
        [*mine.model.encoder.hidden_states(*inputs(mine, text), None, True)][-1] for text in ("a b c", "a b")
    )
    assert torch.equal(whole[0, :3], part[0, :3])
    assert mine.embed(["a b c"], "de")[0] == pytest.approx(whole[0].mean(dim=0).detach().numpy(), abs=1e-6)
    seen = [*model.model.encoder.hidden_states(*inputs(model, "a b c"), None, False)][-1]
    assert model.embed(["a b c"], "de")[0] == pytest.approx(seen[0].mean(dim=0).detach().numpy(), abs=1e-6)


def test_a_causal_score_is_the_chain_rules(causal: Path) -> None:
    mine = load(causal)
    ids, positions, languages = inputs(mine, "a d k n")
    states = [*mine.model.encoder.hidden_states(ids, positions, languages, None, True)][-1][0]
    logits = mine.model.head(states, mine.model.encoder.token_embeddings.weight).log_softmax(dim=1)
    expected = sum(logits[place, ids[0, place + 1]].item() for place in range(4))
    score, nothing = mine.score(["a d k n", ""], "de")
    assert (score.log_probability, score.tokens) == (pytest.approx(expected, rel=1e-5), 4)
    assert (nothing.log_probability, nothing.tokens) == (0, 0)


def test_a_causal_model_is_used_and_judged_by_what_it_learned(
    causal: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="trained by CLM alone, which has no masks to fill"):
        load(causal).fill_mask("a <mask>", "de")
    evaluate_tool.main([f"model={causal}", f"data={tiny_dataset}"])
    settings, _, *lines = capsys.readouterr().out.splitlines()
    assert "mask_prob" not in settings
    names = [line.split()[0] for line in lines]
    assert names == ["valid/de_clm", "valid/en_clm", "valid/clm"]
    record = RunData(causal)
    views = view(record, "de", 5)
    assert views.cloze == []
    assert views.attention is None
    assert len(views.retrieval) == 4
    check_page(report_page([(record, views)]))
