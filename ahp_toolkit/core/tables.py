"""Records to Arrow tables and back: the schema follows from the dataclass, so a record is described once."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa

from .masks import Box

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
        ValueError: when a column is missing and another stands that the record does not know: a name was damaged.
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
