"""Raw text files that a model is evaluated on: sentences aligned across languages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from xlmtrain.errors import ConfigError, DataError
from xlmtrain.text.text_files import file_problem, read_lines


def read_parallel_lines(setting: str, paths: Mapping[str, Path]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield (line number from 1, that line of each file) of parallel files, without white space around them.

    ``paths``: name -> file; ``setting``: the option that named them, for messages. Raises DataError with file and line
    for a file that is missing, damaged, not UTF-8, or shorter than the others.
    """
    for path in paths.values():
        if problem := file_problem(path):
            raise DataError(f"{setting}: {problem}")
    for number, row in enumerate(zip_longest(*(read_lines(path, "sentences") for path in paths.values())), 1):
        if None in row:
            names = list(paths.values())
            short, longer = names[row.index(None)], next(name for name, line in zip(names, row) if line is not None)
            raise DataError(f"{setting}: {short} has {number - 1} lines, {longer} has more")
        yield number, tuple(line.strip() for _, line in row)


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
    lines = [line for _, line in read_parallel_lines(f"retrieval={template}", found) if all(line)]
    if not lines:
        raise DataError(f"retrieval={template}: no sentences in {files}")
    return dict(zip(found, map(list, zip(*lines))))


def decode_line(line: bytes, place: str) -> str:
    """Return a line of UTF-8 without white space around it. Raises DataError, which begins with ``place``."""
    try:
        return line.decode().strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 ({error.reason}); convert the file, e.g. with iconv") from None
