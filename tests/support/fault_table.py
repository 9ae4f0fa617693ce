"""The faults that a run must survive, and the table of how many it did.

``ROWS``: number -> the fault, and what must happen. A test marked ``row(number, quick=, slow=, full=)`` tries the fault
so many times in the default, the slow and the full tier, and not at all in a tier that has no number.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_FUZZING = "## Fuzzing"
"""Heading of the last section of ``benchmarks/faults.md``, which ``make fuzz`` writes."""


@dataclass
class Record:
    """What the tests of one row have tried so far."""

    tried: int = 0
    survived: int = 0
    seconds: float = 0.0
    figures: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def figure(self, text: str) -> None:
        """Something measured beyond survival, for the table."""
        self.figures.append(text)


class Tries:
    """The tries of one test: each is a ``with tries.attempt("what"):``, which survives if no assertion fails in it."""

    def __init__(self, record: Record, count: int) -> None:
        self.record, self.count = record, count
        self.failures: list[str] = []
        self._begun = time.monotonic()
        self._attempted = False

    @contextmanager
    def attempt(self, what: str, count: int = 1) -> Iterator[None]:
        """One try, or ``count`` that stand or fall together; the test goes on after a failure, and fails at its end."""
        self.record.tried += count
        self._attempted = True
        try:
            yield
        except (Exception, pytest.fail.Exception) as error:
            self.failures.append(f"{what}: {type(error).__name__}: {error}")
        else:
            self.record.survived += count

    def figure(self, text: str) -> None:
        """As :meth:`Record.figure`."""
        self.record.figure(text)

    def missing(self, reason: str) -> None:
        """The fault cannot be tried here, or the product does not stand up to it yet: it is not counted as survived."""
        self.record.reasons.append(reason)
        pytest.skip(reason)

    def finish(self, error: BaseException | None) -> None:
        """The test is over, by ``error`` if any; fail it if a try failed, or nothing was tried."""
        self.record.seconds += time.monotonic() - self._begun
        if error is not None and not isinstance(error, pytest.skip.Exception):
            self.record.tried += not self._attempted
            self.record.reasons.append(f"{type(error).__name__}: {error}".splitlines()[0][:200])
        self.record.reasons += [failure.splitlines()[0][:200] for failure in self.failures[:3]]
        if error is None and not self._attempted:
            pytest.fail("nothing was tried")
        if error is None and self.failures:
            shown = "\n\n".join(failure[:2000] for failure in self.failures[:5])
            pytest.fail(f"{len(self.failures)} tries failed:\n{shown}")


def markdown(records: dict[int, Record], every: bool) -> list[str]:
    """The table, a line a row, as printed and as written to ``benchmarks/faults.md``; ``every``: untried rows, too."""
    lines = ["| # | fault | tried | survived | figure | seconds |", "| ---: | --- | ---: | ---: | --- | ---: |"]
    group = ""
    for number, (of, fault, _) in ROWS.items():
        if number not in records and not every:
            continue
        if of != group:
            lines.append(f"| | **{of}** | | | | |")
            group = of
        record = records.get(number, Record())
        outcome = "; ".join([*dict.fromkeys(record.figures), *(f"**{reason}**" for reason in record.reasons)])
        tried = f"{record.tried} | {record.survived}" if record.tried else "- | -"
        outcome = outcome.replace("|", "/").replace("\n", " ")
        lines.append(f"| {number} | {fault} | {tried} | {outcome} | {record.seconds:.0f} |")
    total = sum(record.tried for record in records.values()), sum(record.survived for record in records.values())
    seconds = sum(record.seconds for record in records.values())
    lines.append(f"| | **all** | **{total[0]}** | **{total[1]}** | | **{seconds:.0f}** |")
    return lines


def write_table(path: Path, lines: Sequence[str]) -> None:
    """Write ``benchmarks/faults.md`` up to its last section, which stays."""
    _, heading, section = (path.read_text(encoding="utf-8") if path.exists() else "").partition(_FUZZING)
    path.write_text("\n".join([*lines, "", heading + section]).rstrip("\n") + "\n", encoding="utf-8")


def write_section(path: Path, lines: Sequence[str]) -> None:
    """Write the last section of ``benchmarks/faults.md``; what is before it stays."""
    table = (path.read_text(encoding="utf-8") if path.exists() else "").partition(_FUZZING)[0]
    path.write_text("\n".join([table.rstrip("\n"), "", _FUZZING, "", *lines, ""]).lstrip("\n"), encoding="utf-8")


def breaks() -> list[str]:
    """How each row's test was seen to fail: the product was broken on purpose."""
    return [f"* {number}: {broken}." for number, (_, _, broken) in ROWS.items() if broken]


# number -> (group, fault and what must come of it, how the product was broken to see the test fail)
ROWS: dict[int, tuple[str, str, str]] = {
    1: (
        "Processes",
        "SIGKILL of all ranks at random times: resumes by itself, identical",
        "Adam's state was not restored when a run was resumed",
    ),
    2: (
        "Processes",
        "SIGKILL in each phase of a save, of either rank: the old or the new checkpoint is whole",
        "the checkpoints before were deleted before the new one was written",
    ),
    3: (
        "Processes",
        "power loss: every prefix of the file operations, unsynced writes dropped or cut",
        "the directories were not synced after a checkpoint was renamed",
    ),
    4: (
        "Processes",
        "SIGTERM to torchrun at five times: saved, `preempted`, resume identical",
        "a signal ended the run without a checkpoint",
    ),
    5: (
        "Processes",
        "SIGTERM to one rank only: all stop after the same step",
        "the other processes did not learn of a signal",
    ),
    6: ("Processes", "SLURM: SIGUSR1, a checkpoint, requeued once", "every process asked for the requeue"),
    7: (
        "Processes",
        "second signal, Ctrl-C twice: the first saves, the second ends at once, nothing broken",
        "a second Ctrl-C was no more than the first",
    ),
    8: (
        "Processes",
        "exception on one rank: named, the others end too; `--max-restarts` goes on, identical",
        "an exception in a step was raised without naming the step",
    ),
    9: (
        "Processes",
        "hung rank: noticed within the timeout, stacks of all ranks, exit code not 0",
        "nobody watched the process",
    ),
    10: (
        "Processes",
        "one rank with another config, data or code: refused at start-up, the key named",
        "the processes did not compare settings, data and versions",
    ),
    11: (
        "Processes",
        "resume with other numbers of processes, 2, 4, 1, 2: the same batches",
        "what is drawn depended on the number of processes",
    ),
    12: (
        "Processes",
        "other micro-batches and processes: the same global batches",
        "words were hidden micro-batch by micro-batch, not sub-batch by sub-batch",
    ),
    13: (
        "Processes",
        "a global batch that the processes cannot share: refused, allowed numbers listed",
        "the number of processes was not looked at",
    ),
    14: (
        "Processes",
        "two hosts: one dies and comes back, one goes on alone, the network is cut",
        "`tools/launch/host.sh` without its setting for torchrun's stores (the host that came back was never let in), "
        "without its watch (the host that was cut off hung); `resume` that begins anew",
    ),
    15: (
        "Processes",
        "two jobs on one run directory: the second is refused, a dead one's lock taken over",
        "the directory was not locked",
    ),
    16: (
        "Storage",
        "disk full in a save: the checkpoint before is whole, training goes on, tries again",
        "the first save that failed ended the run",
    ),
    17: (
        "Storage",
        "disk full for metrics, TensorBoard and log: training unharmed",
        "figures that cannot be written were an error",
    ),
    18: (
        "Storage",
        "one flipped bit in any file of a checkpoint: found, the one before is used",
        "sizes were compared, checksums not",
    ),
    19: (
        "Storage",
        "a file of a checkpoint cut, empty or missing: found, the one before is used",
        "files were not compared with the manifest",
    ),
    20: (
        "Storage",
        "all checkpoints bad: refused with what is broken, exit code 4",
        "a run without an intact checkpoint began anew by itself",
    ),
    21: (
        "Storage",
        "directory read-only, quota, EIO, ESTALE: tried again, then as 16",
        "an error of the storage ended the run",
    ),
    22: (
        "Storage",
        "slow storage: saved in the background, steps go on, SIGTERM waits for it",
        "the steps waited for each save",
    ),
    23: (
        "Storage",
        "keep-last, keep-every, keep-best, killed in the midst: never without a good one",
        "pruning did not look whether what it keeps is intact",
    ),
    24: (
        "Storage",
        "a checkpoint of each release: loads, and goes on",
        "a run's state had to have all that today's has",
    ),
    25: (
        "Storage",
        "resume with changed settings: harmful ones refused with a difference, others logged",
        "harmful changes were logged like the others",
    ),
    26: (
        "Numbers",
        "NaN on one rank: all learn of it in the same step, weights stay finite",
        "a gradient that is not finite moved the weights",
    ),
    27: (
        "Numbers",
        "fp16 overflows: scale halved, skipped, resume identical; stop at the floor",
        "the loss scale was not put back when a run was resumed",
    ),
    28: (
        "Numbers",
        "loss spikes: flagged, with the batch's ids; few false alarms",
        "a spike counted in full for the losses after it",
    ),
    29: (
        "Numbers",
        "batches without a maskable token, of padding, of length 1: finite loss",
        "the loss was the mean over a batch's targets, of which there may be none",
    ),
    30: ("Numbers", "ranks whose weights differ: found, the rank named", "the weights were not compared"),
    31: (
        "Numbers",
        "the loss is weighted by tokens, however the batch is cut and distributed",
        "the loss was a mean of the micro-batches' means",
    ),
    35: (
        "Data",
        "data that cannot be read while training: three tries, a checkpoint, the end; resume identical",
        "a read that failed was not tried again",
    ),
    41: ("Security", "evil pickles: nothing executed, refused", "a file that torch refuses was given to pickle"),
    42: ("Security", "evil archives: nothing outside the target", "names that lead out of the target were let through"),
    43: (
        "Security",
        "bad downloads: refused or resumed, never used unverified",
        "a download's checksum was not compared",
    ),
    44: (
        "Security",
        "hostile settings: refused, no secret written down",
        "settings could ask for what is in the environment",
    ),
    45: ("Security", "odd file names, and no shell anywhere", "the report opened its page by a shell"),
    46: ("Security", "servers listen on this machine only", "the README's TensorBoard listened to all"),
    47: (
        "Monitoring, long runs",
        "TensorBoard after five kills: each step exactly once",
        "TensorBoard did not know where a resumed run begins",
    ),
    48: (
        "Monitoring, long runs",
        "20,000 tiny steps: memory and open files constant",
        "the batch of every step was kept",
    ),
    49: (
        "Monitoring, long runs",
        "clock jumps, no throughput, resumed runs: sane speed and ETA",
        "the stopwatch went by the time of day",
    ),
    50: ("Monitoring, long runs", "all of it at random: ends identical", "a resumed run began its data anew"),
}
