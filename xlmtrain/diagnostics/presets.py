"""Which of ``configs/experiment`` a run's settings are, in what they differ, and how a run of it went before.

``configs/reference/*.json`` hold the curves of such runs, made by ``tools/report.py run=... reference=...``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from xlmtrain.config.load import CONFIG_DIR, compose
from xlmtrain.config.schema import flatten
from xlmtrain.errors import ConfigError

REFERENCES = CONFIG_DIR / "reference"
# Where a run is and what it reads is its own, not a preset's.
_OWN = ("run", "data.path", "seed")


@dataclass(frozen=True)
class Reference:
    """How a run of ``preset`` went: figure -> its ``curves``, points (tokens, value), by their tokens.

    ``command``: that ran it. ``text``: what it was trained on, in words; ``trained_on``, ``judged_on``: fingerprints of
    that and of its validation text.
    """

    preset: str
    command: str
    text: str
    trained_on: str
    judged_on: str
    curves: Mapping[str, list[list[float]]]

    def as_json(self) -> str:
        """As in ``configs/reference``, a curve a line."""
        head = json.dumps({**asdict(self), "curves": None}, indent=1, ensure_ascii=False)
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(points)}" for name, points in self.curves.items())
        return head.replace('"curves": null', f'"curves": {{\n{lines}\n }}') + "\n"


def is_reference(text: str) -> bool:
    """Return whether a file's ``text`` is that of a :class:`Reference`."""
    try:
        Reference(**json.loads(text))
    except (ValueError, TypeError):
        return False
    return True


def nearest_preset(settings: Mapping[str, Any]) -> tuple[str, list[tuple[str, Any, Any]]]:
    """The preset with the fewest differences from ``settings`` (a run's ``config.json``), and those: (key, the
    preset's value, the run's)."""
    ours = flatten(settings)
    found = []
    for path in sorted((CONFIG_DIR / "experiment").glob("*.yaml")):
        with suppress(ConfigError):  # of somebody's unfinished preset, which is told where it is used
            theirs = flatten(json.loads(json.dumps(asdict(compose("config", [f"experiment={path.stem}"])))))
            found.append((path.stem, differences(theirs, ours)))
    return min(found, key=lambda entry: len(entry[1]))


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(key, first's value, second's) where two flat settings differ, beyond names and places."""
    keys = [key for key in sorted(first.keys() | second.keys()) if key not in _OWN]
    return [(key, first.get(key), second.get(key)) for key in keys if first.get(key) != second.get(key)]


def find_reference(preset: str, trained_on: str, judged_on: str) -> Reference | None:
    """What is known of a run of the preset: on the same text if there is such a run, else with the same validation
    text, else on another. Fingerprints as in :class:`Reference`.

    Raises ConfigError for a file that is not a reference.
    """
    found = []
    for path in sorted(REFERENCES.glob("*.json")):
        try:
            found.append(Reference(**json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path}: no reference as tools/report.py makes them ({error})") from None
    known = [one for one in found if one.preset == preset]
    return max(known, key=lambda one: (one.trained_on == trained_on, one.judged_on == judged_on), default=None)
