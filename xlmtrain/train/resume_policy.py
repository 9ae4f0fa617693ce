"""Which runs are the same run: settings, code and data, between processes and between the starts of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import torch

from xlmtrain import __version__
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.phases import expand
from xlmtrain.config.schema import Config, OptimChanges, config_as_json, flatten
from xlmtrain.data.dataset import Dataset
from xlmtrain.runtime.atomic_io import sha256_of
from xlmtrain.runtime.distributed import Distributed


@dataclass(frozen=True)
class ResumePolicy:
    """The settings with which a run may be resumed although they differ from those it began with.

    ``may_change``, ``must_stay``: prefixes of key paths; a key needs one of the former and none of the latter.
    ``inactive_unless_used``: prefixes of settings that have no effect unless another setting is on. Missing in the
    record of an old run, they are no change. ``defaults``: values, by key path, that are none either.
    """

    may_change: tuple[str, ...]
    must_stay: tuple[str, ...] = ()
    inactive_unless_used: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def compare(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """Return a line for each setting, by key path, that differs, and those of the lines that are not allowed."""
        # A setting that a later version added, and that is not used, is no change.
        added = {
            key
            for key in new.keys() - old.keys()
            if not new[key] or new[key] == self.defaults.get(key) or key.startswith(self.inactive_unless_used)
        }
        keys = sorted((old.keys() | new.keys()) - added)
        lines = {key: f"{key}: {old.get(key)} -> {new.get(key)}" for key in keys if old.get(key) != new.get(key)}
        # The best value so far cannot depend on an evaluation that an earlier version did not have.
        stays = {k for k in lines if k.startswith(self.must_stay) and (k in old or not k.startswith("evaluate."))}
        refused = [line for key, line in lines.items() if key in stays or not key.startswith(self.may_change)]
        return list(lines.values()), refused


_SCHEDULE = tuple(f"optim.{name}" for name in get_type_hints(OptimChanges))
# Any other change would make it another run.
RESUME_POLICY = ResumePolicy(
    may_change=("run", "data.path", "optim.", "average.", "train.", "evaluate.", "phases"),  # phases: past_changes
    must_stay=(
        "optim.name",
        "optim.fused",  # apex and torch keep their step counts in different places
        "train.batch_tokens",
        "evaluate.metric",  # and what changes its value: the best so far could not be compared
        "evaluate.max_tokens",
        "evaluate.pairs_per_batch",
        "evaluate.max_pairs",
        "evaluate.round_trip",
        "evaluate.max_translations",
        "evaluate.zero_shot_probe.",
    ),
    inactive_unless_used=("noise.", "bt.beam", "bt.temperature", "average.", "optim.name", "optim.momentum"),
    defaults={**flatten(config_as_json(ModelConfig()), "model."), "bt.steps_per_translation": 1},
)


def past_changes(old: Mapping[str, Any], new: Mapping[str, Any], step: int) -> list[str]:
    """Return a line for each phase in which ``new`` settings, as plain JSON values, change the steps before ``step``.

    The learning rate of the phase that the run is in may change, and its end, if that is not before ``step``.
    """
    before, after = ([phase for phase in expand(settings) if phase[0].start < step] for settings in (old, new))
    lines = [f"phases[{number}]: removed, at step {step}" for number in range(len(after), len(before))]
    for number, ((span, was), (new_span, now)) in enumerate(zip(before, after)):
        ends = [min(s.end, step) for s in (span, new_span)]
        if ends[0] != ends[1]:
            lines.append(f"phases[{number}], at step {step}: ends after step {span.end} -> {new_span.end}")
        kept = ("data.", "mask.", "train.batch_tokens") + (_SCHEDULE if new_span.end < step else ())
        was, now = flatten(was), flatten(now)
        keys = [key for key in {**was, **now} if key.startswith(kept) and key != "data.path"]
        changed = [key for key in keys if was.get(key) != now.get(key)]
        lines += [f"phases[{number}].{key}: {was.get(key)} -> {now.get(key)}" for key in changed]
    return lines


def code_fingerprint() -> str:
    """Return the SHA-256 of this package's source files."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def check_same_run(config: Config, dataset: Dataset, distributed: Distributed) -> None:
    """Raise ConfigError unless all processes have the same settings, data and versions. Collective."""
    versions = {"xlmtrain": __version__, "torch": torch.__version__, "the code": code_fingerprint()}
    distributed.assert_same(
        {**versions, "the data": dataset.fingerprint, **flatten(config_as_json(config))}, "settings, data or versions"
    )
