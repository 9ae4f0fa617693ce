"""What can be wrong with the settings of training beyond the types: ranges, and values that exclude each other."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xlmtrain.config.schema import Config

_ABOVE_ZERO = {
    "model": "dim layers heads max_positions",
    "mask": "prob",
    "data": "sequence_length sub_batch_tokens max_sentence_length",
    "optim": "lr eps",
    "train": "steps batch_tokens initial_loss_scale loss_scale_window min_loss_scale log_every save_every keep_last "
    "hang_timeout",
    "evaluate": "batch_tokens pairs_per_batch",
}
_NOT_NEGATIVE = {
    "mask": "inverse_frequency_exponent",
    "optim": "warmup_steps warmup_init_lr min_lr decay_steps weight_decay clip_grad_norm",
    "train": "micro_batch_tokens keep_every replica_check_every",
    "evaluate": "every max_tokens parallel_pairs patience sample_predictions",
}
_SHARES = {
    "model": "dropout attention_dropout",
    "mask": "prob mask_token_prob random_token_prob",
    "data": "sampling_alpha",
    "optim": "beta1 beta2",
}


def problems_of(config: Config) -> Iterator[tuple[str, str]]:
    """Yield (key path, complaint): all that is wrong, not the first thing only."""
    for keys, holds, complaint in (
        (_ABOVE_ZERO, lambda value: value > 0, "is not above 0"),
        (_NOT_NEGATIVE, lambda value: value >= 0, "is negative"),
        (_SHARES, lambda value: 0 <= value <= 1, "is not between 0 and 1"),
    ):
        for path in (f"{section}.{name}" for section, names in keys.items() for name in names.split()):
            value = operator.attrgetter(path)(config)
            if not holds(value):
                yield path, f"{value} {complaint}"
    yield from _model_problems(config)
    yield from _data_problems(config)
    for key, beta in (("optim.beta1", config.optim.beta1), ("optim.beta2", config.optim.beta2)):
        if beta == 1:
            yield key, f"{beta} never forgets; it must be below 1"
    if ".." in Path(config.run).parts:
        yield "run", f"{config.run} leads out of a directory with ..; give its path from / on"
    train = config.train
    if train.save_every > 0 and train.keep_every % train.save_every:
        yield "train.keep_every", f"{train.keep_every} is no multiple of train.save_every={train.save_every}"
    if train.sharding.value != "none" and config.optim.fused.value == "apex":
        yield "train.sharding", f"{train.sharding.value} is beyond optim.fused=apex; take optim.fused=torch"
    if config.seed < 0:
        yield "seed", f"{config.seed} is negative"
    if not config.evaluate.metric.endswith(("_ppl", "_acc")):
        yield "evaluate.metric", f"{config.evaluate.metric} ends neither in _ppl nor in _acc"


def _model_problems(config: Config) -> Iterator[tuple[str, str]]:
    model, mask = config.model, config.mask
    if mask.mask_token_prob + mask.random_token_prob > 1 + 1e-9:
        yield (
            "mask.mask_token_prob",
            f"together with mask.random_token_prob it makes {mask.mask_token_prob + mask.random_token_prob}, more than 1",
        )
    if model.heads > 0 and model.dim % model.heads:
        yield "model.heads", f"{model.heads} does not divide model.dim={model.dim}"
    if model.sinusoidal_positions and model.dim % 2:
        yield "model.dim", f"{model.dim} is odd, which model.sinusoidal_positions cannot use"


def _data_problems(config: Config) -> Iterator[tuple[str, str]]:
    data, positions, batch = config.data, config.model.max_positions, config.train.batch_tokens
    if 0 < data.sequence_length < 3:
        yield "data.sequence_length", f"{data.sequence_length} leaves no token between the first and the last"
    if data.sequence_length > positions:
        yield "data.sequence_length", f"{data.sequence_length} exceeds model.max_positions={positions}"
    if data.tlm and data.max_sentence_length + 2 > positions:
        yield (
            "data.max_sentence_length",
            f"{data.max_sentence_length} and two delimiters exceed model.max_positions={positions}",
        )
    if data.tlm and data.sub_batch_tokens < 2 * (data.max_sentence_length + 2):
        yield "data.sub_batch_tokens", f"{data.sub_batch_tokens} cannot hold one pair of data.max_sentence_length each"
    if (data.mlm or data.clm) and data.sequence_length > 0 and data.sub_batch_tokens % data.sequence_length:
        yield (
            "data.sub_batch_tokens",
            f"{data.sub_batch_tokens} is no multiple of data.sequence_length={data.sequence_length}",
        )
    if data.sub_batch_tokens > 0 and batch % data.sub_batch_tokens:
        yield "train.batch_tokens", f"{batch} is no multiple of data.sub_batch_tokens={data.sub_batch_tokens}"
    weights = {f"data.{o}.{key}": w for o in ("mlm", "tlm", "clm") for key, w in getattr(data, o).items()}
    for key, weight in weights.items():
        if not 0 <= weight < math.inf:
            yield key, f"{weight} is no weight; give a number from 0 up"
    if not sum(weights.values()) > 0:
        yield "data", "nothing to train on; give data.mlm, data.tlm or data.clm a weight"
