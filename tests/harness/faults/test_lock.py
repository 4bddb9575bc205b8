"""Two commands on one folder: the second is refused; a dead owner's lock is taken over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.storage.lock import lock

HOLD = """
import sys, time
from pathlib import Path
from ahp_toolkit.storage.lock import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def owner(tmp_path: Path):
    """A process that holds the folder's lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_is_refused(tmp_path, owner):
    with pytest.raises(UserError, match="another process works on this folder; wait for it"), lock(tmp_path):
        pass


def test_a_build_is_refused_before_it_writes_anything(tmp_path, owner):
    (tmp_path / "coco").mkdir()
    command = [sys.executable, "-m", "ahp_toolkit.cli.main", "build", "--source", f"coco={tmp_path}/coco"]
    run = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, check=False, env=os.environ
    )
    assert run.returncode == 2 and run.stderr.startswith("ahp: ") and len(run.stderr.splitlines()) == 1
    assert "another process works on this folder" in run.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "coco"]


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, owner):
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    with lock(tmp_path):
        pass


def test_a_lock_file_with_anything_in_it_is_no_lock(tmp_path):
    for left in (b"", b"\x00garbage", json.dumps({"host": "x", "pid": os.getpid(), "since": "?"}).encode()):
        (tmp_path / ".lock").write_bytes(left)
        with lock(tmp_path):
            pass


POOL = """
import os, sys, time
from ahp_toolkit.runtime import engines

def work(task):
    time.sleep(0.05)
    return os.getpid()

if __name__ == "__main__":
    with engines.LocalEngine(2) as engine:
        for pid in engine.imap(engines.Work("w", work), ((i, None) for i in range(100000))):
            print(pid, flush=True)
"""


def test_the_workers_of_a_killed_command_end(tmp_path):
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    workers = {int(process.stdout.readline()) for _ in range(8)}
    process.kill()
    process.wait()
    for _ in range(600):
        if not any(_runs(pid) for pid in workers):
            return
        time.sleep(0.1)
    pytest.fail(f"workers {workers} outlived their command")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
