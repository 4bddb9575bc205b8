"""The CSV files of Open Images to numpy rows, block by block: typed by pyarrow, the odd block row by row.

Columns go by name. A block is cut at a line end outside quotes (an even number of quotes before it), so quoted commas
and newlines stay whole. A file that does not end in a newline counts as cut short.
"""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from ahp_toolkit.core import values
from ahp_toolkit.core.errors import UserError

BLOCK = 4 * 2**20  # fits the caches: larger blocks parse more slowly
MAX_ROW = 64 * 2**20
NO_FLAG = 2
_MAX_HEAD = 2**16
_SMALL = 2**16
_TEXT = pa.dictionary(pa.int32(), pa.string())
_HEX = re.compile(r"[0-9a-fA-F]{16}")
_NIBBLE = np.full(256, 255, np.uint8)
_NIBBLE[list(b"0123456789abcdef")] = range(16)
_NIBBLE[list(b"ABCDEF")] = range(10, 16)


class Block(NamedTuple):
    """Neighbouring rows: ``table`` where all of them fit their types, else ``loose`` rows of strings by column.

    Loose rows are read as they are asked for, once: all of a block at a time would take 400 times its bytes.
    """

    table: pa.Table | None
    loose: Iterable[dict[str, str | None]]


def blocks(
    path: Path,
    required: Mapping[str, pa.DataType],
    optional: Mapping[str, pa.DataType] | None = None,
    size: int = BLOCK,
) -> Iterator[Block]:
    """The rows of a CSV with a header, in file order; only the named columns.

    Args:
        path: UTF-8, comma, double quotes.
        required: columns that must be there, with their types.
        optional: columns that may be there.
        size: bytes read at a time.

    Raises:
        UserError: when the file cannot be read, lacks a column, or is cut short.
    """
    try:
        with values.open_utf8(path) as file:
            head = file.readline(_MAX_HEAD)
            names = _header(path, head, required)
            types = {n: t for n, t in {**required, **(optional or {})}.items() if n in names}
            with ThreadPoolExecutor(1) as pool:
                ahead: deque[Future[Block]] = deque()  # the next blocks are parsed while this one is used
                for text, at in _cut(path, file, size, len(head)):
                    work = (path, text, at, names, types)  # a small block is not worth a thread
                    ahead.append(_done(_parse(*work)) if len(text) < _SMALL else pool.submit(_parse, *work))
                    if len(ahead) > 2:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
    except values.BadValue as e:
        raise UserError(f"{path}: expected a CSV in UTF-8: {e}; save it as UTF-8") from e
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror or e})") from e


def _done(block: Block) -> Future[Block]:
    future: Future[Block] = Future()
    future.set_result(block)
    return future


def _header(path: Path, head: bytes, required: Mapping[str, pa.DataType]) -> list[str]:
    try:
        names = [n.strip() for n in next(csv.reader([head.decode("utf-8-sig", "replace")]), [])]
    except csv.Error as e:
        raise UserError(f"{path}: expected a CSV with a header ({e}); fetch the file again") from e
    missing = [n for n in required if n not in names]
    if missing:
        raise UserError(
            f"{path}: expected a CSV with a column {missing[0]!r}, its header has {', '.join(names)[:200]!r}"
        )
    twice = next((n for n in required if names.count(n) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: its header has the column {twice!r} twice; fetch the file again")
    if not head.endswith(b"\n"):
        raise UserError(f"{path}: cut short in its header; fetch the file again")
    return names


def _cut(path: Path, file: Any, size: int, at: int) -> Iterator[tuple[bytes, int]]:
    """(text of whole rows, byte position) until the file ends."""
    rest = b""
    while data := file.read(size):
        stop = data.rfind(b"\n") + 1
        text, rest = (b"".join((rest, memoryview(data)[:stop])), data[stop:]) if stop else (b"", rest + data)
        if b'"' in text:
            whole = _line_end(text)
            text, rest = text[:whole], text[whole:] + rest
        if text:
            yield text, at
            at += len(text)
        if len(rest) > MAX_ROW:
            raise UserError(f"{path}: the row at byte {at} is longer than {MAX_ROW} bytes: a quote is not closed")
    if rest:
        raise UserError(
            f"{path}: cut short, the row at byte {at} does not end in a newline; fetch the file again "
            "(or add the newline if it is whole)"
        )


def _line_end(text: bytes) -> int:
    """Just behind the last newline that stands outside quotes; 0 where there is none."""
    stop = text.rfind(b"\n") + 1
    quotes = text.count(b'"', 0, stop) if stop else 0
    while stop and quotes % 2:
        before = text.rfind(b"\n", 0, stop - 1) + 1
        quotes -= text.count(b'"', before, stop)
        stop = before
    return stop


def _parse(path: Path, text: bytes, at: int, names: list[str], types: Mapping[str, pa.DataType]) -> Block:
    quoted = b'"' in text
    for chosen in (types, {n: _TEXT if t == pa.int8() else t for n, t in types.items()}):
        try:
            table = pacsv.read_csv(
                pa.BufferReader(text),
                read_options=pacsv.ReadOptions(column_names=names, block_size=len(text) + 1, use_threads=False),
                parse_options=pacsv.ParseOptions(newlines_in_values=quoted),
                convert_options=pacsv.ConvertOptions(include_columns=list(chosen), column_types=dict(chosen)),
            )
        except pa.ArrowInvalid:
            continue  # flags may be 0.0 or True: then their columns are texts
        return Block(table, [])
    return Block(None, _loose(path, text, at, names, types))


def _loose(
    path: Path, text: bytes, at: int, names: list[str], types: Mapping[str, pa.DataType]
) -> Iterator[dict[str, str | None]]:
    try:
        for row in csv.reader(io.StringIO(text.decode("utf-8", "replace"), newline="")):
            if row:
                found = dict(zip(names, row, strict=False))
                yield {n: found.get(n) for n in types}
    except csv.Error as e:
        raise UserError(f"{path}: not legal CSV in the block at byte {at}: {e}; fetch the file again") from e


def hex_key(text: str | None) -> int | None:
    """An image id of 16 hex digits as a number; None where it is none."""
    return int(text, 16) if text is not None and _HEX.fullmatch(text) else None


def hex_keys(column: pa.ChunkedArray) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """(numbers, whether legal) of a column of 16 hex digits each."""
    keys, good = [], []
    for chunk in column.chunks:
        offsets = np.frombuffer(chunk.buffers()[1], np.int32, len(chunk) + 1, chunk.offset * 4)
        if chunk.null_count == 0 and len(chunk) and bool((np.diff(offsets) == 16).all()):
            halves = np.frombuffer(chunk.buffers()[2], np.uint64, 2 * len(chunk), int(offsets[0])).reshape(-1, 2)
            # neighbours mostly share their image: each run of equal ids is read once
            first = np.append(True, (halves[1:, 0] != halves[:-1, 0]) | (halves[1:, 1] != halves[:-1, 1]))
            number, legal = _from_hex(halves[first].view(np.uint8))
            run = first.cumsum() - 1
            keys.append(number[run])
            good.append(np.ones(len(chunk), np.bool_) if bool(legal.all()) else legal[run])
        else:
            plain = [hex_key(v) for v in chunk.to_pylist()]
            keys.append(np.array([v or 0 for v in plain], np.uint64))
            good.append(np.array([v is not None for v in plain], np.bool_))
    if not keys:
        return np.zeros(0, np.uint64), np.zeros(0, np.bool_)
    return np.concatenate(keys), np.concatenate(good)


def _from_hex(digits: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """(numbers, whether legal) of rows of 16 ASCII digits."""
    nibbles = _NIBBLE[digits]
    pairs = (nibbles[:, 0::2] << 4 | nibbles[:, 1::2] & 15).copy()
    return pairs.view(">u8").ravel().astype(np.uint64), (nibbles != 255).all(axis=1)


class Codes:
    """Strings to small numbers, in order of appearance."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    def code(self, text: str) -> int:
        """The number of a string, new where it is new."""
        return self.of.setdefault(text, len(self.of))

    def column(self, column: pa.ChunkedArray) -> NDArray[np.int32]:
        """Numbers of a dictionary column; nulls as the empty string."""
        parts = [np.zeros(0, np.int32)]
        for chunk in column.chunks:
            table = np.array([*map(self.code, chunk.dictionary.to_pylist()), self.code("")], np.int32)
            parts.append(table[_plain(chunk.indices, len(table) - 1, np.dtype(np.int32))])
        return np.concatenate(parts)


def numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """A float column; nulls (and pyarrow's spellings of NaN) as NaN."""
    return _values(column, np.nan, np.dtype(np.float64))


def flags(column: pa.ChunkedArray | None, count: int) -> NDArray[np.int8]:
    """A tri-state column as int8: 1, 0, -1 (unknown: the column or the value is missing), and `NO_FLAG`."""
    if column is None:
        return np.full(count, -1, np.int8)
    if column.type == pa.int8():
        return _values(column, -1, np.dtype(np.int8))
    parts = [np.zeros(0, np.int8)]
    for chunk in column.chunks:
        table = np.array([*map(flag, chunk.dictionary.to_pylist()), -1], np.int8)
        parts.append(table[_plain(chunk.indices, len(table) - 1, np.dtype(np.int32))])
    return np.concatenate(parts)


def flag(value: Any) -> int:
    """1, 0, -1 (unknown), or `NO_FLAG` for what is none of these."""
    try:
        found = values.flag(value)
    except values.BadValue:
        return NO_FLAG
    return -1 if found is None else int(found)


def _values(column: pa.ChunkedArray, null: float, dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *(_plain(chunk, null, dtype) for chunk in column.chunks)])


def _plain(chunk: pa.Array, null: float, dtype: np.dtype[Any]) -> NDArray[Any]:
    """An Arrow array as numpy, straight from its buffer: pyarrow's own conversions import pandas."""
    if chunk.null_count:
        chunk = chunk.fill_null(null)
    if not len(chunk):
        return np.zeros(0, dtype)
    return np.frombuffer(chunk.buffers()[1], dtype, len(chunk), chunk.offset * dtype.itemsize)


def read_small(path: Path) -> list[list[str]]:
    """All rows of a small CSV (class descriptions).

    Raises:
        UserError: when it cannot be read.
    """
    try:
        text = values.decode_text(path.read_bytes())
        return [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except (OSError, values.BadValue, csv.Error) as e:
        raise UserError(f"{path}: cannot be read as CSV ({e})") from e
