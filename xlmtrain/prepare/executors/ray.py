"""A Ray cluster: that of RAY_ADDRESS, else one of this machine's cores, started for the purpose and ended with it.

Ray tells its makers about its use unless it is asked not to: it is, here and in the processes started here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from xlmtrain.errors import ConfigError
from xlmtrain.prepare.artifacts import BuildTask
from xlmtrain.prepare.shard_stages import run_task

try:
    import ray
except ImportError:
    ray = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)


def run_on_ray(directory: Path, tasks: Sequence[BuildTask], workers: int) -> Iterator[str]:
    """The keys of ``tasks`` as they are done, without those whose workers were lost more than twice. An exception in a
    task arrives here as it is. Raises ConfigError if Ray is not installed."""
    if ray is None:
        raise ConfigError("executor=ray needs the package ray; install it with: pip install ray")
    ours = not ray.is_initialized()
    if ours:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray itself would also take a cluster that somebody else happens to have on this machine.
        ray.init(os.environ.get("RAY_ADDRESS", "local"), include_dashboard=False, log_to_driver=False)
    try:
        run = ray.remote(max_retries=2)(run_task)
        at_once = workers or max(int(ray.cluster_resources().get("CPU", 1)), 1)
        waiting = iter(tasks)
        running = [run.remote(directory, task) for task in islice(waiting, at_once)]
        while running:
            done, running = ray.wait(running)
            running += [run.remote(directory, task) for task in islice(waiting, len(done))]
            try:
                yield ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                logger.warning("a Ray worker was lost (%s); its shard is done again", type(error).__name__)
    finally:
        if ours:
            ray.shutdown()
