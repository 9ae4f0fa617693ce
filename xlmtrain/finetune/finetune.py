"""Fine-tune a model for a task with several seeds, one after the other, in one run directory.

config.json  the settings, and checksums of model and data     status.json  environment.json  log.txt  as of any run
results.json the labels, and for each seed and language the scores
dataset.json codes vocab   the model's text processing; or tokenizer.json token_counts
seed-0/      metrics.jsonl  tensorboard/  result.json  checkpoints/  (see train/checkpoint.py)
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from xlmtrain import __version__
from xlmtrain.config.finetune import FinetuneConfig
from xlmtrain.config.schema import config_as_json, flatten
from xlmtrain.data.format import HEADER, SPLITS, TEXT_FILES
from xlmtrain.errors import ConfigError
from xlmtrain.evaluate.classification_data import Encoded
from xlmtrain.finetune.scores import Scores, require_libraries
from xlmtrain.finetune.tasks import Splits, make_task, selection_metric
from xlmtrain.finetune.training import SeedTraining
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.run import write_text
from xlmtrain.runtime.atomic_io import read_json, write_json
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.output_paths import DirectoryKind
from xlmtrain.runtime.precision import choose_precision
from xlmtrain.runtime.process import StopRequest, gc_at_steps
from xlmtrain.train.resume_policy import ResumePolicy
from xlmtrain.train.run_dir import RUN, RunDirectory

log = logging.getLogger(__name__)
_WRITTEN = ("config.json", "environment.json", "status.json", "results.json", HEADER)
FINETUNING = DirectoryKind(
    name="a fine-tuning",
    header="config.json",
    keys=frozenset({"run", "init", "task", "seeds", "train"}),
    files=(
        *("log.txt", ".failed-rank-*", *TEXT_FILES),
        *(name for file in _WRITTEN for name in (file, f".{file}.tmp")),
        *("seed-*/", "seed-*/result.json", "seed-*/.result.json.tmp"),
        *(f"seed-*/{file}" for file in RUN.files),
    ),
)
# With any other change the results of two seeds could not be averaged.
FINETUNE_RESUME_POLICY = ResumePolicy(
    (
        *("run", "init.", "seeds", "task.train.", "task.valid.", "task.test."),
        *("train.device", "train.hang_timeout", "train.overwrite"),
    )
)


def finetune(
    config: FinetuneConfig, saved: PretrainedBundle, distributed: Distributed, stop: StopRequest
) -> dict[str, list[Scores]] | None:
    """Return language of ``task.test`` -> the scores of each seed, or None if a signal came first.

    Everything is read, and so checked, before the directory is touched. Raises ConfigError if the directory belongs to
    another fine-tuning, DataError for invalid files.
    """
    if config.train.batch_size < distributed.world_size:
        raise ConfigError(f"train.batch_size={config.train.batch_size}: less than {distributed.world_size} processes")
    precision = choose_precision(config.train.precision, distributed.device)
    require_libraries()
    task = make_task(config.task)
    splits = task.encode_files({split: getattr(config.task, split) for split in SPLITS}, saved)
    metric = selection_metric(config.evaluate.metric, task)
    log.info("%s; selected by %s", f"{len(task.labels)} labels" if task.labels else "a number", metric.value)
    log.info("examples: %s", "; ".join(_sizes(split, files) for split, files in splits.items() if files))
    found = {"model": asdict(saved.config), "labels": task.labels}  # needed to use the model
    settings = {**config_as_json(config), **found, **_checksums(saved, splits)}
    distributed.assert_same(flatten(settings), "settings, model or data")
    files = [path for split in SPLITS for path in getattr(config.task, split).values()]
    inputs = [config.init.pretrained, *files]
    with RunDirectory(FINETUNING, FINETUNE_RESUME_POLICY, settings, distributed, inputs) as run, gc_at_steps():
        if distributed.is_main:
            write_text(saved, run.path)
        results = []
        for seed in config.seeds:
            place = run.path / f"seed-{seed}"
            if (place / "result.json").is_file():
                results.append(read_json(place / "result.json"))
                continue
            if distributed.is_main:
                place.mkdir(exist_ok=True)
            training = SeedTraining(
                config=config,
                seed=seed,
                directory=place,
                saved=saved,
                task=task,
                splits=splits,
                distributed=distributed,
                precision=precision,
                stop=stop,
                report_progress=run.watchdog.report_progress,
            )
            run.state = training.state
            result = training.run()
            if result is None:
                run.end("preempted", stop.reason)
                return None
            if distributed.is_main:
                write_json(place / "result.json", result)
            results.append(result)
        if distributed.is_main:
            write_json(run.path / "results.json", {"labels": task.labels, "seeds": results})
        run.end("done", f"{len(results)} seeds")
    return {language: [Scores(**result["test"][language]) for result in results] for language in config.task.test}


def _sizes(split: str, files: Mapping[str, Encoded]) -> str:
    return f"{split} " + ", ".join(f"{language} {len(file.ids):,}" for language, file in files.items())


def _checksums(saved: PretrainedBundle, splits: Splits) -> dict[str, str]:
    """Return the version of this package and the SHA-256 of model and data."""
    weights, text = hashlib.sha256(), hashlib.sha256()
    for name in sorted(saved.weights):
        weights.update(np.ascontiguousarray(saved.weights[name].float().cpu().numpy()).view(np.uint8).data)
    for split, files in splits.items():
        for language, file in files.items():
            text.update(f"{split} {language}".encode())
            for array in (*file.ids, *(file.positions or []), file.labels):
                text.update(np.ascontiguousarray(array).view(np.uint8).data)
    return {"xlmtrain": __version__, "model_sha256": weights.hexdigest(), "data_sha256": text.hexdigest()}
