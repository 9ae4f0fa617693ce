"""Run directories: checkpoints, settings, status, metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.test_data import VOCAB, write_small_dataset
from tests.support.fuzzing import attempt, replaced
from tests.support.mutations import damaged, damaged_json
from tests.support.tiny import tiny_config
from xlmtrain.config.schema import config_as_json
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.run import average_checkpoints
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.report.run_data import RunData
from xlmtrain.runtime.atomic_io import sha256_of, write_json
from xlmtrain.train.checkpoint import CheckpointManager
from xlmtrain.train.checkpoint_io import read_checkpoint
from xlmtrain.train.state import TrainState

SETTINGS = {"data.mlm": {"de": 1.0}, "data.tlm": {"de-en": 1.0}}
PROGRESS: dict[str, Any] = {
    **{"step": 3, "seconds": 1.5, "evaluated": 2, "best": 4.5, "best_step": 2, "without_best": 0},
    **{"sampler_state": {"mlm.de": [0, 3]}, "tokens": 300, "skipped": 0, "losses": [5.0, 4.5], "spikes": 0},
}
RECORDS = [
    {"step": 1, "train/loss": 5.0, "progress/tokens": 100, "speed/tokens_per_second": 9.0, "optim/grad_norm": 1.0},
    {"step": 2, "train/loss": 4.5, "progress/tokens": 200, "train/grad_norm": 1.0},
    {"step": 2, "valid/de_mlm_ppl": 50.0, "valid/de_mlm_acc": 10.0},
]
STATUS = {"status": "failed", "reason": "x", "step": 3, "host": "h", "pid": 7, "time": "2026-01-01T00:00:00+00:00"}
STEP = "checkpoints/step-00000003"


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    """A run directory after three steps, with everything that a report or another run reads."""
    data = write_small_dataset(place / "data")
    path = data.rename(place / "run")
    config = tiny_config(path, place / "data", SETTINGS)
    write_json(path / "config.json", config_as_json(config))
    write_json(path / "status.json", STATUS)
    write_json(path / "environment.json", {"xlmtrain": "0.2.0", "processes": 1})
    (path / "metrics.jsonl").write_bytes(b"".join(json.dumps(record).encode() + b"\n" for record in RECORDS))
    weights = LanguageModel(config.model, len(VOCAB), 2).state_dict()
    state = {"progress": PROGRESS, "scaler": {}}
    manager = CheckpointManager(path / "checkpoints", keep_last=1)
    manager.save(3, weights, {"exp_avg.head.bias": torch.zeros(len(VOCAB))}, state)
    manager.mark_best(3, "valid/de_mlm_ppl", 50.0)
    read_model(path)  # imports much of torch, which is no input's fault
    return path


def fitting_manifest(checkpoint: Path) -> bytes:
    files = ("model.safetensors", "optimizer.safetensors", "state.json")
    sums = {
        name: {"bytes": (checkpoint / name).stat().st_size, "sha256": sha256_of(checkpoint / name)} for name in files
    }
    return json.dumps(sums).encode()


def tensors_file(header: bytes, content: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + content


@given(draw=st.data(), file=st.sampled_from(("model.safetensors", "optimizer.safetensors")))
def test_tensors(run: Path, draw: st.DataObject, file: str) -> None:
    """Bytes of the file changed, or its JSON header alone, with a manifest that fits."""
    path = run / STEP / file
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    header = damaged_json(json.loads(whole[8:end])).map(lambda header: tensors_file(header, whole[end:]))
    content = draw.draw(st.one_of(damaged(whole), header))
    with replaced(path, content), replaced(run / STEP / "manifest.json", fitting_manifest(run / STEP)):
        attempt("safetensors of a checkpoint", lambda: read_checkpoint(run / STEP), len(content))
        attempt("safetensors of a model", lambda: read_model(run), len(content))


@given(draw=st.data())
def test_manifest(run: Path, draw: st.DataObject) -> None:
    path = run / STEP / "manifest.json"
    content = draw.draw(damaged_json(json.loads(path.read_bytes())))
    with replaced(path, content):
        attempt("manifest.json", lambda: read_checkpoint(run / STEP), len(content))
        attempt("manifest.json", lambda: CheckpointManager(run / "checkpoints", 1).newest_intact(), len(content))


@given(content=damaged_json({"progress": PROGRESS, "scaler": {}}))
def test_state(run: Path, content: bytes) -> None:
    with replaced(run / STEP / "state.json", content):
        with replaced(run / STEP / "manifest.json", fitting_manifest(run / STEP)):
            attempt("state.json, of a model", lambda: read_model(run / STEP), len(content))
            checkpoint = attempt("state.json", lambda: read_checkpoint(run / STEP), len(content))
            if checkpoint is not None:
                attempt(
                    "state.json, resumed", lambda: TrainState.from_json(checkpoint.state.get("progress")), len(content)
                )


@example(content=b'{"step": {}}')
@example(content=b"[" * 5000)
@given(content=damaged_json({"step": 3, "metric": "valid/de_mlm_ppl", "value": 50.0}))
def test_best(run: Path, content: bytes) -> None:
    with replaced(run / "checkpoints" / "best.json", content):
        attempt("best.json", lambda: read_model(run), len(content))
        attempt("best.json, pruned", lambda: CheckpointManager(run / "checkpoints", 1).prune(3), len(content))
    assert (run / STEP).is_dir()


@given(draw=st.data(), file=st.sampled_from(("config.json", "dataset.json", "vocab", "codes", "metrics.jsonl")))
def test_files_of_a_model(run: Path, draw: st.DataObject, file: str) -> None:
    whole = (run / file).read_bytes()
    content = draw.draw(damaged_json(json.loads(whole)) if file.endswith(".json") else damaged(whole))
    with replaced(run / file, content):
        bundle = attempt("run directory as a model", lambda: read_model(run), len(content))
        if bundle is not None:
            bundle.module()
        attempt("mean of checkpoints", lambda: average_checkpoints([run / STEP, run / STEP]), len(content))


@given(draw=st.data(), file=st.sampled_from(("config.json", "status.json", "environment.json", "metrics.jsonl")))
def test_files_of_a_report(run: Path, draw: st.DataObject, file: str) -> None:
    whole = (run / file).read_bytes()
    if file.endswith(".json"):
        content = draw.draw(damaged_json(json.loads(whole)))
    else:
        lines = st.lists(st.sampled_from(RECORDS).flatmap(damaged_json), max_size=4).map(b"\n".join)
        content = draw.draw(st.one_of(lines, damaged(whole)))
    with replaced(run / file, content):
        attempt("run directory as a report", lambda: report(run), len(content))


def report(run: Path) -> None:
    data = RunData(run)
    data.findings()
    for name in ("train/loss", "valid/de_mlm_ppl"):
        data.curve(name)
    data.per_language("_ppl")
    for value in (*data.settings.values(), data.evaluations, data.last):
        data.shown(value)
