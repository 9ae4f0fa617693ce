"""Download one file: resume it where it broke off, verify it, then give it its own name.

Until it is verified the file is called ``NAME.part``; ``NAME.part.json`` says which version of the publisher's file
it is the beginning of. Both stay when a download is interrupted, and are removed when the content is wrong.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import requests

from xlmtrain.download.catalogue import RemoteFile
from xlmtrain.download.client import Client, RetryableError
from xlmtrain.errors import DataError
from xlmtrain.runtime.atomic_io import json_object, sync_file, write_json
from xlmtrain.runtime.progress import ProgressBar

CHECKSUM_LIST_BYTES = 1 << 20
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


@dataclass(frozen=True)
class DownloadRecord:
    """Size and checksum of a file that was downloaded."""

    size: int
    sha256: str


def fetch(client: Client, file: RemoteFile, target: Path, known: DownloadRecord | None = None) -> DownloadRecord:
    """Download ``file`` to ``target`` and return its record. ``known``: the record of the last time.

    Raises DataError if it cannot be downloaded, or is not what the catalogue, the publisher or ``known`` say.
    """
    part = _Part(target, file.url)
    for _ in range(2):
        resumed = client.retry(lambda: _request(client, file, part, bool(file.checksum or known)), part.size)
        record, problem = _verify(part.path, file, known)
        if problem is None:
            sync_file(part.path)
            os.replace(part.path, target)
            part.note.unlink(missing_ok=True)
            return record
        part.discard()
        if not resumed:  # a resumed file may join parts of two versions: download it once more, from the start
            break
    raise DataError(f"{file.url}: {problem}; removed")


def published_checksum(client: Client, file: RemoteFile) -> RemoteFile:
    """Return ``file`` with the checksum that its publisher names now.

    Dumps of Wikipedia are renewed under the name ``latest``; the list of checksums has them under their date.
    """
    if file.sums is None:
        return file
    name = file.url.rpartition("/")[2]
    pattern = re.escape(name).replace("latest", r"\d{8}")
    text = client.read(file.sums, CHECKSUM_LIST_BYTES).decode("utf-8", "replace")
    found = re.search(rf"^([0-9a-f]{{40}})  {pattern}$", text, re.MULTILINE)
    if found is None:
        raise DataError(f"{file.sums}: has no checksum of {name}")
    return replace(file, checksum=f"sha1:{found[1]}")


class _Part:
    """The beginning of a file, and a note of the version that it is the beginning of."""

    def __init__(self, target: Path, url: str) -> None:
        self.path = target.with_name(target.name + ".part")
        self.note = target.with_name(target.name + ".part.json")
        self._url = url

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def begin(self, validator: str | None) -> None:
        self.path.unlink(missing_ok=True)
        write_json(self.note, {"url": self._url, "validator": validator})

    def resume_point(self, has_checksum: bool) -> tuple[int, str | None]:
        """Return the bytes to keep and the validator of their version.

        Without a validator only a checksum can tell whether the parts fit together.
        """
        try:
            note = json_object(self.note)
        except (OSError, ValueError, RecursionError):
            return 0, None
        validator = note.get("validator") if isinstance(note.get("validator"), str) else None
        usable = note.get("url") == self._url and (validator or has_checksum)
        return (self.size(), validator) if usable else (0, None)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _request(client: Client, file: RemoteFile, part: _Part, has_checksum: bool) -> bool:
    """Send one request and append its body to ``part``; return whether the bytes in it were kept."""
    offset, validator = part.resume_point(has_checksum)
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and validator:
        headers["If-Range"] = validator  # the server sends the whole file if it has another version
    with closing(client.open(file.url, headers)) as response:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        total = int(found[2]) if found and found[2] != "*" else None
        if response.status_code == 416 and offset and total == offset:
            return True
        if response.status_code == 200:
            length = response.headers.get("Content-Length", "")
            total, offset = int(length) if length.isdecimal() else None, 0
            _check_total(file, total)
            part.begin(_validator(response))
        elif not (offset and found and found[1] == str(offset) and _validator(response) in (None, validator)):
            part.discard()
            raise RetryableError(f"{file.url}: the server has another file now")
        _check_total(file, total)
        _check_free_space(part.path, (total or file.size or 0) - offset)
        _append(client, file, part, response, offset, total)
    return offset > 0


def _append(
    client: Client, file: RemoteFile, part: _Part, response: requests.Response, offset: int, total: int | None
) -> None:
    size, limit = offset, total or file.size or file.limit
    with part.path.open("ab") as output, ProgressBar(part.path.stem, total, "B", offset) as progress:
        for block in client.blocks(response):
            size += len(block)
            if size > limit:
                part.discard()
                raise DataError(f"{file.url}: sends more than {limit:,} bytes; refused")
            output.write(block)
            progress.update(len(block))
    if total is not None and size < total:
        raise RetryableError(f"{file.url}: broke off after {size:,} of {total:,} bytes")


def _check_total(file: RemoteFile, total: int | None) -> None:
    if total is not None and file.size is not None and total != file.size:
        raise DataError(f"{file.url}: is {total:,} bytes, but {file.size:,} in the catalogue; refused")
    if total is not None and total > file.limit:
        raise DataError(f"{file.url}: is {total:,} bytes, more than the limit of {file.limit:,}; refused")


def _check_free_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise DataError(f"{path.parent}: {needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free")


def _validator(response: requests.Response) -> str | None:
    """Return what identifies a version of a file; a weak ETag may not be used for ranges (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _verify(path: Path, file: RemoteFile, known: DownloadRecord | None) -> tuple[DownloadRecord, str | None]:
    """Return the record of the file at ``path``, and the problem if it is not the expected file."""
    algorithm, _, expected = (file.checksum or "sha256:").partition(":")
    sha256, published = hashlib.sha256(), hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as content:
        while block := content.read(1 << 20):
            sha256.update(block)
            published.update(block)
    record = DownloadRecord(path.stat().st_size, sha256.hexdigest())
    if file.size is not None and record.size != file.size:
        return record, f"came as {record.size:,} bytes, but is {file.size:,} in the catalogue"
    if expected and published.hexdigest() != expected:
        return record, f"has the {algorithm} {published.hexdigest()}, but should have {expected}"
    if not expected and known is not None and record != known:
        return record, (
            f"is not what it was the last time (sha256 {record.sha256}, then {known.sha256}); if its publisher has "
            "renewed it, remove its entry from downloads.json"
        )
    return record, None
