"""A thread that writes to the database what the logs have gained. It may fall behind; the logs hold everything."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

_log = logging.getLogger(__name__)
LATE = 4.0  # s after which the panel warns
IDLE = 5.0  # s


class Writer:
    """Collects ids and calls ``write`` with them, again and again until it succeeds.

    ``watch`` looks after the database before each write, and every ``idle`` s while there is none.
    """

    def __init__(
        self, write: Callable[[set[str]], None], watch: Callable[[], None] = lambda: None, idle: float = IDLE
    ) -> None:
        self._write, self._watch, self._idle = write, watch, idle
        self._pending: set[str] = set()
        self._since: float | None = None
        self._wake = threading.Condition()
        threading.Thread(target=self._run, name="database", daemon=True).start()

    def put(self, ids: Iterable[str]) -> None:
        """Have these ids written soon; never blocks."""
        with self._wake:
            self._pending.update(ids)
            if self._pending and self._since is None:
                self._since = time.monotonic()
            self._wake.notify()

    def state(self) -> str:
        """'' while the database keeps up, 'away' while it has not taken something for some seconds."""
        with self._wake:
            return "away" if self._since is not None and time.monotonic() - self._since > LATE else ""

    def _run(self) -> None:
        pause = 0.2
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._pending, self._idle)
                some, self._pending = self._pending, set()
            try:
                self._watch()
                if some:
                    self._write(some)
            except Exception as e:  # noqa: BLE001  whatever a database that is away raises: try again, for ever
                _log.warning("the database did not take %d changes (%s); the logs hold them", len(some), e)
                self.put(some)
                time.sleep(pause)
                pause = min(5.0, pause * 2)
                continue
            pause = 0.2
            with self._wake:
                self._since = time.monotonic() if self._pending else None
