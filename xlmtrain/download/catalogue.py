"""What can be downloaded: ``catalogue.json`` read and checked.

Sizes and checksums are the publisher's, or those that a public tool pins; null where none was found. What is first
downloaded without one is remembered in the output directory (:mod:`xlmtrain.download.ledger`), so that a later
download is compared with it.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from xlmtrain.errors import ConfigError, DataError

CATALOGUE = Path(__file__).with_name("catalogue.json")
# Formats whose download is the corpus itself; the others hold text to be read out (see formats.py).
AS_IS = ("text", "file")
FORMATS = (*AS_IS, "tsv", "moses", "sgm", "tmx", "wiki", "tatoeba")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_CHECKSUM = re.compile(r"md5:[0-9a-f]{32}|sha1:[0-9a-f]{40}|sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Remote:
    """One file of a publisher."""

    url: str
    limit: int
    """Bytes that it is never larger than; more is refused."""

    size: int | None = None
    """Bytes, where published."""

    checksum: str | None = None
    """``md5:``, ``sha1:`` or ``sha256:`` and the digest in hexadecimal, where published."""

    sums: str | None = None
    """Where the publisher keeps the current checksum of a file that is renewed under the same address."""


@dataclass(frozen=True)
class Corpus:
    """Text of one language or of an aligned pair, or a file of the released model."""

    name: str
    format: str
    licence: str
    files: tuple[Remote, ...]
    languages: tuple[str, ...] = ()
    """In the order in which the publisher's files, columns or members hold them."""

    split: str | None = None
    """``train``, ``valid`` or ``test``: what it is commonly used for."""

    members: tuple[str, ...] = ()
    """The files inside an archive, in the order of ``languages``."""

    def texts(self) -> list[str]:
        """The names of what it becomes in the output directory."""
        return [f"{self.name}.{language}.gz" for language in self.languages] or [self.name]


def read_catalogue(path: Path = CATALOGUE) -> dict[str, Corpus]:
    """The corpora by name, in the order of the file. Raises DataError with the entry that is wrong."""
    content = json.loads(path.read_text(encoding="utf-8"))
    corpora: dict[str, Corpus] = {}
    for entry in content["corpora"]:
        try:
            corpus = _corpus(entry, content["licences"])
            problem = "the name is taken" if corpus.name in corpora else _problem(corpus)
        except (KeyError, TypeError) as error:
            problem = str(error)
        if problem:
            raise DataError(f"{path}: {entry.get('name')}: {problem}")
        corpora[corpus.name] = corpus
    return corpora


def select(corpora: dict[str, Corpus], patterns: Sequence[str]) -> list[Corpus]:
    """The corpora whose names match, each once, in the catalogue's order. Raises ConfigError if a pattern has none."""
    for pattern in patterns:
        if not fnmatch.filter(corpora, pattern):
            raise ConfigError(f"{pattern}: nothing of that name in the catalogue; the tool lists it when given no name")
    return [c for c in corpora.values() if any(fnmatch.fnmatchcase(c.name, pattern) for pattern in patterns)]


def _corpus(entry: dict[str, Any], licences: dict[str, str]) -> Corpus:
    values: dict[str, Any] = {**entry, "licence": licences[entry["licence"]]}
    values["files"] = tuple(Remote(**file) for file in entry["files"])
    for name in ("languages", "members"):
        values[name] = tuple(entry.get(name, ()))
    return Corpus(**values)


def _problem(corpus: Corpus) -> str | None:
    """What is wrong with an entry. Names become file names, so they are held to letters, digits, dots and dashes."""
    if corpus.format not in FORMATS:
        return f"format {corpus.format} is none of {', '.join(FORMATS)}"
    for name in (corpus.name, *corpus.languages):
        if not _NAME.fullmatch(name) or ".." in name:
            return f"{name!r} cannot be part of a file name"
    if corpus.split not in ("train", "valid", "test") and corpus.languages:
        return f"split {corpus.split} is none of train, valid, test"
    if corpus.members and len(corpus.members) != len(corpus.languages):
        return "members and languages do not go together"
    for file in corpus.files:
        if urlsplit(file.url).scheme != "https" or urlsplit(file.sums or file.url).scheme != "https":
            return f"{file.url}: not https"
        if file.checksum is not None and not _CHECKSUM.fullmatch(file.checksum):
            return f"checksum {file.checksum} is none"
        if (file.size or 1) > file.limit:
            return f"{file.url}: the size exceeds the limit"
    return None
