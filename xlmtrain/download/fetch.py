"""One file over HTTP: resumed where it broke off, verified, then in its place under its own name.

Until it is verified the file is called ``NAME.part``; ``NAME.part.json`` says which version of the publisher's file
it is the beginning of. Both stay when a download is interrupted, and go when what came is wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from xlmtrain.download.catalogue import Remote
from xlmtrain.download.client import Client, Response, Transient
from xlmtrain.errors import DataError
from xlmtrain.runtime.atomic_io import sync_file, write_json

T = TypeVar("T")
ATTEMPTS = 5  # in a row without a new byte
SUMS_BYTES = 1 << 20


@dataclass(frozen=True)
class Fetched:
    """What a download brought."""

    size: int
    sha256: str


def fetch(
    client: Client, remote: Remote, target: Path, known: Fetched | None, advance: Callable[[int], None]
) -> Fetched:
    """Download ``remote`` to ``target``. ``known``: what it was the last time; ``advance`` is told of bytes.

    Raises DataError if it cannot be had or is not what the catalogue, the publisher or ``known`` say.
    """
    part = _Part(target, remote.url)
    for _ in range(2):
        resumed = _receive(client, remote, part, known is not None, advance)
        fetched, problem = _verify(part.path, remote, known)
        if problem is None:
            sync_file(part.path)
            os.replace(part.path, target)
            part.note.unlink(missing_ok=True)
            return fetched
        advance(-part.size())
        part.discard()
        if not resumed:  # else two versions of it may have been put together: once more, from the start
            break
    raise DataError(f"{remote.url}: {problem}; removed")


def published_checksum(client: Client, remote: Remote) -> Remote:
    """``remote`` with the checksum that its publisher names now. Dumps of Wikipedia are renewed under the name
    ``latest``; the list of checksums has them under their date."""
    if remote.sums is None:
        return remote
    sums = remote.sums

    def read() -> bytes:
        content = b""
        with client.open(sums) as response:
            for block in client.blocks(response):
                content += block
                if len(content) > SUMS_BYTES:
                    raise DataError(f"{sums}: too long for a list of checksums")
        return content

    name = remote.url.rpartition("/")[2]
    pattern = re.escape(name).replace("latest", r"\d{8}")
    text = _persistently(client, read).decode("utf-8", "replace")
    found = re.search(rf"^([0-9a-f]{{40}})  {pattern}$", text, re.MULTILINE)
    if found is None:
        raise DataError(f"{sums}: has no checksum of {name}")
    return replace(remote, checksum=f"sha1:{found[1]}")


def remote_size(client: Client, remote: Remote) -> int:
    """Bytes of the file, 0 if its server does not say. Raises DataError if there is none, or not one of its size."""

    def ask() -> int | None:
        with client.open(remote.url, method="HEAD") as response:
            length = response.headers.get("Content-Length", "")
            return int(length) if length.isdecimal() else None

    total = _persistently(client, ask)
    _check_total(remote, total)
    return total or remote.size or 0


def part_size(target: Path) -> int:
    """Bytes of an interrupted download of ``target``."""
    part = _part_path(target)
    return part.stat().st_size if part.exists() else 0


def _part_path(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _persistently(client: Client, request: Callable[[], T]) -> T:
    """What ``request`` gives, in up to ATTEMPTS tries."""
    for failures in range(1, ATTEMPTS + 1):
        try:
            return request()
        except Transient as error:
            _pause(client, failures, error)
    raise AssertionError("the last pause raises")


def _pause(client: Client, failures: int, error: Transient) -> None:
    if failures >= ATTEMPTS:
        raise DataError(f"{error}; gave up after {failures} tries: run the same command again to go on") from error
    client.pause(failures, error)


class _Part:
    """The beginning of a file, and a note of what it is the beginning of."""

    def __init__(self, target: Path, url: str) -> None:
        self.path = _part_path(target)
        self.note = target.with_name(target.name + ".part.json")
        self._url = url

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def begun(self) -> dict[str, Any]:
        """The note, with ``validator`` and ``total``; empty if there is nothing to go on with."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        whole = isinstance(note, dict) and {"validator", "total"} <= note.keys() and note.get("url") == self._url
        return note if whole and self.size() else {}

    def begin(self, validator: str | None, total: int | None) -> None:
        self.path.unlink(missing_ok=True)
        write_json(self.note, {"url": self._url, "validator": validator, "total": total})

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _receive(client: Client, remote: Remote, part: _Part, known: bool, advance: Callable[[int], None]) -> bool:
    """Fill ``part`` to its end, in as many tries as it takes; whether what was there already is in it."""
    failures, most = 0, part.size()
    while True:
        note = part.begun()
        # Without the publisher's mark of the version only a checksum can tell whether the parts fit together.
        offset = part.size() if note and (note["validator"] or remote.checksum or known) else 0
        try:
            return _receive_once(client, remote, part, offset, note, advance)
        except Transient as error:
            failures = 1 if part.size() > most else failures + 1
            most = max(most, part.size())
            _pause(client, failures, error)


def _receive_once(
    client: Client, remote: Remote, part: _Part, offset: int, note: dict[str, Any], advance: Callable[[int], None]
) -> bool:
    headers = {}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if note["validator"]:
            headers["If-Range"] = note["validator"]  # of another version the server sends all
    with client.open(remote.url, headers) as response:
        if response.status == 416 and offset and _range_total(response) == offset:
            return True
        if response.status == 416 or (response.status == 206 and not (offset and _continues(response, offset, note))):
            advance(-part.size())
            part.discard()
            raise Transient(f"{remote.url}: the server has another file now")
        if response.status == 200:
            advance(-part.size())
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
            _check_total(remote, total)
            part.begin(_validator(response), total)
            offset = 0
        else:
            total = _range_total(response)
            _check_total(remote, total)
        have = offset
        with part.path.open("ab") as file:
            for block in client.blocks(response):
                have += len(block)
                if have > (total or remote.size or remote.limit):
                    break
                file.write(block)
                advance(len(block))
    if have > (total or remote.size or remote.limit):
        advance(-part.size())
        part.discard()
        raise DataError(f"{remote.url}: sends more than {total or remote.size or remote.limit:,} bytes; refused")
    if total is not None and have < total:
        raise Transient(f"{remote.url}: broke off after {have:,} of {total:,} bytes")
    return offset > 0


def _check_total(remote: Remote, total: int | None) -> None:
    if total is not None and remote.size is not None and total != remote.size:
        raise DataError(f"{remote.url}: is {total:,} bytes, but {remote.size:,} in the catalogue; refused")
    if total is not None and total > remote.limit:
        raise DataError(f"{remote.url}: is {total:,} bytes, more than the {remote.limit:,} it may be; refused")


def _validator(response: Response) -> str | None:
    """What tells one version of a file from the next; a weak ETag may not be used for ranges (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _continues(response: Response, offset: int, note: dict[str, Any]) -> bool:
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    same = _validator(response) in (None, note["validator"])
    return match is not None and int(match[1]) == offset and same and _range_total(response) in (None, note["total"])


def _range_total(response: Response) -> int | None:
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdecimal() else None


def _verify(path: Path, remote: Remote, known: Fetched | None) -> tuple[Fetched, str | None]:
    """What the file is, and what is wrong with it."""
    algorithm, _, expected = (remote.checksum or "sha256:").partition(":")
    sha256, published = hashlib.sha256(), hashlib.new(algorithm, usedforsecurity=False)
    size = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            size += len(block)
            sha256.update(block)
            published.update(block)
    fetched = Fetched(size, sha256.hexdigest())
    if remote.size is not None and size != remote.size:
        return fetched, f"came as {size:,} bytes, but is {remote.size:,} in the catalogue"
    if expected and published.hexdigest() != expected:
        return fetched, f"has the {algorithm} {published.hexdigest()}, but should have {expected}"
    if not expected and known is not None and fetched != known:
        return fetched, (
            f"is not what it was the last time (sha256 {fetched.sha256}, then {known.sha256}); if its publisher has "
            "renewed it, remove its entry from downloads.json"
        )
    return fetched, None
