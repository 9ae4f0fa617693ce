"""Check machine, data and settings before a run, try its first steps, and print what to fix.

    xlmtrain doctor experiment=small_cpu data.path=prepared/ende
    xlmtrain doctor experiment=mlm_ende_1024 data.path=prepared/ende processes=8

Takes the settings of xlmtrain train. The exit code is 1 if there are errors; warnings do not count.
"""

import sys
from dataclasses import dataclass

from xlmtrain.diagnostics.doctor.requirements import package_problems

try:
    from xlmtrain.config.load import compose, parse_args
    from xlmtrain.config.validate import NOT_NEGATIVE, CheckedSettings, ranged
    from xlmtrain.diagnostics.doctor.checks import run_checks
    from xlmtrain.diagnostics.doctor.environment import this_machine
    from xlmtrain.diagnostics.finding import print_checks
except ImportError as error:  # a package is missing: only its name can be reported
    sys.exit("\n".join([f"ERROR environment: {problem}" for problem in package_problems()] or [str(error)]))


@dataclass
class DoctorOptions(CheckedSettings):
    """The settings of this command; other arguments are those of xlmtrain train (see its --help)."""

    processes: int = ranged(0, NOT_NEGATIVE)
    """Processes of the run on this machine; 0: one for each GPU, or one."""

    steps: int = ranged(30, NOT_NEGATIVE)
    """Steps to try; 0: none."""


def main(argv: list[str]) -> int:
    """Print each finding as it is known; return the exit code."""
    options, overrides = parse_args(DoctorOptions, argv, more=True)
    machine = this_machine()
    processes = options.processes or max(len(machine.gpus), 1)
    return int(print_checks(run_checks(compose("config", overrides), machine, processes, options.steps)) > 0)
