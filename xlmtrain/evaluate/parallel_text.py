"""Raw text files that a model is evaluated on: sentences aligned across languages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from xlmtrain.errors import ConfigError, DataError
from xlmtrain.text.text_files import read_lines


def aligned_sentences(template: str, languages: Sequence[str]) -> dict[str, list[str]]:
    """Return the sentences of each language that has a file; equal indices are translations of each other.

    ``template``: path with ``{lang}`` in place of the language. Lines that are blank in one language are left out in
    all. Raises ConfigError if fewer than two languages have a file, DataError for files that do not match.
    """
    if "{lang}" not in template:
        raise ConfigError(f"retrieval={template}: has no {{lang}} in it to stand for each language")
    paths = {language: Path(template.replace("{lang}", language)) for language in languages}
    found = {language: path for language, path in paths.items() if path.is_file()}
    files = ", ".join(map(str, found.values())) or "none"
    if len(found) < 2:
        raise ConfigError(
            f"retrieval={template}: files of two of the model's languages are needed, there is {files} (the model "
            f"knows {', '.join(languages)})"
        )
    lines = []
    for number, row in enumerate(zip_longest(*(read_lines(path, "sentences") for path in found.values())), 1):
        if None in row:
            short = list(found.values())[row.index(None)]
            raise DataError(f"retrieval={template}: {short} has {number - 1} lines, other files have more")
        sentences = [line.strip() for _, line in row]
        if all(sentences):
            lines.append(sentences)
    if not lines:
        raise DataError(f"retrieval={template}: no sentences in {files}")
    return dict(zip(found, map(list, zip(*lines))))
