"""Read ``catalogue.json``: the datasets that can be downloaded.

Sizes and checksums are the publisher's, or those that a public tool pins; left out where none was found. A file
without a checksum is recorded when it is first downloaded (see manifest.py) and compared with that record later.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from xlmtrain.errors import ConfigError, DataError, damage_as
from xlmtrain.runtime.atomic_io import json_object

CATALOGUE = Path(__file__).with_name("catalogue.json")
# Formats that are used as they are downloaded; the text of the others is read by formats.py.
AS_IS = ("text", "file")
FORMATS = (*AS_IS, "tsv", "moses", "sgm", "tmx", "wiki")
NOT_KNOWN = "not known"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_CHECKSUM = re.compile(r"md5:[0-9a-f]{32}|sha1:[0-9a-f]{40}|sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a publisher.

    ``limit``: bytes; a larger file is refused. ``size``: bytes, where published. ``checksum``: ``md5:``, ``sha1:`` or
    ``sha256:`` and the hexadecimal digest, where published. ``sums``: URL of the publisher's list of checksums, for a
    file that is renewed under the same URL.
    """

    url: str
    limit: int
    size: int | None = None
    checksum: str | None = None
    sums: str | None = None


@dataclass(frozen=True)
class DatasetEntry:
    """Text of one language or of an aligned pair, or a file of the released model.

    ``languages``: in the order of the publisher's columns or members. ``split``: ``train``, ``valid`` or ``test``, as
    commonly used. ``members``: the files inside an archive, in the order of ``languages``.
    """

    name: str
    format: str
    licence: str
    file: RemoteFile
    languages: tuple[str, ...] = ()
    split: str | None = None
    members: tuple[str, ...] = ()

    def texts(self) -> list[str]:
        """Return the names of its files in the output directory."""
        return [f"{self.name}.{language}.gz" for language in self.languages] or [self.name]

    def local_path(self, output: Path) -> Path:
        """Return where the download is stored; the server has no influence on it."""
        if self.format in AS_IS:
            return output / self.texts()[0]
        parts = urlsplit(self.file.url)
        return output / "downloads" / re.sub(r"[^A-Za-z0-9.-]+", "_", parts.netloc + parts.path)


def read_catalogue(path: Path = CATALOGUE) -> dict[str, DatasetEntry]:
    """Return the entries by name, in the order of the file. Raises DataError with the entry that is wrong."""
    entries: dict[str, DatasetEntry] = {}
    with damage_as(DataError, f"{path}: damaged"):
        content = json_object(path)
        for values in content["datasets"]:
            with damage_as(DataError, f"{path}: {values.get('name')}: damaged"):
                entry = _entry(values, content["licences"])
                if problem := "the name is taken" if entry.name in entries else _problem(entry):
                    raise DataError(f"{path}: {entry.name}: {problem}")
            entries[entry.name] = entry
    return entries


def select(entries: dict[str, DatasetEntry], patterns: Sequence[str]) -> list[DatasetEntry]:
    """Return the entries whose names match, in the catalogue's order. Raises ConfigError if a pattern has none."""
    for pattern in patterns:
        if not fnmatch.filter(entries, pattern):
            raise ConfigError(f"{pattern}: nothing of that name in the catalogue; xlmtrain download alone lists it")
    return [e for e in entries.values() if any(fnmatch.fnmatchcase(e.name, pattern) for pattern in patterns)]


def licences_of(files: Iterable[str], given: Mapping[str, str]) -> dict[str, str]:
    """Return the licence of each file by its name: that of the first pattern of ``given``, else the catalogue's.

    A file that neither knows is "not known".
    """
    known = {text: entry.licence for entry in read_catalogue().values() for text in entry.texts()}
    own = {
        file: [licence for pattern, licence in given.items() if fnmatch.fnmatchcase(file, pattern)] for file in files
    }
    return {file: (found or [known.get(file, NOT_KNOWN)])[0] for file, found in own.items()}


def _entry(values: dict[str, Any], licences: dict[str, str]) -> DatasetEntry:
    lists = {name: tuple(values.get(name, ())) for name in ("languages", "members")}
    return DatasetEntry(
        **{**values, **lists, "licence": licences[values["licence"]], "file": RemoteFile(**values["file"])}
    )


def _problem(entry: DatasetEntry) -> str | None:
    """Return what is wrong with an entry. Names become file names, so that not all characters are allowed."""
    file = entry.file
    for name in (entry.name, *entry.languages):
        if not _NAME.fullmatch(name) or ".." in name:
            return f"{name!r} cannot be part of a file name"
    checks = {
        f"format {entry.format} is none of {', '.join(FORMATS)}": entry.format in FORMATS,
        f"split {entry.split} is none of train, valid, test": entry.split in ("train", "valid", "test")
        or not entry.languages,
        "members and languages do not go together": len(entry.members) in (0, len(entry.languages)),
        f"{file.url}: not https": {urlsplit(url).scheme for url in (file.url, file.sums or file.url)} == {"https"},
        f"checksum {file.checksum} is none": file.checksum is None or _CHECKSUM.fullmatch(file.checksum),
        f"{file.url}: the size exceeds the limit": (file.size or 1) <= file.limit,
    }
    return next((problem for problem, passed in checks.items() if not passed), None)
