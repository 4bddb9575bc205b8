"""The structured log of a command (``ahp --log-json FILE``): one JSON object a line, flushed line by line.

Every line has ``time`` (ISO 8601, UTC, ms), ``level`` (info, warning, error) and ``event``; the other fields by event:

=============== ========================================================================================
run_start       version, pid, argv
stage_start     stage, unit, total (null where nobody knows it)
stage_progress  stage, done, total, seconds, left (s, null where unknown); every ten seconds at most
stage_end       stage, done, total, seconds, ok (false: an error or an interrupt ended it)
stage_result    stage, counts, dropped (reasons and numbers), fresh (false: it stood already), seconds, digest
message, output what the command says to the person on stderr, and on stdout: message
replaced        split, stayed, were: a val or test made anew, and how many of its humans the new one has
damaged         path: a file that is no longer what a stage left; the stage is made anew
warning         message, source (the library's logger, or the category)
error           kind (user, machine, internal, interrupted), message; traceback where it is internal
run_end         status (the exit status), seconds
=============== ========================================================================================

Passwords and keys in addresses, in NAME=VALUE pairs and under such names are replaced by ``***``. Without ``open_log``
nothing is kept.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TextIO

from ahp_toolkit.core.errors import UserError

# Texts may be megabytes: what repeats in a pattern is bounded, or no two of its starts scan the same characters.
_NAMES = (
    r"(?:secret\w{0,20}|token|password|passwd|passphrase|signature|credential|authorization|"
    r"(?:api|account|access|private)[_-]?key\w{0,20}|(?<![^\W_])sig)"
)
#: What stands behind the sign: quoted, in quotes that are escaped themselves, or bare.
_VALUE = (
    r"(?:(\")(?:[^\"\\]|\\.)+|(')(?:[^'\\]|\\.)+|(\\+[\"'])[^\"'\\]+|"
    r"(?:(?:bearer|basic)\s+)?[^\s&,;\"']+)"
)
_SECRETS = (
    (re.compile(r"(\w://)[^/\s]+@"), r"\1***@"),  # greedy: a password may hold an @
    (re.compile(rf"({_NAMES}\\*[\"']?\s*[=:]\s*){_VALUE}", re.I | re.S), r"\1\2\3\4***"),
)
_NAME = re.compile(rf"{_NAMES}s?\Z", re.I)


def redacted(value: Any) -> Any:
    """A JSON-like value whose texts hold no password, key or token of an address, a NAME=VALUE pair or a dict."""
    if isinstance(value, str):
        for pattern, put in _SECRETS:
            value = pattern.sub(put, value)
        return value
    if isinstance(value, dict):
        return {str(k): "***" if _secret(str(k), v) else redacted(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(v) for v in value]
    return value


def _secret(name: str, value: Any) -> bool:
    return not isinstance(value, int | float | None) and _NAME.search(name) is not None  # a number is a count


class Log:
    """One open log; a line that cannot be written (full disk) ends the log with a word on stderr, not the command."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream: IO[str] | None = stream
        self.start = time.monotonic()

    def write(self, event: str, level: str = "info", **fields: Any) -> None:
        """Append one line."""
        if self._stream is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": now, "level": level, "event": event} | redacted(fields)
        text = json.dumps(line, ensure_ascii=False, default=str) + "\n"
        try:
            self._stream.write(text.encode(errors="backslashreplace").decode())  # names of files may be no UTF-8
            self._stream.flush()
        except (OSError, ValueError) as e:  # ValueError: closed by somebody else
            self._stream = None
            sys.stderr.write(f"ahp: the log ends here, it cannot be written: {e}\n")


_log: Log | None = None


def event(name: str, level: str = "info", **fields: Any) -> None:
    """Write one line to the open log; without one, do nothing."""
    if _log is not None:
        _log.write(name, level, **fields)


class _Lines:
    """Stands for stdout: each whole line becomes an ``output`` event, and goes on to ``through`` where there is one."""

    def __init__(self, shown: TextIO, through: bool) -> None:
        self._shown, self._through, self._rest = shown, through, ""

    def write(self, text: str) -> int:
        self._rest += text
        *whole, self._rest = self._rest.split("\n")
        for line in whole:
            event("output", message=line)
        return self._shown.write(text) if self._through else len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._shown.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shown, name)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        event("warning", "warning", message=record.getMessage(), source=record.name)


def open_log(path: str, version: str) -> None:
    """Begin the log of this process, appended to ``path``; ``-`` is stdout, which then holds nothing but the log.

    Raises:
        UserError: when the file cannot be written, or a log is open already.
    """
    global _log
    if _log is not None:
        raise UserError("--log-json is given twice; one log a command")
    shown = sys.stdout
    try:
        stream = shown if path == "-" else Path(path).open("a", encoding="utf-8")  # noqa: SIM115 closed with the process
    except OSError as e:
        raise UserError(f"--log-json {path}: cannot be written: {e.strerror}") from e
    _log = Log(stream)
    sys.stdout = _Lines(shown, through=path != "-")  # type: ignore[assignment]
    root = logging.getLogger()
    if not root.handlers and logging.lastResort is not None:
        root.addHandler(logging.lastResort)  # a handler of ours alone would silence what stderr shows
    handler = _Handler(logging.WARNING)
    root.addHandler(handler)
    before = warnings.showwarning

    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        event("warning", "warning", message=str(message), source=category.__name__)
        before(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    event("run_start", version=version, pid=os.getpid(), argv=sys.argv[1:])


def close_log(status: int) -> None:
    """Write the last line, with the exit status."""
    global _log
    if _log is None:
        return
    event("run_end", "info" if status == 0 else "error", status=status, seconds=seconds(_log.start))
    if isinstance(sys.stdout, _Lines):
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        sys.stdout = sys.stdout._shown
    _log = None


def seconds(since: float) -> float:
    """Seconds since a ``time.monotonic()``, to the millisecond."""
    return round(time.monotonic() - since, 3)
