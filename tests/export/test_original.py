"""Our weights and the original's are the same under two sets of names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import Oracle

from xlmtrain.config.schema import ModelConfig
from xlmtrain.export.original import from_original, to_original
from xlmtrain.objective import LanguageModel


@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": False}, {"language_embeddings": False}, {"layers": 11}])
def test_there_and_back(changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    ours = LanguageModel(ModelConfig(**{"dim": 8, "layers": 2, "heads": 2, "max_positions": 6, **changes}), 30, 2)
    names = to_original(ours.state_dict())
    back = from_original(names)
    assert back.keys() == ours.state_dict().keys()
    assert all(torch.equal(back[name], value) for name, value in ours.state_dict().items())
    assert ("lang_embeddings.weight" in names) == ("language_embeddings" not in changes)
    tied = torch.equal(names["pred_layer.proj.weight"], names["embeddings.weight"])
    assert tied == ("tie_embeddings" not in changes)


def test_names_and_shapes_are_the_oracles(oracle: Oracle) -> None:
    state = oracle.group("state_dict.")
    again = to_original(from_original(state))
    assert again.keys() == state.keys() | {"pred_layer.proj.weight"}
    assert all(torch.equal(again[name], value) for name, value in state.items())


def test_names_are_all_those_of_the_full_reference(reference: dict[str, Any]) -> None:
    again = to_original(from_original(reference["state_dict"]))
    assert again.keys() == reference["state_dict"].keys()
    assert all(torch.equal(again[name], value) for name, value in reference["state_dict"].items())
    one_language = LanguageModel(ModelConfig(dim=64, layers=2, heads=4), 200, 1)
    assert set(to_original(one_language.state_dict())) == set(reference["keys_one_language"])
