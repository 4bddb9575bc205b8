"""What a killed `atomic` write leaves beside a file is removed, and nothing else."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from ahp_toolkit.storage import files
from tests.stages.test_harvest import coco, harvest

KILLED = """
import os, signal, sys
from pathlib import Path
from ahp_toolkit.storage import files
with files.atomic(Path(sys.argv[1])) as f:
    f.write(b"half")
    f.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    died = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert [p.name[:7] for p in tmp_path.iterdir()] == [".x.csv."]
    files.forget_dead(path)
    assert not list(tmp_path.iterdir())


def test_nothing_else_is_touched(tmp_path: Path) -> None:
    names = [".y.csv.0a1b2c3d.tmp", ".x.csv.tmp", ".x.csv.0A1B2C3D.tmp", ".x.csv.0a1b2c3.tmp", "x.csv.0a1b2c3d.tmp"]
    for name in names:
        (tmp_path / name).write_text("somebody's")
    files.forget_dead(tmp_path / "x.csv", tmp_path / "nowhere" / "z")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)


def test_what_killed_harvests_left_goes_with_the_next_build_that_finds_one_standing(tmp_path: Path) -> None:
    roots = {"coco": coco(tmp_path / "coco", {1: [{"box": (20, 20, 60, 100)}]})}
    harvest(tmp_path, roots)
    left = [tmp_path / "out" / name for name in (".harvest-replaced", ".harvest-0123456789abcdef")]
    for folder in left:
        (folder / "photos").mkdir(parents=True)
    assert not harvest(tmp_path, roots)[0].fresh
    assert not any(folder.exists() for folder in left)
