"""The plain files of a tar: names, places and sizes, out of its headers alone, in time and memory that headers bound.

Python's tarfile (3.11 to 3.13, by patch level) goes in circles at negative sizes, takes time by the square of a pax
header's length, recurses once a header before a header, and takes whatever memory a header claims. What it accepts is
read here to the same names: ustar, GNU's long names and large numbers, pax. Files with holes are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

BLOCK = 512
#: Bytes of one long name, or of one pax header (with its extended attributes).
MAX_HEADER = 2**20
_ZERO = bytes(BLOCK)
#: Plain files; files with holes; headers before a header (pax's own and global ones, GNU's long names and links).
_PLAIN, _SPARSE, _BEFORE = (b"0", b"\0", b"7"), b"S", (b"x", b"X", b"g", b"L", b"K")
#: Links, devices, folders, pipes: nothing lies behind their headers, whatever size they state.
_NO_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")


def plain_files(f: IO[bytes]) -> Iterator[tuple[str, int, int]]:
    """(name as written, first byte, bytes) of every plain file of a tar, in order.

    Raises:
        ValueError: where it is cut short or damaged.
    """
    at, extended = 0, _Extended()
    while (head := _block(f, at)) != _ZERO or extended.more:
        if not _sound(head):
            raise ValueError(f"cut short or damaged at byte {at}")
        kind, stored, start = head[156:157], _number(head[124:136]), at + BLOCK
        if kind in _BEFORE:
            extended.take(kind, _header_data(f, start, stored))
        else:
            name = extended.name or _name_of(head)
            stored = stored if extended.size is None else extended.size  # pax: more than eleven digits
            if kind in _NO_DATA or (kind == b"\0" and name.endswith("/")):  # the oldest tars mark folders so
                stored = 0
            elif kind == _SPARSE:
                start = _behind_holes(f, head, start)
            elif kind in _PLAIN and not extended.sparse:
                yield name, start, stored
            extended = _Extended()
        at = start + (stored + BLOCK - 1) // BLOCK * BLOCK


class _Extended:
    """Name and size that extended headers give the next member; the first of two holds, as in tarfile."""

    def __init__(self) -> None:
        self.name = ""
        self.size: int | None = None
        self.sparse = self.more = False  # more: a member must follow

    def take(self, kind: bytes, data: bytes) -> None:
        """One header, of a kind of `_BEFORE`; global ones hold nothing that is needed here."""
        self.more |= kind != b"g"
        if kind == b"L":
            self.name = self.name or _text(data)
        elif kind in b"xX":
            records = dict(_records(data))
            self.name = self.name or _text(records.get(b"path", b""))
            if self.size is None and b"size" in records:
                self.size = _digits(records[b"size"], 10)
            self.sparse |= any(key.startswith(b"GNU.sparse.") for key in records)


def _block(f: IO[bytes], at: int) -> bytes:
    f.seek(at)
    return f.read(BLOCK)


def _sound(head: bytes) -> bool:
    """Whether a block is a header: whole, and its sum right, of bytes with or without a sign, as old tars differ."""
    if len(head) < BLOCK:
        return False
    rest = head[:148] + b" " * 8 + head[156:]
    total, written = sum(rest), _number(head[148:156])
    return written == total or written == total - 256 * sum(b > 127 for b in rest)


def _number(field: bytes) -> int:
    """A number of a header: octal digits, or GNU's base 256. Negative ones are none."""
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise ValueError("a header with a negative number, or one above all sizes")
        return int.from_bytes(field[1:], "big")
    return _digits(field.partition(b"\0")[0].strip(), 8)


def _digits(field: bytes, base: int) -> int:
    if len(field) > 20 or (field and not field.isdigit()):
        raise ValueError(f"a header with {field[:20]!r} in place of a number")
    return int(field or b"0", base)


def _name_of(head: bytes) -> str:
    """A header's own name; the field before it is GNU's for other things where the magic is GNU's."""
    prefix = "" if head[257:265] == b"ustar  \0" else _text(head[345:500])
    return f"{prefix}/{_text(head[:100])}" if prefix else _text(head[:100])


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _header_data(f: IO[bytes], start: int, stored: int) -> bytes:
    if stored > MAX_HEADER:
        raise ValueError(f"a header of {stored} bytes at byte {start}, at most {MAX_HEADER} are read")
    f.seek(start)
    data = f.read(stored)
    if len(data) < stored:
        raise ValueError(f"cut short in a header at byte {start}")
    return data


def _behind_holes(f: IO[bytes], head: bytes, start: int) -> int:
    """Where the data of an old GNU file with holes begins: behind the blocks of its list."""
    more = head[482]
    while more:
        block = _block(f, start)
        if len(block) < BLOCK:
            raise ValueError(f"cut short in a list of holes at byte {start}")
        more, start = block[504], start + BLOCK
    return start


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a pax header: "length key=value\\n", the length being that of the whole record."""
    at = 0
    while at < len(data) and data[at]:  # zeros fill it up
        digits, space, _ = data[at : at + 12].partition(b" ")
        size = _digits(digits, 10) if space and digits else 0
        record = data[at + len(digits) + 1 : at + size]
        key, equals, value = record.partition(b"=")
        if not equals or at + size > len(data) or record[-1:] != b"\n":
            raise ValueError("a pax header with a broken record")
        yield key, value[:-1]
        at += size
