"""One progress line for everything over two seconds: counts, rate and time left; readable when redirected to a file."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm


class Progress:
    """A bar on a terminal; on anything else one plain line every ten seconds and at the end."""

    EVERY_S = 10.0

    def __init__(self, label: str, total: int | None = None, unit: str = "it", quiet: bool = False) -> None:
        self.label, self.total, self.unit, self.quiet = label, total, unit, quiet
        self.n = 0
        self._start = self._last = time.monotonic()
        tty = sys.stderr.isatty() and not quiet
        self._bar = tqdm(total=total, desc=label, unit=unit, file=sys.stderr, dynamic_ncols=True) if tty else None

    def __enter__(self) -> Progress:
        return self

    def update(self, n: int = 1, note: str = "") -> None:
        """``n`` more are done; ``note`` is shown at the end of the line."""
        self.n += n
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(n)
        elif not self.quiet and time.monotonic() - self._last >= self.EVERY_S:
            self._last = time.monotonic()
            self._line(note)

    def _line(self, note: str) -> None:
        spent = time.monotonic() - self._start
        of = f"/{self.total}" if self.total is not None else ""
        left = f", {spent / self.n * (self.total - self.n):.0f} s left" if self.total and self.n else ""
        sys.stderr.write(f"{self.label}: {self.n}{of} {self.unit}, {spent:.0f} s{left}{' ' + note if note else ''}\n")
        sys.stderr.flush()

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        elif not self.quiet and time.monotonic() - self._start >= 2.0:
            self._line("" if kind is None else "(stopped)")
