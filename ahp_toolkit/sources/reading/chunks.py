"""Large JSON annotation files as a stream of typed records, in bounded memory.

The file's top level is one object; chosen keys hold lists, which come out block by block through a typed msgspec
decoder. A block is cut behind its last ``}`` on trial: any prefix of legal JSON that ends inside a string or a nested
value cannot be closed by one ``]``, so a block that decodes was cut right. Where the trial fails (the list's end,
nested records, odd layouts) a tokenizer finds the true border. Records that do not fit the type come out as plain
values for the caller to judge; text that is no JSON, or is cut short, is a UserError with the byte position.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import msgspec

from ahp_toolkit.core import values
from ahp_toolkit.core.errors import UserError

BLOCK = 4 * 2**20
MAX_RECORD = 16 * 2**20  # one record or text larger than this is no annotation (plain values take 30 times as much)
_SPACE = re.compile(rb"[ \t\r\n]*")
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+("?)|[\[\]{},]', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,\[\]{}":]*')
#: What a typed decoder says of text that does not fit, is no UTF-8, or is nested too deep: `loads` tells which.
_MISFIT = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_CLOSES = {b"}": 0x7B, b"]": 0x5B}


class Batch(NamedTuple):
    """Neighbouring records of one list: ``typed`` where all of them fit the type, else ``loose`` plain values."""

    key: str
    typed: list[Any] | None
    loose: list[Any]


def batches(path: Path, types: Mapping[str, type], block: int = BLOCK) -> Iterator[Batch]:
    """The records of the top-level lists named in ``types``, in file order; other keys are passed over.

    Each list starts with an empty batch, so that an empty list can be told from a missing one.

    Args:
        path: a JSON file, UTF-8 (or UTF-16 with a byte order mark), whose top level is an object.
        types: key of a list -> msgspec type of its records.
        block: bytes read at a time.

    Raises:
        UserError: when the file cannot be read, is cut short or is no JSON, with the byte position.
    """
    decoders = {key: msgspec.json.Decoder(list[kind]) for key, kind in types.items()}  # type: ignore[valid-type]
    try:
        with values.open_utf8(path) as file:
            yield from _Walker(path, file, block).walk(decoders)
    except values.BadValue as e:
        raise UserError(f"{path}: expected JSON in UTF-8: {e}; save it as UTF-8") from e
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror or e})") from e


class _Walker:
    """A cursor over the file: ``buf[pos:]`` is unread, ``base`` is the file position of ``buf[0]``."""

    def __init__(self, path: Path, file: Any, block: int) -> None:
        self.path, self.file, self.block = path, file, block
        self.buf, self.pos, self.base = b"", 0, 0
        self.end = False
        self.misses = 0  # borders in a row that the trial got wrong: at two the list goes by tokens alone

    # -- reading ------------------------------------------------------------------------------------------------------
    def fill(self, want: int) -> None:
        """Read on until ``want`` unread bytes are there, or the file ends."""
        missing = want - (len(self.buf) - self.pos)
        if missing <= 0 or self.end:
            return
        data = self.file.read(max(missing, self.block))
        self.end = len(data) < max(missing, self.block)
        self.base += self.pos
        self.buf, self.pos = self.buf[self.pos :] + data, 0

    def broken(self, at: int, why: str) -> NoReturn:
        """Raise: the text at ``buf[at]`` is no JSON."""
        raise UserError(f"{self.path}: not legal JSON at byte {self.base + at}: {why}; fetch the file again")

    def cut_short(self) -> NoReturn:
        """Raise: the file ends too early."""
        size = self.base + len(self.buf)
        raise UserError(f"{self.path}: cut short, the JSON is not closed at byte {size}; fetch the file again")

    def grow(self) -> None:
        """Read on, as what begins at the cursor is longer than the buffer."""
        if self.end:
            self.cut_short()
        held = len(self.buf) - self.pos
        if held > MAX_RECORD:
            self.broken(self.pos, f"a record or text of more than {MAX_RECORD} bytes")
        self.fill(2 * held + 1)

    def peek(self) -> bytes:
        """The next byte that is no white space; at the end of the file a UserError."""
        while True:
            found = _SPACE.match(self.buf, self.pos)
            self.pos = found.end() if found else self.pos
            if self.pos < len(self.buf):
                return self.buf[self.pos : self.pos + 1]
            if self.end:
                self.cut_short()
            self.fill(1)

    def expect(self, *allowed: bytes) -> bytes:
        """Take the next byte, which must be one of ``allowed``."""
        byte = self.peek()
        if byte not in allowed:
            wanted = " or ".join(a.decode() for a in allowed)
            self.broken(self.pos, f"expected {wanted}, got {byte!r}")
        self.pos += 1
        return byte

    # -- the top level ------------------------------------------------------------------------------------------------
    def walk(self, decoders: Mapping[str, msgspec.json.Decoder[Any]]) -> Iterator[Batch]:
        self.fill(self.block)
        if self.buf.startswith(b"\xef\xbb\xbf"):
            self.pos = 3
        self.expect(b"{")
        if self.peek() == b"}":
            self.pos += 1
        else:
            yield from self.members(decoders)
        self.only_space_left()

    def members(self, decoders: Mapping[str, msgspec.json.Decoder[Any]]) -> Iterator[Batch]:
        while True:
            key = self.string()
            self.expect(b":")
            if key in decoders:
                self.expect(b"[")
                yield from self.array(key, decoders[key])
            else:
                self.skip()
            if self.expect(b",", b"}") == b"}":
                return

    def only_space_left(self) -> None:
        while True:
            found = _SPACE.match(self.buf, self.pos)
            self.pos = found.end() if found else self.pos
            if self.pos < len(self.buf):
                self.broken(self.pos, "text behind the end")
            if self.end:
                return
            self.fill(1)

    def token(self) -> re.Match[bytes]:
        """The whole string token at the cursor."""
        while True:
            found = _TOKEN.match(self.buf, self.pos)
            if found and found.group(1):
                return found
            self.grow()

    def string(self) -> str:
        if self.peek() != b'"':
            self.broken(self.pos, "expected a key in double quotes")
        found = self.token()
        self.pos = found.end()
        return str(self.loads(found.group(), found.start()))

    def loads(self, text: bytes, at: int) -> Any:
        """A small piece of JSON to plain values; ``at`` is its place in the buffer."""
        try:
            return json.loads(text.decode("utf-8"))
        except UnicodeDecodeError as e:
            self.broken(at + e.start, "not UTF-8")
        except json.JSONDecodeError as e:
            self.broken(at + len(e.doc[: e.pos].encode()), e.msg)
        except (ValueError, RecursionError) as e:  # a number of thousands of digits, nesting without end
            self.broken(at, str(e))

    # -- values passed over -------------------------------------------------------------------------------------------
    def skip(self) -> None:
        """Pass over one value of any size."""
        first = self.peek()
        if first == b'"':
            self.string()
        elif first in (b"{", b"["):
            self.skip_nested()
        else:
            self.skip_scalar()

    def skip_scalar(self) -> None:
        while True:
            found = _SCALAR.match(self.buf, self.pos)
            stop = found.end() if found else self.pos
            if stop < len(self.buf):
                break
            self.grow()
        self.loads(self.buf[self.pos : stop], self.pos)
        self.pos = stop

    def skip_nested(self) -> None:
        open_ = bytearray()
        while True:
            found = _TOKEN.search(self.buf, self.pos)
            if found is None:
                self.pos = len(self.buf)
                if self.end:
                    self.cut_short()
                self.fill(1)
                continue
            self.pos = found.start()
            mark = found.group()[:1]
            self.pos = self.token().end() if mark == b'"' else found.end()
            if mark in (b"{", b"["):
                open_ += mark
            elif mark in _CLOSES:
                if open_.pop() != _CLOSES[mark]:
                    self.broken(self.pos - 1, f"unexpected {mark.decode()}")
                if not open_:
                    return

    # -- the lists ----------------------------------------------------------------------------------------------------
    def array(self, key: str, decoder: msgspec.json.Decoder[Any]) -> Iterator[Batch]:
        """The elements of the list whose ``[`` has just been taken, up to and with its ``]``."""
        self.misses = 0
        yield Batch(key, [], [])
        if self.peek() == b"]":
            self.pos += 1
            return
        while True:
            self.fill(self.block)
            if self.peek() in (b",", b"]"):
                self.broken(self.pos, "expected a value")
            yield self.on_trial(key, decoder) or self.by_tokens(key, decoder)
            if self.expect(b",", b"]") == b"]":
                return

    def on_trial(self, key: str, decoder: msgspec.json.Decoder[Any]) -> Batch | None:
        """Cut behind the last ``}``, else at the first ``}]``; None where that was no border (or a record misfits)."""
        if self.misses >= 2:
            return None
        for find, mark in ((self.buf.rfind, b"}"), (self.buf.find, b"}]")):
            stop = find(mark, self.pos)
            if stop < 0:
                return None
            try:
                typed = decoder.decode(b"".join((b"[", memoryview(self.buf)[self.pos : stop + 1], b"]")))
            except _MISFIT:
                continue
            self.pos, self.misses = stop + 1, 0
            return Batch(key, typed, [])
        return None

    def by_tokens(self, key: str, decoder: msgspec.json.Decoder[Any]) -> Batch:
        """Cut where a tokenizer sees the last whole element end."""
        while True:
            stop, closed = self.border()
            if stop > self.pos or closed:
                break
            self.grow()
        at, self.pos = self.pos, stop
        text = b"".join((b"[", memoryview(self.buf)[at:stop], b"]"))
        try:
            typed = decoder.decode(text)
        except _MISFIT:
            return Batch(key, None, self.loads(text, at - 1))
        self.misses += not closed  # the records fit: it was the border that the trial missed
        return Batch(key, typed, [])

    def border(self) -> tuple[int, bool]:
        """(end of the last whole element in the buffer, whether the list closes there)."""
        depth, stop = 0, self.pos
        for found in _TOKEN.finditer(self.buf, self.pos):
            mark = found.group()
            if mark in (b"{", b"["):
                depth += 1
            elif mark in _CLOSES:
                depth -= 1
                if depth < 0:
                    return found.start(), True
            elif mark == b",":
                stop = stop if depth else found.start()
            elif not found.group(1):
                break
        return stop, False
