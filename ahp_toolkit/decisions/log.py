"""Decision logs: JSON lines that are only ever appended, one log a reviewer below ROOT/decisions.

A line is a decision, or a retraction ``{"retracts": id of a decision, ...}``; both keep an id, so that logs from two
places are united by it. A line is on the disk before the panel shows it as saved. This file also writes and reads
the votes on composites, which are logged in the same way.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

from ahp_toolkit.core import values
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.hashing import digest_value
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.records import Decision

#: Below a build folder: one log a reviewer.
FOLDER = "decisions"
#: The note of a decision that settles a disagreement between reviewers.
SETTLED = "settled"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_FIELDS = tuple(f.name for f in fields(Decision))
_REQUIRED = ("id", "candidate_id", "verdict", "reviewer", "mask_digest")


@dataclass(frozen=True, slots=True)
class Retraction:
    """A reviewer takes the decision of id ``retracts`` back. ``at`` is ISO 8601 UTC; ``id`` as a `Decision`'s."""

    candidate_id: str
    reviewer: str
    retracts: str
    at: str = ""
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", retraction_id(self.candidate_id, self.reviewer, self.at))


Entry = Decision | Retraction


def retraction_id(candidate_id: str, reviewer: str, at: str) -> str:
    """The id of a retraction: one of a reviewer, a candidate and a time, whichever decision it takes back."""
    return digest_value(["retraction", candidate_id, reviewer, at])[:32]


def now() -> str:
    """The time as ISO 8601 UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def utc(at: str) -> str:
    """A time with a zone as ISO 8601 UTC, ms.

    Raises:
        ValueError: for anything else.
    """
    with suppress(ValueError, OverflowError):
        read = datetime.fromisoformat(at)
        if read.tzinfo is not None:
            return read.astimezone(UTC).isoformat(timespec="milliseconds")
    raise ValueError(f"at: expected ISO 8601 with a zone, such as 2026-01-31T09:30:00Z, got {at[:60]!r}")


def when(at: str) -> datetime:
    """A decision's time, to compare: UTC where it names no zone; one that cannot be read is before all others."""
    with suppress(ValueError):
        read = datetime.fromisoformat(at)
        return read if read.tzinfo is not None else read.replace(tzinfo=UTC)
    return datetime.min.replace(tzinfo=UTC)


def after(at: str, last: Iterable[str]) -> str:
    """A time, moved behind all ``last`` ones: a clock may have been set back."""
    newest = max(map(when, last), default=None)
    if newest is None or when(at) > newest:
        return at
    return (newest + timedelta(milliseconds=1)).isoformat(timespec="milliseconds")


def check_name(reviewer: str) -> str:
    """A reviewer's name as it is.

    Raises:
        UserError: when it cannot name a file and a field.
    """
    if not _NAME.fullmatch(reviewer) or reviewer in ("rule", "triage"):
        raise UserError(
            f"--reviewer {reviewer!r}: expected a letter and then letters, digits, - or _ (at most 64; neither "
            "'rule' nor 'triage')"
        )
    return reviewer


def path_of(root: Path, reviewer: str) -> Path:
    """The log of a reviewer."""
    return root / FOLDER / f"{reviewer}.jsonl"


def logs_of(root: Path) -> tuple[Path, ...]:
    """All reviewers' logs of a build folder, sorted by name."""
    return tuple(sorted((root / FOLDER).glob("*.jsonl")))


# --- an entry and its line ----------------------------------------------------------------------------------------


def to_json(entry: Entry) -> str:
    """One line of the log, without its line end."""
    names = _FIELDS if isinstance(entry, Decision) else entry.__slots__
    d = {name: getattr(entry, name) for name in names}
    mask = d.pop("corrected", None)
    if mask is not None:
        d["corrected"] = mask.rle_json
    return json.dumps(d, sort_keys=True, ensure_ascii=False)


def from_json(line: str) -> Entry:
    """A log line to a `Decision` or a `Retraction`.

    Raises:
        ValueError: when the line is neither; the text says what is wrong.
    """
    d = json.loads(line)
    if not isinstance(d, dict):
        raise ValueError(f"expected an object, got {type(d).__name__}")
    known, required = (Retraction.__slots__, Retraction.__slots__) if "retracts" in d else (_FIELDS, _REQUIRED)
    unknown = d.keys() - set(known)
    if unknown:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    kinds: dict[str, Any] = {"seconds": (int, float), "provisional": bool, "corrected": (dict, type(None))}
    for name in (*required, *known):
        if name in d and not isinstance(d[name], kinds.get(name, str)):
            raise ValueError(f"field {name}: expected another type, got {d[name]!r:.60}")
        if name in required and not d.get(name) and name != "at":
            raise ValueError(f"field {name} is missing or empty")
    json.dumps(d, ensure_ascii=False).encode()  # what cannot be written again is refused here
    if "retracts" in d:
        return Retraction(**d)
    corrected = mask_from_json(d.pop("corrected")) if d.get("corrected") else None
    d["seconds"] = float(d.get("seconds", 0.0))  # no table holds a whole number of any size
    return Decision(**d | {"corrected": corrected})


def mask_from_json(value: Mapping[str, Any]) -> Mask:
    """A mask from COCO's RLE in its own frame.

    Raises:
        BadValue: ``bad_rle``.
    """
    frame = value.get("size") or (value.get("height"), value.get("width"))
    sides = [values.integer(v, "bad_rle") for v in frame] if isinstance(frame, (list, tuple)) else []
    if len(sides) != 2:
        raise values.BadValue("bad_rle", f"expected RLE with size [height, width], got {frame!r:.60}")
    return values.rle({"size": sides, "counts": value.get("counts")}, *sides)


# --- a file -------------------------------------------------------------------------------------------------------


def append(path: Path, entry: Entry, sync: bool = True) -> None:
    """Append one entry whole or not at all; with ``sync`` it is on the disk when this returns (`append_line`)."""
    append_line(path, to_json(entry), sync)


def append_line(path: Path, line: str, sync: bool = True) -> None:
    """Append a line whole or not at all, whoever writes at the same time; with ``sync`` it is then on the disk.

    A last line that a crash cut short was never reported as saved; it is removed, so that it cannot spoil this one.

    Raises:
        OSError: when the disk did not take the whole line; then none of it is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = (line + "\n").encode()
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        end = _end_with_a_line(fd)
        try:
            if os.write(fd, data) != len(data):
                raise OSError(f"{path}: the disk took only a part of the line; is it full?")
            if sync:
                os.fsync(fd)
        except OSError:
            os.ftruncate(fd, end)
            raise
    finally:
        os.close(fd)


def sync(path: Path) -> None:
    """Wait until all lines of a log are on the disk."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _end_with_a_line(fd: int) -> int:
    """Cut a last line that is no whole object, or give a whole one its line end; returns the log's size in bytes."""
    end = size = os.fstat(fd).st_size
    while end and os.pread(fd, 1, end - 1) != b"\n":
        start = max(0, end - 4096)
        end = start + os.pread(fd, end - start, start).rfind(b"\n") + 1
    if end == size:
        return end
    if _is_object(os.pread(fd, size - end, end)):
        return size + os.write(fd, b"\n")
    os.ftruncate(fd, end)
    return end


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


@dataclass
class Reader:
    """The one reader of logs: gives what a log has gained since the last look. A last line cut short is left out.

    A line that cannot be read is left out and named in ``problem``.
    """

    path: Path
    offset: int = 0
    inode: int = 0
    line: int = 0
    problem: str = ""
    _ended: bool = True  # whether the last line that was read had its line end
    _start: int = 0  # of the line that was read last
    _bad: tuple[int, bytes] = (0, b"")  # where the first line lies that cannot be read, and what it is

    def replaced(self) -> bool:
        """Whether the file is another one, is shorter than what was read of it, or has another line for a bad one."""
        stat = self.path.stat()
        if self.offset and (stat.st_ino != self.inode or stat.st_size < self.offset):
            return True
        start, line = self._bad
        with self.path.open("rb") as f:
            return bool(line) and os.pread(f.fileno(), len(line), start) != line

    def lines(self) -> Iterator[bytes]:
        """The lines since the last look, empty ones left out.

        Raises:
            OSError: when the log cannot be read.
        """
        with self.path.open("rb") as f:
            self.inode = os.fstat(f.fileno()).st_ino
            f.seek(self.offset)
            data = f.read()
        cut = data.rfind(b"\n") + 1
        data = data if _is_object(data[cut:]) else data[:cut]
        if not self._ended and data.startswith(b"\n"):  # the line end has come since
            data, self.offset, self._ended = data[1:], self.offset + 1, True
        start, self.offset = self.offset, self.offset + len(data)
        if data:
            self._ended = data.endswith(b"\n")
        for line in data.removesuffix(b"\n").split(b"\n") if data else []:
            self.line += 1
            self._start, start = start, start + len(line) + 1
            if line.strip():
                yield line

    def entries(self) -> Iterator[Entry]:
        """The entries since the last look; see `lines`."""
        for line in self.lines():
            try:
                yield from_json(line.decode())
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as e:
                if self.problem:
                    continue
                self.problem = f"{self.path}, line {self.line}: expected one decision as JSON ({e})"
                self.problem += "; correct or remove the line"
                self._bad = (self._start, line)


def read_entries(path: Path) -> Iterator[Entry]:
    """All entries of a log, in order.

    Raises:
        UserError: naming the file, and the line that is no entry.
    """
    reader = Reader(path)
    try:
        for entry in reader.entries():
            if reader.problem:
                break
            yield entry
    except OSError as e:
        raise UserError(f"{path}: decisions cannot be read ({e}); bring the file back from a copy") from e
    if reader.problem:
        raise UserError(reader.problem)


def read_decisions(paths: Iterable[Path]) -> list[Decision]:
    """The decisions of some logs that nobody took back, each id once, in the order of the logs.

    Raises:
        UserError: see `read_entries`.
    """
    return effective(chain.from_iterable(map(read_entries, paths)))


def effective(entries: Iterable[Entry]) -> list[Decision]:
    """The decisions that no retraction takes back, each id once, in order."""
    by_id = {e.id: e for e in entries}
    retracted = {e.retracts for e in by_id.values() if isinstance(e, Retraction)}
    return [e for e in by_id.values() if isinstance(e, Decision) and e.id not in retracted]


def read_objects(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of another log of JSON lines, in order; none where there is no file.

    Raises:
        UserError: naming the file, and the line that is no object.
    """
    reader = Reader(path)
    try:
        for line in reader.lines() if path.exists() else ():
            found = json.loads(line)
            if not isinstance(found, dict):
                raise ValueError("no JSON object")
            yield found
    except OSError as e:
        raise UserError(f"{path}: the log cannot be read ({e}); bring it back from a copy") from e
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path}, line {reader.line}: expected a JSON object ({e}); correct or remove the line") from e
