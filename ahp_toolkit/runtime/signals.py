"""How a command ends: exit statuses, one line on stderr for each kind of end, signals, and the worker processes."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import sys
import traceback
from types import FrameType

from ahp_toolkit.core.text import one_line
from ahp_toolkit.runtime import logging

OK, INTERNAL, USER, INTERRUPTED, TERMINATED = 0, 1, 2, 128 + signal.SIGINT, 128 + signal.SIGTERM

#: For ``ahp --help`` and the README's test: status -> when.
STATUSES = {
    OK: "done",
    INTERNAL: "a fault of ahp (please report it), or a check found something: validate, review import",
    USER: "to be mended by you: options, data, weights, a full disk; one line says what",
    INTERRUPTED: "stopped by Ctrl+C (SIGINT); the same command goes on",
    TERMINATED: "stopped by SIGTERM; the same command goes on",
}
_MACHINE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or ask for a larger quota",
    errno.EROFS: "give a folder that can be written",
    errno.EACCES: "give a place you may read and write",
    errno.EPERM: "give a place you may read and write",
    errno.EIO: "look at the disk or the mount",
    errno.ESTALE: "look at the mount",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ELOOP: "mend the links that lead back to themselves",
    errno.ENOTDIR: "a part of the path is a file; give another path",
    errno.EEXIST: "something else is there; give another path",
    errno.EISDIR: "it is a folder; give the path of a file",
}


_came: list[int] = []  # the signals that end this process: a library may replace or swallow what they raised


def on_signals() -> None:
    """Let SIGTERM and Ctrl+C end this process alike (its main thread alone may say so)."""

    def stop(number: int, _: FrameType | None) -> None:
        _came.append(number)
        if number == signal.SIGTERM:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the second one ends it at once
        raise KeyboardInterrupt

    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, stop)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored: in the background
            signal.signal(signal.SIGINT, stop)
        sys.unraisablehook = _swallowed


def _swallowed(e: sys.UnraisableHookArgs) -> None:
    """Say nothing of an interrupt that could not be raised, as in the callbacks of a compiler: `check` raises it."""
    if not (_came and issubclass(e.exc_type, KeyboardInterrupt)):
        sys.__unraisablehook__(e)


def signalled() -> bool:
    """Whether a signal came that ends this process."""
    return bool(_came)


def check() -> None:
    """Raise `KeyboardInterrupt` where a signal came and the one it raised was lost; for every loop of work."""
    if _came:
        raise KeyboardInterrupt


def answered() -> None:
    """Forget the Ctrl+C that this process sent itself: it has done its work, and nobody asked for the end."""
    _came[:] = [number for number in _came if number != signal.SIGINT]


def stopped() -> int:
    """The end by a signal: the workers are ended, what they had not finished is made by the next start."""
    for child in multiprocessing.active_children():
        child.terminate()
    terminated = signal.SIGTERM in _came
    message = f"{'terminated' if terminated else 'interrupted'}; the same command goes on from here"
    logging.event("error", "error", kind="interrupted", message=message)
    sys.stderr.write(f"ahp: {message}\n")
    return TERMINATED if terminated else INTERRUPTED


def user(message: str) -> int:
    """The end by what a user did."""
    message = one_line(message)  # file names and records may hold a terminal's escape sequences
    logging.event("error", "error", kind="user", message=message)
    sys.stderr.write(f"ahp: {message}\n")
    return USER


def broken_pipe() -> int:
    """Whoever read our output has gone (``ahp ... | head``): no error."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())  # type: ignore[union-attr]
    return OK


def failed(e: BaseException) -> int:
    """The end by an exception nobody foresaw: the machine's fault where it is one, else ours."""
    if isinstance(e, MemoryError) or (isinstance(e, OSError) and e.errno in _MACHINE):
        return _machine(e)
    where = traceback.extract_tb(e.__traceback__)[-1:]
    place = f" ({where[0].filename.rpartition('/')[2]}:{where[0].lineno})" if where else ""
    message = f"{type(e).__name__}: {' '.join(str(e).split())[:300]}{place}"
    whole = "".join(traceback.format_exception(e))
    logging.event("error", "error", kind="internal", message=message, traceback=whole)
    if os.environ.get("AHP_DEBUG", "") not in ("", "0"):
        sys.stderr.write(whole)
    more = "the whole traceback: AHP_DEBUG=1, or --log-json FILE"
    sys.stderr.write(f"ahp: internal error: {message}; this is ahp's fault, please report it ({more})\n")
    return INTERNAL


def _machine(e: BaseException) -> int:
    if isinstance(e, OSError):
        name = os.fsdecode(e.filename) if isinstance(e.filename, (str, bytes)) else ""
        where = f"{one_line(name[:100] + ' …' if len(name) > 1000 else name)}: " if name else ""
        message = f"{where}{e.strerror}; {_MACHINE[e.errno or 0]}, then run the same command again"
    else:
        message = "out of memory; give fewer --workers, then run the same command again"
    logging.event("error", "error", kind="machine", message=message)
    sys.stderr.write(f"ahp: {message}\n")
    return USER
