"""A whole build from a store to a store, through throttling and server errors, killed twice, the last time for another
machine: the same tables as an undisturbed build of local files."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ahp_toolkit.core import hashing
from ahp_toolkit.storage import locations
from tests.build.test_build import ahp, build, people
from tests.stages.test_harvest import coco, photo


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "coco"
    return coco(root, {i: people(i) for i in range(1, 13)}, {i: photo(100 + i) for i in range(1, 13)})


@pytest.fixture(scope="module")
def local(data, tmp_path_factory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("local")
    build(data, out, "--stop-after", "splits")
    return digests(out)


def digests(out: Path) -> dict[str, str]:
    found = (p for p in sorted(out.rglob("*.parquet")) if "/." not in f"/{p.relative_to(out).as_posix()}")
    return {p.relative_to(out).as_posix(): hashing.digest_file(p) for p in found}


def start(root: str, cache: Path) -> subprocess.Popen[bytes]:
    """``ahp build`` as a process of its own, in a group of its own."""
    words = ["build", "--source", f"coco={root}/data", "--out", f"{root}/out", "--review", "provisional", "-q"]
    words += ["--workers", "1", "--stop-after", "splits"]
    environment = os.environ | {"AHP_CACHE": str(cache)}
    return subprocess.Popen(
        [sys.executable, "-m", "ahp_toolkit.cli.main", *words],
        env=environment,
        start_new_session=True,
        stderr=subprocess.PIPE,
    )


def test_killed_twice_and_throttled_it_ends_with_the_same_tables(s3, data, local, tmp_path):
    front, bucket, root = s3
    name = root.removeprefix("s3://ahp/")
    bucket.put_tree(f"{name}/data", data)
    front.forget()
    running: list[subprocess.Popen[bytes]] = []
    kill_at = [6, 25, 10**9]  # at this object of all
    puts = set()

    def fault(method: str, key: str, n: int) -> int:
        if method == "PUT" and key.startswith(f"{name}/out/"):
            puts.add(key)
            if len(puts) > kill_at[len(running) - 1] and running[-1].poll() is None:
                os.killpg(running[-1].pid, signal.SIGKILL)
        return (503 if n % 2 else 500) if n % 9 == 0 else 0

    front.fault = fault
    for n, cache in enumerate(("here", "here", "there")):
        running.append(start(root, tmp_path / cache))
        _, said = running[-1].communicate(timeout=500)
        assert running[-1].returncode == (-signal.SIGKILL if n < 2 else 0), said.decode()
    front.fault = lambda method, key, n: 0
    assert front.refused[503] and front.refused[500]
    made = {k: hashlib.sha256(v).hexdigest() for k, v in bucket.tree(f"{name}/out").items()}
    assert {k: d for k, d in made.items() if k.endswith(".parquet")} == local
    assert not [k for k in made if k.endswith(".tmp") or "/." in f"/{k}"]
    reads_back(root, tmp_path, local, front)


def reads_back(root: str, tmp_path: Path, local: dict[str, str], front) -> None:
    """What is made of a build at an address: an export, pictures, and nothing when all of it stands."""
    front.forget()
    words = ("build", "--source", f"coco={root}/data", "--out", f"{root}/out", "--review", "provisional", "-q")
    ahp(*words, "--workers", 1, "--stop-after", "splits", "--work", tmp_path / "third")
    assert not front.puts()
    assert digests(tmp_path / "third") == local
    words = ("build", "export", "--root", f"{root}/out", "--format", "cocoa", "--split", "val")
    said = ahp(*words, "--out", f"{root}/cocoa")
    assert f"{root}/cocoa/" in said
    assert {p.name for p in locations.place(f"{root}/cocoa").iterdir()} >= {"dropped-val.parquet", "export.json"}
    ahp("build", "materialize", "--root", f"{root}/out", "--out", f"{root}/px", "--split", "test", "--workers", 1)
    assert len(list(locations.place(f"{root}/px/test").glob("*/*.png"))) % 6 == 0
