"""Settings of a training run: all sections and the phases. Values are in ``configs/``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, make_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

from xlmtrain.config.data import (
    LENGTHS,
    OBJECTIVES,
    BackTranslationConfig,
    DataConfig,
    MaskConfig,
    NoiseConfig,
)
from xlmtrain.config.evaluate import EvaluateConfig
from xlmtrain.config.families import Family
from xlmtrain.config.model import InitConfig, ModelConfig
from xlmtrain.config.optim import AverageConfig, FusedAdam, OptimConfig, OptimizerName
from xlmtrain.config.phases import given, phases_of
from xlmtrain.config.train import Sharding, TrainConfig
from xlmtrain.config.validate import ABOVE_ZERO, NOT_NEGATIVE, CheckedSettings, problems_of, ranged


def _changes(name: str, section: type, *settings: str) -> type:
    """Return the dataclass ``name`` of some ``settings`` of a section, all None: unchanged."""
    types = get_type_hints(section)
    made = make_dataclass(name, [(key, types[key] | None, None) for key in settings])
    made.__module__, made.__doc__ = __name__, f"Changes of {section.__name__}; None: as before."
    return made


DataChanges = _changes("DataChanges", DataConfig, *OBJECTIVES, "loss_weight", "sampling_alpha", *LENGTHS)

MaskChanges = _changes("MaskChanges", MaskConfig, *get_type_hints(MaskConfig))

OptimChanges = _changes(
    "OptimChanges", OptimConfig, "lr", "min_lr", "schedule", "warmup_steps", "warmup_init_lr", "decay_steps"
)

TrainChanges = _changes("TrainChanges", TrainConfig, "batch_tokens")


@dataclass
class PhaseConfig:
    """Part of a run: its name, its length, and what it changes of the settings of the phase before."""

    name: str = "???"
    """Name in the log, the metrics and the report."""

    steps: int | None = ranged(None, ABOVE_ZERO)
    """Length in optimizer steps; ``train.steps`` if neither ``steps`` nor ``tokens`` is given."""

    tokens: int | None = ranged(None, ABOVE_ZERO)
    """Length in tokens, padding included, rounded up to whole steps."""

    data: DataChanges = field(default_factory=DataChanges)  # type: ignore[valid-type]
    """Changes of ``data``. An objective's weights are replaced as a whole; ``mlm: {}`` switches MLM off."""

    mask: MaskChanges = field(default_factory=MaskChanges)  # type: ignore[valid-type]
    """Changes of ``mask``. Validation masks as the settings outside the phases say, so that its figures compare."""

    optim: OptimChanges = field(default_factory=OptimChanges)  # type: ignore[valid-type]
    """Changes of ``optim``. ``lr`` and ``min_lr`` scale the schedule that is under way; any other begins a new one
    here, with the warm-up and the ``decay_steps`` that this phase gives, 0 by default."""

    train: TrainChanges = field(default_factory=TrainChanges)  # type: ignore[valid-type]
    """Changes of ``train``."""

    def problems(self) -> Iterator[str]:
        if self.steps is not None and self.tokens is not None:
            yield f"tokens: {self.tokens} and steps={self.steps} are two lengths; give one"
        if not self.name:
            yield "name: empty; give the phase a name"


@dataclass
class Config(CheckedSettings):
    """A training run."""

    run: str = "???"
    """Run directory. The same command again resumes the run in it."""

    seed: int = ranged(0, NOT_NEGATIVE)
    """Every random choice follows from it."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""

    init: InitConfig = field(default_factory=InitConfig)
    """Its first weights."""

    data: DataConfig = field(default_factory=DataConfig)
    """The text."""

    mask: MaskConfig = field(default_factory=MaskConfig)
    """Masking of MLM and TLM."""

    noise: NoiseConfig = field(default_factory=NoiseConfig)
    """Noise of denoising."""

    bt: BackTranslationConfig = field(default_factory=BackTranslationConfig)
    """Translations of back-translation."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimizer."""

    average: AverageConfig = field(default_factory=AverageConfig)
    """Averaged weights."""

    train: TrainConfig = field(default_factory=TrainConfig)
    """The run's size."""

    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """Validation."""

    phases: list[PhaseConfig] = field(default_factory=list)
    """Phases of the run, one after the other, e.g. ``[{name: clm, steps: 1000, data: {clm: {en: 1}, mlm: {}}}, ...]``.
    Each changes settings of the phase before, the first those above. Nothing else of a run changes over time."""

    @property
    def micro_batch_tokens(self) -> int:
        """Tokens of a micro-batch."""
        return self.train.micro_batch_tokens or self.data.sub_batch_tokens

    def __post_init__(self) -> None:
        super().__post_init__()
        phases_of(self)  # raises ConfigError, too

    def problems(self) -> Iterator[str]:
        data, positions, train = self.data, self.model.max_positions, self.train
        names = [phase.name for phase in self.phases]
        for number, phase in enumerate(self.phases):
            yield from problems_of(phase, f"phases[{number}].")
            if names.index(phase.name) < number:
                yield f"phases[{number}].name: {phase.name} is the name of another phase, too"
        if ".." in Path(self.run).parts:
            yield f"run: {self.run} leads out of a directory with ..; give its path from / on"
        if data.sequence_length > positions:
            yield f"data.sequence_length: {data.sequence_length} exceeds model.max_positions={positions}"
        if data.reads_sentences and data.max_sentence_length + 2 > positions:
            yield (
                f"data.max_sentence_length: {data.max_sentence_length} and two delimiters exceed "
                f"model.max_positions={positions}"
            )
        if data.sub_batch_tokens > 0 and train.batch_tokens % data.sub_batch_tokens:
            multiple = f"data.sub_batch_tokens={data.sub_batch_tokens}"
            yield f"train.batch_tokens: {train.batch_tokens} is no multiple of {multiple}"
        if self.model.family is not Family.xlm and data.needs_decoder:
            yield f"model.family: {self.model.family.value} has no decoder, which data.mt, data.dae and data.bt need"
        if train.overlap_tied_embedding and data.needs_decoder:
            yield "train.overlap_tied_embedding: does not work with data.mt, data.dae and data.bt"
        if train.sharding is not Sharding.none and "bt" in data.weights:
            yield "train.sharding: does not work with data.bt, which needs all weights on each process"
        for name in ("max_translations", "round_trip"):
            if train.sharding is not Sharding.none and getattr(self.evaluate, name):
                yield (
                    f"train.sharding: does not work with evaluate.{name}, which needs all weights on each process; set "
                    f"evaluate.{name}=0, and an evaluate.metric like valid/mt_ppl"
                )
        if train.sharding is not Sharding.none and self.optim.fused is FusedAdam.apex:
            sharding = train.sharding.value
            yield f"train.sharding: {sharding} does not work with optim.fused=apex; set optim.fused=torch"
        if train.sharding is not Sharding.none and self.optim.name is OptimizerName.muon:
            yield "train.sharding: does not work with optim.name=muon, which needs whole matrices on each process"


def config_as_json(config: Any) -> dict[str, Any]:
    """Return a dataclass of settings as plain JSON values."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return values


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Return settings, a dataclass or nested mappings, as plain values by key path."""
    result: dict[str, Any] = {}
    for key, value in (vars(settings) if is_dataclass(settings) else settings).items():
        if is_dataclass(value) or isinstance(value, Mapping):
            result |= flatten(value, f"{prefix}{key}.")
        elif key == "phases":
            phases = [given(config_as_json(phase) if is_dataclass(phase) else phase) for phase in value]
            result |= {key: phases} if phases else {}
        else:
            result[prefix + key] = value.value if isinstance(value, Enum) else value
    return result
