"""Tasks done by whatever there is to do them: an executor is told the work directory and the tasks, and yields the keys
of those that are done, in any order. Parts are the only thing that passes between processes, so an executor may lose
any of its workers: what they had begun is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from xlmtrain.config.prepare import Executor, PrepareConfig
from xlmtrain.prepare.artifacts import ArtifactStore, BuildTask, InterruptedWork
from xlmtrain.prepare.executors.local import run_local
from xlmtrain.prepare.executors.ray import run_on_ray
from xlmtrain.prepare.executors.slurm import run_on_slurm
from xlmtrain.runtime.progress import ProgressBar

Execute = Callable[[Path, Sequence[BuildTask]], Iterable[str]]


class Runner:
    """Does the tasks of a stage that are not done yet, and removes the stage's parts that are of no use any more."""

    def __init__(self, config: PrepareConfig, work: ArtifactStore) -> None:
        self._execute, self._work = _executor(config), work

    def make(self, task: BuildTask, function: Callable[..., dict[str, Any]]) -> str:
        """The key of the only task of a stage, done in this process: ``function(work, directory, **arguments)``."""
        self.make_all([task], function)
        return task.key

    def make_all(self, tasks: Sequence[BuildTask], function: Callable[..., dict[str, Any]]) -> None:
        """The same for several."""
        self._work.keep_only(tasks[0].stage, tasks)
        for task in tasks:
            self._work.do(task, partial(function, self._work, **task.arguments))

    def run(self, stage: str, tasks: Sequence[BuildTask]) -> None:
        """Have the workers do ``tasks``, with progress and what is not done again on stdout."""
        stale = self._work.keep_only(stage, tasks)
        left = list({task.key: task for task in tasks if not self._work.done(task)}.values())
        if stale:
            print(f"{stage}: input, settings or program changed, {stale} finished parts are of no use now", flush=True)
        if len(left) < len(tasks):
            print(f"{stage}: {len(tasks) - len(left)} of {len(tasks)} parts are there already", flush=True)
        with ProgressBar(stage, sum(task.size for task in left), "B") as progress:
            for task in run_tasks(self._execute, self._work, left):
                progress.update(task.size)


def _executor(config: PrepareConfig) -> Execute:
    match config.executor:
        case Executor.local:
            return partial(run_local, workers=config.workers)
        case Executor.ray:
            return partial(run_on_ray, workers=config.workers)
        case Executor.slurm:
            return partial(run_on_slurm, workers=config.workers, options=config.slurm_options)


def run_tasks(execute: Execute, work: ArtifactStore, tasks: Sequence[BuildTask]) -> Iterator[BuildTask]:
    """Do ``tasks``; yields each once it is done. Those of lost workers are tried again as long as others get done.

    Raises InterruptedWork if no more can be done; a UserError of a task as it is.
    """
    left = {task.key: task for task in tasks}
    while left:
        before = len(left)
        for key in execute(work.directory, list(left.values())):
            if key in left:
                yield left.pop(key)
        for key in [key for key, task in left.items() if work.done(task)]:
            yield left.pop(key)
        if len(left) == before:
            raise InterruptedWork(
                f"workers of the stage {tasks[0].stage} died without finishing anything, killed perhaps for want of "
                f"memory (take fewer with workers=...); finished parts are kept in {work.directory}, the same command "
                "goes on"
            )
