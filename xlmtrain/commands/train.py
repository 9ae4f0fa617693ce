"""Pretrain a model.

    xlmtrain train experiment=quickstart                                        one process
    torchrun --standalone --nproc-per-node=8 -m xlmtrain train experiment=...   eight GPUs of one machine
    HEAD=node1 HOSTS=8 tools/launch/host.sh experiment=...                      on each of eight machines
    xlmtrain train experiment=small_cpu optim.lr=3e-4 train.steps=5000          any setting by its key
    xlmtrain train --help                                                       the settings and their values
    xlmtrain train experiment=small_cpu --cfg job                               the settings that result

The same command again resumes the run in its directory, ``run=...``.
"""

import faulthandler
import logging
import signal
import sys
from pathlib import Path

import torch

from xlmtrain.config.load import hydra_main
from xlmtrain.config.phases import combined_data
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Requeue, Sharding
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.diagnostics.data_quality import check_vocabulary
from xlmtrain.diagnostics.memory import check_model_size
from xlmtrain.diagnostics.run_monitor import RunMonitor, start_warnings
from xlmtrain.evaluate.validator import Validator
from xlmtrain.interop.warm_start import initialize_weights
from xlmtrain.metrics.loggers import MetricsWriter
from xlmtrain.model.translation_model import build_model
from xlmtrain.optim.optimizer import make_optimizer
from xlmtrain.runtime.device import device_memory
from xlmtrain.runtime.distributed import Distributed, initialize
from xlmtrain.runtime.logging import set_up_logging
from xlmtrain.runtime.oom import explain_oom, model_advice
from xlmtrain.runtime.precision import choose_precision
from xlmtrain.runtime.process import StopRequest, disable_malloc_trim, gc_at_steps, requeue, slurm_job_id
from xlmtrain.runtime.rng import torch_seed
from xlmtrain.runtime.watchdog import GRACE_SECONDS
from xlmtrain.train.async_checkpoint import AsyncCheckpointer
from xlmtrain.train.checkpoint import CheckpointManager
from xlmtrain.train.loop import Outcome, TrainingLoop
from xlmtrain.train.parallel import compile_blocks, parallelize
from xlmtrain.train.resume_policy import check_same_run
from xlmtrain.train.run_dir import open_run
from xlmtrain.train.saver import resume
from xlmtrain.train.state import TrainState
from xlmtrain.train.step import TrainStep
from xlmtrain.train.summary import summarize

log = logging.getLogger("xlmtrain")


def main(argv: list[str]) -> None:
    """Train with the settings of the command line."""
    hydra_main("config", run, argv)


def run(config: Config) -> None:
    """Train with the settings ``config``. A run that a signal ended exits with 128 + the signal's number."""
    faulthandler.enable()  # a crash in native code prints the Python stack
    stop = StopRequest()
    job = slurm_job_id() if config.train.requeue is Requeue.slurm else None
    with initialize(config.train.device, config.train.hang_timeout + GRACE_SECONDS) as distributed:
        disable_malloc_trim(distributed.device)
        set_up_logging(distributed.rank)
        outcome = train(config, distributed, stop)
    if outcome.status == "preempted":
        if job is not None and distributed.is_main and outcome.signal != signal.SIGINT:
            requeue(job)
        sys.exit(128 + (outcome.signal or signal.SIGTERM))


def train(config: Config, distributed: Distributed, stop: StopRequest) -> Outcome:
    """Train and return why it ended. Everything is built, and so checked, before the run directory is touched."""
    precision = choose_precision(config.train.precision, distributed.device)
    dataset = Dataset(config.data.path)
    check_vocabulary(len(dataset.vocab), config.model)
    shards = 1 if config.train.sharding is Sharding.none else distributed.world_size
    memory = device_memory(distributed.device)
    distributed.run_on_all(lambda: check_model_size(config, len(dataset.vocab), memory, shards))
    loader = Loader(config, dataset, distributed.rank, distributed.world_size)
    validator = Validator(config, dataset)
    check_same_run(config, dataset, distributed)
    distributed.run_long_on_all(lambda: dataset.verify_training(distributed.rank, distributed.world_size))
    findings = list(start_warnings(config, dataset, validator)) if distributed.is_main else []
    store = CheckpointManager(Path(config.run) / "checkpoints", config.train.keep_last, config.train.keep_every)
    torch.manual_seed(torch_seed(config.seed, "init"))
    size = (len(dataset.vocab), len(dataset.languages))
    model = build_model(config.model, combined_data(config), *size, config.train.label_smoothing, dataset.vocab.special)
    begins = config.train.overwrite or not store.steps()
    notes = initialize_weights(config.init, config.model, model, dataset) if begins else []
    with explain_oom(*model_advice()):
        if config.train.compile:
            compile_blocks(model)
        parallel = parallelize(model, config.train, precision, distributed)
        optimizer = make_optimizer(config.optim, model, distributed.device)
        train_step = TrainStep(config, parallel, optimizer, precision, distributed)

    with open_run(config, dataset, distributed) as run, gc_at_steps():
        with explain_oom(*model_advice()):
            saved = resume(store, train_step, run.watchdog.report_progress)
        run.state = state = TrainState.from_json(saved) if saved else TrainState(loader.sampler.initial_state())
        for line in [*notes, *summarize(dataset, loader, train_step)]:
            log.info(line)
        for finding in findings:
            log.warning("%s", finding)
        loop = TrainingLoop(
            config=config,
            train_step=train_step,
            loader=loader,
            evaluator=validator if validator.measures else None,
            checkpointer=AsyncCheckpointer(store, distributed, run.watchdog.report_progress),
            writer=MetricsWriter(run.path, state.step, state.evaluated) if run.is_main else None,
            advise=RunMonitor(run.path).new_warnings if run.is_main else None,
            stop=stop,
            watchdog=run.watchdog,
            state=state,
        )
        outcome = loop.run()
        run.end(outcome.status, outcome.reason)
        log.info("%s at step %d: %s", outcome.status, state.step, outcome.reason)
    return outcome
