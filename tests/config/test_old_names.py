"""Runs of 0.1.0 are read under today's names."""

from __future__ import annotations

import json

from tests.support.repository import REPOSITORY
from xlmtrain.config.load import from_json
from xlmtrain.config.old_names import current_metric, current_settings
from xlmtrain.config.schema import Config, ReduceDtype

RELEASED = REPOSITORY / "tests" / "fixtures" / "release-0.1.0" / "run"


def test_settings_of_the_release_are_todays_settings() -> None:
    old = json.loads((RELEASED / "config.json").read_text(encoding="utf-8"))
    new = current_settings(old)
    config = from_json(Config, new)
    assert config.data.sub_batch_tokens == old["data"]["draw_tokens"]
    assert config.mask.prob == old["mask"]["rate"]
    assert config.mask.mask_token_prob == old["mask"]["mask"]
    assert config.train.overwrite is False
    assert current_settings(new) == new


def test_values_that_changed_with_their_names() -> None:
    for compressed, dtype in ((True, ReduceDtype.half), (False, ReduceDtype.fp32)):
        assert current_settings({"train": {"compress_gradients": compressed}}) == {
            "train": {"reduce_dtype": dtype.value}
        }
    found = current_settings({"run": "x", "evaluate": {"metric": "valid/aided_acc", "samples": 4}})
    assert found == {"run": "x", "evaluate": {"metric": "valid/cloze_parallel_acc", "sample_predictions": 4}}


def test_metrics() -> None:
    assert current_metric("valid/de-en_alone_acc") == "valid/de-en_cloze_mono_acc"
    assert current_metric("valid/zeroshot_acc") == "valid/zero_shot_acc"
    assert current_metric("speed/data_wait") == "speed/data_wait_share"
    for name in ("train/loss", "valid/mlm_ppl", "speed/data_wait_share", "valid/de-en_cloze_mono_acc"):
        assert current_metric(name) == name
