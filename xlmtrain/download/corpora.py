"""The whole job: download, read the text out, say what to do with it.

The output directory gets ``NAME.LANGUAGE.gz`` for every corpus, one sentence a line, pairs aligned; ``downloads/``,
the archives that text was read out of, which may be removed then; and ``downloads.json`` (see ledger.py).
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

from xlmtrain.download.archives import check_compressed
from xlmtrain.download.catalogue import Corpus
from xlmtrain.download.client import Client
from xlmtrain.download.formats import STREAMED, Sequences, read_rows
from xlmtrain.download.ledger import Ledger, only_one
from xlmtrain.download.transfers import fetch_all, local_paths
from xlmtrain.download.wiki import require_wiki
from xlmtrain.errors import DataError
from xlmtrain.runtime.output_paths import check_output_path
from xlmtrain.runtime.progress import ProgressBar

COMPRESSION = 6


def download(corpora: Sequence[Corpus], output: Path, client: Client, parallel: int = 3, workers: int = 1) -> None:
    """Make ``output`` hold the texts of ``corpora``; what is there already is not made again. ``parallel``: downloads
    at a time; ``workers``: processes that read Wikipedia.

    Raises DataError with all that failed; the rest is complete then, and the same call goes on where it stopped.
    """
    failed: dict[str, str] = {}
    check_output_path("output", output)
    try:
        (output / "downloads").mkdir(parents=True, exist_ok=True)
        with only_one(output):
            ledger = Ledger(output)
            missing = [c for c in corpora if not all(ledger.has_text(output / name) for name in c.texts())]
            for corpus in missing:
                for name in corpus.texts():
                    ledger.claim_text(output / name)
            if any(corpus.format == "wiki" for corpus in missing):
                require_wiki()
            failed = fetch_all(missing, output, ledger, client, parallel)
            whole = [corpus for corpus in missing if not any(file.url in failed for file in corpus.files)]
            failed |= _finish_all(whole, output, ledger, workers)
    except OSError as error:
        raise DataError(f"output={output}: cannot be written ({error.strerror or error})") from error
    if failed:
        raise DataError("\n  ".join(failed.values()))


def _finish_all(corpora: Sequence[Corpus], output: Path, ledger: Ledger, workers: int) -> dict[str, str]:
    """Make the texts of corpora whose files are there; returns name -> what went wrong."""
    failed: dict[str, str] = {}
    for corpus in corpora:
        try:
            _finish(corpus, output, workers)
        except DataError as error:
            failed[corpus.name] = f"{corpus.name}: {error}"
            continue
        for name in corpus.texts():
            ledger.add_text(output / name)
    for corpus in corpora:  # only now: another corpus may have needed the same file
        if corpus.name in failed:
            for file, path in zip(corpus.files, local_paths(corpus, output)):
                if file.checksum is None and file.sums is None:  # else it is as its publisher made it
                    path.unlink(missing_ok=True)
                    ledger.forget(file.url)
                    failed[corpus.name] += f"; removed {path.name}"
    return failed


def _finish(corpus: Corpus, output: Path, workers: int) -> None:
    """Make the texts of a corpus, or read those that are used as they are to their end."""
    paths = local_paths(corpus, output)
    if corpus.format == "file":
        return
    if corpus.format == "text":
        kept, dropped = check_compressed(paths[0]), 0
        _require(kept)
    else:
        total = paths[0].stat().st_size if corpus.format in STREAMED else 0
        with ProgressBar(f"read {corpus.name}", total, "B") if total else nullcontext() as progress:
            rows = read_rows(corpus, paths, workers, progress.advance if progress else _ignore)
            kept, dropped = _write_texts(corpus, rows, output)
    notes = f" ({dropped:,} without text on every side dropped)" if dropped else ""
    print(f"{corpus.name}: {kept:,} {'pairs' if len(corpus.languages) > 1 else 'sentences'}{notes}", flush=True)


def _ignore(_: int) -> None:
    """For formats that are read in more than one go."""


def _write_texts(corpus: Corpus, rows: Sequences, output: Path) -> tuple[int, int]:
    """Write one file a language, all or none of them; returns the rows kept and dropped."""
    finals = [output / name for name in corpus.texts()]
    partials = [path.with_name(f".{path.name}.partial") for path in finals]
    kept = dropped = 0
    try:
        with ExitStack() as stack:
            # No name and no time in the header: the same text gives the same bytes.
            raw = [stack.enter_context(path.open("wb")) for path in partials]
            files = [stack.enter_context(gzip.GzipFile("", "wb", COMPRESSION, file, mtime=0)) for file in raw]
            for row in rows:
                sentences = [_one_line(text) for text in row]
                if not all(sentences):
                    dropped += 1
                    continue
                kept += 1
                for file, sentence in zip(files, sentences):
                    file.write(sentence.encode("utf-8", "replace") + b"\n")
        _require(kept)
        for partial, final in zip(partials, finals):
            os.replace(partial, final)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)
    return kept, dropped


def _require(sentences: int) -> None:
    if not sentences:
        raise DataError("no sentence found in it")


def _one_line(text: str) -> str:
    """Without what some program takes for the end of a line."""
    return " ".join(text.splitlines()).strip()


def prepare_command(corpora: Sequence[Corpus], output: Path) -> str:
    """The command that prepares what was downloaded. Validation reads either side of its pairs by itself, too."""
    splits: dict[str, dict[str, dict[str, list[str]]]] = {}
    settings = []
    for corpus in corpora:
        if corpus.name.startswith("codes"):
            settings.append(f"bpe.codes={_value(output / corpus.name)}")
        elif corpus.name.startswith("vocab"):
            settings.append(f"vocab.file={_value(output / corpus.name)}")
        elif corpus.split is not None:
            of_split = splits.setdefault(corpus.split, {"mono": {}, "pairs": {}})
            if len(corpus.languages) == 1 or corpus.split != "train":
                for language, name in zip(corpus.languages, corpus.texts()):
                    of_split["mono"].setdefault(language, []).append(str(output / name))
            if len(corpus.languages) > 1:
                pair = "-".join(sorted(corpus.languages))
                of_split["pairs"].setdefault(pair, []).append(str(output / f"{corpus.name}.{{lang}}.gz"))
    for split, kinds in splits.items():
        for kind, files in kinds.items():
            if files:
                settings.append(f"{split}.{kind}={_mapping(files)}")
    return shlex.join(["python", "tools/prepare.py", "output=prepared/downloaded", *settings])


def _mapping(files: dict[str, list[str]]) -> str:
    """Hydra's way of writing a mapping of lists; JSON's quotes are its quotes."""
    return "{" + ", ".join(f"{key}: {json.dumps(paths, ensure_ascii=False)}" for key, paths in files.items()) + "}"


def _value(path: Path) -> str:
    """A path as Hydra reads it: quoted where it has blanks or marks."""
    return str(path) if re.fullmatch(r"[\w./-]+", str(path)) else json.dumps(str(path), ensure_ascii=False)
