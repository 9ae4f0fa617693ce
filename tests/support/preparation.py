"""A directory with raw text, and what preparation makes of it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.foreign_tokenizers import write_tokenizer
from tests.support.repository import REPOSITORY
from xlmtrain.config.load import compose
from xlmtrain.config.prepare import BpeConfig, Executor, PrepareConfig, SplitConfig
from xlmtrain.data.format import Header
from xlmtrain.prepare.pipeline import prepare
from xlmtrain.prepare.statistics import FileStatistics, Statistics
from xlmtrain.text.vocab import Vocab

GERMAN = ["Über den Dächern schläft die Katze.", "Österreich ist größer als ÄÖÜß!", "Die Straße „am See“ ist naß."]


ENGLISH = ["The cat sleeps above the roofs.", "Austria isn't a street!", "It's 5,300 o'clock <s> </s> <pad>."]


TOKENIZERS = ("codes", "tokenizer.json", "new bpe")
"""Kinds of :func:`tokenizer_settings`."""


def tokenizer_settings(kind: str, directory: Path) -> list[str]:
    """Return the settings of ``xlmtrain prepare`` for a kind of tokenizer, which may be written into ``directory``."""
    if kind == "codes":
        return ["bpe.merges=200"]
    if kind == "new bpe":
        return ["new_tokenizer.model=bpe", "new_tokenizer.size=400"]
    folder = directory / "tokenizer"
    return [f"tokenizer={folder if folder.exists() else write_tokenizer('byte_bpe', folder)}"]


def executor_settings(output: Path, executor: Executor, tokenizer: str) -> PrepareConfig:
    """Return the settings of two workers that prepare a part of the sample corpus; ``tokenizer``: its kind."""
    sample = REPOSITORY / "data" / "sample"
    text = [f"train.mono={{de: [{sample}/valid.de]}}", f"train.pairs={{de-en: ['{sample}/test.{{lang}}']}}"]
    chosen = [*tokenizer_settings(tokenizer, output.parent), f"executor={executor.value}", "workers=2"]
    config: PrepareConfig = compose("prepare", [f"output={output}", *text, *chosen])
    return config


class Workplace:
    """A directory with raw text, and what preparation makes of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.output = directory / "out" / "prepared"
        self.write("mono.de", GERMAN)
        self.write("mono.en", ENGLISH)
        self.write("pairs.de", GERMAN)
        self.write("pairs.en", ENGLISH)

    def write(self, name: str, lines: list[str], end: str = "\n") -> None:
        (self.directory / name).write_bytes(end.join([*lines, ""]).encode())

    def config(self, **settings: Any) -> PrepareConfig:
        train = SplitConfig(
            mono={language: [f"{self.directory}/mono.{language}"] for language in ("en", "de")},
            pairs={"de-en": [f"{self.directory}/pairs.{{lang}}"]},
        )
        defaults: dict[str, Any] = {"output": str(self.output), "train": train, "workers": 1}
        defaults["bpe"] = BpeConfig(merges=30)
        return PrepareConfig(**{**defaults, **settings})

    def prepare(self, **settings: Any) -> Statistics:
        return prepare(self.config(**settings))

    def pairs(self) -> SplitConfig:
        """The pairs alone."""
        return SplitConfig(pairs={"de-en": [f"{self.directory}/pairs.{{lang}}"]})

    def sentences(self, corpus: str) -> list[list[int]]:
        """The ids of a corpus as lists."""
        header = Header.read(self.output)
        entry = header.corpora[corpus]
        ids = np.fromfile(self.output / entry.ids.file, header.dtype)
        starts = np.fromfile(self.output / entry.offsets.file, "<i8")
        assert len(starts) == entry.sentences + 1
        assert starts[-1] == len(ids) == entry.tokens
        return [ids[start:end].tolist() for start, end in itertools.pairwise(starts)]

    def text(self, corpus: str) -> list[str]:
        vocab = Vocab.read(self.output / "vocab")
        return [vocab.decode(ids) for ids in self.sentences(corpus)]

    def leftovers(self) -> set[str]:
        """Files and directories beside the raw text."""
        raw = {"mono.de", "mono.en", "pairs.de", "pairs.en"}
        return {path.name for path in self.directory.rglob("*") if path.name not in {*raw, "out"}}


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def dropped(file: FileStatistics) -> dict[str, int]:
    """The reasons for which lines of a file were dropped."""
    return {reason: count for reason, count in file.dropped.items() if count}
