"""Run tasks on a Ray cluster: that of RAY_ADDRESS, else one of this machine's cores that ends with the preparation.

Ray's usage reports are switched off, here and in the processes started here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from xlmtrain.errors import ConfigError
from xlmtrain.prepare.artifacts import BuildTask
from xlmtrain.prepare.worker import run_task

try:
    import ray
except ImportError:
    ray = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)


def run_on_ray(directory: Path, tasks: Sequence[BuildTask], workers: int) -> Iterator[str]:
    """Yield the keys of ``tasks`` as they finish, without those whose workers were lost more than twice. Exceptions of
    tasks are passed on. Raises ConfigError if Ray is not installed."""
    if ray is None:
        raise ConfigError("executor=ray needs the package ray; install it with: pip install ray")
    owned = not ray.is_initialized()
    if owned:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # "local", as Ray would otherwise join any cluster that runs on this machine.
        ray.init(os.environ.get("RAY_ADDRESS", "local"), include_dashboard=False, log_to_driver=False)
    try:
        run = ray.remote(max_retries=2)(run_task)
        parallel = workers or max(int(ray.cluster_resources().get("CPU", 1)), 1)
        waiting = iter(tasks)
        running = [run.remote(directory, task) for task in islice(waiting, parallel)]
        while running:
            done, running = ray.wait(running)
            running += [run.remote(directory, task) for task in islice(waiting, len(done))]
            try:
                yield ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                logger.warning("a Ray worker was lost (%s); its task is run again", type(error).__name__)
    finally:
        if owned:
            ray.shutdown()
