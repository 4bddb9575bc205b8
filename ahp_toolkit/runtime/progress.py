"""Progress of everything over two seconds: a bar on a terminal, plain lines in a file, events in the log."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Any

from ahp_toolkit.runtime import logging, signals


def draws(stream: object) -> bool:
    """Whether a bar can be drawn over itself: a terminal that knows control characters (``TERM`` is not ``dumb``)."""
    tty = getattr(stream, "isatty", lambda: False)()
    return bool(tty) and os.environ.get("TERM", "dumb") not in ("dumb", "")


def _bar(unit: str) -> Any:
    """rich's bar on stderr, with count, pace and time left."""
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn(unit),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[note]}"),
    )
    return progress.Progress(*columns, console=Console(stderr=True), redirect_stdout=False)


class Progress:
    """A bar on a terminal; on anything else one whole, plain line every ten seconds and at the end.

    Both are events of the structured log too, ``quiet`` or not (`logging`).
    """

    EVERY_S = 10.0

    def __init__(self, label: str, total: int | None = None, unit: str = "it", quiet: bool = False) -> None:
        self.label, self.total, self.unit, self.quiet = label, total, unit, quiet
        self.n = self._skipped = self._printed = 0
        self._start = self._last = time.monotonic()
        self._bar = _bar(unit) if draws(sys.stderr) and not quiet else None
        logging.event("stage_start", stage=label, unit=unit, total=total)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.total, note="")
        return self

    def skip(self, n: int) -> None:
        """``n`` are done since an earlier run: they count, but not for the pace."""
        self._skipped += n
        self.n += n
        if self._bar is not None:
            self._bar.update(self._task, completed=self.n)

    def update(self, n: int = 1, note: str = "") -> None:
        """``n`` more are done; ``note`` is shown at the end of the line. A signal that was lost is raised here."""
        signals.check()
        self.n += n
        if self._bar is not None:
            self._bar.update(self._task, advance=n, **({"note": note} if note else {}))
        if time.monotonic() - self._last >= self.EVERY_S:
            self._last = time.monotonic()
            left, spent = self._left(), logging.seconds(self._start)
            logging.event("stage_progress", stage=self.label, done=self.n, total=self.total, seconds=spent, left=left)
            if self._bar is None and not self.quiet:
                self._line(note)

    def _left(self) -> float | None:
        """Seconds to go at the pace so far."""
        made = self.n - self._skipped
        if not self.total or made <= 0 or self.n >= self.total:
            return None
        return round((time.monotonic() - self._start) / made * (self.total - self.n), 1)

    def _line(self, note: str) -> None:
        left, self._printed = self._left(), self.n
        of = f"/{self.total}" if self.total is not None else ""
        to_go = f", {left:.0f} s left" if left is not None else ""
        spent = time.monotonic() - self._start
        line = " ".join(f"{self.label}: {self.n}{of} {self.unit}, {spent:.0f} s{to_go} {note}".split())
        sys.stderr.write(f"{line}\n")  # one write: whole lines even where several write into one pipe
        sys.stderr.flush()

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        spent = logging.seconds(self._start)
        fields = {"done": self.n, "total": self.total, "seconds": spent, "ok": kind is None}
        logging.event("stage_end", "info" if kind is None else "error", stage=self.label, **fields)
        if self._bar is not None:
            self._bar.stop()
        elif not self.quiet and spent >= 2.0 and (self.n > self._printed or kind is not None):
            self._line("" if kind is None else "(stopped)")
