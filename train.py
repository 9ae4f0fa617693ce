"""Pretrain a model.

    python train.py experiment=quickstart                                     one process
    torchrun --standalone --nproc-per-node=8 train.py experiment=...          eight GPUs of one machine
    HEAD=node1 HOSTS=8 tools/launch/host.sh experiment=...                    on each of eight machines
    python train.py experiment=small_cpu optim.lr=3e-4 train.steps=5000       any setting by its key
    python train.py --help                                                    the settings and their values
    python train.py experiment=small_cpu --cfg job                            the settings that result

The same command again resumes the run in its directory, ``run=...``.
"""

import os

# On shared cores a spinning OpenMP thread keeps its neighbour from working; this must be set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import faulthandler
import logging
import signal
import sys
from pathlib import Path

import torch

from xlmtrain import __version__
from xlmtrain.config.load import hydra_main
from xlmtrain.config.schema import Config, Requeue, Sharding, flatten
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.data.quality import check_vocabulary, quality_warnings
from xlmtrain.diagnostics.rules import config_warnings
from xlmtrain.diagnostics.run_monitor import RunMonitor
from xlmtrain.evaluate.validator import Validator
from xlmtrain.interop.warm_start import initialize_weights
from xlmtrain.metrics.loggers import MetricsWriter
from xlmtrain.objective import LanguageModel
from xlmtrain.optim.optimizer import make_optimizer
from xlmtrain.runtime.distributed import Distributed, initialize
from xlmtrain.runtime.failpoints import failpoint
from xlmtrain.runtime.logging import set_up_logging
from xlmtrain.runtime.malloc import disable_malloc_trim
from xlmtrain.runtime.precision import choose_precision
from xlmtrain.runtime.rng import torch_seed
from xlmtrain.runtime.signals import StopRequest
from xlmtrain.runtime.slurm import job_id, requeue
from xlmtrain.runtime.watchdog import GRACE_SECONDS
from xlmtrain.train.async_checkpoint import AsyncCheckpointer
from xlmtrain.train.checkpoint import CheckpointManager
from xlmtrain.train.loop import Outcome, TrainingLoop
from xlmtrain.train.resume import resume
from xlmtrain.train.run_dir import RunDirectory, code_fingerprint, config_as_json
from xlmtrain.train.sharding import shard
from xlmtrain.train.step import TrainStep
from xlmtrain.train.summary import summarize

log = logging.getLogger("xlmtrain")


def main(config: Config) -> None:
    """Train as ``config`` says; a run that a signal ended exits with 128 + the signal's number."""
    faulthandler.enable()  # what kills the process in native code says at least where
    disable_malloc_trim()
    stop = StopRequest()
    job = job_id() if config.train.requeue is Requeue.slurm else None
    distributed = initialize(config.train.device, config.train.hang_timeout + GRACE_SECONDS)
    set_up_logging(distributed.rank)
    try:
        outcome = train(config, distributed, stop)
    finally:
        distributed.close()
    if outcome.status == "preempted":
        if job is not None and distributed.is_main and outcome.signal != signal.SIGINT:
            requeue(job)
        sys.exit(128 + (outcome.signal or signal.SIGTERM))


def train(config: Config, distributed: Distributed, stop: StopRequest) -> Outcome:
    """Everything is built, and so checked, before the run directory is touched."""
    failpoint("start")
    precision = choose_precision(config.train.precision, distributed.device)
    dataset = Dataset(config.data.path)
    check_vocabulary(len(dataset.vocab), config.model)
    loader = Loader(config, dataset, distributed.rank, distributed.world_size)
    validator = Validator(config, dataset)
    versions = {"xlmtrain": __version__, "torch": torch.__version__, "the code": code_fingerprint()}
    distributed.assert_same(
        {**versions, "the data": dataset.fingerprint, **flatten(config_as_json(config))}, "settings, data or versions"
    )

    if distributed.is_main:  # the others wait for it when the model is shared
        dataset.verify_training()
    found = _doubts(config, dataset, validator) if distributed.is_main else []

    torch.manual_seed(torch_seed(config.seed, "init"))
    model = LanguageModel(config.model, len(dataset.vocab), len(dataset.languages))
    store = CheckpointManager(Path(config.run) / "checkpoints", config.train.keep_last, config.train.keep_every)
    begins = config.train.overwrite or not store.steps()
    first = initialize_weights(config.init, config.model, model, dataset) if begins else []
    if config.train.compile:
        for block in model.encoder.blocks:
            block.compile()
    if config.train.sharding is Sharding.none or distributed.world_size == 1:
        model.to(distributed.device)
    else:
        shard(model, config.train, precision, distributed)
    optimizer = make_optimizer(config.optim, model, distributed.device)
    stepper = TrainStep(config, model, optimizer, precision, distributed)

    failpoint("open")
    with RunDirectory(config, dataset, distributed) as run:
        failpoint("resume")
        progress = run.progress = resume(
            store, model, optimizer, stepper.scaler, loader.sampler.initial_state(), distributed
        )
        for line in [*first, *summarize(config, dataset, loader, model, precision, distributed)]:
            log.info(line)
        for doubt in found:
            log.warning("WARNING: %s", doubt)
        loop = TrainingLoop(
            config=config,
            distributed=distributed,
            model=model,
            optimizer=optimizer,
            stepper=stepper,
            loader=loader,
            validator=validator if validator.sets else None,
            saver=AsyncCheckpointer(store) if run.is_main else None,
            writer=MetricsWriter(run.path, progress.step, progress.evaluated) if run.is_main else None,
            advise=RunMonitor(run.path).news if run.is_main else None,
            stop=stop,
            watch=run.watch,
            progress=progress,
        )
        outcome = loop.run()
        run.watch.stop()
        run.status(outcome.status, outcome.reason)
        log.info("%s at step %d: %s", outcome.status, progress.step, outcome.reason)
    return outcome


def _doubts(config: Config, dataset: Dataset, validator: Validator) -> list[str]:
    """What is unlikely to be meant, of the data and of the settings."""
    found = list(quality_warnings(dataset, config.model))
    if not validator.sets:
        found.append(
            "there is no validation text of what is trained on: no evaluation, and no best checkpoint; prepare it "
            "with valid.mono or valid.pairs"
        )
    doubtful = config_warnings(flatten(config_as_json(config)), config.train.steps * config.train.batch_tokens)
    return found + [finding.what for finding in doubtful if finding.grave]


if __name__ == "__main__":
    hydra_main("config", main)
