"""Run the tasks of a stage, in this process or by an executor: local processes, Ray or Slurm.

An executor is a function (work directory, tasks) -> keys of finished tasks, in any order. Artifacts on shared storage
are all that processes exchange, so an executor may lose any worker: the tasks it had begun are run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from xlmtrain.config.prepare import Executor, PrepareConfig
from xlmtrain.prepare.artifacts import ArtifactStore, BuildTask, InterruptedWork
from xlmtrain.prepare.executors import run_local, run_on_ray, run_on_slurm
from xlmtrain.runtime.progress import ProgressBar

T = TypeVar("T")
ExecutorFunction = Callable[[Path, Sequence[BuildTask]], Iterable[str]]


class Scheduler:
    """Runs the missing tasks of a stage, and removes the stage's stale artifacts."""

    def __init__(self, config: PrepareConfig, store: ArtifactStore) -> None:
        self._store = store
        self._execute: ExecutorFunction
        match config.executor:
            case Executor.local:
                self._execute = partial(run_local, workers=config.workers)
            case Executor.ray:
                self._execute = partial(run_on_ray, workers=config.workers)
            case Executor.slurm:
                self._execute = partial(run_on_slurm, workers=config.workers, options=config.slurm_options)

    def run_here(self, function: Callable[..., dict[str, Any]], *tasks: BuildTask) -> str:
        """Build all tasks of a stage in this process with ``function(store, directory, **arguments)``.

        Returns the key of the last task.
        """
        self._store.gc(tasks[0].stage, tasks)
        for task in tasks:
            self._store.build(task, partial(function, self._store, **task.arguments))
        return tasks[-1].key

    def run_sharded(self, stage: str, tasks_of: Mapping[T, BuildTask]) -> dict[T, dict[str, Any]]:
        """Build the tasks of a stage with the executor and return their results.

        Prints progress, and how much was built before.
        """
        tasks = list(tasks_of.values())
        stale = self._store.gc(stage, tasks)
        missing = list({task.key: task for task in tasks if not self._store.exists(task)}.values())
        if stale:
            print(f"{stage}: input, settings or program changed, {stale} finished tasks are run again", flush=True)
        if len(missing) < len(tasks):
            print(f"{stage}: {len(tasks) - len(missing)} of {len(tasks)} tasks are finished already", flush=True)
        with ProgressBar(stage, sum(task.size for task in missing), "B") as progress:
            for task in run_tasks(self._execute, self._store, missing):
                progress.update(task.size)
        return {owner: self._store.result(stage, task.key) for owner, task in tasks_of.items()}


def run_tasks(execute: ExecutorFunction, store: ArtifactStore, tasks: Sequence[BuildTask]) -> Iterator[BuildTask]:
    """Run ``tasks`` and yield each when it is finished. Those of lost workers are retried as long as others finish.

    Raises InterruptedWork if a round finishes nothing; a UserError of a task is passed on.
    """
    left = {task.key: task for task in tasks}
    while left:
        before = len(left)
        for key in execute(store.directory, list(left.values())):
            if key in left:
                yield left.pop(key)
        for key in [key for key, task in left.items() if store.exists(task)]:
            yield left.pop(key)
        if len(left) == before:
            raise InterruptedWork(
                f"workers of the stage {tasks[0].stage} died without finishing a task, killed perhaps for lack of "
                f"memory (take fewer with workers=...); finished work is kept in {store.directory}, the same command "
                "goes on"
            )
