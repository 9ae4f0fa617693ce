"""Sections of the model card that are taken from the records of the run: data, recipe, evaluation, energy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev

from xlmtrain.config.phases import given
from xlmtrain.download.catalogue import NOT_KNOWN, licences_of
from xlmtrain.interop.bundle import Provenance
from xlmtrain.metrics.energy import JOULES_PER_KWH, RAPL, UNKNOWN, energy_text
from xlmtrain.metrics.table import decimals, format_table
from xlmtrain.runtime.atomic_io import json_object

NOT_RECORDED = "Not recorded."
_FILES_SHOWN = 4
_RECIPE = {
    "data": ("mlm", "tlm", "clm", "sampling_alpha", "sequence_length"),
    "mask": ("prob", "mask_token_prob", "random_token_prob", "inverse_frequency_exponent"),
    "optim": ("lr", "schedule", "warmup_steps", "beta1", "beta2", "weight_decay"),
    "train": ("steps", "batch_tokens", "precision"),
}
_GRID = Path(__file__).with_name("grid_intensity.json")
"""Grams of CO2 equivalents per kWh of electricity, and the year, by country."""


@dataclass(frozen=True)
class CardFacts:
    """Facts for the card that a run does not know.

    ``grams_per_kwh``: CO2 equivalents; None looks up the country ``region``. ``licences``: pattern of names of raw
    files -> licence. ``seeds``: metrics of runs with other seeds.
    """

    provider: str | None = None
    region: str | None = None
    grams_per_kwh: float | None = None
    licences: Mapping[str, str] = field(default_factory=dict)
    seeds: Sequence[Mapping[str, float]] = ()

    def intensity(self) -> tuple[float, str] | None:
        """Return the grams of CO2 equivalents per kWh, and their source; None if they are not known."""
        if self.grams_per_kwh is not None:
            return self.grams_per_kwh, "as given"
        table = json_object(_GRID)
        if self.region not in table["grams_per_kwh"]:
            return None
        grams, year = table["grams_per_kwh"][self.region]
        return float(grams), f"mean of {self.region} in {year}; {table['source']}"


def data_section(origin: Provenance, facts: CardFacts) -> str:
    """Return the corpora with sizes, raw files and licences."""
    licences = licences_of({file for files in origin.files.values() for file in files}, facts.licences)
    rows = []
    for name, size in origin.corpora.items():
        files = origin.files.get(name, [])
        shown = ", ".join(files[:_FILES_SHOWN]) + (f", {len(files) - _FILES_SHOWN} more" * (len(files) > _FILES_SHOWN))
        terms = "; ".join(dict.fromkeys(licences[file] for file in files)) or NOT_KNOWN
        name = name.removeprefix("train.")  # so a row without a split is of training
        rows.append((name, f"{size['sentences']:,}", f"{size['tokens']:,}", shown, terms))
    header = ("corpus", "sentences", "tokens", "raw files", "licence")
    return format_table(rows, header, "markdown", left=(0, 3, 4)) if rows else NOT_RECORDED


def recipe_section(origin: Provenance) -> str:
    """Return the settings that make the recipe, as they are given to the command line."""
    settings = origin.settings
    found = [f"{s}.{k}={settings[s][k]}" for s, keys in _RECIPE.items() for k in keys if k in settings.get(s, {})]
    found += [f"phases[{i}]={json.dumps(given(phase))}" for i, phase in enumerate(settings.get("phases", []))]
    return f"`{' '.join(found)}`" if found else NOT_RECORDED


def sets_of(metrics: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Return (perplexity, accuracy in %) of each validation set."""
    names = [name.removesuffix("_ppl") for name in metrics if name.endswith("_ppl")]
    return {name.removeprefix("valid/"): (metrics[f"{name}_ppl"], metrics[f"{name}_acc"]) for name in names}


def evaluation_section(origin: Provenance, seeds: Sequence[Mapping[str, float]]) -> str:
    """Return perplexity and accuracy of each validation set, with the spread over seeds if there are several."""
    others, rows = [sets_of(metrics) for metrics in seeds], []
    for name, own in sets_of(origin.metrics).items():
        values = zip(own, *(other[name] for other in others))
        spread = [f"{decimals(mean(one))} ± {decimals(stdev(one))}" for one in values] if others else []
        rows.append((name, decimals(own[0]), f"{own[1]:.1f} %", *spread))
    if not rows:
        return NOT_RECORDED
    header = ["validation set", "perplexity", "accuracy"]
    note = "It is one run: the spread over seeds is not known."
    if others:
        header += ["perplexity over seeds", "accuracy over seeds, %"]
        note = f"Over seeds: mean and standard deviation of {len(seeds) + 1} runs that differ in the seed alone."
    return f"On the validation text, at step {origin.step:,}. {note}\n\n{format_table(rows, header, 'markdown')}"


def environment_section(origin: Provenance, facts: CardFacts) -> str:
    """Return hardware, hours, provider, region, energy and carbon of the run; each that is not known says so."""
    held = dict.fromkeys((used.device for used in origin.energy), 0.0)
    for used in origin.energy:
        held[used.device] += used.seconds
    hardware = ", ".join(f"{device} ({seconds / 3600:.3g} device hours)" for device, seconds in held.items())
    items = {
        "Hardware Type": hardware or NOT_KNOWN,
        "Hours used": f"{origin.seconds / 3600:.3g} in training steps" if origin.seconds else NOT_KNOWN,
        "Cloud Provider": facts.provider or NOT_KNOWN,
        "Compute Region": facts.region or NOT_KNOWN,
        "Energy": _energy(origin),
        "Carbon Emitted": _carbon(origin, facts),
    }
    note = (
        "Device hours and energy are of the whole run, evaluation included, up to its last checkpoint; without work "
        "that an interruption lost, and without cooling, network and power supplies. Counters of CPUs are of the whole "
        "machine."
    )
    return "\n".join(f"- **{name}:** {value}" for name, value in items.items()) + f"\n\n{note}"


def kwh(origin: Provenance) -> float:
    """Return the energy of the run, as far as it is known, in kWh."""
    return sum(used.joules for used in origin.energy) / JOULES_PER_KWH


def grams(origin: Provenance, facts: CardFacts) -> float | None:
    """Return the emissions in grams of CO2 equivalents; None if the energy or its intensity is not known."""
    intensity, used = facts.intensity(), kwh(origin)
    return intensity[0] * used if intensity is not None and used else None


def _energy(origin: Provenance) -> str:
    if not origin.energy:
        return NOT_KNOWN
    parts = []
    for used in origin.energy:
        amount = energy_text(used.joules / JOULES_PER_KWH)
        source = f"{used.source} of packages and memory" if used.method == RAPL else used.source
        parts.append(f"{used.device} {source if used.method == UNKNOWN else f'{amount}, {source}'}")
    return f"{energy_text(kwh(origin))} ({'; '.join(parts)})"


def _carbon(origin: Provenance, facts: CardFacts) -> str:
    intensity, emitted = facts.intensity(), grams(origin, facts)
    if intensity is None:
        return f"{NOT_KNOWN}, as the grams of CO2 per kWh are not"
    if emitted is None:
        return f"{NOT_KNOWN}, as the energy is not"
    amount = f"{emitted / 1000:.3g} kg" if emitted >= 1000 else f"{emitted:.3g} g"
    return f"{amount} of CO2 equivalents, at {intensity[0]:g} g per kWh ({intensity[1]})"
