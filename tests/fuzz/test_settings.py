"""Settings: command lines, YAML files, stored JSON, reference curves."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fuzzing import attempt
from tests.support.mutations import damaged, damaged_json, mutated_value
from tests.support.tiny import tiny_config
from xlmtrain.config.load import SCHEMAS, compose, from_json, parse_args
from xlmtrain.config.manual import key_paths
from xlmtrain.config.old_names import current_settings
from xlmtrain.config.schema import Config, config_as_json
from xlmtrain.config.train import Precision
from xlmtrain.diagnostics.baseline import ReferenceCurve, differences

STORED = config_as_json(tiny_config("run", "data"))
WORDS = {
    "config": (b"run=x", b"model.dim=64", b"data.mlm={de: 1, en: 0.5}", b"init.word_vectors=[a, b]", b"optim.lr=1e-3"),
    "prepare": (b"corpus=sample", b"output=x", b"train.mono.de=[a/*.gz]", b"text.lowercase=true", b"bpe.codes=null"),
    "finetune": (b"run=x", b"task.train.de=x.tsv", b"task.columns=[label, text]", b"train.epochs=3"),
}
HEAD = b"# @package _global_\n"
BILLION_LAUGHS = b"x0: &x0 [0, 0]\n" + b"".join(
    b"x%d: &x%d [%s]\n" % (i, i, b", ".join([b"*x%d" % (i - 1)] * 9)) for i in range(1, 9)
)
EXPERIMENT = (
    b"# @package _global_\ndefaults:\n  - override /model: small\nrun: x\nmodel:\n  dim: 64\ndata:\n  mlm: {de: 1}\n"
)
CORPUS = b"# @package _global_\noutput: x\ntrain:\n  mono:\n    de: [a, b]\n  pairs: {de-en: 'x.{lang}'}\n"
PHASES = [
    {"name": "a", "steps": 100, "data": {"clm": {"de": 1}, "mlm": {}}, "train": {"batch_tokens": 4096}},
    {"name": "b", "tokens": 10**6, "mask": {"prob": 0.3}, "optim": {"lr": 1e-3, "schedule": "linear"}},
]
REFERENCE = {
    **{"preset": "p", "command": "c", "text": "t", "trained_on": "a", "judged_on": "b"},
    **{"settings": {"model.dim": 64}, "curves": {"train/loss": [[1.0, 5.0], [2.0, 4.0]]}},
}


@dataclass
class Options:
    """Options of a small tool, one of each kind."""

    path: str
    count: int = 3
    share: float = 0.5
    names: list[str] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    precision: Precision = Precision.auto
    layers: int | None = None


def text(word: bytes) -> str:
    """Return a word as Python has it in ``sys.argv``: a NUL cannot be there, other bytes are surrogates."""
    return word.replace(b"\x00", b"").decode("utf-8", "surrogateescape")


@given(draw=st.data(), name=st.sampled_from([*SCHEMAS]))
def test_command_line(draw: st.DataObject, name: str) -> None:
    """Words of a command line changed, or any text for any key."""
    keys = st.sampled_from([*key_paths(SCHEMAS[name])]).map(str.encode)
    free = st.builds(lambda key, value: key + b"=" + value, keys, damaged(b"[a, {b: 1}, 'c', 2.5, null]"))
    changed = st.one_of(st.sampled_from(WORDS[name]).flatmap(damaged), free, free)
    words = [text(word) for word in draw.draw(st.lists(changed, min_size=1, max_size=3))]
    attempt(f"command line of {name}", lambda: compose(name, words), 100)


@given(
    words=st.lists(
        st.sampled_from(
            (b"path=x", b"count=3", b"share=0.1", b"names=a", b"weights={de: 1}", b"layers=2", b"precision=fp16")
        ).flatmap(damaged),
        max_size=4,
    )
)
@example(words=[b"path=x", b"weights={de: " + b"9" * 5000 + b"}"])
@example(words=[b"path=x", b"weights=" + b"[" * 5000])
def test_command_line_of_a_tool(words: list[bytes]) -> None:
    shown = [word for word in map(text, words) if word not in ("-h", "--help")]
    attempt("command line of a tool", lambda: parse_args(Options, shown), 100)


@pytest.mark.parametrize(
    "word",
    [
        "model.dim=" + "9" * 5000,
        "data.mlm={de: " + "9" * 5000 + "}",
        "init.word_vectors=" + "[" * 300 + "]" * 300,
        "run=" + "[" * 5000,
        "experiment=" + "a" * 300,
        "a" * 5000 + "=3",
        "model.dim=${model.dim}",
    ],
    ids=lambda word: word[:24],
)
def test_hard_words_of_a_command_line(word: str) -> None:
    assert attempt("command line of config", lambda: compose("config", [word]), len(word)) is None


@given(content=damaged(EXPERIMENT))
@example(content=HEAD + b"run: " + b"[" * 5000)
@example(content=HEAD + b"run: " + b"[" * 5000 + b"]" * 5000)
@example(content=HEAD + b"model: {dim: " + b"9" * 5000 + b"}\n")
@example(content=HEAD + b"model: &a {dim: *a}\n")
@example(content=HEAD + BILLION_LAUGHS)
@example(content=HEAD + b"? [a]\n: 3\n")
@example(content=HEAD + b"model: {dim: !!int x}\n")
@example(content=HEAD + b"defaults:\n  - override /experiment: own\nrun: x\n")
@example(content=HEAD + b"defaults:\n  - own\nrun: x\n")
@example(content=HEAD + b"run: \x0b\n")
def test_experiment_file(place: Path, content: bytes) -> None:
    (place / "experiment").mkdir(exist_ok=True)
    (place / "experiment" / "own.yaml").write_bytes(content)
    words = ["--config-dir", str(place), "experiment=own"]
    attempt("YAML of an experiment", lambda: compose("config", words), len(content))


@given(content=damaged(CORPUS))
def test_corpus_file(place: Path, content: bytes) -> None:
    (place / "corpus").mkdir(exist_ok=True)
    (place / "corpus" / "own.yaml").write_bytes(content)
    words = ["--config-dir", str(place), "corpus=own"]
    attempt("YAML of a corpus", lambda: compose("prepare", words), len(content))
    (place / "own.yaml").write_bytes(content)
    attempt("YAML of a corpus anywhere", lambda: compose("prepare", [str(place / "own.yaml")]), len(content))


@given(values=mutated_value(STORED))
@example(values={**STORED, "seed": 10**400})
def test_stored_settings(values: Any) -> None:
    if isinstance(values, dict):  # as read_json returns it
        attempt("stored settings", lambda: from_json(Config, current_settings(values)), 100)


@given(values=mutated_value(PHASES))
def test_phases(values: Any) -> None:
    word = f"phases={json.dumps(values)}"
    attempt("phases", lambda: compose("config", ["run=x", "data.path=y", "data.mlm={de: 1}", word]), len(word))


@given(content=damaged_json(REFERENCE))
def test_reference_curve(content: bytes) -> None:
    known = attempt(
        "reference curve", lambda: ReferenceCurve.from_json(content.decode("utf-8", "replace")), len(content)
    )
    if known is not None:
        attempt("reference curve, compared", lambda: differences(known.settings, {"model.dim": 3}), len(content))
        assert json.loads(known.as_json())["preset"] == known.preset
