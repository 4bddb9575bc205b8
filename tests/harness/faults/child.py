"""Runs the command line in a forked child of this warm process: no Python start, no import; a fault if asked for."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.harness.faults.shim import Plan, install

LIMIT = 120.0  # s after which a run counts as hanging


@dataclass(frozen=True)
class Ended:
    """How a run ended: ``code`` as a shell shows it (137: SIGKILL, 124: hung), and what it wrote on stderr."""

    code: int
    said: str

    @property
    def is_clear_error(self) -> bool:
        """Exit status 2, and after what the stages before said one line of its own, the last."""
        lines = [line for line in self.said.splitlines() if line.strip()]
        own = [i for i, line in enumerate(lines) if line.startswith("ahp: ")]
        return self.code == 2 and own == [len(lines) - 1] and "Traceback" not in self.said


def run(work: Callable[[], None], folder: Path, aside: Path, plan: Plan | None = None) -> Ended:
    """Fork, and do ``work`` in ``folder`` under the plan; ``aside`` is the harness's own folder, on another disk."""
    said = aside / "said.txt"
    pid = os.fork()
    if pid == 0:
        _child(work, folder, said, plan)
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return Ended(code if code >= 0 else 128 - code, said.read_text(errors="replace"))
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return Ended(124, said.read_text(errors="replace"))


def _child(work: Callable[[], None], folder: Path, said: Path, plan: Plan | None) -> None:
    code = 70
    try:
        os.chdir(folder)
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(out, 2)
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115  pytest has its own in this place
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        if plan is not None:
            install(plan)
        work()
        code = 0
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 1
    except BaseException:  # noqa: BLE001  as Python itself ends on any error
        traceback.print_exc()
        code = 1
    finally:
        sys.stderr.flush()
        os._exit(code)


def command(*argv: str) -> Callable[[], None]:
    """The work of ``ahp ARGV``."""

    def work() -> None:
        from ahp_toolkit.cli.main import main

        sys.argv = ["ahp", *argv]
        main()

    work.argv = argv  # type: ignore[attr-defined]
    return work
