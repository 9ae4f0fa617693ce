"""All checks, in the order in which a run would fail: machine, settings, data, first steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import torch

from xlmtrain.config.phases import phases_of, total_tokens
from xlmtrain.config.schema import Config, config_as_json
from xlmtrain.config.train import Device
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.data.spans import duplicate_rate
from xlmtrain.diagnostics.data_quality import check_vocabulary, no_validation, quality_warnings
from xlmtrain.diagnostics.doctor import environment
from xlmtrain.diagnostics.doctor.environment import Machine
from xlmtrain.diagnostics.doctor.smoke_run import check_first_steps
from xlmtrain.diagnostics.finding import Finding, Severity, error, info, warning
from xlmtrain.diagnostics.rules import config_warnings, duplicate_lines
from xlmtrain.diagnostics.run_monitor import rule_settings
from xlmtrain.errors import UserError
from xlmtrain.evaluate.validator import Validator

_MAX_PASSES = 200


def run_checks(config: Config, machine: Machine, processes: int, steps: int) -> Iterator[tuple[str, Finding]]:
    """Yield (part checked, finding), each as soon as it is known.

    ``processes``: of the run on this machine. ``steps``: to try; none are tried after an error.
    """
    has_error = False

    def check(part: str, findings: Iterable[Finding]) -> Iterator[tuple[str, Finding]]:
        nonlocal has_error
        for finding in catch_user_errors(findings):
            has_error = has_error or finding.severity is Severity.error
            yield part, finding

    yield from check("environment", environment.check_packages(config))
    yield from check("environment", environment.check_device(config, machine))
    yield from check("environment", environment.check_threads(machine, processes))
    yield from check("settings", check_settings(config))
    try:
        dataset = Dataset(config.data.path)
    except UserError as problem:
        yield "data", error(str(problem))
        return
    yield from check("data", check_data(config, dataset))
    yield from check("data", check_use(config, dataset, processes))
    size = len(dataset.vocab), len(dataset.languages)
    yield from check("environment", environment.check_memory(config, *size, machine, processes))
    yield from check("environment", environment.check_disk(config, *size))
    if steps == 0 or has_error:
        reason = "the errors above come first" if has_error else "steps=0"
        yield "first steps", warning(f"None were tried: {reason}.")
        return
    device = torch.device("cpu" if config.train.device is Device.cpu else machine.device)
    yield from check("first steps", check_first_steps(config, dataset, steps, device))


def catch_user_errors(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield ``findings``, and as the last one the UserError that ends them."""
    try:
        yield from findings
    except UserError as problem:
        yield error(str(problem))


def check_settings(config: Config) -> Iterator[Finding]:
    """Check the learning rate and warm-up against what is known to work, and numbers of steps against each other."""
    phases = phases_of(config)
    found: dict[str, Finding] = {}
    tokens = total_tokens(phases)
    for phase, (_, settings) in zip(phases, rule_settings(config_as_json(config))):
        name, train, optim = phase.name and f"{phase.name}: ", phase.settings.train, phase.settings.optim
        rate = f"the rate rises to {optim.lr:g} in {optim.warmup_steps:,} steps"
        yield info(f"{name}{train.steps:,} steps of {train.batch_tokens:,} tokens, {tokens:.1e} in all; {rate}")
        found |= config_warnings(settings, tokens)
    yield from found.values()
    steps = phases[-1].span.end
    if config.train.save_every > phases[0].span.end == steps:
        what = f"train.save_every={config.train.save_every}: no checkpoint before the last step"
        yield warning(f"{what}; an interrupted run is lost.", f"train.save_every={max(steps // 10, 1)}")


def check_data(config: Config, dataset: Dataset) -> Iterator[Finding]:
    """Check the files that training reads, the size of the vocabulary, and the text. Raises DataError for damage."""
    size = f"{', '.join(dataset.languages)}, vocabulary {len(dataset.vocab):,}"
    yield info(f"{dataset.path}: {size}, fingerprint {dataset.fingerprint[:12]}")
    dataset.verify_training()
    check_vocabulary(len(dataset.vocab), config.model)
    yield from quality_warnings(dataset, config.model)
    for name in dataset.header.corpora:
        if name.startswith("train."):
            yield from duplicate_lines(duplicate_rate(dataset.corpus(name)), name)


def check_use(config: Config, dataset: Dataset, processes: int) -> Iterator[Finding]:
    """Check that the data has what the settings ask for, and how often it is read. Raises UserError if it has not."""
    loader = Loader(config, dataset, 0, processes)
    seen: dict[str, float] = defaultdict(float)
    for phase, sampler in zip(loader.phases, loader.samplers):
        passes = sampler.passes(phase.span.steps)
        for component, share, times in zip(sampler.components, sampler.probabilities, passes):
            sentences, name = component.source.sentences, phase.name and f"{phase.name}, "
            seen[component.name] += times
            what = f"{name}{component.name}: {sentences:,} sentences, {share:.0%} of the sub-batches"
            yield info(f"{what}, seen {times:.1f} times")
    for component_name, times in seen.items():
        if times > _MAX_PASSES:
            what = f"{component_name}: its text will be seen {times:,.0f} times, and learned by heart."
            yield warning(what, "more text, fewer train.steps, or a lower weight")
    yield from no_validation(Validator(config, dataset))
