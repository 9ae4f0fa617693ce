"""Which of ``configs/experiment`` a run's settings are, and in what they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from xlmtrain.config.load import CONFIG_DIR, compose
from xlmtrain.config.schema import flat

# Where a run is and what it reads is its own, not a preset's.
_OWN = ("run", "data.path", "seed")


def nearest_preset(settings: Mapping[str, Any]) -> tuple[str, list[tuple[str, Any, Any]]]:
    """The preset with the fewest differences from ``settings`` (a run's ``config.json``), and those: (key, the
    preset's value, the run's)."""
    ours = flat(settings)
    found = []
    for path in sorted((CONFIG_DIR / "experiment").glob("*.yaml")):
        theirs = flat(json.loads(json.dumps(asdict(compose("config", [f"experiment={path.stem}"])))))
        found.append((path.stem, differences(theirs, ours)))
    return min(found, key=lambda entry: len(entry[1]))


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(key, first's value, second's) where two flat settings differ, beyond names and places."""
    keys = [key for key in sorted(first.keys() | second.keys()) if key not in _OWN]
    return [(key, first.get(key), second.get(key)) for key in keys if first.get(key) != second.get(key)]
