"""Raw text files that a model is evaluated on: lines, and sentences aligned across languages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from xlmtrain.errors import ConfigError, DataError
from xlmtrain.prepare.raw_files import RawText, read_chunks

_CHUNK_BYTES = 1 << 20


def read_parallel_lines(setting: str, paths: Mapping[str, Path]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield (line number from 1, that line of each file) of parallel files, plain or compressed.

    ``paths``: language -> file; ``setting``: the option that named them, for messages. Raises DataError with file and
    line for a file that is missing, damaged, not UTF-8, or longer than the others.
    """
    for path in paths.values():
        if not path.is_file():
            raise DataError(f"{setting}: {path} is not there (looked in {Path.cwd()})")
    for chunk in read_chunks(RawText(setting, tuple(paths), tuple(paths.values())), _CHUNK_BYTES):
        for number, line in enumerate(zip(*chunk.lines), chunk.first):
            yield number, tuple(decode_line(side, f"{path}:{number}") for side, path in zip(line, paths.values()))


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
    lines = [line for _, line in read_parallel_lines("retrieval", found) if all(line)]
    if not lines:
        raise DataError(f"retrieval={template}: no sentences in {files}")
    return dict(zip(found, map(list, zip(*lines))))


def decode_line(line: bytes, place: str) -> str:
    """Return a line of UTF-8 without white space around it. Raises DataError, which begins with ``place``."""
    try:
        return line.decode().strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 ({error.reason}); convert the file, e.g. with iconv") from None
