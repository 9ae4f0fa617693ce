"""The benchmark of data preparation: refused arguments, and a table with every comparison."""

from __future__ import annotations

import re

import pytest

from benchmarks import data
from tests.support import programs
from tests.support.repository import REPOSITORY
from xlmtrain.errors import ConfigError

SAMPLE = REPOSITORY / "data" / "sample"


@pytest.mark.parametrize("arguments", [[], ["en=x", "rounds=0"], ["en=x", "merges=10"]])
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match=arguments[1].partition("=")[0] if arguments else "give text with en=FILE"):
        data.main(arguments)


@pytest.mark.slow
def test_the_table_has_a_ratio_for_every_stage() -> None:
    settings = ["megabytes=0.1", "rounds=1", "merges=500"]
    words = [f"en={SAMPLE}/train.en", f"de={SAMPLE}/train.de", *settings]
    done = programs.run("-m", "benchmarks.data", *words, timeout=600)
    tokenizers = [f"raw text to ids, {model} tokenizer" for model in ("bpe", "unigram")]
    for step in ("normalize, tokenize", "raw text to ids", "tokens to ids", *(tokenizers if data.tokenizers else [])):
        row = re.search(rf"^\| {step}, 0\.2 MB \|.* (\d+\.\d+) \(\1 to \1\) \|$", done.stdout, re.MULTILINE)
        assert row, done.stdout
        assert float(row[1]) > 0.1
