"""The preset that a run's settings are nearest to. Composes presets, so training must not import it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from xlmtrain.config.load import CONFIG_DIR, compose
from xlmtrain.config.schema import flatten
from xlmtrain.diagnostics.baseline import Difference, differences
from xlmtrain.errors import ConfigError

log = logging.getLogger(__name__)

PRESETS = CONFIG_DIR / "experiment"
# Where a run is and what it reads is not a preset's choice.
_PLACES = ("run", "data.path", "seed")


def nearest_preset(settings: Mapping[str, Any]) -> tuple[str, list[Difference]]:
    """Return the preset with the fewest differences from flat ``settings``, and (key, its value, the run's) of each.

    A preset that cannot be composed is left out. Without any, the name is empty, and there are no differences.
    """
    found = []
    ours = {key: value for key, value in settings.items() if key not in _PLACES}
    for path in sorted(PRESETS.glob("*.yaml")):
        try:
            config = compose("config", [f"experiment={path.stem}"])
        except ConfigError as error:
            log.warning("WARNING: %s: %s", path, error)
            continue
        theirs = {key: value for key, value in flatten(config).items() if key not in _PLACES}
        found.append((path.stem, differences(theirs, ours)))
    return min(found, key=lambda entry: len(entry[1]), default=("", []))
