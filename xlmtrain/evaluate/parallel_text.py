"""The lines of raw text files that a model is judged on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from xlmtrain.errors import DataError
from xlmtrain.prepare.raw_files import RawText, read_chunks

_CHUNK_BYTES = 1 << 20


def read_parallel_lines(setting: str, paths: Mapping[str, Path]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line number from 1, that line of each file) of files that belong together, plain or compressed.

    ``paths``: language -> file; ``setting``: who asked for them, for messages. Raises DataError with file and line for
    what is missing, damaged, not UTF-8, or longer than the others.
    """
    for path in paths.values():
        if not path.is_file():
            raise DataError(f"{setting}: {path} is not there (looked in {Path.cwd()})")
    for chunk in read_chunks(RawText(setting, tuple(paths), tuple(paths.values())), _CHUNK_BYTES):
        for number, line in enumerate(zip(*chunk.lines), chunk.first):
            yield number, tuple(_decoded(side, path, number) for side, path in zip(line, paths.values()))


def _decoded(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode().strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{number}: not UTF-8 ({error.reason}); convert the file, e.g. with iconv") from None
