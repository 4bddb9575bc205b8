"""A small COCO folder, and the command line as a person's shell runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.build.test_build import people
from tests.stages.test_harvest import coco, photo

ENV = os.environ | {"OMP_NUM_THREADS": "1", "FIFTYONE_DO_NOT_TRACK": "1"}
ENV.pop("AHP_DEBUG", None)
#: A child that is ``ahp`` with something changed first. Started from the background it would inherit an ignored SIGINT.
AHP = """import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from ahp_toolkit.cli import main as cli
sys.argv[0] = 'ahp'
{before}
cli.main()
"""


NAP = 600.0


def nap(task: tuple[int, str]) -> int:
    """A shard that takes very long; it leaves a mark where it begins."""
    (Path(task[1]) / str(task[0])).touch()
    time.sleep(NAP)
    return 1


def data(root: Path, photos: int = 12) -> Path:
    """``photos`` photos with two people and a dog each."""
    return coco(root, {i: people(i) for i in range(1, photos + 1)}, {i: photo(100 + i) for i in range(1, photos + 1)})


def words(source: Path, out: Path, *more: object) -> list[str]:
    """``build`` with provisional decisions, on one worker."""
    base = ("build", "--source", f"coco={source}", "--out", out, "--review", "provisional", "--workers", 1)
    return [str(w) for w in (*base, *more)]


def ahp(*args: object, before: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``ahp`` in a process of its own; ``before`` is Python run first."""
    command = [sys.executable, "-c", AHP.format(before=before), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env=ENV | env, check=False)


def start(*args: object, before: str = "", **kwargs: Any) -> subprocess.Popen[str]:
    """Start ``ahp`` and go on."""
    command = [sys.executable, "-c", AHP.format(before=before), *map(str, args)]
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENV} | kwargs
    return subprocess.Popen(command, text=True, **both)


def events(path: Path) -> list[dict[str, Any]]:
    """The lines of a structured log."""
    return [json.loads(line) for line in path.read_text().splitlines()]
