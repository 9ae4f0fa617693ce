"""Two hosts on this one machine: network namespaces, each with a name and an address of its own, and a cable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.repository import REPOSITORY
from tests.support.torchrun import Torchrun, overrides
from xlmtrain.config.schema import Config

HEAD = "10.77.0.1"
_NAMES = ("first", "second")
# A host has a name, too: what goes by names, as the lock of a run directory does, is to see two of them.
_NAMED = 'echo "$0" > /proc/sys/kernel/hostname && exec "$@"'


class Hosts:
    """The two, from their making to the end of the ``with``.

    Raises OSError where namespaces cannot be made: that needs root, and iproute2.
    """

    def __init__(self) -> None:
        for name in namespaces():
            if not Path("/proc", name.split("-")[1]).exists():  # what tests that were killed have left
                _ip("netns", "del", name)
        self._spaces = [f"xlmtrain-{os.getpid()}-{name}" for name in _NAMES]

    def __enter__(self) -> Hosts:
        try:
            for space in self._spaces:
                _ip("netns", "add", space)
            first, second = self._spaces
            _ip("link", "add", "net0", "netns", first, "type", "veth", "peer", "name", "net0", "netns", second)
            for number, space in enumerate(self._spaces, start=1):
                _ip("-n", space, "addr", "add", f"10.77.0.{number}/24", "dev", "net0")
                for interface in ("lo", "net0"):
                    _ip("-n", space, "link", "set", interface, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for space in set(self._spaces) & set(namespaces()):
            _ip("netns", "del", space)

    def pull_cable(self) -> None:
        """From now on nothing arrives, without any error."""
        _ip("-n", self._spaces[1], "link", "set", "net0", "down")

    def plug_in(self) -> None:
        """Undo it."""
        _ip("-n", self._spaces[1], "link", "set", "net0", "up")

    def command(self, number: int, *words: str) -> list[str]:
        """The command line that runs ``words`` on the first (0) or second host (1)."""
        inside = ["unshare", "--uts", "sh", "-c", _NAMED, _NAMES[number]]
        return ["ip", "netns", "exec", self._spaces[number], *inside, *words]


class Host(Torchrun):
    """One start of ``tools/launch/host.sh`` on one of the hosts, with one process; ``environment``: its variables."""

    def __init__(self, hosts: Hosts, number: int, config: Config, fault: str = "", **environment: str) -> None:
        self.run = Path(config.run)
        self._log = self.run.with_name(f"{self.run.name}.{_NAMES[number]}")
        variables = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "XLMT_FAULT": fault,
            "HEAD": HEAD,
            "HOSTS": "2",
            "PROCESSES": "1",
            "GRACE": "10",
            **environment,
        }
        with self._log.open("ab") as stream:
            self.process = subprocess.Popen(
                hosts.command(number, str(REPOSITORY / "tools/launch/host.sh"), *overrides(config)),
                env=variables,
                cwd=REPOSITORY,
                stdout=stream,
                stderr=stream,
            )


def _ip(*words: str) -> str:
    try:
        return subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=30).stdout
    except subprocess.CalledProcessError as error:
        raise OSError(f"ip {' '.join(words)}: {error.stderr.strip()}") from None


def namespaces() -> list[str]:
    """Those that these tests made."""
    return [line.split()[0] for line in _ip("netns", "list").splitlines() if line.startswith("xlmtrain-")]
