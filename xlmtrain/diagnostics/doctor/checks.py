"""All the checks, in the order in which a run would stumble over what they find."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from xlmtrain.config.schema import Config, Device
from xlmtrain.data.dataset import Dataset
from xlmtrain.diagnostics.doctor.data import check_data, check_use
from xlmtrain.diagnostics.doctor.environment import (
    check_device,
    check_disk,
    check_memory,
    check_packages,
    check_threads,
)
from xlmtrain.diagnostics.doctor.machine import Machine
from xlmtrain.diagnostics.doctor.settings import check_settings
from xlmtrain.diagnostics.doctor.smoke_run import check_first_steps
from xlmtrain.diagnostics.rules import Finding
from xlmtrain.errors import UserError

Told = Iterator[tuple[str, str | Finding]]


def examine(config: Config, machine: Machine, processes: int, steps: int) -> Told:
    """(what was looked at, a fact or a finding), one after the other, as each is known.

    ``processes``: that the run is to have on this machine. ``steps``: to try, none if something grave was found, as
    they could not tell more.
    """
    grave = False

    def told(part: str, found: Iterator[str | Finding]) -> Told:
        nonlocal grave
        try:
            for one in found:
                grave = grave or (isinstance(one, Finding) and one.grave)
                yield part, one
        except UserError as error:
            grave = True
            yield part, Finding(str(error))

    yield from told("environment", check_packages(config))
    yield from told("environment", check_device(config, machine))
    yield from told("environment", check_threads(machine, processes))
    yield from told("settings", check_settings(config))
    try:
        dataset = Dataset(config.data.path)
    except UserError as error:
        yield "data", Finding(str(error))
        return
    yield from told("data", check_data(config, dataset))
    yield from told("data", check_use(config, dataset, processes))
    size = len(dataset.vocab), len(dataset.languages)
    yield from told("environment", check_memory(config, *size, machine, processes))
    yield from told("environment", check_disk(config, *size))
    if steps == 0 or grave:
        reason = "what is wrong above comes first" if grave else "steps=0"
        yield "first steps", Finding(f"None were tried: {reason}.", grave=False)
        return
    on_gpu = bool(machine.gpus) and config.train.device is not Device.cpu
    device = torch.device("cuda" if on_gpu else "cpu")
    yield from told("first steps", check_first_steps(config, dataset, steps, device))
