"""A signal whose exception a library swallows or replaces, as a compiler's callbacks do, ends the command still."""

from __future__ import annotations

import signal
import sys

import pytest

from ahp_toolkit.core.records import Dropped
from ahp_toolkit.runtime import signals
from ahp_toolkit.runtime.stage import MAIN, Job, Output, Stage
from tests.cli.small import start

#: What a signal raises inside of a ctypes callback is lost, as it is while llvmlite compiles.
SWALLOW = """
import ctypes, os
from ahp_toolkit.runtime.progress import Progress
@ctypes.CFUNCTYPE(None)
def callback():
    os.kill(os.getpid(), {sent})
    for _ in range(1000):
        pass
"""
REPLACED = """
def ahp(**_):
    callback()
    raise RuntimeError("no compiled object yet")
cli.ahp = ahp
"""
BLAMED = """
from ahp_toolkit.core.errors import UserError
def ahp(**_):
    callback()
    raise UserError("3 of 3 samples cannot be rendered")
cli.ahp = ahp
"""
LOST = """
def ahp(**_):
    with Progress("making", 3, "thing", quiet=True) as bar:
        callback()
        bar.update()
    print("went on")
cli.ahp = ahp
"""


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.setattr(signals, "_came", [])
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("after", [REPLACED, BLAMED, LOST], ids=["replaced", "blamed", "lost"])
@pytest.mark.parametrize(
    ("sent", "status", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_swallowed_signal_ends_the_command_in_one_line(after, sent, status, said):
    child = start(before=SWALLOW.format(sent=int(sent)) + after)
    out, err = child.communicate(timeout=120)
    assert (child.returncode, out) == (status, ""), err
    assert err == f"ahp: {said}; the same command goes on from here\n"


def swallowing(items):
    """Drops what an interrupt broke, as a stage does with a picture that cannot be read."""
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:  # what a callback does
        return Output({}, [Dropped(str(i), "x", "corrupt", "no compiled object yet", "") for i in items])
    return Output()


def test_a_shard_in_which_a_signal_got_lost_is_not_kept(tmp_path):
    signals.on_signals()
    job = Job("x", tmp_path / "x", swallowing, {MAIN: Dropped}, {})
    with pytest.raises(KeyboardInterrupt):
        Stage(job, lambda: [1, 2]).run(quiet=True)
    assert signals.signalled() and not list(job.partial.glob("shard-*")) and not job.folder.exists()


def test_an_ignored_ctrl_c_stays_ignored():
    """As in a command that a shell started in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signals.on_signals()
    signal.raise_signal(signal.SIGINT)
    assert not signals.signalled()


def test_other_lost_errors_are_still_said(capsys):
    signals.on_signals()

    class Broken:
        def __del__(self) -> None:
            raise ValueError("a broken end")

    Broken()
    assert "a broken end" in capsys.readouterr().err
