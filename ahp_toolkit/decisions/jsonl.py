"""Append-only logs of JSON lines: a line is there whole or not at all, whoever writes at the same time.

Beside a log NAME lies ``.NAME.end``: how many bytes of it were acknowledged, and their sha256, in two slots that are
written in turn, so that a torn write leaves the one before. Who reads a log that lacks some of these bytes, or holds
others in their place, is told so: nothing that was said is lost without a word.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ahp_toolkit.core.errors import UserError

_BLOCK = 1 << 20
_SLOT = 95  # bytes: 20 digits, a sha256, a crc32, two spaces and a line end


def append(path: Path, value: Mapping[str, Any]) -> None:
    """Append one object as a line; it is on the disk when this returns; see `append_line`."""
    append_line(path, json.dumps(value, sort_keys=True, ensure_ascii=False))


def append_line(path: Path, line: str, sync: bool = True) -> None:
    """Append a line whole or not at all; with ``sync`` it is on the disk when this returns.

    A last line that a crash cut short is removed first (it was never acknowledged), so that it cannot spoil this one.

    Raises:
        OSError: when the disk did not take the whole line; then none of it is there.
        UserError: when acknowledged lines are missing or changed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = (line + "\n").encode()
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        said = _acknowledged(path)
        end = _mend(fd, said[0] if said else 0)
        known = _known(path, fd, end)
        if said and (end < said[0] or (end == said[0] and known.hash.hexdigest() != said[1])):
            raise _changed(path, said[0])
        try:
            if os.write(fd, data) != len(data):
                raise OSError(f"{path}: the disk took only a part of the line; is it full?")
            if sync:
                os.fsync(fd)
        except OSError:
            os.ftruncate(fd, end)
            raise
        known.size, _ = end + len(data), known.hash.update(data)
        with suppress(OSError):  # it only falls behind: the line is on the log
            _acknowledge(path, known.size, known.hash.hexdigest())
    finally:
        os.close(fd)


def read_bytes(path: Path) -> bytes:
    """All of a log.

    Raises:
        OSError: when it cannot be read.
        UserError: when acknowledged lines are missing or changed.
    """
    said = _acknowledged(path)  # before the log, which only grows
    data = path.read_bytes()
    if said and (len(data) < said[0] or hashlib.sha256(data[: said[0]]).hexdigest() != said[1]):
        raise _changed(path, said[0])
    return data


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a log, in order; none where there is no file. A last line cut short is left out.

    Raises:
        UserError: naming the file and a line that is no object, or acknowledged lines that are missing or changed.
    """
    if not path.exists() and not _end_of(path).exists():
        return
    try:
        lines = whole(read_bytes(path)).split(b"\n")
    except OSError as e:
        raise UserError(f"{path}: the log cannot be read ({e}); bring it back from a copy") from e
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
        except (ValueError, RecursionError) as e:
            raise UserError(f"{path}, line {number}: expected JSON ({e}); mend or remove the line") from e
        if not isinstance(said, dict):
            raise UserError(f"{path}, line {number}: expected a JSON object; mend or remove the line")
        yield said


def logs(folder: Path) -> list[Path]:
    """The logs of a folder, in order.

    Raises:
        UserError: when one that was acknowledged is not there.
    """
    found = sorted(folder.glob("*.jsonl"))
    for end in folder.glob(".*.jsonl.end"):
        log = end.with_name(end.name[1:-4])
        if log not in found:
            raise UserError(f"{log}: it was written here and is gone; bring it back from a copy, or delete {end} too")
    return found


def whole(data: bytes) -> bytes:
    """The lines of a log that are there whole: a last one without its line end counts when it is a JSON object."""
    cut = data.rfind(b"\n") + 1
    return data if _is_object(data[cut:]) else data[:cut]


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _mend(fd: int, acknowledged: int) -> int:
    """End a log with a line end, whole lines only; returns its size in bytes."""
    end = size = os.fstat(fd).st_size
    while end and os.pread(fd, 1, end - 1) != b"\n":
        start = max(0, end - 4096)
        end = start + os.pread(fd, end - start, start).rfind(b"\n") + 1
    if end == size or end < acknowledged:
        return end
    if _is_object(os.pread(fd, size - end, end)):
        return size + os.write(fd, b"\n")
    os.ftruncate(fd, end)
    return end


# --- what was acknowledged ----------------------------------------------------------------------------------------


@dataclass
class _Known:
    """The sha256 of a log's first ``size`` bytes, as this process knows it."""

    inode: int
    size: int = 0
    hash: Any = field(default_factory=hashlib.sha256)


_KNOWN: dict[str, _Known] = {}


def _known(path: Path, fd: int, end: int) -> _Known:
    """The digest of a log's first ``end`` bytes; only what is new since the last call is read."""
    inode, key = os.fstat(fd).st_ino, str(path.absolute())
    known = _KNOWN.get(key)
    if known is None or known.inode != inode or known.size > end:
        known = _KNOWN[key] = _Known(inode)
    while known.size < end:
        data = os.pread(fd, min(_BLOCK, end - known.size), known.size)
        known.hash.update(data)
        known.size += len(data)
    return known


def _end_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.end")


def _acknowledge(path: Path, size: int, digest: str) -> None:
    text = f"{size:020d} {digest}"
    line = f"{text} {zlib.crc32(text.encode()):08x}\n".encode()
    first, second = (slot[0] if slot else -1 for slot in _slots(path))
    older = int(second < first)
    fd = os.open(_end_of(path), os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(fd, line, older * _SLOT)
    finally:
        os.close(fd)


def _acknowledged(path: Path) -> tuple[int, str] | None:
    """(bytes, their sha256) that were acknowledged; None where nothing is known."""
    return max(filter(None, _slots(path)), default=None)


def _slots(path: Path) -> list[tuple[int, str] | None]:
    """Both slots; None for one that was never written or was torn."""
    try:
        data = _end_of(path).read_bytes()
    except OSError:
        data = b""
    return [_slot(data[:_SLOT]), _slot(data[_SLOT:])]


def _slot(data: bytes) -> tuple[int, str] | None:
    try:
        text, _, check = data.decode().strip().rpartition(" ")
        size, digest = text.split(" ")
        return (int(size), digest) if check == f"{zlib.crc32(text.encode()):08x}" else None
    except ValueError:
        return None


def _changed(path: Path, size: int) -> UserError:
    return UserError(
        f"{path}: its first {size} bytes are not those that were acknowledged: cut short or changed; bring it back "
        f"from a copy, or, if you changed it, delete {_end_of(path)}"
    )
