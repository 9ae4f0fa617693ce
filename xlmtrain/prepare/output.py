"""The output of a preparation, and the work directory beside it, in which the artifacts are stored."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xlmtrain.config.prepare import PrepareConfig
from xlmtrain.data.format import PREPARED, TEXT_FILES, CorpusHeader, Header, read_vocab
from xlmtrain.errors import DataError, UserError
from xlmtrain.prepare.artifacts import ArtifactStore, BuildTask, InterruptedWork
from xlmtrain.prepare.raw_files import RawText
from xlmtrain.runtime.lock import try_lock
from xlmtrain.runtime.output_paths import LOCK_FILE, check_output_path, check_replaceable
from xlmtrain.runtime.typed_json import typed
from xlmtrain.text.vocab import Vocab

FINISHED = "finished"
# In a work directory: one for each stage, the data set that is put together, the logs of Slurm's jobs.
_DIRECTORIES = (
    *("shard", "tokenizer", "tokenize", "held_out", "duplicates", "select", "words"),
    *("codes", "subwords", "encode", "vocab", "assemble"),
    *("output", "logs"),
)


def check_output(config: PrepareConfig, texts: Sequence[RawText]) -> Path:
    """Return the absolute path of the output. Raises UserError if it must not be created or replaced."""
    given = [path for path in (config.bpe.codes, config.vocab.file, config.tokenizer) if path is not None]
    output = check_output_path("output", config.output, [*given, *(path for text in texts for path in text.paths)])
    if not os.path.lexists(output):
        return output
    if not config.overwrite:
        remove_finished(output)
        raise DataError(f"{output}: exists already; choose another output, or replace it with overwrite=true")
    check_replaceable("output", output, PREPARED)
    return output


def _work_directory(output: Path) -> Path:
    return output.with_name(f".{output.name}.partial")


def _is_work_directory(directory: Path) -> bool:
    """Return whether all that is in ``directory`` was put there by a preparation, or it is empty."""
    known = (LOCK_FILE, FINISHED, *_DIRECTORIES)
    return (
        directory.is_dir()
        and not directory.is_symlink()
        and all(entry.name in known or entry.name.endswith(".tasks.json") for entry in directory.iterdir())
    )


@contextmanager
def open_store(output: Path) -> Iterator[ArtifactStore]:
    """Open and lock the artifact store of ``output``, in ``.{name}.partial`` beside it.

    An interruption (a signal, a full disk) leaves the store, so that the same command goes on. A UserError removes it
    unless it existed before; so does :func:`publish`. Raises DataError if another process holds it, or for any OSError.
    """
    directory = _work_directory(output)
    is_new = not directory.exists()
    if not is_new and not _is_work_directory(directory):
        raise DataError(f"{directory}: is in the way of preparing {output} and was not left by a preparation; move it")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / LOCK_FILE).open("w") as lock:
            if not try_lock(lock):
                raise DataError(f"{output}: another process is preparing it (it works in {directory})")
            try:
                yield ArtifactStore(directory)
            except UserError as error:
                if is_new and not isinstance(error, InterruptedWork):
                    shutil.rmtree(directory, ignore_errors=True)
                raise
    except OSError as error:
        kept = f"finished work is kept in {directory}, the same command goes on"
        advice = kept if directory.is_dir() else "choose another output"
        raise DataError(f"{error.filename or output}: {error.strerror or error}; {advice}") from error


def write_dataset(
    store: ArtifactStore,
    artifacts: Sequence[Path],
    corpora: Mapping[str, BuildTask],
    *,
    languages: list[str],
    text: dict[str, Any],
    size: int = 0,
) -> tuple[Path, Vocab]:
    """Link codes, vocabulary or tokenizer in the ``artifacts``, and the assembled corpora, to the directory ``output``
    of the store, and write ``dataset.json``.

    ``text``, ``size``: as in :func:`~xlmtrain.data.format.read_vocab`. Returns the directory and the vocabulary.
    """
    directory = store.directory / "output"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for path in (path for artifact in artifacts for path in artifact.iterdir() if path.name in TEXT_FILES):
        link(path, directory / path.name)
    headers = {}
    for name, task in corpora.items():
        for kind in ("ids", "offsets"):
            link(store.path(task.stage, task.key) / f"{name}.{kind}", directory / f"{name}.{kind}")
        headers[name] = typed(CorpusHeader, store.result(task.stage, task.key)["header"])
    words = read_vocab(directory, text, size)
    Header.of(directory, words, languages, text, headers).write(directory)
    return directory, words


def publish(store: ArtifactStore, prepared: Path, output: Path, overwrite: bool) -> None:
    """Rename ``prepared``, a directory in the store, to ``output``, and remove the store.

    Raises UserError, and leaves the store, if something that must not be replaced has appeared there meanwhile.
    """
    replaced = output.with_name(f".{output.name}.replaced")
    check_replaceable("output", replaced, PREPARED)
    if os.path.lexists(output):
        if not overwrite:
            raise InterruptedWork(f"{output}: has appeared meanwhile; move it away, and the same command goes on")
        check_replaceable("output", output, PREPARED)
    (store.directory / FINISHED).touch()
    shutil.rmtree(replaced, ignore_errors=True)
    if output.exists():
        output.rename(replaced)
    prepared.rename(output)
    shutil.rmtree(replaced, ignore_errors=True)
    shutil.rmtree(store.directory, ignore_errors=True)


def remove_finished(output: Path) -> None:
    """Remove the store of a complete output, left by a process that was killed while removing it."""
    directory = _work_directory(output)
    if (directory / FINISHED).exists() and _is_work_directory(directory):
        shutil.rmtree(directory, ignore_errors=True)


def link(source: Path, target: Path) -> None:
    """Hard-link ``source`` to ``target``; copy it where the file system has no links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
