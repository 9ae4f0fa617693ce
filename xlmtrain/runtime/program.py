"""Start and end of every program: output may lose its reader, and errors of a user have no traceback."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

from xlmtrain.errors import ConfigError, DeviceOutOfMemory, UserError

_PATH_ERRORS = {errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EROFS}


class _Output(io.FileIO):
    """A stream's file that goes on after its reader has left, as ``head`` does. ``has_reader``: False after that."""

    has_reader = True

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            self.has_reader = False
            return len(data)


def has_reader(stream: TextIO) -> bool:
    """Return False if the reader of standard output has left, as far as what was written shows."""
    return getattr(getattr(getattr(stream, "buffer", None), "raw", None), "has_reader", True)


def tolerate_any_reader() -> None:
    """Keep output from ending the program: characters that the encoding lacks are escaped, output to a closed pipe is
    dropped."""
    sys.stdout = _tolerant(sys.stdout, sys.__stdout__)
    sys.stderr = _tolerant(sys.stderr, sys.__stderr__)


def _tolerant(stream: TextIO, original: TextIO | None) -> TextIO:
    if stream is not original or not isinstance(stream, io.TextIOWrapper):  # done already, or a test's
        return stream
    file = io.BufferedWriter(_Output(stream.fileno(), "w", closefd=False))
    lines, at_once = stream.line_buffering, stream.write_through
    return io.TextIOWrapper(file, stream.encoding, "backslashreplace", line_buffering=lines, write_through=at_once)


def exit_on_sigterm() -> None:
    """Let SIGTERM, which batch systems send, unwind the program as Ctrl-C does, so that nothing partial is left."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@contextmanager
def user_errors() -> Iterator[None]:
    """End the process with the message and exit code of a UserError, or on Ctrl-C, without a traceback.

    Every program runs inside. Output may be in any encoding, and its reader may leave.
    """
    tolerate_any_reader()
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    except UserError as error:
        _report(str(error))
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        if error.errno not in _PATH_ERRORS or error.filename is None:
            raise
        _report(f"{str(error.filename)[:200]}: {error.strerror}")
        raise SystemExit(ConfigError.exit_code) from None
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's; not every program imports it
            raise
        advice = "take a smaller batch, or device=cpu"
        _report(f"out of memory ({'. '.join(str(error).split('. ')[:2])}): {advice}")
        raise SystemExit(DeviceOutOfMemory.exit_code) from None


def _report(message: str) -> None:
    """Print an error; of the processes that torchrun started, only the first that has it prints it."""
    if _is_first(hashlib.sha256(message.encode()).hexdigest()):
        print(f"error: {message}", file=sys.stderr)


def _is_first(key: str) -> bool:
    """Return True on the first process of a start of torchrun that asks with this ``key``, and where nobody can tell.

    Processes of one machine leave a note in the directory that torchrun makes for the files of each start; the first
    processes of several machines ask torchrun's store.
    """
    env = os.environ
    with suppress(OSError, IndexError):
        try:
            (Path(env.get("TORCHELASTIC_ERROR_FILE", "")).parents[1] / f"{key}.printed").touch(exist_ok=False)
        except FileExistsError:
            return False
    distributed = sys.modules.get("torch.distributed")  # not every program imports it
    if distributed is None or int(env.get("GROUP_WORLD_SIZE", 1)) == 1 or not env.get("TORCHELASTIC_USE_AGENT_STORE"):
        return True
    with suppress(OSError, RuntimeError):
        address = env["MASTER_ADDR"], int(env["MASTER_PORT"])
        socket.create_connection(address, 1.0).close()  # where nobody listens any more, the store would print a stack
        store = distributed.TCPStore(*address, timeout=timedelta(seconds=5))
        return bool(store.add(f"{env.get('TORCHELASTIC_RESTART_COUNT')}-{key}.printed", 1) == 1)
    return True
