"""List, verify, average or delete the checkpoints of a run.

    xlmtrain checkpoint list run=runs/small_cpu                      step, size, intact or damaged, best, metric
    xlmtrain checkpoint verify run=runs/small_cpu                    every SHA-256; exit code 4 if one is damaged
    xlmtrain checkpoint average run=runs/small_cpu last=3 output=runs/averaged
    xlmtrain checkpoint average run=runs/small_cpu steps=1000,1500 output=runs/averaged
    xlmtrain checkpoint prune run=runs/small_cpu keep_last=1         the best and keep_every= stay as well

``average`` writes the mean of the weights as a run directory, for xlmtrain.load, xlmtrain evaluate, xlmtrain export and
the setting init.pretrained of xlmtrain train.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from xlmtrain.config.load import parse_args
from xlmtrain.config.old_names import current_settings
from xlmtrain.errors import CheckpointError, ConfigError
from xlmtrain.interop.run import average_checkpoints, write_run
from xlmtrain.metrics.loggers import read_records
from xlmtrain.metrics.table import decimals
from xlmtrain.runtime.atomic_io import read_json
from xlmtrain.runtime.lock import lock_directory
from xlmtrain.runtime.output_paths import check_directory, new_directory
from xlmtrain.train.checkpoint import CheckpointManager
from xlmtrain.train.checkpoint_io import verify_checkpoint
from xlmtrain.train.run_dir import RUN


@dataclass
class CheckpointOptions:
    """The settings of this command; the first argument is the action: list, verify, average or prune."""

    run: str = "???"
    """Run directory."""

    last: int = 0
    """average: number of last checkpoints."""

    steps: str | None = None
    """average: the checkpoints of these steps instead, separated by commas."""

    output: str | None = None
    """average: the run directory to write; it must not exist yet."""

    keep_last: int = 0
    """prune: checkpoints to keep, besides the best one; 0: as in the run's settings."""

    keep_every: int = -1
    """prune: also keep the checkpoints of steps that are a multiple of this; -1: as in the run's settings."""


def main(argv: list[str]) -> None:
    """Run one action."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options, others = parse_args(CheckpointOptions, argv)
    if len(others) != 1 or others[0] not in _ACTIONS:
        raise ConfigError(f"give one action of {', '.join(_ACTIONS)}: {' '.join(others) or 'none is given'}")
    run = Path(options.run)
    store = CheckpointManager(run / "checkpoints", options.keep_last or 1)
    if not store.steps():
        raise CheckpointError(f"run={run}: no checkpoint there")
    _ACTIONS[others[0]](options, run, store)


def _list(options: CheckpointOptions, run: Path, store: CheckpointManager) -> None:
    settings, metrics = run / "config.json", run / "metrics.jsonl"
    evaluate = current_settings(read_json(settings)).get("evaluate", {}) if settings.is_file() else {}
    metric = str(evaluate.get("metric", ""))
    records = read_records(metrics) if metrics.is_file() else []
    values = {record["step"]: decimals(record[metric], 4) for record in records if metric in record}
    print(f"{'step':>10}{'bytes':>18}  {'':8} {'':4}  {metric}")
    for step in store.steps():
        path, best = store.path(step), "best" if store.best_step() == step else ""
        size = sum(file.stat().st_size for file in path.iterdir())
        print(f"{step:10}{size:18,}  {'damaged' if _damage(path) else 'intact':8} {best:4}  {values.get(step, '-')}")


def _verify(options: CheckpointOptions, run: Path, store: CheckpointManager) -> None:
    damages = []
    for step in store.steps():
        damage = _damage(store.path(step))
        print(f"{store.path(step)}: {'damaged' if damage else 'intact'}")
        damages += [damage] if damage else []
    if damages:
        raise CheckpointError(f"{len(damages)} of {len(store.steps())} damaged:\n  " + "\n  ".join(damages))


def _average(options: CheckpointOptions, run: Path, store: CheckpointManager) -> None:
    if options.output is None:
        raise ConfigError("output: needed, the run directory to write")
    steps = _chosen(options, store)
    with new_directory(options.output) as directory:
        write_run(average_checkpoints([store.path(step) for step in steps]), directory)
    print(f"{options.output}: the mean of steps {', '.join(map(str, steps))}")


def _chosen(options: CheckpointOptions, store: CheckpointManager) -> list[int]:
    there = store.steps()
    if (options.last > 0) == (options.steps is not None):
        raise ConfigError("last or steps: one of them is needed, it says which checkpoints to average")
    if options.steps is None:
        if options.last > len(there):
            raise ConfigError(f"last={options.last}: there are {len(there)} checkpoints")
        return there[-options.last :]
    words = [word.strip() for word in options.steps.split(",")]
    missing = [word for word in words if not word.isdecimal() or int(word) not in there]
    if missing:
        raise ConfigError(f"steps: no checkpoint of {', '.join(missing)}; there are {', '.join(map(str, there))}")
    return sorted({int(word) for word in words})


def _prune(options: CheckpointOptions, run: Path, store: CheckpointManager) -> None:
    check_directory("run", run, RUN)
    settings = current_settings(read_json(run / "config.json")).get("train", {})
    keep_last = options.keep_last or settings.get("keep_last", 1)
    keep_every = options.keep_every if options.keep_every >= 0 else settings.get("keep_every", 0)
    if keep_last < 1:
        raise ConfigError(f"keep_last={keep_last}: at least 1 is kept")
    try:
        with lock_directory(run):
            deleted = CheckpointManager(run / "checkpoints", keep_last, keep_every).prune(store.steps()[-1])
    except OSError as error:
        raise ConfigError(f"run={run}: cannot be changed ({error.strerror}); nothing was deleted") from None
    print(f"deleted: {', '.join(map(str, deleted)) or 'none'}; kept: {', '.join(map(str, store.steps()))}")


def _damage(path: Path) -> str:
    try:
        verify_checkpoint(path)
    except CheckpointError as error:
        return str(error)
    return ""


_ACTIONS: dict[str, Callable[[CheckpointOptions, Path, CheckpointManager], None]] = {
    "list": _list,
    "verify": _verify,
    "average": _average,
    "prune": _prune,
}
