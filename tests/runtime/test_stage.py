from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Dropped
from ahp_toolkit.runtime.stage import MAIN, Job, Output, Stage
from ahp_toolkit.storage import parquet
from ahp_toolkit.storage.lock import lock


@dataclass(frozen=True)
class Item:
    name: str
    value: int


@dataclass(frozen=True)
class Double:
    """Keeps even numbers, drops odd ones; leaves a trace of each call. ``held``: from this number on it waits."""

    trace: str
    held: int | None = None

    def __call__(self, items: Sequence[int]) -> Output:
        with Path(self.trace).open("a") as f:
            f.write(f"{list(items)}\n")
        if self.held is not None and items[0] >= self.held:
            time.sleep(600)
        kept = [Item(f"n{i}", 2 * i) for i in items if i % 2 == 0]
        odd = [Dropped(f"n{i}", "double", "odd") for i in items if i % 2]
        return Output({MAIN: kept, "copy": kept}, odd)


def job(tmp: Path, held: int | None = None, **key) -> Job:
    fn = Double(str(tmp / "trace"), held)
    return Job("double", tmp / "double", fn, {MAIN: Item, "copy": Item}, {"v": 1} | key, shard_size=4)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.parquet"))}


def calls(tmp: Path) -> int:
    return len((tmp / "trace").read_text().splitlines()) if (tmp / "trace").exists() else 0


def test_counts_add_up_and_nothing_vanishes(tmp_path):
    r = Stage(job(tmp_path), lambda: range(10)).run(quiet=True)
    assert r.counts["in"] == 10 == r.counts["out"] + r.counts["dropped"]
    assert r.dropped == {"odd": 5}
    assert [i.value for i in parquet.read_records(r.folder, Item)] == [0, 4, 8, 12, 16]
    assert len(list(parquet.read_records(r.folder / "dropped.parquet", Dropped))) == 5
    assert sorted(p.name for p in r.folder.iterdir()) == [
        "copy", "dropped.parquet", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet", "stage.json",
        "timing.json",
    ]  # fmt: skip


def test_the_same_job_is_not_run_again_and_another_key_is(tmp_path):
    Stage(job(tmp_path), lambda: range(10)).run(quiet=True)
    assert not Stage(job(tmp_path), lambda: range(10)).run(quiet=True).fresh
    assert calls(tmp_path) == 3
    assert Stage(job(tmp_path, option=2), lambda: range(10)).run(quiet=True).fresh
    assert calls(tmp_path) == 6


@pytest.mark.parametrize("same", [True, False])
def test_what_others_laid_beside_a_stage_stays_while_its_digest_does(tmp_path, same):
    first = replace(job(tmp_path), beside=("crops",))
    Stage(first, lambda: range(10)).run(quiet=True)
    (tmp_path / "double/crops").mkdir()
    (tmp_path / "double/crops/a.png").write_bytes(b"a")
    r = Stage(replace(first, key={"v": 2}), lambda: range(10 if same else 8)).run(quiet=True)
    assert r.fresh and (tmp_path / "double/crops/a.png").exists() == same


def test_workers_do_not_change_a_byte(tmp_path):
    for name, workers in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        Stage(job(tmp_path / name), lambda: range(50)).run(workers=workers, quiet=True)
    assert bytes_of(tmp_path / "a" / "double") == bytes_of(tmp_path / "b" / "double")


def test_no_items_give_an_empty_table(tmp_path):
    r = Stage(job(tmp_path), lambda: []).run(quiet=True)
    assert list(parquet.read_records(r.folder, Item)) == [] and r.counts["out"] == 0


def test_a_failing_shard_is_the_only_one_run_again(tmp_path):
    def items():
        yield from range(8)
        if not (tmp_path / "mended").exists():
            raise UserError("cut short")
        yield from range(8, 12)

    with pytest.raises(UserError, match="cut short"):
        Stage(job(tmp_path), items).run(quiet=True)
    assert not (tmp_path / "double").exists()
    (tmp_path / "mended").touch()
    assert Stage(job(tmp_path), items).run(quiet=True).counts["in"] == 12
    assert calls(tmp_path) == 3


KILLED = """
import sys
from pathlib import Path
from tests.runtime.test_stage import Stage, job
if __name__ == "__main__":
    Stage(job(Path(sys.argv[1]), held=20), lambda: range(40)).run(workers=int(sys.argv[2]), quiet=True)
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_bytes(tmp_path, workers):
    (tmp_path / "whole").mkdir()
    Stage(job(tmp_path / "whole"), lambda: range(40)).run(quiet=True)
    cut = tmp_path / "cut"
    cut.mkdir()
    script = tmp_path / "go.py"
    script.write_text(KILLED)
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, str(script), str(cut), workers], env=env, start_new_session=True)
    while len(list(cut.glob(".double-*/shard-*.json"))) < 3 and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = len(list(cut.glob(".double-*/shard-*.json")))
    assert 3 <= done <= 5
    before = calls(cut)
    Stage(job(cut), lambda: range(40)).run(quiet=True)
    assert calls(cut) - before == 10 - done
    assert bytes_of(cut / "double") == bytes_of(tmp_path / "whole" / "double")


def test_growing_shards(tmp_path):
    j = Job("x", tmp_path, Double("x"), {}, {}, shard_size=4, growing=True)
    assert [j.size_of(n) for n in (0, 7, 8, 16, 100)] == [4, 4, 8, 16, 128]


def test_a_second_builder_is_refused(tmp_path):
    code = "import sys,time\nfrom pathlib import Path\nfrom ahp_toolkit.storage.lock import lock\n"
    code += "with lock(Path(sys.argv[1])):\n print('held', flush=True)\n time.sleep(60)\n"
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match="another process works on this folder"), lock(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with lock(tmp_path):  # a dead owner's lock is free
        pass
