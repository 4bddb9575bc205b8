"""What a power loss, a full disk or a bad disk leaves behind is told from what was written, and made anew."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Dropped
from ahp_toolkit.runtime import stage
from ahp_toolkit.runtime.stage import MAIN, Job, Output
from ahp_toolkit.storage import files, images, parquet

RAN: list[int] = []


def work(items):
    RAN.extend(items)
    good = [Dropped(f"r{i}", "s", "kept", "x" * 200) for i in items if i % 3]
    return Output({MAIN: good}, [Dropped(f"r{i}", "s", "third", "") for i in items if not i % 3])


def job(folder: Path) -> Job:
    return Job("s", folder / "s", work, {MAIN: Dropped}, {"k": 1}, shard_size=4)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 16
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGE = pytest.mark.parametrize("damage", [flip, cut, empty, Path.unlink])


@pytest.fixture
def whole(tmp_path: Path) -> stage.Result:
    return stage.Stage(job(tmp_path / "whole"), lambda: range(10)).run(quiet=True)


def killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """All shards are done, the end is not."""
    j = job(folder)
    with monkeypatch.context() as m:
        m.setattr(stage, "_finish", lambda *_: pytest.exit("killed"))
        with pytest.raises(pytest.exit.Exception):
            stage.Stage(j, lambda: range(10)).run(quiet=True)
    RAN.clear()
    return j


@DAMAGE
@pytest.mark.parametrize("name", ["part-00001.parquet", "dropped/part-00001.parquet", "shard-00001.json"])
def test_a_shard_damaged_after_its_mark_is_made_anew_alone(tmp_path, monkeypatch, whole, damage, name):
    j = killed(tmp_path, monkeypatch)
    damage(j.partial / name)
    result = stage.Stage(j, lambda: range(10)).run(quiet=True)
    assert RAN == [4, 5, 6, 7] and (result.digest, result.counts) == (whole.digest, whole.counts)
    assert result.counts["in"] == result.counts["out"] + result.counts["dropped"]


@DAMAGE
@pytest.mark.parametrize("name", ["part-00001.parquet", "dropped.parquet", "stage.json"])
def test_a_stage_damaged_after_its_end_is_made_anew(tmp_path, whole, damage, name, capsys):
    j = job(tmp_path)
    stage.Stage(j, lambda: range(10)).run(quiet=True)
    damage(j.folder / name)
    result = stage.Stage(j, lambda: range(10)).run(quiet=True)
    assert result.fresh and (result.digest, result.counts) == (whole.digest, whole.counts)
    assert name == "stage.json" or "damaged since it was made" in capsys.readouterr().err
    RAN.clear()
    assert not stage.Stage(j, lambda: range(10)).run(quiet=True).fresh and not RAN


def test_a_stage_killed_between_its_end_and_the_move_of_its_folder_is_only_moved(tmp_path, monkeypatch, whole):
    j = job(tmp_path)
    with monkeypatch.context() as m:
        m.setattr(stage, "_replace", lambda *_: pytest.exit("killed"))
        with pytest.raises(pytest.exit.Exception):
            stage.Stage(j, lambda: range(10)).run(quiet=True)
    RAN.clear()
    result = stage.Stage(j, lambda: range(10)).run(quiet=True)
    assert not RAN and result.digest == whole.digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s", "whole"]
    assert not list(j.folder.glob("shard-*")) and not (j.folder / "dropped").exists()


def test_what_a_killed_write_left_goes_with_the_next_end(tmp_path, monkeypatch):
    j = killed(tmp_path, monkeypatch)
    (j.partial / ".part-00001.parquet.x.tmp").write_bytes(b"half")
    stage.Stage(j, lambda: range(10)).run(quiet=True)
    assert not list(j.folder.rglob(".*"))


def test_every_flipped_byte_of_a_table_is_told_or_harmless(tmp_path):
    records = [Dropped(f"id{i}", "s", "r", f"{i * 7919 % 1000}" * 5) for i in range(200)]
    path = tmp_path / "part-00000.parquet"
    parquet.write_records(path, records, Dropped)
    data = path.read_bytes()
    wrong = 0
    for at in range(0, len(data), max(1, len(data) // 150)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        try:
            wrong += list(parquet.read_records(path, Dropped)) != records
        except (UserError, KeyError, ValueError) as e:
            assert "\n" not in str(e)
    assert wrong == 0


@pytest.mark.parametrize("change", [lambda d: d | {"n": 2}, lambda d: {"n": 1}, lambda d: [d]])
def test_a_sealed_file_that_was_changed_is_none(tmp_path, change: Callable):
    path = tmp_path / "a.json"
    files.write_bytes(path, files.sealed({"n": 1, "of": {2: "x"}}))
    assert files.read_sealed(path) == {"n": 1, "of": {"2": "x"}}
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    assert files.read_sealed(path) is None


@pytest.mark.parametrize(("code", "error"), [(errno.EIO, OSError), (errno.EMFILE, OSError), (errno.EACCES, ValueError)])
def test_a_disk_that_fails_drops_no_photo(tmp_path, monkeypatch, code, error):
    def fails(_: Path):
        raise OSError(code, "no")

    monkeypatch.setattr(images, "_plain_file", fails)
    for read in (images.read_bytes, images.header):
        with pytest.raises(error):
            read(tmp_path / "a.jpg")


def test_a_full_disk_is_named_when_weights_are_written(tmp_path, monkeypatch):
    from ahp_toolkit.nets import checkpoints

    class Full:
        def write(self, _: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    @contextmanager
    def full(_: Path):
        yield Full()

    monkeypatch.setattr(checkpoints, "atomic", full)
    with pytest.raises(OSError, match="No space left"):
        made = checkpoints.Checkpoint({}, {"x": checkpoints.torch.zeros(1000)}, {})
        checkpoints.save_checkpoint(tmp_path / "a.safetensors", "x", made)
