"""Metrics and settings of runs of 0.1.0 are read under today's names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.repository import REPOSITORY
from xlmtrain.config.load import from_json
from xlmtrain.config.old_names import current_metric, current_settings
from xlmtrain.config.schema import Config
from xlmtrain.config.train import ReduceDtype
from xlmtrain.metrics.loggers import read_records

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


# A line of metrics.jsonl as 0.1.0 wrote it, with all metrics that have other names today.
RECORD = {
    "step": 100,
    "valid/de-en_alone_acc": 1.0,
    "valid/de-en_aided_ppl": 2.0,
    "valid/alone_ppl": 3.0,
    "valid/aided_acc": 4.0,
    "zeroshot/de_layer1_centred": 5.0,
    "zeroshot/de_layer1_raw": 6.0,
    "zeroshot/en_layer1_learned": 7.0,
    "valid/de_zeroshot_acc": 8.0,
    "valid/zeroshot_acc": 9.0,
    "words/cosine": 10.0,
    "words/random_cosine": 11.0,
    "words/forward_csls_p1": 12.0,
    "words/backward_cosine_p10": 13.0,
    "speed/data_wait": 14.0,
    "train/skipped": 15.0,
}
TODAY = [
    "step",
    "valid/de-en_cloze_mono_acc",
    "valid/de-en_cloze_parallel_ppl",
    "valid/cloze_mono_ppl",
    "valid/cloze_parallel_acc",
    "zero_shot/de_layer1_centered",
    "zero_shot/de_layer1_source_centered",
    "zero_shot/en_layer1_in_language",
    "valid/de_zero_shot_acc",
    "valid/zero_shot_acc",
    "bli/cosine",
    "bli/random_cosine",
    "bli/source-target_csls_p1",
    "bli/target-source_cosine_p10",
    "speed/data_wait_share",
    "train/skipped_steps",
]


def test_a_line_of_0_1_0_is_read_under_todays_names(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps(RECORD) + "\n", encoding="utf-8")
    assert read_records(tmp_path / "metrics.jsonl") == [dict(zip(TODAY, RECORD.values()))]


@pytest.mark.parametrize("name", [*TODAY, "valid/de_mlm_ppl", "retrieval/de-en_layer1_cosine_top1", "train/loss"])
def test_todays_names_stay(name: str) -> None:
    assert current_metric(name) == name
