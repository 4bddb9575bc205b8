"""A working folder and its address: units whole or unfinished, marks last, logs united, and the way back."""

from __future__ import annotations

import shutil

import pytest

from ahp_toolkit.core.errors import StorageError, UserError
from ahp_toolkit.storage import locations, remote
from ahp_toolkit.storage.lock import lock
from ahp_toolkit.storage.sync import beside, download, reading, upload, working
from tests.storage.server import BUCKET

STAGE = {"s/part-00000.parquet": "a", "s/part-00001.parquet": "b", "s/dropped.parquet": "", "s/stage.json": "1"}
NEXT = {"s/part-00000.parquet": "b", "s/part-00001.parquet": "c", "s/dropped.parquet": "", "s/stage.json": "2"}
BUILD = STAGE | {"build.json": "{}"}
LOG = "decisions/kim.jsonl"


def fill(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def tree(folder):
    found = {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}
    return {name: text for name, text in found.items() if not name.startswith(".")}


class At:
    """An address, what lies there, and the requests that wrote."""

    def __init__(self, s3):
        self.front, self.bucket, self.text = s3
        self.path, self.name = locations.place(self.text), self.text.removeprefix(f"s3://{BUCKET}/")

    def tree(self):
        return {name: data.decode() for name, data in self.bucket.tree(self.name).items()}

    def put(self, name, text):
        self.bucket.put(f"{self.name}/{name}", text.encode())

    def writes(self):
        return [(m, k.removeprefix(f"{self.name}/")) for m, k in self.front.done if m in ("PUT", "DELETE")]


@pytest.fixture
def at(s3):
    return At(s3)


@pytest.fixture
def built(at, tmp_path):
    """The address of a build, and its working folder."""
    with working(at.path, tmp_path / "a") as folder:
        fill(folder, BUILD)
    at.front.forget()
    return at, folder


def test_every_finished_file_is_put_once_and_marks_are_last(at, tmp_path):
    with working(at.path, tmp_path / "a") as folder:
        fill(folder, BUILD | {"b/stage.json": "1", "b/part-00000.parquet": "x", ".crops.written/stage.json": "w"})
        whole = tree(folder)
        fill(
            folder, {".t-1/part-00000.parquet": "unfinished", "s/.part.tmp": "half", "s/.lock": "", "leases.jsonl": "x"}
        )
    assert at.tree() == whole | {".crops.written/stage.json": "w"}
    order = [name for _, name in at.writes()]
    assert len(order) == len(set(order)) == 8 and all(n.endswith("stage.json") for n in order[-3:])
    at.front.forget()
    with working(at.path, tmp_path / "a"):
        pass
    assert not at.writes()


def test_a_replaced_unit_is_never_a_mixture(built):
    at, folder = built
    (folder / "s/dropped.parquet").unlink()
    fill(folder, {k: v for k, v in NEXT.items() if "dropped" not in k})
    upload(folder, at.path)
    writes = at.writes()
    assert writes[0] == ("DELETE", "s/stage.json") and writes[-1] == ("PUT", "s/stage.json")
    assert ("DELETE", "s/dropped.parquet") in writes
    assert at.tree() == tree(folder)


def test_an_upload_that_fails_in_the_middle_is_ended_by_the_next(built, monkeypatch):
    at, folder = built
    monkeypatch.setattr(remote, "TRIES", 2)
    fill(folder, NEXT)
    at.front.fault = lambda method, key, n: 503 if method == "PUT" and "part-00001" in key else 0
    with pytest.raises(StorageError, match=rf"{at.text}/s/part-00001.parquet: no answer in 2 tries"):
        upload(folder, at.path)
    assert "s/stage.json" not in at.tree()  # unfinished, and no mixture
    at.front.fault = lambda method, key, n: 0
    with working(at.path, folder):
        assert {name: tree(folder)[name] for name in NEXT} == NEXT
    assert at.tree() == tree(folder)


def test_another_machine_goes_on_and_the_first_one_follows(built, tmp_path):
    at, folder = built
    fill(folder, {"old/part-00000.parquet": "x", "old/stage.json": "1"})
    upload(folder, at.path)
    with working(at.path, tmp_path / "b") as there:
        assert tree(there) == tree(folder)
        fill(there, NEXT)
        shutil.rmtree(there / "old")
    at.front.forget()
    with working(at.path, folder):
        assert tree(folder) == tree(there) == BUILD | NEXT
    assert not at.writes()


def test_what_a_killed_command_had_finished_is_kept_and_uploaded(built):
    at, folder = built
    fill(folder, NEXT | {"t/stage.json": "1", "t/part-00000.parquet": "new", "build.json": "2"})
    (folder / "s/part-00001.parquet").unlink()  # the new one has fewer parts
    with working(at.path, folder):
        assert "s/part-00001.parquet" not in tree(folder)
    assert at.tree() == tree(folder)
    assert at.tree()["build.json"] == "2" and at.tree()["t/part-00000.parquet"] == "new"


@pytest.mark.parametrize("lost", [["s/part-00000.parquet"], ["s/stage.json"], list(BUILD), ["record"]])
@pytest.mark.parametrize("use", [reading, lambda root: working(root).__enter__()])
def test_what_a_cleaner_took_from_the_cache_comes_back(at, use, lost):
    with working(at.path) as folder:
        fill(folder, BUILD)
    for name in lost:
        (beside(folder) / "record.json" if name == "record" else folder / name).unlink()
    use(at.path)
    assert tree(folder) == BUILD


def test_what_a_command_removes_is_removed_at_the_address(built):
    at, folder = built
    with working(at.path, folder):
        shutil.rmtree(folder / "s")
    assert at.tree() == {"build.json": "{}"}


def test_a_folder_or_an_address_of_something_else_is_refused(at, tmp_path):
    fill(tmp_path / "w", {"thesis.txt": "mine"})
    with pytest.raises(UserError, match="expected an empty folder to work in"), working(at.path, tmp_path / "w"):
        pass
    with working(at.path, tmp_path / "a") as folder:
        fill(folder, BUILD)
    other = locations.place(f"{at.text}-2")
    with pytest.raises(UserError, match=f"is the working folder of {at.text}"), working(other, tmp_path / "a"):
        pass
    at.bucket.put(f"{at.name}-2/photo.jpg", b"theirs")
    with pytest.raises(UserError, match="expected an empty address or a build, found 1 other"), working(other):
        pass
    with pytest.raises(UserError, match="is for an --out in an object store"), working(tmp_path, tmp_path / "w"):
        pass
    assert tree(tmp_path / "w") == {"thesis.txt": "mine"}


def test_one_command_at_a_time_works_in_a_folder(built):
    at, folder = built
    with (
        lock(beside(folder)),
        pytest.raises(UserError, match="another process works on this folder"),
        working(at.path, folder),
    ):
        pass


def test_an_address_that_changes_all_the_time_is_not_read(built, tmp_path, monkeypatch):
    at, _ = built
    listed, seen = remote.listing, []

    def changing(*args, **kwargs):
        seen.append(listed(*args, **kwargs))
        at.put("build.json", str(len(seen)))
        return seen[-1]

    monkeypatch.setattr(remote, "listing", changing)
    with pytest.raises(UserError, match="changes while it is read"):
        download(at.path, tmp_path / "b")


LINES = ['{"id": "1", "verdict": "preserve"}', '{"id": "2", "verdict": "discard"}', '{"id": "3"}', "a line without id"]


@pytest.mark.parametrize(
    ("here", "there"),
    [([0, 1], [0]), ([0], [0, 2]), ([], [0, 1]), (None, [0, 2]), ([0, 1], None), ([0, 1, 3], [0, 2]), ([1], [0, 3])],
)
def test_logs_of_two_places_are_united_and_no_line_is_lost(built, tmp_path, here, there):
    at, folder = built
    with working(at.path, folder):
        fill(folder, {LOG: f"{LINES[0]}\n"})
    text = lambda numbers: "".join(f"{LINES[n]}\n" for n in numbers)  # noqa: E731
    (folder / LOG).unlink() if here is None else (folder / LOG).write_text(text(here))
    at.bucket.delete(f"{at.name}/{LOG}") if there is None else at.put(LOG, text(there))
    for _ in range(2):
        with working(at.path, folder):
            pass
        both = (folder / LOG).read_text()
        assert sorted(both.splitlines()) == sorted({LINES[n] for n in (*(here or ()), *(there or ()))})
        assert at.tree()[LOG] == both and both.startswith(text(here or ()))


def test_lines_that_come_while_a_command_runs_are_kept(built):
    at, folder = built
    with working(at.path, folder):
        fill(folder, {LOG: f"{LINES[0]}\n{LINES[1]}\n" + LINES[2][:4]})  # cut short: never acknowledged
        at.put(LOG, f"{LINES[0]}\n{LINES[3]}\n")
    assert at.tree()[LOG] == (folder / LOG).read_text() == "".join(f"{LINES[n]}\n" for n in (0, 1, 3))
    assert not [name for _, name in at.writes() if name.endswith("stage.json")]  # a log belongs to no unit


def test_what_is_read_keeps_lines_that_were_not_uploaded(at):
    with working(at.path) as folder:
        fill(folder, BUILD | {LOG: f"{LINES[0]}\n"})
    (folder / LOG).write_text(f"{LINES[0]}\n{LINES[1]}\n")
    at.put(LOG, f"{LINES[0]}\n{LINES[2]}\n")
    assert (reading(at.path) / LOG).read_text() == "".join(f"{LINES[n]}\n" for n in (0, 1, 2))
