"""Findings: whatever warns of a problem returns them, and they are printed here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum


class Severity(Enum):
    """``info``: a fact. ``warning``: could be better. ``error``: to be fixed before (more) training. Values: labels."""

    info = "OK"
    warning = "WARN"
    error = "ERROR"


@dataclass(frozen=True)
class Finding:
    """Something noticed, ``what``, with likely ``causes`` or advice, likeliest first."""

    what: str
    causes: list[str] = field(default_factory=list)
    severity: Severity = Severity.error

    def __str__(self) -> str:
        return self.what + (f" Likely: {'; '.join(self.causes)}." if self.causes else "")


def info(what: str) -> Finding:
    """Return a fact."""
    return Finding(what, [], Severity.info)


def warning(what: str, *causes: str) -> Finding:
    """Return a finding that is no reason not to train."""
    return Finding(what, list(causes), Severity.warning)


def error(what: str, *causes: str) -> Finding:
    """Return a finding that makes (more) training pointless."""
    return Finding(what, list(causes), Severity.error)


def print_checks(findings: Iterable[tuple[str, Finding]]) -> int:
    """Print (part checked, finding) as they come, then a verdict; return the number of errors."""
    errors = 0
    for part, finding in findings:
        errors += finding.severity is Severity.error
        advice = [f"      -> {cause}" for cause in finding.causes]
        print(f"{finding.severity.value:<5} {part}: {finding.what}", *advice, sep="\n", flush=True)
    print(f"{errors} error{'s' * (errors > 1)}" if errors else "all checks passed")
    return errors


def print_warnings(findings: Iterable[Finding]) -> int:
    """Print each finding in a line of its own; return their number."""
    lines = [f"WARNING: {finding}\n" for finding in findings]
    print("".join(lines), end="", flush=True)
    return len(lines)
