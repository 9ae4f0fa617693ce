"""Files of settings: presets of the user, a corpus anywhere, and faulty YAML, which is named with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.settings import refusal, train_config
from xlmtrain.config.load import compose
from xlmtrain.errors import ConfigError


@pytest.mark.parametrize("form", [["--config-dir", "{}"], ["--config-dir={}"]])
def test_a_directory_of_ones_own(tmp_path: Path, form: list[str]) -> None:
    own = tmp_path / "it's mine"
    (own / "experiment").mkdir(parents=True)
    (own / "experiment" / "mine.yaml").write_text("# @package _global_\noptim: {lr: 0.125}\n", encoding="utf-8")
    flags = [word.format(own) for word in form]
    assert train_config(*flags, "experiment=mine").optim.lr == 0.125
    assert f"{tmp_path}/nowhere: there is no such directory" in refusal("--config-dir", f"{tmp_path}/nowhere")


CORPUS = """\
output: out/ende
columns: {de: translation.de, en: translation.en}
train:
  pairs:
    de-en:
      - "data/*.{lang}"
      - /far/x.parquet
valid: {mono: {en: [../dev.en]}}
bpe: {codes: codes, merges: 7}
vocab: {file: vocab}
"""


def test_a_corpus_anywhere_has_paths_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "my corpus" / "ende.yaml"
    path.parent.mkdir()
    path.write_text(CORPUS, encoding="utf-8")
    found = compose("prepare", ["valid.mono.de=[here.de]", str(path), "bpe.merges=9"])
    assert found.train.pairs == {"de-en": [f"{path.parent}/data/*.{{lang}}", "/far/x.parquet"]}
    assert found.valid.mono == {"en": [f"{path.parent}/../dev.en"], "de": ["here.de"]}
    assert (found.output, found.bpe.codes) == (f"{path.parent}/out/ende", f"{path.parent}/codes")
    assert (found.vocab.file, found.bpe.merges) == (f"{path.parent}/vocab", 9)
    assert found.columns == {"de": "translation.de", "en": "translation.en"}
    assert compose("prepare", [str(path), "output=here"]).output == "here"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "merges: 7->mergers: 7",
            r"ende\.yaml: Key 'mergers' .*full_key: bpe\.mergers.*mean bpe\.merges",
        ),
        ("valid: ->vlaid: ", r"ende\.yaml: Key 'vlaid' .*full_key: vlaid.*did you mean valid\?"),
        ("merges: 7->merges: many", r"ende\.yaml: Value 'many' .*full_key: bpe\.merges"),
        ("merges: 7->merges: [", r"ende\.yaml:\d+: not YAML"),
        ("out/ende->~/ende", "output: ~/ende: the shell has not expanded the ~"),
        ("out/ende->${oc.env:HOME}", "output: .* asks for something outside the settings"),
        ("out/ende->''", "output=: empty"),
        ("{de: translation.de->{dee: translation.de", "columns.dee: there is no text in this language"),
        ("corpus=sample", r"one file of settings, or corpus=\.\.\., can be given, here are 2"),
        ("none.yaml", r"none\.yaml: there is no such file"),
    ],
)
def test_faults_of_a_corpus_anywhere_are_named(tmp_path: Path, words: str, message: str) -> None:
    change, more = (words.split("->"), []) if "->" in words else (["", ""], [words])
    (tmp_path / "ende.yaml").write_text(CORPUS.replace(*change), encoding="utf-8")
    with pytest.raises(ConfigError, match=re.compile(message, re.DOTALL)):
        compose("prepare", [str(tmp_path / "ende.yaml"), *more])


def test_only_preparation_takes_a_file_of_settings(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("run: x\n", encoding="utf-8")
    assert "there is no such option" in refusal(str(tmp_path / "x.yaml"))


GLOBAL = b"# @package _global_\n"


FAULTY = {
    "tab": (GLOBAL + b"optim:\n\tlr: 1\n", "3: not YAML: found character '\\t'"),
    "bracket": (GLOBAL + b"data: {mlm: {de: 1\n", "3: not YAML: expected ',' or '}'"),
    "latin-1": (GLOBAL + "# Größe\nrun: Größe\n".encode("latin-1"), "2: not UTF-8"),
    "byte-order mark": ("\ufeff".encode() + GLOBAL + b"optim: {lr: 1}\n", "1: begins with a byte-order mark"),
    "doubled key": (GLOBAL + b"optim: {lr: 1}\noptim: {lr: 2}\n", "3: optim is there twice"),
    "no package": (b"# mine\noptim: {lr: 1}\n", "1: the first line must be '# @package _global_'"),
    "empty": (b"", "1: the first line must be '# @package _global_'"),
    "comments": (GLOBAL + b"# later\n", "1: has no settings"),
    "a list": (GLOBAL + b"- lr\n", "1: has no settings"),
    "Norwegian": (GLOBAL + b"data:\n  mlm: {no: 1}\n", "3: YAML does not read no as text; put it in quotes"),
    "number": (GLOBAL + b"run: 1e5\n", "2: YAML does not read 1e5 as text; put it in quotes"),
    "truth": (GLOBAL + b"train: {precision: off}\n", "2: YAML does not read off as text; put it in quotes"),
    "defaults": (GLOBAL + b"defaults: model\n", "2: defaults must be a list"),
    "NUL": (GLOBAL + b"seed: 1\nrun: a\0b\n", "3: not YAML: special characters are not allowed"),
    "a list as a key": (GLOBAL + b"? [a, b]\n: 2\n", "2: a key must be text; put it in quotes"),
    "deep": (GLOBAL + b"run: " + b"[" * 2000 + b"\n", "1: not YAML that can be read (RecursionError"),
    "in itself": (GLOBAL + b"data: &x {mlm: *x}\n", "1: has more than 100,000 values, its aliases"),
    "chooses itself": (GLOBAL + b"defaults: [/experiment: mine]\n", "1: its defaults choose this file again"),
}


@pytest.mark.parametrize(("content", "complaint"), FAULTY.values(), ids=FAULTY)
def test_faulty_yaml_is_named_with_its_line(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "experiment").mkdir()
    path = tmp_path / "experiment" / "mine.yaml"
    path.write_bytes(content)
    flags = ["--config-dir", str(tmp_path)]
    assert refusal(*flags, "experiment=mine").startswith(f"{path}:{complaint}")
    assert train_config(*flags, "experiment=quickstart").data.mlm  # a file that is not chosen does not matter


@pytest.mark.parametrize("word", ["experiment=null", "model=", "data=null"])
def test_no_file_of_a_group_is_no_choice(word: str) -> None:
    assert refusal(word).startswith(f"{word}: name one of ")


def test_faulty_yaml_that_a_preset_chooses(tmp_path: Path) -> None:
    for group, content in (("experiment", GLOBAL + b"defaults:\n  - override /model: mine\n"), ("model", b"dim: {\n")):
        (tmp_path / group).mkdir()
        (tmp_path / group / "mine.yaml").write_bytes(content)
    assert f"{tmp_path}/model/mine.yaml:2: not YAML" in refusal("--config-dir", str(tmp_path), "experiment=mine")
    (tmp_path / "model" / "mine.yaml").write_bytes(b"dim: 8\nheads: 2\n")
    assert train_config("--config-dir", str(tmp_path), "experiment=mine").model.dim == 8
