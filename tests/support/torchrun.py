"""Starts of the program under torchrun, whose processes can be killed, stopped and signalled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

from tests.support.repository import REPOSITORY
from tests.support.starts import PATIENCE, descendants, process_state
from xlmtrain.config.schema import Config


def overrides(config: Config) -> list[str]:
    """The settings as ``key=value`` words of a command line."""

    def flat(value: Any, prefix: str) -> list[str]:
        if isinstance(value, dict) and prefix.count(".") < 1 and not prefix.startswith(("data.mlm", "data.tlm")):
            return [word for key, inner in value.items() for word in flat(inner, f"{prefix}.{key}" if prefix else key)]
        if isinstance(value, dict):
            return [f"{prefix}={{{', '.join(f'{key}: {inner}' for key, inner in value.items())}}}"]
        if isinstance(value, list):
            return [f"{prefix}=[{', '.join(map(str, value))}]"]
        return [f"{prefix}={'null' if value is None else value.value if isinstance(value, Enum) else value}"]

    return [word for word in flat(asdict(config), "") if not word.endswith(("=", "=[]"))]


class Torchrun:
    """One start of ``torchrun --standalone --nproc-per-node=2 --shutdown-timeout 10 <options> train.py``."""

    def __init__(self, config: Config, *options: str, fault: str = "", ranks: int = 2, **environment: str) -> None:
        self.run = Path(config.run)
        self._log = self.run.with_name(f"{self.run.name}.torchrun")
        words = ["--standalone", f"--nproc-per-node={ranks}", "--shutdown-timeout=10", *options]
        program = [str(REPOSITORY / "train.py"), *overrides(config)]
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "XLMT_FAULT": fault}
        with self._log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *words, *program],
                env={**variables, **environment},
                stdout=stream,
                stderr=stream,
            )

    def __enter__(self) -> Torchrun:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.kill()

    def printed(self) -> str:
        """What all processes have printed since the run began."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def workers(self) -> list[int]:
        """The ranks' processes; which is which: ``RANK`` in their environment."""
        found = {}
        for pid in descendants(self.process.pid):
            with suppress(OSError):
                words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                ranks = [int(word[5:]) for word in words if word.startswith(b"RANK=")]
                if ranks and b"train.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.setdefault(ranks[0], pid)
        return [found[rank] for rank in sorted(found)]

    def kill(self) -> None:
        """SIGKILL to torchrun and all that it started."""
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit code. Raises AssertionError if it does not end in time."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"torchrun did not end within {timeout:.0f} s: {self.printed()[-3000:]}") from None

    def until(self, happened: Callable[[], bool], what: str) -> None:
        """Wait until ``happened()``. Raises AssertionError if torchrun ends before, or it takes too long."""
        deadline = time.monotonic() + PATIENCE
        while not happened():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no {what}: {self.printed()[-3000:]}")
            time.sleep(0.01)

    def until_stopped(self, rank: int) -> int:
        """Wait until a fault has stopped ``rank`` (SIGSTOP); its process."""

        def stopped() -> bool:
            workers = self.workers()
            return len(workers) > rank and process_state(workers[rank]) == "T"

        self.until(stopped, f"stop of rank {rank}")
        return self.workers()[rank]
