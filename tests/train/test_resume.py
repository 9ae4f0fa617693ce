"""The same command again goes on exactly where the run was."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import tensorboard.summary.writer.event_file_writer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support import programs
from tests.support.tiny import ALONE, run_processes, tiny_config
from tests.support.training import assert_same_run, checkpoint, records, state, status, train_alone, train_on
from xlmtrain.commands.train import train
from xlmtrain.config.schema import Config
from xlmtrain.data.format import Header
from xlmtrain.data.loader import StepBatches
from xlmtrain.errors import CheckpointError, ConfigError
from xlmtrain.runtime.process import StopRequest
from xlmtrain.text.vocab import Vocab
from xlmtrain.train.step import StepOutput, TrainStep

CLM = {"data.clm": {"de": 1.0}}


@pytest.fixture(scope="module")
def straight(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps without a stop: an epoch of the pairs is over before the end, others are in their midst."""
    run = tmp_path_factory.mktemp("straight") / "run"
    outcome = train_alone(tiny_config(run, tiny_dataset, CLM))
    assert (outcome.status, outcome.reason) == ("done", "20 steps")
    return run


def crash_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The machine fails in step ``step`` (from 1), after its gradient."""
    original = TrainStep.__call__

    def fail(self: TrainStep, data: StepBatches, targets: list[float]) -> StepOutput:
        if data.step + 1 == step:
            raise RuntimeError("the machine failed")
        return original(self, data, targets)

    monkeypatch.setattr(TrainStep, "__call__", fail)


def test_straight_run_is_in_the_midst_of_epochs(straight: Path) -> None:
    position = state(straight, 20)["progress"]["sampler_state"]
    assert set(position) == {"mlm.de", "mlm.en", "tlm.de-en", "clm.de"}
    assert all(index > 0 for _, index in position.values())
    assert any(epoch > 0 for epoch, _ in position.values())
    assert [record["step"] for record in records(straight) if "train/loss" in record] == list(range(1, 21))
    assert [record["step"] for record in records(straight) if "valid/mlm_ppl" in record] == [0, 5, 10, 15, 20]


@pytest.mark.parametrize("stops", [(7,), (1, 1), (5, 3, 9)])
def test_stopped_and_resumed_is_the_straight_run(
    straight: Path, tiny_dataset: Path, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset, CLM)
    for steps in stops:
        outcome = train_alone(config, stop_after=steps)
        assert (outcome.status, outcome.signal) == ("preempted", signal.SIGTERM)
        assert status(config.run)["status"] == "preempted"
    assert checkpoint(config.run, sum(stops)).is_dir()
    assert train_alone(config).status == "done"
    assert status(config.run) == {"status": "done", "reason": "20 steps"}
    assert_same_run(straight, config.run, 20)


@pytest.mark.parametrize("step", [3, 8, 13])
def test_crashed_and_resumed_is_the_straight_run(
    straight: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Crashed before the first checkpoint, too: then it begins anew."""
    config = tiny_config(tmp_path / "run", tiny_dataset, CLM)
    with monkeypatch.context() as patch:
        crash_at(patch, step)
        with pytest.raises(RuntimeError, match="the machine failed"):
            train_alone(config)
    assert status(config.run) == {"status": "failed", "reason": "RuntimeError: the machine failed"}
    assert train_alone(config).status == "done"
    assert_same_run(straight, config.run, 20)


def test_a_real_signal_stops_after_the_step_and_saves(
    straight: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset, CLM)
    original = TrainStep.__call__

    def signalled(self: TrainStep, data: StepBatches, targets: list[float]) -> StepOutput:
        if data.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, data, targets)

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", signalled)
        outcome = train(config, ALONE, StopRequest())
    assert (outcome.status, outcome.signal) == ("preempted", signal.SIGTERM)
    assert checkpoint(config.run, 7).is_dir()
    assert train_alone(config).status == "done"
    assert_same_run(straight, config.run, 20)


def test_only_a_second_ctrl_c_ends_at_once() -> None:
    """Launchers pass on a SIGTERM that the process may have got already."""
    program = (
        "import os, signal; from xlmtrain.runtime.process import StopRequest; stop = StopRequest()\n"
        "for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1): os.kill(os.getpid(), number)\n"
        "print(stop.signal, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGINT); print('not reached')"
    )
    done = programs.run("-c", program, code=-signal.SIGINT)
    assert done.stdout.strip() == str(int(signal.SIGUSR1))


def test_a_finished_run_stays_as_it_is_and_can_be_prolonged(straight: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset, {**CLM, "train.steps": 12})
    train_alone(config)
    before = (checkpoint(config.run, 12) / "model.safetensors").stat().st_mtime_ns, records(config.run)
    assert train_alone(config).reason == "12 steps"
    assert before == ((checkpoint(config.run, 12) / "model.safetensors").stat().st_mtime_ns, records(config.run))
    config.train.steps = 20
    assert train_alone(config).reason == "20 steps"
    assert (checkpoint(straight, 20) / "model.safetensors").read_bytes() == (
        checkpoint(config.run, 20) / "model.safetensors"
    ).read_bytes()


def test_micro_batches_may_change_on_resume(straight: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    """The gradient stays the same up to the order of sums; dropout is drawn anew, so there is none here."""
    changes = {**CLM, "model.dropout": 0.0, "model.attention_dropout": 0.0}
    whole = tiny_config(tmp_path / "whole", tiny_dataset, changes)
    train_alone(whole)
    cut = tiny_config(tmp_path / "cut", tiny_dataset, changes)
    train_alone(cut, stop_after=9)
    cut.train.micro_batch_tokens = 32
    train_alone(cut)
    assert state(cut.run, 20)["progress"]["sampler_state"] == state(whole.run, 20)["progress"]["sampler_state"]
    assert_close(records(whole.run), records(cut.run))
    assert "train.micro_batch_tokens: 0 -> 32" in (Path(cut.run) / "log.txt").read_text(encoding="utf-8")


def assert_close(a: list[dict[str, Any]], b: list[dict[str, Any]], tolerance: float = 1e-5) -> None:
    """The same figures for the same steps; accuracies count hits, of which a near tie may tip one over."""
    assert [(record["step"], *record) for record in a] == [(record["step"], *record) for record in b]
    for one, other in zip(a, b):
        for name, value in one.items():
            if not name.endswith("_acc"):
                assert other[name] == pytest.approx(value, rel=tolerance), (name, one["step"])


def test_other_numbers_of_processes_train_the_same(straight: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    """1, then 2, then 1 again: the same sub-batches in the same batches, with the same dropout."""
    config = tiny_config(tmp_path / "run", tiny_dataset, CLM)
    assert train_alone(config, stop_after=7).status == "preempted"
    outcomes = run_processes(2, train_on, tmp_path, config, 7)
    assert [outcome.status for outcome in outcomes] == ["preempted", "preempted"]
    assert checkpoint(config.run, 14).is_dir()
    assert train_alone(config).status == "done"
    assert state(config.run, 20)["progress"]["sampler_state"] == state(straight, 20)["progress"]["sampler_state"]
    assert state(config.run, 20)["progress"]["tokens"] == state(straight, 20)["progress"]["tokens"]
    assert_close(records(straight), records(config.run))


def test_a_signal_to_one_process_stops_all(tiny_dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset, {"evaluate.every": 0})
    first, second = run_processes(2, stop_second, tmp_path, config)
    assert first.status == second.status == "preempted"
    assert (first.signal, second.signal) == (None, signal.SIGTERM)
    assert first.reason == "signal to another process"
    assert checkpoint(config.run, 3).is_dir()


def stop_second(distributed: Any, config: Config) -> Any:
    return train_on(distributed, config, 3 if distributed.rank == 1 else 10**6)


def test_settings_that_make_another_run_are_refused_with_a_diff(tiny_dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset)
    train_alone(config, stop_after=1)
    before = (tmp_path / "run" / "config.json").read_text(encoding="utf-8")
    config.model.dropout = 0.5
    config.train.batch_tokens = 128
    config.optim.lr = 0.5
    with pytest.raises(ConfigError) as caught:
        train_alone(config)
    message = str(caught.value)
    assert "this directory holds a run with other settings" in message
    assert "  model.dropout: 0.1 -> 0.5\n" in message
    assert "  train.batch_tokens: 256 -> 128\n" in message
    assert "optim.lr" not in message  # that alone could change
    assert "train.overwrite=true" in message
    assert (tmp_path / "run" / "config.json").read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("model", "layers", 2), ("mask", "prob", 0.3), ("data", "sampling_alpha", 0.1), ("data", "tlm", {})],
)
def test_each_setting_of_model_data_and_mask_is_held(
    tiny_dataset: Path, tmp_path: Path, section: str, key: str, value: Any
) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset)
    train_alone(config, stop_after=1)
    setattr(getattr(config, section), key, value)
    with pytest.raises(ConfigError, match=rf"{section}\.{key}"):
        train_alone(config)


def test_an_evaluation_that_came_later_is_no_other_run(tiny_dataset: Path, tmp_path: Path) -> None:
    """The presets of this version ask for one that the version did not have which a run began with."""
    config = tiny_config(tmp_path / "run", tiny_dataset)
    train_alone(config, stop_after=1)
    file = tmp_path / "run" / "config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    del settings["evaluate"]["max_pairs"]
    file.write_text(json.dumps(settings), encoding="utf-8")
    config.evaluate.max_pairs = 10
    train_alone(config, stop_after=1)
    config.evaluate.max_pairs = 20
    with pytest.raises(ConfigError, match=r"evaluate\.max_pairs: 10 -> 20"):
        train_alone(config)


def test_other_data_is_refused(tiny_dataset: Path, own_dataset: Path, tmp_path: Path) -> None:
    train_alone(tiny_config(tmp_path / "run", tiny_dataset), stop_after=1)
    train_alone(tiny_config(tmp_path / "run", own_dataset), stop_after=1)  # moved, but the same
    header, vocab = Header.read(own_dataset), Vocab.read(own_dataset / "vocab")
    Header.of(own_dataset, vocab, header.languages, {"lowercase": True}, header.corpora).write(own_dataset)
    with pytest.raises(ConfigError, match=r"the data: fingerprint .* -> "):
        train_alone(tiny_config(tmp_path / "run", own_dataset))


def test_allowed_changes_are_logged(tiny_dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset)
    train_alone(config, stop_after=2)
    config.optim.lr, config.evaluate.every = 0.005, 0
    train_alone(config, stop_after=2)
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert "setting changed since the last start: optim.lr: 0.01 -> 0.005" in log
    assert "setting changed since the last start: evaluate.every: 5 -> 0" in log
    assert json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))["optim"]["lr"] == 0.005


def test_fresh_begins_anew(straight: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset, {**CLM, "model.dropout": 0.3})
    train_alone(config, stop_after=8)
    config = tiny_config(tmp_path / "run", tiny_dataset, {**CLM, "train.overwrite": True})
    train_alone(config)
    assert_same_run(straight, config.run, 20)


def test_all_checkpoints_damaged_is_no_reason_to_begin_anew(tiny_dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset)
    train_alone(config, stop_after=2)
    (checkpoint(config.run, 2) / "model.safetensors").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"every checkpoint of the run is damaged[^$]*train\.overwrite=true"
    ) as caught:
        train_alone(config)
    assert caught.value.exit_code == 4
    assert status(config.run)["status"] == "failed"


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    straight: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset, CLM)
    train_alone(config, stop_after=13)
    path = checkpoint(config.run, 13) / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    train_alone(config)
    log = (Path(config.run) / "log.txt").read_text(encoding="utf-8")
    assert f"checkpoint passed over: {path}: its SHA-256 is not the manifest's" in log
    assert_same_run(straight, config.run, 20)


def test_resuming_in_another_precision(tiny_dataset: Path, tmp_path: Path) -> None:
    """train.precision may change: the loss scale then begins as in the settings, or is no longer used."""
    config = tiny_config(tmp_path / "run", tiny_dataset, {"train.initial_loss_scale": 1024.0})
    for steps, precision in enumerate(("fp32", "fp16", "bf16", "fp16"), start=1):
        config.train.precision = type(config.train.precision)(precision)
        assert train_alone(config, stop_after=2).status == "preempted"
        assert state(config.run, 2 * steps)["progress"]["step"] == 2 * steps
        assert ("train/loss_scale" in records(config.run)[-1]) == (precision == "fp16")


def test_two_processes_at_once_in_a_directory(tiny_dataset: Path, tmp_path: Path) -> None:
    from xlmtrain.runtime.lock import lock_directory

    (tmp_path / "run").mkdir()
    lock = lock_directory(tmp_path / "run")
    with pytest.raises(ConfigError, match="another process is training in this directory"):
        train_alone(tiny_config(tmp_path / "run", tiny_dataset))
    lock.close()
    assert train_alone(tiny_config(tmp_path / "run", tiny_dataset), stop_after=1).status == "preempted"


def test_patience_is_kept_over_a_resume(tiny_dataset: Path, tmp_path: Path) -> None:
    """A learning rate of almost nothing: no evaluation is better than the first; the third in a row ends the run."""
    changes = {"optim.lr": 1e-30, "optim.warmup_init_lr": 0.0, "evaluate.every": 2, "evaluate.patience": 3}
    config = tiny_config(tmp_path / "run", tiny_dataset, changes)
    train_alone(config, stop_after=5)
    assert state(config.run, 5)["progress"]["without_best"] == 2
    outcome = train_alone(config)
    assert outcome.status == "done"
    assert outcome.reason == "valid/mlm_ppl has not improved in 3 evaluations"
    assert state(config.run, 6)["progress"]["step"] == 6
    assert train_alone(config).reason == outcome.reason


def test_tensorboard_has_each_step_once(
    straight: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Files are read in the order of their names, which end with a count of the process's writers: 10 sorts before 9.
    writers = tensorboard.summary.writer.event_file_writer
    monkeypatch.setattr(writers, "_global_uid", writers.AtomicCounter(1))
    config = tiny_config(tmp_path / "run", tiny_dataset, CLM)
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, 9)
        with pytest.raises(RuntimeError):
            train_alone(config)
    train_alone(config, stop_after=6)
    train_alone(config)
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    expected: dict[str, list[tuple[int, float]]] = {}
    for record in records(straight):
        for name, value in record.items():
            if name != "step":
                expected.setdefault(name, []).append((record["step"], value))
    for name, points in expected.items():
        found = [(event.step, event.value) for event in board.Scalars(name)]
        assert [step for step, _ in found] == [step for step, _ in points], name
        assert [value for _, value in found] == pytest.approx([value for _, value in points], rel=1e-6)
    texts = board.Tensors("samples/de_mlm/text_summary")
    assert [event.step for event in texts] == [0, 5, 10, 15, 20]
    assert b"&lt;/s>" in texts[0].tensor_proto.string_val[0]
