"""Download datasets and write their text.

The output directory gets ``NAME.LANGUAGE.gz`` for every dataset, one sentence a line, pairs aligned; ``downloads/``,
the archives that text was read from, which may be removed afterwards; and ``downloads.json`` (see manifest.py).
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from xlmtrain.download.archives import check_compressed
from xlmtrain.download.catalogue import DatasetEntry
from xlmtrain.download.client import Client
from xlmtrain.download.fetch import fetch, published_checksum
from xlmtrain.download.formats import Rows, read_rows
from xlmtrain.download.manifest import Manifest, exclusive_lock
from xlmtrain.download.wiki import require_wiki
from xlmtrain.errors import DataError
from xlmtrain.runtime.output_paths import check_output_path
from xlmtrain.runtime.progress import ProgressBar

COMPRESSION = 6


def download(entries: Sequence[DatasetEntry], output: Path, client: Client, workers: int = 1) -> None:
    """Write the texts of ``entries`` to ``output``; finished ones are skipped. ``workers``: to read Wikipedia with.

    Raises DataError with all that failed; the rest is complete then, and the same call goes on where it stopped. If
    nothing may be downloaded, nothing is left behind.
    """
    check_output_path("output", output)
    try:
        with exclusive_lock(output):
            manifest = Manifest(output)
            missing = [e for e in entries if not all(manifest.has_text(output / name) for name in e.texts())]
            if any(entry.format == "wiki" for entry in missing):
                require_wiki()
            manifest.claim(
                path
                for entry in missing
                for path in (entry.local_path(output), *(output / name for name in entry.texts()))
                if manifest.file_record(entry.file.url) is None or path.parent == output
            )
            (output / "downloads").mkdir(exist_ok=True)
            failed = _download_all(missing, output, manifest, client, workers)
    except OSError as error:
        raise DataError(f"output={output}: cannot be written ({error.strerror or error})") from error
    if failed:
        raise DataError("\n  ".join(failed.values()))


def _download_all(
    entries: Sequence[DatasetEntry], output: Path, manifest: Manifest, client: Client, workers: int
) -> dict[str, str]:
    """Download and read one dataset after the other; return name -> error."""
    failed: dict[str, str] = {}
    for entry in entries:
        try:
            _fetch_missing(entry, output, manifest, client)
            _write_entry(entry, output, workers)
        except DataError as error:
            failed[entry.name] = f"{entry.name}: {error}"
            continue
        for name in entry.texts():
            manifest.add_text(output / name)
    for entry in entries:  # only now: another dataset may have needed the same file
        path = entry.local_path(output)
        if entry.name in failed:
            # A file with a published checksum is as its publisher made it, so another download would not help.
            if path.exists() and entry.file.checksum is None and entry.file.sums is None:
                path.unlink()
                manifest.forget_file(entry.file.url)
                failed[entry.name] += f"; removed {path.name}"
            for claimed in (path, *(output / name for name in entry.texts())):
                manifest.release(claimed)
    return failed


def _fetch_missing(entry: DatasetEntry, output: Path, manifest: Manifest, client: Client) -> None:
    path, known = entry.local_path(output), manifest.file_record(entry.file.url)
    if known is None or not path.exists() or path.stat().st_size != known.size:
        manifest.add_file(entry.file.url, fetch(client, published_checksum(client, entry.file), path, known))


def _write_entry(entry: DatasetEntry, output: Path, workers: int) -> None:
    """Write the texts of a dataset, or read those that are used as they are to their end."""
    path = entry.local_path(output)
    if entry.format == "file":
        return
    if entry.format == "text":
        kept, dropped = check_compressed(path), 0
        _require(kept)
    else:
        kept, dropped = _write_texts(entry, read_rows(entry, path, workers), output)
    notes = f" ({dropped:,} without text on every side dropped)" if dropped else ""
    print(f"{entry.name}: {kept:,} {'pairs' if len(entry.languages) > 1 else 'sentences'}{notes}", flush=True)


def _write_texts(entry: DatasetEntry, rows: Rows, output: Path) -> tuple[int, int]:
    """Write one file a language, all or none of them; return the number of rows kept and dropped."""
    finals = [output / name for name in entry.texts()]
    partials = [path.with_name(f".{path.name}.partial") for path in finals]
    kept = dropped = 0
    try:
        with ExitStack() as stack:
            # No name and no time in the header: the same text gives the same bytes.
            raw = [stack.enter_context(path.open("wb")) for path in partials]
            files = [stack.enter_context(gzip.GzipFile("", "wb", COMPRESSION, file, mtime=0)) for file in raw]
            progress = stack.enter_context(ProgressBar(f"read {entry.name}", None, " lines"))
            for row in rows:
                progress.update()
                # A sentence must not contain what some program takes for the end of a line.
                sentences = [" ".join(text.splitlines()).strip() for text in row]
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


def prepare_command(entries: Sequence[DatasetEntry], output: Path) -> str:
    """Return the command that prepares the downloaded text. Pairs to validate on are also used as text of one
    language."""
    settings = []
    splits: dict[tuple[str, str], dict[str, list[str]]] = {}
    for entry in entries:
        for prefix, setting in (("codes", "bpe.codes"), ("vocab", "vocab.file")):
            if entry.name.startswith(prefix):
                settings.append(f"{setting}={_quoted(output / entry.name)}")
        if entry.split is not None:
            if len(entry.languages) == 1 or entry.split != "train":
                for language, name in zip(entry.languages, entry.texts()):
                    mono = splits.setdefault((entry.split, "mono"), {})
                    mono.setdefault(language, []).append(str(output / name))
            if len(entry.languages) > 1:
                pairs = splits.setdefault((entry.split, "pairs"), {})
                pair = "-".join(sorted(entry.languages))
                pairs.setdefault(pair, []).append(str(output / f"{entry.name}.{{lang}}.gz"))
    for (split, kind), files in splits.items():
        listed = ", ".join(f"{key}: {json.dumps(paths, ensure_ascii=False)}" for key, paths in files.items())
        settings.append(f"{split}.{kind}={{{listed}}}")
    return shlex.join(["xlmtrain", "prepare", "output=prepared/downloaded", *settings])


def _quoted(path: Path) -> str:
    """Return a path as Hydra reads it: in JSON's quotes if it has blanks or marks."""
    return str(path) if re.fullmatch(r"[\w./-]+", str(path)) else json.dumps(str(path), ensure_ascii=False)
