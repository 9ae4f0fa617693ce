"""Look at machine, data and settings before a run, try its first steps, and say what is wrong and what to do about it.

    python tools/doctor.py experiment=small_cpu data.path=prepared/ende
    python tools/doctor.py experiment=mlm_ende_1024 data.path=prepared/ende processes=8

Takes the settings of train.py. Ends with 0 if all is well, with 1 if something is wrong; notes are no wrongs.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import sys
from dataclasses import dataclass

from xlmtrain.diagnostics.doctor.requirements import package_problems

try:
    from xlmtrain.config.load import compose, parse_args, user_errors
    from xlmtrain.diagnostics.doctor.checks import examine
    from xlmtrain.diagnostics.doctor.machine import this_machine
    from xlmtrain.errors import ConfigError
except ImportError as error:  # a package is missing, and all that can be said is which
    sys.exit("\n".join([f"WRONG environment: {problem}" for problem in package_problems()] or [str(error)]))


@dataclass
class DoctorOptions:
    """The settings of this tool; every other argument is a setting of train.py."""

    processes: int = 0
    """Processes that the run is to have on this machine; 0: one a GPU, or one."""

    steps: int = 30
    """Steps to try; 0: none."""

    def __post_init__(self) -> None:
        if self.processes < 0 or self.steps < 0:
            raise ConfigError("processes and steps are 0 or more")


def main(argv: list[str]) -> int:
    """Print what is found as it is found; the exit code."""
    options, overrides = parse_args(DoctorOptions, argv, more=True)
    machine = this_machine()
    wrong = 0
    processes = options.processes or max(len(machine.gpus), 1)
    for part, found in examine(compose("config", overrides), machine, processes, options.steps):
        if isinstance(found, str):
            print(f"ok    {part}: {found}", flush=True)
            continue
        wrong += found.grave
        print(f"{'WRONG' if found.grave else 'note '} {part}: {found.what}", flush=True)
        for cause in found.causes:
            print(f"      -> {cause}", flush=True)
    print("all is well" if not wrong else f"{wrong} {'thing is' if wrong == 1 else 'things are'} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    with user_errors():
        sys.exit(main(sys.argv[1:]))
