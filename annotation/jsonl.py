"""Append-only logs of JSON lines: a line is there whole or not at all, whoever writes at the same time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ahp_toolkit.core.errors import UserError


def append(path: Path, value: Mapping[str, Any]) -> None:
    """Append one object as a line; it is on the disk when this returns. A line cut short by a crash is removed first.

    Raises:
        OSError: when the disk did not take the whole line; then none of it is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(value, sort_keys=True, ensure_ascii=False) + "\n").encode()
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        data = path.read_bytes()
        end = data.rfind(b"\n") + 1
        if end < len(data):
            os.ftruncate(fd, end)
        try:
            if os.write(fd, line) != len(line):
                raise OSError(f"{path}: the disk took only a part of the line; is it full?")
        except OSError:
            os.ftruncate(fd, end)
            raise
        os.fsync(fd)
    finally:
        os.close(fd)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a log, in order; none where there is no file. A last line cut short is left out.

    Raises:
        UserError: naming the file and a line that is no object.
    """
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], 1):  # what follows the last line end was never written whole
        if not line.strip():
            continue
        try:
            said = json.loads(line)
        except ValueError as e:
            raise UserError(f"{path}, line {number}: expected JSON ({e}); mend or remove the line") from e
        if not isinstance(said, dict):
            raise UserError(f"{path}, line {number}: expected a JSON object; mend or remove the line")
        yield said
