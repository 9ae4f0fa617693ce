"""Settings that are possible, but unlikely to be meant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from xlmtrain.config.schema import Config, flatten
from xlmtrain.diagnostics.rules import Finding, config_warnings


def check_settings(config: Config) -> Iterator[str | Finding]:
    """Learning rate and warm-up against what is known to learn, and numbers of steps against each other."""
    train, optim = config.train, config.optim
    tokens = train.steps * train.batch_tokens
    yield (
        f"{train.steps:,} steps of {train.batch_tokens:,} tokens, {tokens:.1e} in all; the rate rises to {optim.lr:g} "
        f"in {optim.warmup_steps:,} steps"
    )
    yield from config_warnings(flatten(asdict(config)), tokens)
    if train.save_every > train.steps:
        yield Finding(
            f"train.save_every={train.save_every}: no checkpoint before the last step; what is interrupted is lost.",
            [f"train.save_every={max(train.steps // 10, 1)}"],
            grave=False,
        )
