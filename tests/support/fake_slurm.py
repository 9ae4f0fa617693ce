"""A SLURM that is enough for one job: this file is its ``sbatch``, ``srun`` and ``scontrol``, by the name it has.

``sbatch`` reads the ``#SBATCH`` lines, runs a copy of the script as the job's first host would, and again if it was
queued again; when the file ``time-is-up`` appears in its directory, it sends the signal that ``--signal`` asks for, to
whom it says, once. ``hosts.json`` there: the name of each host, and the words before a command that runs on it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

JOB = "4711"
PROGRAMS = ("sbatch", "srun", "scontrol")


def install(directory: Path, hosts: dict[str, list[str]]) -> None:
    """Put the programs into ``directory``, which is to be on PATH."""
    directory.mkdir()
    for name in PROGRAMS:
        program = directory / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} "{__file__}" "$0" "$@"\n', encoding="utf-8")
        program.chmod(0o755)
    (directory / "hosts.json").write_text(json.dumps(hosts), encoding="utf-8")


def sbatch(directory: Path, words: list[str]) -> int:
    """Run the job to its end, and as often as it is queued again; the exit code of the last time."""
    script = directory / "slurm_script"  # as the real one: the script does not run where it lies
    shutil.copy(words[0], script)
    options = dict(
        re.findall(r"--([a-z-]+)(?:=(\S+))?", "\n".join(re.findall("^#SBATCH (.*)$", script.read_text(), re.M)))
    )
    hosts = json.loads((directory / "hosts.json").read_text())
    whom, name = re.fullmatch(r"(B:)?([A-Z0-9]+)@\d+", options["signal"]).groups()  # type: ignore[union-attr]
    assert whom == "B:", "then all processes of the job's steps would get it"
    for restart in range(10):
        environment = {
            "SLURM_JOB_ID": JOB,
            "SLURM_JOB_NODELIST": "all",
            "SLURM_JOB_NUM_NODES": str(len(hosts)),
            "SLURM_CPUS_PER_TASK": options["cpus-per-task"],
            "SLURM_RESTART_COUNT": str(restart),
        }
        job = subprocess.Popen(["bash", str(script), *words[1:]], env={**os.environ, **environment})
        while job.poll() is None:
            if (directory / "time-is-up").exists():
                (directory / "time-is-up").unlink()
                job.send_signal(getattr(signal, f"SIG{name}"))
            time.sleep(0.05)
        queued = directory / "queued-again"
        if not queued.exists() or "requeue" not in options:
            return job.returncode
        queued.unlink()
    return 1


def srun(directory: Path, words: list[str]) -> int:
    """Run the command on each host, and pass on signals; the highest exit code."""
    command = words[next(i for i, word in enumerate(words) if not word.startswith("-")) :]
    hosts = json.loads((directory / "hosts.json").read_text())
    tasks = [subprocess.Popen([*prefix, *command]) for prefix in hosts.values()]
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: [task.send_signal(number) for task in tasks] and None)
    return max(abs(task.wait()) for task in tasks)


def scontrol(directory: Path, words: list[str]) -> int:
    """``show hostnames``, ``requeue``; each call is noted."""
    with (directory / "scontrol.log").open("a", encoding="utf-8") as log:
        log.write(json.dumps(words) + "\n")
    if words[:2] == ["show", "hostnames"]:
        print(*json.loads((directory / "hosts.json").read_text()), sep="\n")
    if words == ["requeue", JOB]:
        (directory / "queued-again").touch()
    return 0


if __name__ == "__main__":
    called = Path(sys.argv[1])
    sys.exit({"sbatch": sbatch, "srun": srun, "scontrol": scontrol}[called.name](called.parent, sys.argv[2:]))
