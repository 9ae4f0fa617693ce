"""The errors a user can cause. Each carries one message that says what is wrong, where, and what to do about it.

A program's entry point prints the message alone and exits with the error's ``exit_code``; everything else is a bug
and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Base of every error that the user can fix."""

    exit_code = 2


class ConfigError(UserError):
    """A setting is misspelt, of the wrong type, or impossible together with another one."""


class DataError(UserError):
    """Text, vocabulary or prepared data is missing, malformed or does not fit together."""

    exit_code = 3


class CheckpointError(UserError):
    """A checkpoint is damaged or belongs to another run."""

    exit_code = 4


class NumericalError(UserError):
    """The loss or the gradient is no longer a finite number, or not the same number on all processes."""

    exit_code = 5


class DeviceOutOfMemory(UserError):
    """The device has too little memory for one micro-batch."""

    exit_code = 7


class PeerError(UserError):
    """Another process of the run failed with a UserError; this one ends with the same exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean ...?`` with the most similar of the ``known`` words; empty if none is similar."""
    return "".join(f"; did you mean {match}?" for match in difflib.get_close_matches(word, list(known), n=1))


@contextmanager
def damage_as(kind: type[UserError], where: str, advice: str = "") -> Iterator[None]:
    """Turn any error that the content of a file can cause into the error ``kind``, whose message begins with ``where``
    and ends with ``advice``.

    For code that takes apart what other people wrote, and for nothing else: it hides mistakes of our own. UserErrors
    pass unchanged.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # damaged bytes can raise any error, also a library's
        name = "" if isinstance(error, (ValueError, TypeError)) else f"{type(error).__name__}: "
        raise kind(f"{where} ({name}{' '.join(str(error).split())[:400]}){advice}") from error
