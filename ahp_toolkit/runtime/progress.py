"""One progress line for everything over two seconds: counts, rate and time left; readable when redirected to a file."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

from ahp_toolkit.runtime import logging, signals


def draws(stream: object) -> bool:
    """Whether a bar can be drawn over itself: a terminal that knows control characters (``TERM`` is not ``dumb``)."""
    tty = getattr(stream, "isatty", lambda: False)()
    return bool(tty) and os.environ.get("TERM", "dumb") not in ("dumb", "")


def _width() -> dict[str, Any]:
    """tqdm's settings: as wide as the terminal, or 80 columns where it does not say how large it is."""
    with contextlib.suppress(OSError, ValueError):
        if os.get_terminal_size(sys.stderr.fileno()).columns:
            return {"dynamic_ncols": True}
    return {"ncols": 80, "nrows": 24}


class Progress:
    """A bar on a terminal; on anything else one whole, plain line every ten seconds and at the end.

    Both are told to the structured log, too, ``quiet`` or not (`log`).
    """

    EVERY_S = 10.0

    def __init__(self, label: str, total: int | None = None, unit: str = "it", quiet: bool = False) -> None:
        self.label, self.total, self.unit, self.quiet = label, total, unit, quiet
        self.n = self._stood = self._told = 0
        self._start = self._last = time.monotonic()
        bar = draws(sys.stderr) and not quiet
        self._bar = tqdm(total=total, desc=label, unit=unit, file=sys.stderr, **_width()) if bar else None
        logging.event("stage_start", stage=label, unit=unit, total=total)

    def __enter__(self) -> Progress:
        return self

    def skip(self, n: int) -> None:
        """``n`` stand already, from an earlier start: done, but no measure of the pace."""
        self._stood += n
        self.n += n
        if self._bar is not None:
            self._bar.initial += n
            self._bar.update(n)

    def update(self, n: int = 1, note: str = "") -> None:
        """``n`` more are done; ``note`` is shown at the end of the line. Here a signal that was lost is raised."""
        signals.check()
        self.n += n
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(n)
        if time.monotonic() - self._last >= self.EVERY_S:
            self._last = time.monotonic()
            left = self._left()
            spent = logging.seconds(self._start)
            logging.event("stage_progress", stage=self.label, done=self.n, total=self.total, seconds=spent, left=left)
            if self._bar is None and not self.quiet:
                self._line(note)

    def _left(self) -> float | None:
        """Seconds to go at the pace so far."""
        made = self.n - self._stood
        if not self.total or made <= 0 or self.n >= self.total:
            return None
        return round((time.monotonic() - self._start) / made * (self.total - self.n), 1)

    def _line(self, note: str) -> None:
        left, self._told = self._left(), self.n
        of = f"/{self.total}" if self.total is not None else ""
        to_go = f", {left:.0f} s left" if left is not None else ""
        spent = time.monotonic() - self._start
        said = " ".join(f"{self.label}: {self.n}{of} {self.unit}, {spent:.0f} s{to_go} {note}".split())
        sys.stderr.write(f"{said}\n")  # one write: whole lines even where several write into one pipe
        sys.stderr.flush()

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        spent = logging.seconds(self._start)
        about = {"done": self.n, "total": self.total, "seconds": spent, "ok": kind is None}
        logging.event("stage_end", "info" if kind is None else "error", stage=self.label, **about)
        if self._bar is not None:
            self._bar.close()
        elif not self.quiet and spent >= 2.0 and (self.n > self._told or kind is not None):
            self._line("" if kind is None else "(stopped)")
