"""xlmtrain show-data: the batches of training, and a prepared data set, as text."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.support.animals import write_animals
from tests.support.programs import Call
from tests.support.tiny import tiny_config
from xlmtrain.commands import prepare
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.text.vocab import MASK


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("text")
    prepare.main([f"output={place / 'prepared'}", *write_animals(place)])
    return place / "prepared"


def show_settings(prepared: Path) -> list[str]:
    """Settings of a run, as far as they say what the data is."""
    given = ["run=anywhere", f"data.path={prepared}", "data.mlm={de: 1, en: 1}", "data.tlm={de-en: 1}"]
    sizes = [
        "data.sequence_length=16",
        "data.sub_batch_tokens=128",
        "data.max_sentence_length=30",
        "train.batch_tokens=512",
    ]
    return [*given, *sizes, "mask.prob=0.5"]


@pytest.mark.parametrize(("step", "rows"), [(1, 2), (4, 1), (4, 1000)])
def test_show_data_shows_the_batches_of_training(call: Call, prepared: Path, step: int, rows: int) -> None:
    """Every token as it is seen, with what it hides, its language and its position."""
    defaults = [*([f"step={step}"] if step != 1 else []), *([f"rows={rows}"] if rows != 2 else [])]
    printed = call("show_data", *show_settings(prepared), *defaults).splitlines()
    sizes = {"data.sub_batch_tokens": 128, "data.max_sentence_length": 30, "train.batch_tokens": 512, "mask.prob": 0.5}
    dataset = Dataset(prepared)
    loader = Loader(tiny_config("anywhere", prepared, sizes | {"model.max_positions": 48}), dataset)
    sampler_state = loader.sampler.initial_state()
    for earlier in range(step - 1):
        sampler_state = loader.make(earlier, sampler_state).sampler_state
    batches = loader.make(step - 1, sampler_state).batches
    assert len(batches) == 4
    assert {batch.objective for batch in batches} == {"mlm", "tlm"}
    lines = iter(printed)
    word = dataset.vocab.token
    for batch in batches:
        count, length = batch.tokens.shape
        assert next(lines).startswith(
            f"== {batch.name}: {count} rows x {length} tokens, {len(batch.targets)} to predict"
        )
        truth = dict(zip(batch.target_index.tolist(), batch.targets.tolist()))
        for row in range(min(rows, count)):
            size = length if batch.lengths is None else int(batch.lengths[row])
            assert next(lines).startswith(f"-- row {row}, {size} tokens: ")
            expected = []
            for column, token in enumerate(batch.tokens[row, :size].tolist()):
                place = row * length + column
                seen = "<mask>" if token == MASK else word(token)
                hides = f"({word(truth[place])})" if place in truth else ""
                language = dataset.languages[int(batch.languages[row, column])]
                expected.append(f"{seen}{hides} {language}:{int(batch.positions[row, column])}")
            assert next(lines).strip().split(" | ") == expected
    assert list(lines) == []


def test_show_data_shows_masks_and_where_the_translation_begins(call: Call, prepared: Path) -> None:
    lines = call("show_data", *show_settings(prepared), "rows=1000").splitlines()
    tokens = [line.strip().split(" | ") for line in lines if line.startswith("   ")]
    hidden = [token for row in tokens for token in row if "(" in token]
    masked = np.mean([token.startswith("<mask>(") for token in hidden])
    assert len(hidden) > 100
    assert 0.7 < masked < 0.9
    places = [[token.rpartition(" ")[2] for token in row] for row in tokens]
    pairs = [row for row in places if row[-1].startswith("en:") and row[0] == "de:0"]
    assert pairs
    for row in pairs:
        second = row.index("en:0")
        assert row == [*(f"de:{i}" for i in range(second)), *(f"en:{i}" for i in range(len(row) - second))]
    alone = [row for row in places if row not in pairs]
    assert alone
    assert all(row == [f"{row[0][:2]}:{i}" for i in range(16)] for row in alone)


def test_show_data_shows_a_prepared_data_set(call: Call, prepared: Path) -> None:
    shown = call("show_data", f"data={prepared}", "rows=3", "words=4")
    corpora = Dataset(prepared).header.corpora
    for name, corpus in corpora.items():
        assert re.search(rf"^{re.escape(name)} +{corpus.sentences:,} +{corpus.tokens:,} ", shown, re.MULTILINE)
        assert f"sentences of {name} by their tokens:" in shown
    assert "== train.de-en.de | train.de-en.en\n" in shown
    refused = call("show_data", "data=nowhere", code=3)
    assert "nowhere/dataset.json: No such file or directory; is nowhere made by xlmtrain prepare?" in refused


def test_beside_settings_of_training_data_is_one_of_them(call: Call, prepared: Path) -> None:
    settings = [setting for setting in show_settings(prepared) if not setting.startswith(("data.mlm", "data.tlm"))]
    assert "== mlm." in call("show_data", *settings, "data=mlm")
    assert "tlm" not in call("show_data", *settings, "data=mlm")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["step=0"], 2, "step: 0 is not above 0"),
        (["rows=0"], 2, "rows: 0 is not above 0"),
        (["step=soon"], 2, "Value 'soon' of type 'str' could not be converted to Integer\n  full_key: step"),
        (["stpe=1"], 2, "stpe"),
        (["optim.rate=1"], 2, "optim.rate"),
        (["mask.prob=all"], 2, "mask.prob"),
        (["data.mlm={fr: 1}"], 2, "fr"),
        (["data.path=nowhere"], 3, "nowhere/dataset.json"),
        (["data.path=???"], 2, "data.path=..."),
    ],
)
def test_show_data_refuses(call: Call, prepared: Path, arguments: list[str], code: int, message: str) -> None:
    assert message in call("show_data", *show_settings(prepared), *arguments, code=code)
