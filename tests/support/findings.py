"""What a test looks for among the doctor's findings."""

from __future__ import annotations

from collections.abc import Iterable

from xlmtrain.diagnostics.finding import Finding, Severity


def findings(found: Iterable[Finding]) -> list[Finding]:
    """Return warnings and errors."""
    return [one for one in found if one.severity is not Severity.info]


def only(found: Iterable[Finding]) -> Finding:
    """Return the one warning or error."""
    (finding,) = findings(found)
    return finding
