"""Encoder-decoder checkpoints of the original: read, used, written again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.translation import batch_of, original_names, reference_model, small_model
from tests.support.xlm_model import save
from xlmtrain.config.prepare import TextConfig
from xlmtrain.errors import CheckpointError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.xlm.conversion import read_xlm_checkpoint, write_xlm_checkpoint
from xlmtrain.interop.xlm.pth import read_checkpoint_file
from xlmtrain.model.translation_model import TranslationModel


def read(path: Path) -> PretrainedBundle:
    bundle = read_xlm_checkpoint(path, [], TextConfig())
    bundle.check()
    return bundle


@pytest.fixture(scope="module")
def path(shared: Path) -> Path:
    return shared / "reference" / "translation-checkpoint.pth"


def test_the_originals_file_is_read(translation: dict[str, Any], path: Path) -> None:
    bundle = read(path)
    assert (bundle.languages, len(bundle.vocab), bundle.config.layers) == (["de", "en"], 200, 2)
    model, expected = bundle.module(), reference_model(translation)
    assert isinstance(model, TranslationModel)
    assert model.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_file_that_was_written_is_the_originals(translation: dict[str, Any], path: Path, tmp_path: Path) -> None:
    bundle = read(path)
    write_xlm_checkpoint(bundle, tmp_path / "again.pth")
    content = read_checkpoint_file(tmp_path / "again.pth")
    assert set(content) == set(translation["checkpoint"]["keys"])
    assert content["params"]["encoder_only"] is False
    for part in ("encoder", "decoder"):
        assert set(content[part]) == set(translation["checkpoint"][f"{part}_keys"])
        assert all(torch.equal(value, translation[part][name]) for name, value in content[part].items())
    again = read(tmp_path / "again.pth")
    assert all(torch.equal(value, bundle.weights[name]) for name, value in again.weights.items())


def test_names_of_several_processes_are_read(translation: dict[str, Any], path: Path, tmp_path: Path) -> None:
    write_xlm_checkpoint(read(path), tmp_path / "again.pth")
    content = read_checkpoint_file(tmp_path / "again.pth")
    for part in ("encoder", "decoder"):
        content[part] = {f"module.{name}": value for name, value in content[part].items()}
    weights = read(save(content, tmp_path / "several.pth")).weights
    assert all(torch.equal(value, translation["decoder"][n[8:]]) for n, value in original_names(weights).items()
               if n.startswith("decoder."))  # fmt: skip


def test_a_tied_table_is_written_on_both_sides(path: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tied = small_model(share_embeddings=True)
    bundle = replace(read(path), weights=tied.state_dict())
    bundle.check()
    write_xlm_checkpoint(bundle, tmp_path / "tied.pth")
    model = read(tmp_path / "tied.pth").module()
    content = read_checkpoint_file(tmp_path / "tied.pth")
    assert torch.equal(content["encoder"]["embeddings.weight"], content["decoder"]["embeddings.weight"])
    assert isinstance(model, TranslationModel)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(14, 200, (7, 3), generator=generator)
    same = {"lengths": torch.tensor([7, 7, 7]), "langs": torch.zeros(7, 3, dtype=torch.long)}
    case = {f"{side}_{key}": value for side in ("source", "target") for key, value in same.items()}
    batch = batch_of({"source": tokens, "target": tokens.flip(0), **case})
    assert torch.equal(model.logits(batch), tied.eval().logits(batch))


def test_a_damaged_decoder_is_refused(path: Path, tmp_path: Path) -> None:
    write_xlm_checkpoint(read(path), tmp_path / "again.pth")
    content = read_checkpoint_file(tmp_path / "again.pth")
    for name in ("encoder_attn.1.k_lin.bias", "layer_norm15.0.weight"):
        damaged = {**content, "decoder": {n: w for n, w in content["decoder"].items() if n != name}}
        with pytest.raises(CheckpointError, match=r"encoder_attn\.1\.k_lin\.bias|does not fit the model"):
            read(save(damaged, tmp_path / "damaged.pth"))
