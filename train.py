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
from xlmtrain.config.load import program
from xlmtrain.config.schema import Config, Requeue, Sharding, flat
from xlmtrain.data.corpus import Dataset
from xlmtrain.data.doubts import check_vocabulary, doubts
from xlmtrain.data.loader import Loader
from xlmtrain.evaluate.advice import Adviser
from xlmtrain.evaluate.diagnosis import doubtful_settings
from xlmtrain.evaluate.validator import Validator
from xlmtrain.export.initialize import set_first_weights
from xlmtrain.metrics.sinks import MetricsWriter
from xlmtrain.objective import LanguageModel
from xlmtrain.optim.optimizer import make_optimizer
from xlmtrain.runtime import faults
from xlmtrain.runtime.distributed import Distributed, initialize
from xlmtrain.runtime.log import set_up_logging
from xlmtrain.runtime.memory import keep_freed_memory
from xlmtrain.runtime.precision import choose_precision
from xlmtrain.runtime.random import torch_seed
from xlmtrain.runtime.signals import StopRequest
from xlmtrain.runtime.slurm import job_id, requeue
from xlmtrain.runtime.watch import GRACE
from xlmtrain.train.background import BackgroundSaver
from xlmtrain.train.checkpoint import CheckpointStore
from xlmtrain.train.loop import Outcome, TrainingLoop
from xlmtrain.train.resume import resume
from xlmtrain.train.run import RunDirectory, code_fingerprint, settings_as_json
from xlmtrain.train.sharding import shard
from xlmtrain.train.step import Stepper
from xlmtrain.train.summary import summarize

log = logging.getLogger("xlmtrain")


def main(config: Config) -> None:
    """Train as ``config`` says; a run that a signal ended exits with 128 + the signal's number."""
    faulthandler.enable()  # what kills the process in native code says at least where
    keep_freed_memory()
    stop = StopRequest()
    job = job_id() if config.train.requeue is Requeue.slurm else None
    distributed = initialize(config.train.device, config.train.timeout + GRACE)
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
    faults.reach("start")
    precision = choose_precision(config.train.precision, distributed.device)
    dataset = Dataset(config.data.path)
    check_vocabulary(len(dataset.vocab), config.model)
    loader = Loader(config, dataset, distributed.rank, distributed.world_size)
    validator = Validator(config, dataset)
    versions = {"xlmtrain": __version__, "torch": torch.__version__, "the code": code_fingerprint()}
    distributed.agree(
        {**versions, "the data": dataset.fingerprint, **flat(settings_as_json(config))}, "settings, data or versions"
    )

    if distributed.is_main:  # the others wait for it when the model is shared
        dataset.verify_training()
    found = _doubts(config, dataset, validator) if distributed.is_main else []

    torch.manual_seed(torch_seed(config.seed, "init"))
    model = LanguageModel(config.model, len(dataset.vocab), len(dataset.languages))
    store = CheckpointStore(Path(config.run) / "checkpoints", config.train.keep_last, config.train.keep_every)
    begins = config.train.fresh or not store.steps()
    first = set_first_weights(config.init, config.model, model, dataset) if begins else []
    if config.train.compile:
        for block in model.encoder.blocks:
            block.compile()
    if config.train.sharding is Sharding.none or distributed.world_size == 1:
        model.to(distributed.device)
    else:
        shard(model, config.train, precision, distributed)
    optimizer = make_optimizer(config.optim, model, distributed.device)
    stepper = Stepper(config, model, optimizer, precision, distributed)

    faults.reach("open")
    with RunDirectory(config, dataset, distributed) as run:
        faults.reach("resume")
        progress = run.progress = resume(store, model, optimizer, stepper.scaler, loader.sampler.start(), distributed)
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
            saver=BackgroundSaver(store) if run.is_main else None,
            writer=MetricsWriter(run.path, progress.step, progress.evaluated) if run.is_main else None,
            advise=Adviser(run.path).news if run.is_main else None,
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
    found = list(doubts(dataset, config.model))
    if not validator.sets:
        found.append(
            "there is no validation text of what is trained on: no evaluation, and no best checkpoint; prepare it "
            "with valid.mono or valid.pairs"
        )
    doubtful = doubtful_settings(flat(settings_as_json(config)), config.train.steps * config.train.batch_tokens)
    return found + [finding.what for finding in doubtful if finding.grave]


if __name__ == "__main__":
    program("config", main)
