"""A working folder at an address: each object once and whole, marks last, one writer, and the way back."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ahp_toolkit.core.errors import StorageError, UserError
from ahp_toolkit.runtime.publish import reading, working
from ahp_toolkit.storage import lease, locations, remote
from ahp_toolkit.storage.mirror import Mirror


def fill(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def tree(folder):
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {k: v for k, v in found.items() if not k.startswith(".publish") and not k.endswith(".lock")}


def name_of(root):
    return root.removeprefix("s3://ahp/")


@pytest.fixture
def at_the_end(monkeypatch):
    """Publish when the work is done and not beside it: the order of one whole round is what is looked at."""
    monkeypatch.setattr(Mirror, "step", lambda self: 3600.0)


STAGE = {"s/part-00000.parquet": "a", "s/part-00001.parquet": "b", "s/dropped.parquet": "", "s/stage.json": "1"}
NEXT = {"s/part-00000.parquet": "b", "s/part-00001.parquet": "c", "s/dropped.parquet": "", "s/stage.json": "2"}


def test_every_file_is_put_once_and_marks_come_last(s3, tmp_path, at_the_end):
    front, bucket, root = s3
    with working(locations.place(root), tmp_path / "w") as folder:
        fill(folder, STAGE | {".t-1/shard-00000.json": "{}", ".t-1/part-00000.parquet": "x", "build.json": "{}"})
        fill(folder, {".t-1/.part.tmp": "half", "s/.lock": "", ".s-replaced/part-00000.parquet": "old"})
    kept = {k: v for k, v in tree(folder).items() if not k.endswith(".tmp") and "-replaced" not in k}
    assert bucket.tree(name_of(root)) == kept and len(kept) == 7
    order = [k.removeprefix(f"{name_of(root)}/") for m, k in front.done if m == "PUT" and "/.ahp/" not in k]
    assert order.index("s/stage.json") == len(order) - 1
    assert order.index(".t-1/shard-00000.json") > order.index(".t-1/part-00000.parquet")
    assert set(front.puts().values()) == {1}
    front.forget()
    with working(locations.place(root), tmp_path / "w"):
        pass
    assert not front.puts()


def test_what_was_renamed_is_copied_and_what_is_stale_goes(s3, tmp_path):
    front, bucket, root = s3
    with working(locations.place(root), tmp_path / "w") as folder:
        fill(folder, {".s-1/part-00000.parquet": "some bytes", ".s-1/shard-00000.json": "{}"})
    front.forget()
    with working(locations.place(root), tmp_path / "w") as folder:
        (folder / ".s-1").rename(folder / "s")
        (folder / "s/shard-00000.json").unlink()
        fill(folder, {"s/stage.json": "1"})
    assert bucket.tree(name_of(root)) == tree(folder)
    assert ("COPY", f"{name_of(root)}/s/part-00000.parquet") in front.done


def test_a_replaced_stage_is_never_a_mixture(s3, tmp_path, at_the_end):
    front, bucket, root = s3
    with working(locations.place(root), tmp_path / "w") as folder:
        fill(folder, STAGE | {"s/part-00002.parquet": "z"})
    mark = f"{name_of(root)}/s/stage.json"
    states = []

    def look(method, key, n):
        if key.startswith(f"{name_of(root)}/s/"):
            states.append((method, key.rpartition("/")[2]))
        return 0

    front.fault = look
    with working(locations.place(root), tmp_path / "w") as folder:
        (folder / "s/part-00002.parquet").unlink()
        fill(folder, NEXT)
    writes = [s for s in states if s[0] in ("PUT", "DELETE")]
    assert writes[0] == ("DELETE", "stage.json")
    assert writes[-2:] == [("PUT", "stage.json"), ("DELETE", "part-00002.parquet")]
    assert bucket.get(mark) == b"2" and bucket.tree(name_of(root)) == {k: v.encode() for k, v in NEXT.items()}


def test_another_machine_goes_on_and_the_first_one_follows(s3, tmp_path):
    front, _, root = s3
    with working(locations.place(root), tmp_path / "a") as folder:
        fill(folder, STAGE | {"old.json": "1"})
    with working(locations.place(root), tmp_path / "b") as folder:
        assert tree(folder) == {k: v.encode() for k, v in (STAGE | {"old.json": "1"}).items()}
        fill(folder, NEXT)
        (folder / "old.json").unlink()
    front.forget()
    fill(tmp_path / "a", {"s/part-00000.parquet": "never sent", "t/part-00000.parquet": "never sent"})
    with working(locations.place(root), tmp_path / "a") as folder:
        assert tree(folder) == {k: v.encode() for k, v in NEXT.items()}
    assert not front.puts()


def test_what_a_cleaner_took_from_the_cache_comes_back(s3, tmp_path):
    _, bucket, root = s3
    files = STAGE | {"build.json": "{}", "materialized/val/a.png": "a", "materialized/val/b.png": "b"}
    with working(locations.place(root), tmp_path / "w") as folder:
        fill(folder, files)
    for lost in (["materialized/val/a.png"], ["s/stage.json", "s/part-00000.parquet"], list(files)):
        for name in lost:
            (tmp_path / "w" / name).unlink()
        with working(locations.place(root), tmp_path / "w") as folder:
            assert tree(folder) == {k: v.encode() for k, v in files.items()}
        assert set(bucket.tree(name_of(root))) == set(files)
    with working(locations.place(root), tmp_path / "w") as folder:
        (folder / "materialized/val/a.png").unlink()  # what a command removes goes
    assert set(bucket.tree(name_of(root))) == set(files) - {"materialized/val/a.png"}


def test_what_a_cleaner_took_comes_back_when_only_read(s3):
    front, bucket, root = s3
    files = STAGE | {"build.json": "{}", "decisions/kim.jsonl": "1\n"}
    with working(locations.place(root)) as folder:
        fill(folder, files)
    front.forget()
    for lost in (["s/part-00000.parquet"], ["decisions/kim.jsonl"], ["s/stage.json", "build.json"]):
        for name in lost:
            (folder / name).unlink()
        assert tree(reading(locations.place(root))) == {k: v.encode() for k, v in files.items()}
    assert sum(k.endswith(".parquet") for m, k in front.done if m == "GET") == 1 and not front.puts()
    with working(locations.place(root)):
        (folder / "s/part-00000.parquet").unlink()  # what a living command has removed is not brought back
        assert not (reading(locations.place(root)) / "s/part-00000.parquet").exists()
    assert set(bucket.tree(name_of(root))) == set(files) - {"s/part-00000.parquet"}


@pytest.mark.parametrize("use", [reading, lambda root: working(root).__enter__()])
def test_a_folder_of_the_cache_is_ours_whatever_a_cleaner_left_of_it(s3, use):
    _, _, root = s3
    with working(locations.place(root)) as folder:
        fill(folder, STAGE | {"build.json": "{}"})
    (folder / ".published.json").unlink()
    (folder / "s/part-00000.parquet").unlink()
    use(locations.place(root))
    assert tree(folder) == {k: v.encode() for k, v in (STAGE | {"build.json": "{}"}).items()}


def test_what_a_killed_command_had_removed_stays_removed(s3, tmp_path):
    _, bucket, root = s3
    partial = ".t-0123456789abcdef/shard-00000.json"
    with working(locations.place(root), tmp_path / "w") as folder:
        fill(folder, STAGE | {"build.json": "{}", partial: "{}", "picture.png": "x"})
    mirror = Mirror(root, tmp_path / "w")
    mine, before = lease.acquire(root, mirror.id)
    mirror.bring_back(before)
    (folder / "s/part-00001.parquet").unlink()  # a stage is replaced, work in progress ends, then SIGKILL
    fill(folder, {"s/part-00000.parquet": "new", "s/stage.json": "newer"})
    (folder / partial).unlink()
    (folder / "picture.png").unlink()  # taken by a cleaner
    mine.release()
    with working(locations.place(root), tmp_path / "w") as folder:
        assert not (folder / partial).exists() and not (folder / "s/part-00001.parquet").exists()
        assert (folder / "picture.png").exists()
    left = {"s/part-00000.parquet", "s/dropped.parquet", "s/stage.json", "build.json", "picture.png"}
    assert set(bucket.tree(name_of(root))) == left


def test_an_address_with_somebody_elses_objects_is_refused(s3, tmp_path):
    _, bucket, root = s3
    for name in ("train2017/a.jpg", "annotations/x.json"):
        remote.write(f"{root}/{name}", b"theirs")
    with (
        pytest.raises(UserError, match="expected an empty address or a build, found 2 other objects"),
        working(locations.place(root), tmp_path / "w"),
    ):
        pass
    again = bucket.tree(name_of(root))
    assert {k for k in again if not k.startswith(".ahp/")} == {"train2017/a.jpg", "annotations/x.json"}
    assert not (tmp_path / "w/train2017").exists()
    with pytest.raises(UserError, match="other objects"), working(locations.place(root), tmp_path / "w"):
        pass


def test_a_writer_who_was_taken_over_writes_no_more(s3, tmp_path, monkeypatch):
    _, bucket, root = s3
    fill(tmp_path / "a", STAGE)
    first = Mirror(root, tmp_path / "a")
    mine, before = lease.acquire(root, first.id)
    first.guard = mine.guard
    first.bring_back(before)
    assert first.sync()
    mine._said["machine"] = "another"
    mine._write()
    monkeypatch.setattr(lease, "LIVES_S", -1.0)  # it slept, and somebody follows
    with working(locations.place(root), tmp_path / "b") as folder:
        fill(folder, NEXT)
    fill(tmp_path / "a", {"s/part-00000.parquet": "late", "s/stage.json": "late"})
    with pytest.raises(UserError, match="has taken it over"):
        first.sync()
    assert bucket.tree(name_of(root)) == {k: v.encode() for k, v in NEXT.items()}


def test_a_folder_with_other_files_is_refused(s3, tmp_path):
    _, _, root = s3
    with working(locations.place(root), tmp_path / "a") as folder:
        fill(folder, STAGE)
    fill(tmp_path / "mine", {"thesis.txt": "x"})
    with pytest.raises(UserError, match="expected an empty folder"), working(locations.place(root), tmp_path / "mine"):
        pass
    assert tree(tmp_path / "mine") == {"thesis.txt": b"x"}
    with (
        pytest.raises(UserError, match="is the working folder of s3://"),
        working(locations.place(f"{root}-2"), tmp_path / "a"),
    ):
        pass
    with pytest.raises(UserError, match="--work"), working(tmp_path / "local", tmp_path / "a"):
        pass


def test_what_a_killed_process_sent_is_not_sent_again(s3, tmp_path):
    front, bucket, root = s3
    fill(tmp_path / "w", STAGE)
    mirror = Mirror(root, tmp_path / "w")
    mine, before = lease.acquire(root, mirror.id)
    mirror.bring_back(before)
    mirror._save = lambda: None  # it dies before it writes down what it sent
    mirror.sync()
    mine.release()
    front.forget()
    with working(locations.place(root), tmp_path / "w"):
        pass
    assert not front.puts()
    assert bucket.tree(name_of(root)) == {k: v.encode() for k, v in STAGE.items()}


def test_faults_change_nothing(s3, tmp_path):
    front, bucket, root = s3
    front.fault = lambda method, key, n: (503 if n % 2 else 500) if n % 3 == 0 else 0
    files = {f"s/part-{n:05d}.parquet": str(n) * n for n in range(12)} | {"s/stage.json": "{}"}
    with working(locations.place(root), tmp_path / "a") as folder:
        fill(folder, files)
    with working(locations.place(root), tmp_path / "b") as folder:
        assert tree(folder) == {k: v.encode() for k, v in files.items()}
    front.fault = lambda method, key, n: 0
    assert front.refused[503] and front.refused[500]
    assert set(front.puts().values()) == {1}
    assert bucket.tree(name_of(root)) == {k: v.encode() for k, v in files.items()}


def test_a_store_that_fails_for_good_stops_the_work_and_leaves_it(s3, tmp_path, monkeypatch):
    front, _, root = s3
    monkeypatch.setattr(remote, "TRIES", 2)
    with (
        pytest.raises(StorageError, match="no answer in 2 tries"),
        working(locations.place(root), tmp_path / "w") as folder,
    ):
        front.fault = lambda method, key, n: 500
        fill(folder, STAGE)
    assert tree(tmp_path / "w") == {k: v.encode() for k, v in STAGE.items()}


def test_reading_fetches_what_is_finished(s3, tmp_path):
    front, _, root = s3
    with working(locations.place(root), tmp_path / "w") as folder:
        fill(folder, STAGE | {".t-1/part-00000.parquet": "x", "splits/.val-1/shard-00000.json": "{}"})
    read = reading(locations.place(root))
    assert tree(read) == {k: v.encode() for k, v in STAGE.items()}
    front.forget()
    assert reading(locations.place(root)) == read
    assert not [k for m, k in front.done if m == "GET" and k.endswith(".parquet")]
    assert reading(tmp_path) == tmp_path
    with pytest.raises(UserError, match="expected a build there, found nothing"):
        reading(locations.place(f"{root}/none"))


def test_a_living_owner_is_named_and_a_dead_one_followed(s3):
    _, _, root = s3
    first, before = lease.acquire(root, "work-a")
    assert before is None
    with pytest.raises(UserError, match=rf"in use by process {os.getpid()} of \S+ on \S+ since 20"):
        lease.acquire(root, "work-b")
    first.release()
    second, before = lease.acquire(root, "work-b")
    assert before.work == "work-a" and second.number == 2
    with pytest.raises(UserError, match="has taken it over"):
        first.renew()
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    second._said |= {"pid": child.pid, "started": "0"}
    child.wait()
    second._write()
    third, before = lease.acquire(root, "work-c")
    assert before.number == 2 and third.number == 3
    assert [s.address.rpartition("/")[2] for s in remote.listing(f"{root}/.ahp")] == ["lease-00000003.json"]


def test_a_lease_of_another_machine_ends_by_time(s3, monkeypatch):
    _, _, root = s3
    theirs, _ = lease.acquire(root, "work-a")
    theirs._said["machine"] = "another"
    theirs._write()
    with pytest.raises(UserError, match="in use by"):
        lease.acquire(root, "work-b")
    monkeypatch.setattr(lease, "LIVES_S", -1.0)
    assert lease.acquire(root, "work-b")[0].number == 2


def test_of_two_who_follow_one_wins(s3):
    _, _, root = s3
    a, b = lease.Lease(root, 1, "a"), lease.Lease(root, 1, "b")
    a.take()
    with pytest.raises(UserError, match="has just taken it"):
        b.take()
    a.take()  # the answer to the first try was lost: it is ours
    assert json.loads(remote.read(a.address))["work"] == "a"
