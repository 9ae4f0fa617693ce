"""Settings, metrics and state that had other names in xlmtrain 0.1.0, whose runs can still be read and resumed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SETTINGS = {
    "data.draw_tokens": "data.sub_batch_tokens",
    "evaluate.classify": "evaluate.zero_shot_probe",
    "evaluate.dictionary": "evaluate.bilingual_lexicon",
    "evaluate.samples": "evaluate.sample_predictions",
    "evaluate.translations": "evaluate.max_pairs",
    "init.model": "init.pretrained",
    "init.vectors": "init.word_vectors",
    "mask.frequency_alpha": "mask.inverse_frequency_exponent",
    "mask.mask": "mask.mask_token_prob",
    "mask.random": "mask.random_token_prob",
    "mask.rate": "mask.prob",
    "train.compare_every": "train.replica_check_every",
    "train.compress_gradients": "train.reduce_dtype",
    "train.fresh": "train.overwrite",
    "train.timeout": "train.hang_timeout",
}
_METRICS = (
    (re.compile(r"(?<=[/_])aided_(?=acc$|ppl$)"), "cloze_parallel_"),
    (re.compile(r"(?<=[/_])alone_(?=acc$|ppl$)"), "cloze_mono_"),
    (re.compile(r"^speed/data_wait$"), "speed/data_wait_share"),
    (re.compile(r"^speed/unpadded$"), "speed/token_density"),
    (re.compile(r"^speed/memory_gb$"), "speed/peak_memory_gb"),
    (re.compile(r"^train/skipped$"), "train/skipped_steps"),
    (re.compile(r"(?<=[/_])zeroshot_(?=acc$)"), "zero_shot_"),
    (re.compile(r"^zeroshot/(.*)_centred$"), r"zero_shot/\1_centered"),
    (re.compile(r"^zeroshot/(.*)_raw$"), r"zero_shot/\1_source_centered"),
    (re.compile(r"^zeroshot/(.*)_learned$"), r"zero_shot/\1_in_language"),
    # 0.1.0 did not name the languages of a lexicon.
    (re.compile(r"^words/forward_"), "bli/source-target_"),
    (re.compile(r"^words/backward_"), "bli/target-source_"),
    (re.compile(r"^words/"), "bli/"),
)


def current_metric(name: str) -> str:
    """Return today's name of a metric."""
    for pattern, new in _METRICS:
        name = pattern.sub(new, name)
    return name


def current_progress(progress: Mapping[str, Any]) -> dict[str, Any]:
    """Return the progress of a run, as a checkpoint has it, under today's names."""
    return {"sampler_state" if name == "cursors" else name: value for name, value in progress.items()}


def current_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run (its ``config.json``) under today's names; those of this version are unchanged."""
    result: dict[str, Any] = {}
    for section, values in settings.items():
        if not isinstance(values, Mapping):
            result[section] = values
            continue
        result[section] = {}
        for key, value in values.items():
            old = f"{section}.{key}"
            if old == "train.compress_gradients":
                value = "half" if value else "fp32"
            elif old == "evaluate.metric" and isinstance(value, str):
                value = current_metric(value)
            result[section][_SETTINGS.get(old, old).partition(".")[2]] = value
    return result
