"""Tables of records as Parquet: dataclasses to Arrow and back; the same records give the same bytes."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box
from ahp_toolkit.storage.files import atomic, write_bytes

R = TypeVar("R")


_SCALARS = {int: pa.int64(), float: pa.float64(), str: pa.string(), bytes: pa.binary(), bool: pa.bool_()}


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


@cache
def _names(cls: Any) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls))


def _optional(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) in (Union, types.UnionType):
        inner = [a for a in get_args(hint) if a is not type(None)]
        if len(inner) != 1:
            raise TypeError(f"a record field may be X or X | None, not {hint}")
        return inner[0], True
    return hint, False


def _arrow_type(hint: Any) -> pa.DataType:
    hint, _ = _optional(hint)
    if hint in _SCALARS:
        return _SCALARS[hint]
    if hint is Box:
        return pa.list_(pa.float64(), 4)
    if get_origin(hint) is tuple:
        return pa.list_(_arrow_type(get_args(hint)[0]))
    if is_dataclass(hint):
        return pa.struct(list(schema_of(typing.cast(Any, hint))))
    raise TypeError(f"no Arrow type for {hint}")


@cache
def schema_of(cls: Any) -> pa.Schema:
    """The Arrow schema of a record type; fields that may be None are nullable."""
    hints = _hints(cls)
    return pa.schema([pa.field(n, _arrow_type(hints[n]), nullable=_optional(hints[n])[1]) for n in _names(cls)])


def _to_plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, bytes, bool, int, float)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):  # Box too
        return [_to_plain(v) for v in value]
    kind: Any = type(value)
    return {n: _to_plain(getattr(value, n)) for n in _names(kind)}


def _from_plain(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    hint, _ = _optional(hint)
    if hint is Box:
        return Box(*value)
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        return tuple(_from_plain(inner, v) for v in value)
    if is_dataclass(hint):
        hints = _hints(typing.cast(type, hint))
        return hint(**{n: _from_plain(hints[n], v) for n, v in value.items() if n in hints})  # type: ignore[operator]
    return value


def to_table(records: Sequence[Any], cls: type) -> pa.Table:
    """Records of one type to an Arrow table."""
    return pa.Table.from_pylist([_to_plain(r) for r in records], schema=schema_of(typing.cast(Any, cls)))


def from_table(table: pa.Table, cls: type[R]) -> Iterator[R]:
    """An Arrow table to records, batch by batch. Columns the record does not know are ignored.

    Raises:
        ValueError: when a column is missing and the table has one that the record does not know: a name was damaged.
    """
    key: Any = cls
    hints = _hints(key)
    names = [n for n in _names(key) if n in table.column_names]
    unknown, missing = set(table.column_names) - set(names), set(_names(key)) - set(names)
    if unknown and missing:
        raise ValueError(f"expected columns {sorted(missing)}, found {sorted(unknown)}")
    for batch in table.select(names).to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            yield cls(**{n: _from_plain(hints[n], v) for n, v in row.items()})


def rows(records: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Records to plain nested dicts (JSON and pandas)."""
    return (_to_plain(r) for r in records)


def table_bytes(table: pa.Table) -> bytes:
    """One Parquet file; the same table gives the same bytes. Each page carries its checksum."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_statistics=False, write_page_checksum=True)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def write_table(path: Path, table: pa.Table) -> None:
    """Write one Parquet file atomically."""
    write_bytes(path, table_bytes(table))


def write_records(path: Path, records: Sequence[Any], cls: type) -> None:
    """Write records of one type as one Parquet file, atomically."""
    write_table(path, to_table(records, cls))


def parts(folder: Path) -> list[Path]:
    """The ``part-*.parquet`` files of a table folder, in order.

    Raises:
        UserError: when there is none.
    """
    found = sorted(folder.glob("part-*.parquet"), key=lambda p: (len(p.name), p.name))  # part-100000 after part-99999
    if not found:
        raise UserError(f"{folder}: expected a table (part-*.parquet), found none; run the stage that makes it first")
    return found


def read_records(folder: Path, cls: type[R]) -> Iterator[R]:
    """All records of a table folder (or of one Parquet file), in order, one file in memory at a time.

    Raises:
        UserError: when there is no such table or a file of it cannot be read.
    """
    for path in [folder] if folder.is_file() else parts(folder):
        table = read_table(path)
        try:
            yield from from_table(table, cls)
        except (TypeError, KeyError, ValueError) as e:
            why = " ".join(str(e).split())[:200]
            raise UserError(f"{path}: no table of {cls.__name__} ({why}); run the command that made it again") from e


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """One Parquet file, or some columns of it (dotted names reach into structs).

    Raises:
        UserError: when the file is missing, damaged, or lacks a column.
    """
    with _readable(path):
        file = pq.ParquetFile(path, page_checksum_verification=True)
        return file.read(columns=None if columns is None else list(columns))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as e:
        why = " ".join(str(e).split())[:200]
        raise UserError(f"{path}: cannot be read as Parquet ({why}); run the command that made it again") from e


def count_records(folder: Path) -> int:
    """Number of records in a table folder, from the files' footers.

    Raises:
        UserError: when there is no such table or a file of it cannot be read.
    """
    count = 0
    for path in parts(folder):
        with _readable(path):
            count += pq.ParquetFile(path).metadata.num_rows
    return count


def concat(paths: Sequence[Path], to: Path) -> None:
    """Join Parquet files of one schema into one, atomically, one of them in memory at a time."""
    first = read_table(paths[0])
    more = {"compression": "zstd", "write_statistics": False, "write_page_checksum": True}
    with atomic(to) as f, pq.ParquetWriter(f, first.schema, **more) as w:
        w.write_table(first)
        for path in paths[1:]:
            w.write_table(read_table(path))
