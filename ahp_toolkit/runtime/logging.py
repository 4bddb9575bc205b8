"""The structured log of a command (``ahp --log-json FILE``): one JSON object a line, flushed line by line.

Every line has ``time`` (ISO 8601, UTC, ms), ``level`` (info, warning, error) and ``event``; the other fields by event:

=============== ========================================================================================
run_start       version, pid, argv
stage_start     stage, unit, total (null where nobody knows it)
stage_progress  stage, done, total, seconds, left (s, null where unknown); every ten seconds at most
stage_end       stage, done, total, seconds, ok (false: an error or an interrupt ended it)
stage_result    stage, counts, dropped (reasons and numbers), fresh (false: it was up to date), seconds, digest
message, output what the command says to the person on stderr, and on stdout: message
replaced        split, stayed, were: a val or test that another replaced, and how many of its humans stayed
damaged         path: a file that is no longer what a stage left; the stage is made again
warning         message, source (the library's logger; py.warnings for Python's own)
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
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from ahp_toolkit.core.errors import UserError

# Texts may be megabytes: what repeats in a pattern is bounded, or no two of its starts scan the same characters.
_NAMES = (
    r"(?:secret\w{0,20}|token|password|passwd|passphrase|signature|credential|authorization|"
    r"(?:api|account|access|private)[_-]?key\w{0,20}|(?<![^\W_])sig)"
)
#: The value behind the sign: quoted, in quotes that are escaped themselves, or bare.
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


class JsonFormatter(logging.Formatter):
    """One JSON object a record; a record of a library is the event ``warning``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        now = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        name, fields = record.getMessage(), getattr(record, "fields", None)
        if fields is None:
            name, fields = "warning", {"message": name, "source": record.name}
        line = {"time": now, "level": _LEVELS.get(record.levelno, "error"), "event": name} | redacted(fields)
        text = json.dumps(line, ensure_ascii=False, default=str)
        return text.encode(errors="backslashreplace").decode()  # names of files may be no UTF-8


_LEVELS = {logging.INFO: "info", logging.WARNING: "warning"}
_LOGGER = logging.getLogger("ahp")
_LOGGER.propagate = False


class _Handler(logging.StreamHandler[TextIO]):
    """The open log; a line that cannot be written (full disk) ends the log with a line on stderr, not the command."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.setFormatter(JsonFormatter())
        self.start = time.monotonic()

    def handleError(self, record: logging.LogRecord) -> None:
        """End the log."""
        _drop(self)
        sys.stderr.write(f"ahp: the log ends here, it cannot be written: {sys.exc_info()[1]}\n")


_open: _Handler | None = None


def _drop(handler: _Handler) -> None:
    global _open
    for logger in (_LOGGER, logging.getLogger()):
        logger.removeHandler(handler)
    logging.captureWarnings(False)
    _open = None


def event(name: str, level: str = "info", **fields: Any) -> None:
    """Write one line to the open log; without one, do nothing."""
    if _open is not None:
        _LOGGER.log(logging.getLevelNamesMapping()[level.upper()], name, extra={"fields": fields})


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


def open_log(path: str, version: str) -> None:
    """Begin the log of this process, appended to ``path``; ``-`` is stdout, which then holds nothing but the log.

    Raises:
        UserError: when the file cannot be written, or a log is open already.
    """
    global _open
    if _open is not None:
        raise UserError("--log-json is given twice; one log a command")
    shown = sys.stdout
    try:
        stream = shown if path == "-" else Path(path).open("a", encoding="utf-8")  # noqa: SIM115 closed with the process
    except OSError as e:
        raise UserError(f"--log-json {path}: cannot be written: {e.strerror}") from e
    sys.stdout = _Lines(shown, through=path != "-")  # type: ignore[assignment]
    _open = _Handler(stream)
    _LOGGER.addHandler(_open)
    _LOGGER.setLevel(logging.INFO)
    root = logging.getLogger()
    if not root.handlers and logging.lastResort is not None:
        root.addHandler(logging.lastResort)  # a handler of ours alone would silence what stderr shows
    root.addHandler(_open)
    logging.captureWarnings(True)
    event("run_start", version=version, pid=os.getpid(), argv=sys.argv[1:])


def close_log(status: int) -> None:
    """Write the last line, with the exit status."""
    if _open is None:
        return
    event("run_end", "info" if status == 0 else "error", status=status, seconds=seconds(_open.start))
    if isinstance(sys.stdout, _Lines):
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        sys.stdout = sys.stdout._shown
    if _open is not None:
        _drop(_open)


def seconds(since: float) -> float:
    """Seconds since a ``time.monotonic()``, to the millisecond."""
    return round(time.monotonic() - since, 3)
