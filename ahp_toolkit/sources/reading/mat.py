"""Numeric fields of a struct in a MATLAB file of level 5 (MathWorks, "MAT-File Format"), every size checked first.

Own code in place of ``scipy.io.loadmat``: SciPy 1.17's reader dies (SIGSEGV) on some damaged files, and a hostile
dataset must cost a record, not the process.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core.limits import MAX_MAT_BYTES

_HEAD = 128
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED, _UTF8 = 1, 5, 6, 14, 15, 16
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_STRUCT, _NUMERIC = 2, range(6, 16)  # array classes: mxSTRUCT; mxDOUBLE to mxUINT64
_COMPLEX = 0x0800
_LONGEST_NAME = 256  # bytes; MATLAB's own limit is 63

Order = Literal["big", "little"]


@dataclass(frozen=True)
class _Element:
    kind: int
    data: memoryview


@dataclass(frozen=True)
class _Array:
    """The header of a matrix element, and the elements behind it."""

    kind: int
    is_complex: bool
    shape: tuple[int, ...]
    name: str
    rest: Iterator[_Element]


def struct_fields(data: bytes, variable: str, fields: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """The named fields of a 1 x 1 struct, each a real array of the type and shape it is stored with.

    Raises:
        ValueError: when the file is none of level 5, is damaged, lacks the variable or a field, holds something other
            than real numbers there, or more than MAX_MAT_BYTES once unpacked.
    """
    order = _order(data)
    for element in _top(memoryview(data), order):
        array = _header(element.data, order)
        if array.name == variable:
            return _fields(array, fields, order)
    raise ValueError(f"no variable {variable}")


def _order(data: bytes) -> Order:
    order: Order = "big" if data[126:128] == b"MI" else "little"
    if len(data) < _HEAD or data[126:128] not in (b"MI", b"IM"):
        raise ValueError("no MATLAB file")
    version = int.from_bytes(data[124:126], order)
    if version != 0x0100:
        raise ValueError(f"version {version:#06x} of the format; only level 5 (0x0100, `save -v7`) is read")
    return order


def _top(data: memoryview, order: Order) -> Iterator[_Element]:
    """The variables, packed ones unpacked; together they hold MAX_MAT_BYTES at most."""
    at, left = _HEAD, MAX_MAT_BYTES
    while at + 8 <= len(data):
        element, at = _element(data, at, order, packed=True)
        if element.kind == _COMPRESSED:
            try:
                whole = zlib.decompressobj().decompress(element.data, left + 1)
            except zlib.error as e:
                raise ValueError(f"cannot be unpacked: {e}") from e
            if len(whole) <= left:  # else it is refused below
                element = _element(memoryview(whole), 0, order)[0]
            left -= len(whole)
        else:
            left -= len(element.data)
        if left < 0:
            raise ValueError(f"more than {MAX_MAT_BYTES} bytes once unpacked")
        if element.kind == _MATRIX:
            yield element


def _elements(data: memoryview, order: Order) -> Iterator[_Element]:
    at = 0
    while at < len(data):
        element, at = _element(data, at, order)
        yield element


def _element(data: memoryview, at: int, order: Order, packed: bool = False) -> tuple[_Element, int]:
    """The element at a byte, and where the next one begins; ``packed`` ones stand without padding."""
    if at + 8 > len(data):
        raise ValueError(f"cut short at byte {at} of {len(data)}")
    kind = int.from_bytes(data[at : at + 4], order)
    if kind >> 16:  # a small one: up to four bytes in the tag itself
        kind, size = kind & 0xFFFF, kind >> 16
        if size > 4:
            raise ValueError(f"a small element of {size} bytes at byte {at}")
        return _Element(kind, data[at + 4 : at + 4 + size]), at + 8
    size, begin = int.from_bytes(data[at + 4 : at + 8], order), at + 8
    if begin + size > len(data):
        raise ValueError(f"an element of {size} bytes at byte {at}, {len(data) - begin} are there")
    padding = 0 if packed and kind == _COMPRESSED else -size % 8
    return _Element(kind, data[begin : begin + size]), begin + size + padding


def _header(data: memoryview, order: Order) -> _Array:
    rest = _elements(data, order)
    flags, sides, name = _next(rest, _UINT32), _next(rest, _INT32), _next(rest, _INT8, _UTF8)
    if len(flags) < 4 or len(sides) % 4 or not 2 <= len(sides) // 4 <= 32:
        raise ValueError("a matrix without its class or its sides")
    bits = int.from_bytes(flags[:4], order)
    shape = tuple(int.from_bytes(sides[i : i + 4], order, signed=True) for i in range(0, len(sides), 4))
    if min(shape) < 0:
        raise ValueError(f"sides {shape}")
    return _Array(bits & 0xFF, bool(bits & _COMPLEX), shape, bytes(name[:_LONGEST_NAME]).decode("latin-1"), rest)


def _next(elements: Iterator[_Element], *kinds: int) -> memoryview:
    found = next(elements, None)
    if found is None or found.kind not in kinds:
        got = "nothing" if found is None else f"kind {found.kind}"
        raise ValueError(f"an element of kind {' or '.join(map(str, kinds))} was expected, got {got}")
    return found.data


def _fields(array: _Array, wanted: tuple[str, ...], order: Order) -> dict[str, NDArray[Any]]:
    if array.kind != _STRUCT or any(side != 1 for side in array.shape):
        raise ValueError(f"{array.name}: expected a struct of one, got class {array.kind} of {array.shape}")
    length = int.from_bytes(_next(array.rest, _INT32)[:4], order, signed=True)
    text = bytes(_next(array.rest, _INT8, _UTF8))
    if not 0 < length <= _LONGEST_NAME:
        raise ValueError(f"{array.name}: field names of {length} bytes")
    names = [text[i : i + length].split(b"\0")[0].decode("latin-1") for i in range(0, len(text), length)]
    found: dict[str, NDArray[Any]] = {}
    for name in names:
        data = _next(array.rest, _MATRIX)
        if name in wanted and name not in found:
            found[name] = _numbers(name, _header(data, order), order)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(f"{array.name}: no field {', '.join(missing)}")
    return found


def _numbers(name: str, array: _Array, order: Order) -> NDArray[Any]:
    if array.kind not in _NUMERIC or array.is_complex:
        raise ValueError(f"{name}: expected real numbers, got class {array.kind}")
    stored = next(array.rest, None)
    if stored is None or stored.kind not in _NUMBERS:
        raise ValueError(f"{name}: expected numbers, got {'nothing' if stored is None else f'kind {stored.kind}'}")
    kind = np.dtype(_NUMBERS[stored.kind]).newbyteorder(">" if order == "big" else "<")
    if len(stored.data) != int(np.prod(array.shape, dtype=object)) * kind.itemsize:
        raise ValueError(f"{name}: {len(stored.data)} bytes for {array.shape} of {kind}")
    numbers = np.frombuffer(stored.data, kind).reshape(array.shape, order="F")
    return numbers.astype(kind.newbyteorder("="))
