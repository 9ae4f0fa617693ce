"""Check the output path of a preparation, and write the prepared data set to it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xlmtrain.config.prepare import PrepareConfig
from xlmtrain.data.format import PREPARED, Header, corpus_header, fingerprint, id_dtype
from xlmtrain.errors import DataError
from xlmtrain.prepare.artifacts import ArtifactStore, BuildTask, link, remove_finished
from xlmtrain.prepare.raw_files import RawText
from xlmtrain.runtime.atomic_io import sha256_of
from xlmtrain.runtime.output_paths import check_output_path, check_replaceable
from xlmtrain.text.vocab import Vocab


def check_output(config: PrepareConfig, texts: Sequence[RawText]) -> Path:
    """Return the absolute path of the output. Raises UserError if it must not be created or replaced."""
    given = [path for path in (config.bpe.codes, config.vocab.file) if path is not None]
    output = check_output_path("output", config.output, [*given, *(path for text in texts for _, path in text.sides())])
    if not os.path.lexists(output):
        return output
    if not config.overwrite:
        remove_finished(output)
        raise DataError(f"{output}: exists already; choose another output, or replace it with overwrite=true")
    check_replaceable("output", output, PREPARED)
    return output


def write_dataset(
    directory: Path,
    store: ArtifactStore,
    codes: str,
    vocab: str,
    corpora: Mapping[str, BuildTask],
    *,
    languages: list[str],
    text: dict[str, Any],
) -> Vocab:
    """Link codes, vocabulary and assembled corpora from the store, write ``dataset.json``; returns the vocabulary."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    link(store.path("codes", codes) / "codes", directory / "codes")
    link(store.path("vocab", vocab) / "vocab", directory / "vocab")
    headers = {}
    for name, task in corpora.items():
        for kind in ("ids", "offsets"):
            link(store.path(task.stage, task.key) / f"{name}.{kind}", directory / f"{name}.{kind}")
        headers[name] = corpus_header(store.result(task.stage, task.key)["header"])
    words = Vocab.read(directory / "vocab")
    Header(
        languages=languages,
        dtype=id_dtype(len(words)).name,
        vocab_size=len(words),
        vocab_fingerprint=words.fingerprint,
        text=text,
        fingerprint=fingerprint(words.fingerprint, sha256_of(directory / "codes"), text, headers),
        corpora=headers,
    ).write(directory)
    return words
