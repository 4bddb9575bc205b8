"""The log of a run after a cut, and on a disk that takes no more."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Any

import pytest

from ahp_toolkit.nets import runlog


@pytest.mark.parametrize("left", ["", "st", "step,iou", "step,iou\n", "step,iou\n2,0.", "step,iou\n3,0.5\n"])
def test_a_table_cut_anywhere_is_whole_again(tmp_path: Path, left: str) -> None:
    (tmp_path / "val.csv").write_text(left)
    log = runlog.RunLog("run", tmp_path, 2, True)
    log.looked(4, {"iou": 0.5}, None)
    log.close()
    assert (tmp_path / "val.csv").read_text() == "step,iou\n4,0.5\n"


def test_rows_up_to_the_state_stay(tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text("step,iou\n1,0.1\n2,0.2\n3,0.3\n")
    log = runlog.RunLog("run", tmp_path, 2, True)
    log.looked(3, {"iou": 0.4}, None)
    log.close()
    assert (tmp_path / "val.csv").read_text() == "step,iou\n1,0.1\n2,0.2\n3,0.4\n"


def test_what_stops_tensorboards_thread_is_raised_here_and_only_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", said.append)
    log = runlog.RunLog("run", tmp_path, 0, True)
    assert log._board is not None
    writer = log._board.file_writer.event_writer._async_writer

    def full(data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer._writer, "write", full)
    with pytest.raises(OSError, match="No space left"):
        for step in range(1, 50):
            log.looked(step, {"iou": 0.5}, None)
            log.flush()
    assert not writer._worker.is_alive() and not said
    other = threading.Thread(target=full, args=(b"",))
    other.start()
    other.join()
    assert len(said) == 1
