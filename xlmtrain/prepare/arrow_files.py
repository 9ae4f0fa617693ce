"""Read records of text from Parquet and Arrow files, and find those of a data set saved by ``datasets``.

They need pyarrow, an optional package.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xlmtrain.errors import ConfigError, DataError, damage_as
from xlmtrain.prepare.columns import Column, Record, text_of

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    pa = None

PARQUET_MAGIC = b"PAR1"
ARROW_MAGICS = ARROW_FILE_MAGIC, ARROW_STREAM_MAGIC = b"ARROW1", b"\xff\xff\xff\xff"
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_STATE, _SPLITS = "state.json", "dataset_dict.json"
_ROWS = 100
"""Rows that are turned into text at a time: they may be whole documents."""
_BUFFER_BYTES = 1 << 20


def read_parquet(path: Path, columns: Sequence[Column]) -> Iterator[Record]:
    """Yield the records of a Parquet file. Memory holds a page of each column, not a row group."""
    with _damage_of(path):
        limits = {"thrift_string_size_limit": 1 << 26, "thrift_container_size_limit": 1 << 22}
        settings = {"buffer_size": _BUFFER_BYTES, "pre_buffer": False, "page_checksum_verification": True, **limits}
        with pq.ParquetFile(path, **settings) as file:
            tops = [name[0] for name in _chosen(path, file.schema_arrow, columns)]
            batches = file.iter_batches(_ROWS, columns=tops, use_threads=False)
            yield from _records(path, file.schema_arrow, batches, columns)


def read_arrow(path: Path, columns: Sequence[Column]) -> Iterator[Record]:
    """Yield the records of an Arrow file or stream, which is mapped into memory."""
    with _damage_of(path), pa.memory_map(str(path)) as source:
        if source.read(len(ARROW_FILE_MAGIC)) == ARROW_FILE_MAGIC:
            with pa.ipc.open_file(source) as file:
                batches: Iterable[Any] = (file.get_batch(index) for index in range(file.num_record_batches))
                yield from _records(path, file.schema, batches, columns)
            return
        source.seek(max(source.size() - len(_END_OF_STREAM), 0))
        if source.read() != _END_OF_STREAM:
            raise EOFError("a stream of Arrow that does not end as one")
        source.seek(0)
        with pa.ipc.open_stream(source) as stream:
            yield from _records(path, stream.schema, stream, columns)


def saved_dataset_files(directory: Path) -> list[Path]:
    """Return the Arrow files of a directory written by ``Dataset.save_to_disk``; empty for other directories.

    Raises DataError if its list of files is damaged, or if it holds several splits.
    """
    if (directory / _SPLITS).is_file():
        raise DataError(f"{directory}: holds the splits of a data set; give one of them, like {directory}/train")
    if not (directory / _STATE).is_file():
        return []
    with damage_as(DataError, f"{directory / _STATE}: not written by datasets"):
        names = [entry["filename"] for entry in json.loads((directory / _STATE).read_bytes())["_data_files"]]
        if odd := [name for name in names if Path(name).name != name]:
            raise ValueError(f"{odd[0]} is not a file in the directory")
    if missing := [name for name in names if not (directory / name).is_file()]:
        raise DataError(f"{directory}: {missing[0]}, which {_STATE} lists, is not there")
    return [directory / name for name in names]


@contextmanager
def _damage_of(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises for damaged files into a DataError. Raises ConfigError without pyarrow."""
    if pa is None:
        raise ConfigError(f"{path}: Parquet and Arrow need pyarrow: pip install 'xlmtrain[tables]'")
    advice = "; is it damaged, truncated, or misnamed?"
    with damage_as(DataError, f"{path}: cannot be read to its end", advice):
        yield


def _chosen(path: Path, schema: Any, columns: Sequence[Column]) -> list[tuple[str, ...]]:
    """Return for each column the names of the fields that lead to it. Raises DataError if it is missing."""
    found = []
    for column in columns:
        routes = (route for name in column.names for route in ((name,), tuple(name.split("."))))
        if (route := next((route for route in routes if _type_at(schema, route)), None)) is None:
            raise column.missing(str(path), [*_names(schema)])
        found.append(route)
    return found


def _type_at(schema: Any, route: Sequence[str]) -> Any:
    """Return the type of a column, nested ones included; None if it is missing."""
    kind = schema
    for name in route:
        is_nested = kind is schema or pa.types.is_struct(kind)
        index = kind.get_field_index(name) if is_nested else -1
        if index < 0:
            return None
        kind = kind.field(index).type
    return kind


def _names(fields: Iterable[Any], prefix: str = "") -> Iterator[str]:
    for field in fields:
        if pa.types.is_struct(field.type):
            yield from _names(field.type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def _records(path: Path, schema: Any, batches: Iterable[Any], columns: Sequence[Column]) -> Iterator[Record]:
    routes, number, there = _chosen(path, schema, columns), 0, [*_names(schema)]
    names = [".".join(route) for route in routes]
    for whole in batches:
        whole.validate()
        for begin in range(0, whole.num_rows, _ROWS):
            batch = whole.slice(begin, _ROWS)
            for values in zip(*(_cells(batch, route) for route in routes)):
                number += 1
                place, named = f"{path}:{number}", zip(values, names)
                yield number, tuple(text_of(value, place, name, there) for value, name in named)


def _cells(batch: Any, route: Sequence[str]) -> list[Any]:
    """Return the values of a column, text as bytes: it need not be UTF-8."""
    array = batch.column(batch.schema.get_field_index(route[0]))
    for name in route[1:]:
        array = array.flatten()[array.type.get_field_index(name)]
    if pa.types.is_dictionary(array.type):
        array.validate(full=True)
        array = array.dictionary_decode()
    for is_kind, binary in (
        (pa.types.is_string, pa.binary()),
        (pa.types.is_large_string, pa.large_binary()),
        (pa.types.is_string_view, pa.binary_view()),
    ):
        if is_kind(array.type):
            array = array.view(binary)
            break
    array.validate(full=True)
    cells: list[Any] = array.to_pylist()
    return cells
