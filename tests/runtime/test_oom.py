"""What to do when the device has too little memory is said, and the run goes on from where it was when it is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.tiny import ALONE, run_processes, tiny_config
from tests.support.training import checkpoint, records, status, train_alone, train_on
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.validation import validation_sets
from xlmtrain.errors import DeviceOutOfMemory, UserError
from xlmtrain.evaluate.perplexity import evaluate_perplexity
from xlmtrain.model import language_model
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime import failpoints
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.oom import explain_oom, model_advice, step_advice
from xlmtrain.runtime.program import user_errors

SAME_DROPOUT: dict[str, Any] = {"model.dropout": 0.0, "model.attention_dropout": 0.0}


@pytest.mark.parametrize(
    ("at_once", "pair", "advice"),
    [
        (0, 10, "train.micro_batch_tokens=32 computes"),  # of a sub-batch of 64
        (4096, 10, "train.micro_batch_tokens=2048 computes"),
        (40, 10, "train.micro_batch_tokens=24 computes"),
        (24, 10, "train.sharding=full splits"),
    ],
)
def test_the_advice_is_half_until_a_pair_would_not_fit(tmp_path: Path, at_once: int, pair: int, advice: str) -> None:
    changes = {"train.micro_batch_tokens": at_once, "data.max_sentence_length": pair}
    with pytest.raises(DeviceOutOfMemory) as caught:
        with explain_oom(*step_advice(tiny_config(tmp_path, tmp_path, changes))):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of 1 GiB")
    assert f"(CUDA out of memory. Tried to allocate 2.00 GiB): {advice}" in str(caught.value)
    assert f"for a micro-batch of {at_once or 64:,} tokens" in str(caught.value)


def test_other_errors_are_what_they_were() -> None:
    with pytest.raises(RuntimeError, match="something else"), explain_oom(*model_advice()):
        raise RuntimeError("something else")


def test_a_run_that_is_short_of_memory_goes_on_with_smaller_parts(tiny_dataset: Path, tmp_path: Path) -> None:
    """The advice taken, its losses are those of the run that had enough memory from the start, up to rounding."""
    config = tiny_config(tmp_path / "run", tiny_dataset, SAME_DROPOUT)
    failpoints.arm("step:8:0:oom", rank=0)
    with pytest.raises(DeviceOutOfMemory, match=r"train\.micro_batch_tokens=32 computes the same batches") as caught:
        train_alone(config)
    assert caught.value.exit_code == 7
    assert status(config.run) == {"status": "failed", "reason": f"DeviceOutOfMemory: {caught.value}"}
    failpoints.arm(None, rank=0)
    config.train.micro_batch_tokens = 32
    assert train_alone(config).status == "done"
    straight = tiny_config(tmp_path / "straight", tiny_dataset, SAME_DROPOUT)
    train_alone(straight)
    losses, expected = ([r["train/loss"] for r in records(c.run) if "train/loss" in r] for c in (config, straight))
    assert losses == pytest.approx(expected, rel=1e-4)


def test_an_evaluation_that_does_not_fit_saves_and_names_its_setting(tiny_dataset: Path, tmp_path: Path) -> None:
    """The steps so far are saved, and the setting may change when the run is resumed."""
    config = tiny_config(tmp_path / "run", tiny_dataset, {"train.save_every": 100})
    failpoints.arm("evaluate:30:0:oom", rank=0)
    with pytest.raises(DeviceOutOfMemory, match=r"evaluate\.batch_tokens=32 evaluates the same text") as caught:
        train_alone(config)
    assert caught.value.exit_code == 7
    (step,) = {record["step"] for record in records(config.run)[-1:]}
    assert checkpoint(config.run, step).is_dir()
    failpoints.arm(None, rank=0)
    config.evaluate.batch_tokens = 32
    assert train_alone(config).status == "done"


def test_a_model_that_does_not_fit(tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("xlmtrain.commands.train.make_optimizer", full)
    with pytest.raises(DeviceOutOfMemory, match=r"the model and its optimizer state .*: train\.sharding=full"):
        train_alone(tiny_config(tmp_path / "run", tiny_dataset))
    assert not (tmp_path / "run").exists()


def test_logits_of_an_evaluation_are_made_in_parts(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"data.clm": {"de": 1.0}, "evaluate.batch_tokens": 4096}
    config, dataset = tiny_config("run", tiny_dataset, changes), Dataset(tiny_dataset)
    torch.manual_seed(0)
    model, sizes = LanguageModel(config.model, len(dataset.vocab), 2), []
    model.head.register_forward_hook(lambda module, inputs, output: sizes.append(output.numel()))
    sets = validation_sets(config, dataset)
    whole = evaluate_perplexity(model, sets, Precision.fp32, ALONE)
    assert max(sizes) > 2000
    monkeypatch.setattr(language_model, "MAX_LOGITS", 2000)
    sizes.clear()
    parts = evaluate_perplexity(model, sets, Precision.fp32, ALONE)
    assert max(sizes) <= 2000
    assert parts == pytest.approx(whole, rel=1e-5)


def test_every_program_explains_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, user_errors():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of 1 GiB")
    assert ended.value.code == 7
    assert "(CUDA out of memory. Tried to allocate 2.00 GiB): take a smaller batch" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="a bug"), user_errors():
        raise RuntimeError("a bug")


def end_of(distributed: Distributed, config: Config, action: str) -> tuple[int | None, str]:
    """Exit code and message of a run whose rank 1 fails in its second batch of evaluation."""
    failpoints.arm(f"evaluate:2:1:{action}", distributed.rank)
    try:
        train_on(distributed, config)
    except UserError as error:
        return error.exit_code, str(error)
    except RuntimeError as error:
        return None, str(error)
    return 0, "done"


@pytest.mark.parametrize(("action", "code"), [("oom", 7), ("raise", None)])
def test_an_error_of_one_rank_in_evaluation_reaches_all(
    tiny_dataset: Path, tmp_path: Path, action: str, code: int | None
) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset)
    (first, said), (second, _) = run_processes(2, end_of, tmp_path, config, action)
    assert (first, second) == (code, code)
    assert said.startswith("rank 1 failed: ")
