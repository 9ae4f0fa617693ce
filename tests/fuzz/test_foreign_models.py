"""Models of other programs: ``.pth`` files of the original XLM, Hugging Face folders."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.test_data import VOCAB
from tests.fuzz.test_run import tensors_file
from tests.support.fuzzing import attempt, replaced
from tests.support.mutations import ODD_VALUES, damaged, damaged_json, mutated, mutated_value
from tests.support.xlm_files import FORMATS, write_data
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.prepare import TextConfig
from xlmtrain.interop.bundle import PretrainedBundle, Provenance
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.hf.model import write_hf_folder
from xlmtrain.interop.xlm.conversion import write_xlm_checkpoint
from xlmtrain.interop.xlm.data import import_data
from xlmtrain.interop.xlm.pth import read_checkpoint_file, read_data_file
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.text.bpe import Code

CONFIG = ModelConfig(dim=8, layers=1, heads=2, max_positions=16)
ODD: tuple[Any, ...] = (*ODD_VALUES, torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64), torch.tensor(float("nan")))


def small_model() -> PretrainedBundle:
    weights = LanguageModel(CONFIG, len(VOCAB), 2).state_dict()
    codes = [Code("a", "b", 1)]
    return PretrainedBundle(CONFIG, ["de", "en"], VOCAB, weights, TextConfig(), codes, Provenance("small"))


@pytest.fixture(scope="module")
def pth(place: Path) -> Path:
    write_xlm_checkpoint(small_model(), place / "model.pth")
    read_model(place / "model.pth")  # imports much of torch, which is no input's fault
    return place / "model.pth"


def with_pickle(path: Path, draw: st.DataObject) -> bytes:
    """Return an archive of torch with bytes of its pickle changed, and checksums that fit."""
    changed = path.with_name("changed.zip")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            whole = old.read(name)
            new.writestr(name, draw.draw(mutated(whole)) if name.endswith("data.pkl") else whole)
    return changed.read_bytes()


@given(draw=st.data(), kind=st.sampled_from(("bytes", "pickle", "values")))
def test_checkpoint_of_the_original(place: Path, pth: Path, draw: st.DataObject, kind: str) -> None:
    path = place / "damaged.pth"
    if kind == "values":
        torch.save(draw.draw(mutated_value(torch.load(pth, weights_only=True), ODD)), path)
    else:
        path.write_bytes(draw.draw(damaged(pth.read_bytes())) if kind == "bytes" else with_pickle(pth, draw))
    size = path.stat().st_size
    attempt(".pth of the original", lambda: read_checkpoint_file(path), size)
    bundle = attempt(".pth of the original, as a model", lambda: read_model(path), size)
    if bundle is not None:
        bundle.module()


@given(draw=st.data(), form=st.sampled_from(FORMATS), pickled=st.booleans())
def test_data_of_the_original(place: Path, draw: st.DataObject, form: str, pickled: bool) -> None:
    source, output = place / "binarized", place / "imported"
    source.mkdir(exist_ok=True)
    path = source / "train.de.pth"
    write_data(path, [[14, 15], [16]])
    if "torch" in form and "old" not in form and pickled:
        path.write_bytes(with_pickle(path, draw))
    else:
        path.write_bytes(draw.draw(damaged(path.read_bytes())))
    size = path.stat().st_size
    attempt("binarized data of the original", lambda: read_data_file(path), size)
    found = attempt(
        "binarized data of the original, imported", lambda: import_data(source, output, None, TextConfig()), size, place
    )
    if found is not None:
        output.rename(output.with_name(f"imported-{len([*place.iterdir()])}"))
    assert not output.exists()


@pytest.fixture(scope="module")
def folder(place: Path) -> Path:
    (place / "hf").mkdir()
    weights = LanguageModel(CONFIG, len(VOCAB), 1).state_dict()
    write_hf_folder(replace(small_model(), languages=["de"], weights=weights), place / "hf")
    return place / "hf"


HF_FILES = (
    *("config.json", "vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "xlmtrain.json"),
    "model.safetensors",
)


@given(draw=st.data(), file=st.sampled_from(HF_FILES), others=st.booleans())
def test_hugging_face_folder(folder: Path, draw: st.DataObject, file: str, others: bool) -> None:
    """``others``: without what this program adds, as other programs write it."""
    whole = (folder / file).read_bytes()
    if file.endswith(".json"):
        content = draw.draw(damaged_json(json.loads(whole)))
    elif file == "merges.txt":
        content = draw.draw(damaged(whole))
    else:
        end = 8 + int.from_bytes(whole[:8], "little")
        header = damaged_json(json.loads(whole[8:end])).map(lambda header: tensors_file(header, whole[end:]))
        content = draw.draw(st.one_of(damaged(whole), header))
    hidden = [folder / name for name in ("xlmtrain.json", "tokenizer.json") if others and name != file]
    for path in hidden:
        path.rename(path.with_suffix(".hidden"))
    try:
        with replaced(folder / file, content):
            bundle = attempt(f"Hugging Face {file}", lambda: read_model(folder), len(content))
            if bundle is not None:
                bundle.module()
                attempt("text with a Hugging Face model", lambda: bundle.pipeline().ids("ein Haus", "de"), len(content))
    finally:
        for path in hidden:
            path.with_suffix(".hidden").rename(path)
