"""Pictures in archives: read in place, the same as files; nothing leaves the archive's folder or is unpacked."""

from __future__ import annotations

import io
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import StorageError
from ahp_toolkit.storage import archives, images, locations
from tests.build.test_build import people
from tests.stages.test_harvest import coco, harvest, photo


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AHP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(locations, "_RECENT", locations._Recent())


def pack(kind: str, folder: Path, inside: str) -> Path:
    """An archive in place of ``folder``, whose members' names begin with ``inside``."""
    to = folder.with_name(f"{folder.name}{kind}")
    files = [(p, f"{inside}{p.relative_to(folder).as_posix()}") for p in sorted(folder.rglob("*")) if p.is_file()]
    if kind == ".zip":
        with zipfile.ZipFile(to, "w") as z:
            for n, (path, name) in enumerate(files):
                z.write(path, name, zipfile.ZIP_DEFLATED if n % 2 else zipfile.ZIP_STORED)
    else:
        with tarfile.open(to, {".tar": "w", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}.get(kind, "w:gz")) as t:
            for path, name in files:
                t.add(path, name)
    shutil.rmtree(folder)
    return to


def tables(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): hashing.digest_file(p) for p in folder.rglob("*.parquet")}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """(a COCO folder, the tables of its harvest)."""
    base = tmp_path_factory.mktemp("scene")
    root = coco(base / "coco", {i: people(i) for i in range(1, 6)}, {i: photo(100 + i) for i in range(1, 6)})
    result, kept, _ = harvest(base, {"coco": root})
    assert len(kept) == 10
    return root, tables(result.folder)


@pytest.mark.parametrize(
    ("kind", "inside"), [(".zip", "train2017/"), (".zip", ""), (".tar", "./train2017/"), (".tar", "")]
)
def test_an_archive_gives_the_same_harvest_as_files(scene, tmp_path, kind, inside):
    root = shutil.copytree(scene[0], tmp_path / "coco")
    pack(kind, root / "train2017", inside)
    result, _, _ = harvest(tmp_path, {"coco": root})
    assert tables(result.folder) == scene[1]
    assert sorted(p.name for p in root.iterdir()) == ["annotations", f"train2017{kind}"]  # nothing was unpacked
    assert len(list((tmp_path / "cache" / "archives").glob("*.arrow"))) == 1


@pytest.mark.parametrize("kind", [".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"])
def test_a_compressed_tar_is_decompressed_once_into_the_cache(scene, tmp_path, kind):
    root = shutil.copytree(scene[0], tmp_path / "coco")
    path = pack(kind, root / "train2017", "train2017/")
    result, _, _ = harvest(tmp_path, {"coco": root})
    assert tables(result.folder) == scene[1]
    (plain,) = (tmp_path / "cache/archives").glob("*.tar")
    made = plain.stat().st_mtime_ns
    archives._opened.cache_clear()
    archives.Archive.at(path)
    assert plain.stat().st_mtime_ns == made


@pytest.mark.parametrize("kind", [".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_compressed_bomb_and_a_cut_tar_are_one_line_and_leave_nothing(tmp_path, kind):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/zeros").write_bytes(bytes(30 * 2**20))
    path = pack(kind, tmp_path / "p", "p/")
    with pytest.raises(StorageError, match="decompresses to more than 20 times its size"):
        archives.Archive.at(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StorageError, match="cannot be read as an archive|more than 20 times"):
        archives.Archive.at(path)
    path.write_bytes(b"no archive")
    with pytest.raises(StorageError, match="cannot be read as an archive"):
        archives.Archive.at(path)
    assert not list((tmp_path / "cache").rglob("*.t*"))


def test_patches_are_found_each_in_its_own_archive(tmp_path):
    for n in (0, 1):
        images.write_png(tmp_path / "train" / f"patch{n}" / "x.png", photo(n)[:8, :8])
        pack((".zip", ".tar")[n], tmp_path / "train" / f"patch{n}", f"patch{n}/")
    for n in (0, 1):
        found = locations.find(tmp_path, f"train/patch{n}/x.png")
        assert isinstance(found, locations.Member) and found.is_file()
        assert found.relative_to(tmp_path).as_posix() == f"train/patch{n}/x.png"
        assert (images.read(found) == photo(n)[:8, :8]).all()
        assert images.header(found).width == 8
    with pytest.raises(images.ImageError) as e:
        images.read(locations.find(tmp_path, "train/patch0/none.png"))
    assert e.value.reason == "missing"


def test_a_folder_wins_over_an_archive_of_its_name(tmp_path):
    images.write_png(tmp_path / "p" / "x.png", photo(1)[:8, :8])
    pack(".zip", tmp_path / "p", "")
    images.write_png(tmp_path / "p" / "x.png", photo(2)[:8, :8])
    assert not isinstance(locations.find(tmp_path, "p/x.png"), locations.Member)


HOSTILE = ["/etc/x.png", "../x.png", "p/../../x.png", "..\\x.png", "c:/x.png", "a\x00.png", "", "x" * 5000]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_leave_the_archive_are_not_in_its_index(name):
    assert archives.safe_name(name) == ""


def test_links_devices_and_hostile_names_in_a_tar(tmp_path):
    with tarfile.open(tmp_path / "p.tar", "w") as t:
        for name, kind in (
            ("link.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/hostname"
            t.addfile(info)
        for name in ("../up.png", "/abs.png", "good.png"):
            info = tarfile.TarInfo(name)
            info.size = 3
            t.addfile(info, io.BytesIO(b"abc"))
    archive = archives.Archive.at(tmp_path / "p.tar")
    assert archive.read(archive.entry("good.png")) == b"abc"
    for name in ("link.png", "hard.png", "pipe.png", "up.png", "../up.png", "abs.png", "/abs.png"):
        assert archive.entry(name) is None


def test_links_in_a_zip_and_sizes_that_lie(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as z:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        z.writestr(link, "/etc/hostname")
        z.writestr("bomb.png", bytes(50_000_000))
    data = (tmp_path / "p.zip").read_bytes()
    at = data.rindex(b"PK\x01\x02")  # the bomb's record: it says that it is small
    (tmp_path / "p.zip").write_bytes(data[: at + 24] + (1000).to_bytes(4, "little") + data[at + 28 :])
    archive = archives.Archive.at(tmp_path / "p.zip")
    assert archive.entry("link.png") is None
    with pytest.raises(images.ImageError) as e:
        images.read_bytes(locations.find(tmp_path, "p/bomb.png"))
    assert e.value.reason == "unreadable"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_sparse_zip_that_claims_gigabytes_is_refused_unread(tmp_path, monkeypatch, method):
    path, far = tmp_path / "p.zip", 3 * 2**30
    with zipfile.ZipFile(path, "w", method) as z:
        z.writestr("x.png", b"0123456789")
    data = path.read_bytes()
    at, end = data.rindex(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    with path.open("r+b") as f:
        f.truncate(far + at)  # a hole, so that the claim lies inside of the file
        f.seek(0, io.SEEK_END)
        f.write(data[at : at + 20] + far.to_bytes(4, "little") + data[at + 24 : end])
        f.write(data[end : end + 16] + (far + at).to_bytes(4, "little") + data[end + 20 :])
    member = locations.find(tmp_path, "p/x.png")
    assert (member.entry.stored, member.entry.size, path.stat().st_blocks < 100) == (far, 10, True)
    monkeypatch.setattr(archives, "_range", lambda *_: pytest.fail("it was read"))
    with pytest.raises(images.ImageError, match="too large in p.zip: 3221225472 bytes stored for 10") as e:
        images.read_bytes(member)
    assert e.value.reason == "unreadable"


def test_a_member_without_a_name_or_of_an_endless_size_costs_no_photo(scene, tmp_path):
    root = shutil.copytree(scene[0], tmp_path / "coco")
    path = pack(".zip", root / "train2017", "")
    with zipfile.ZipFile(path, "a") as z:
        for name in ("", "\x00cut.png", "huge.png"):  # zipfile cuts a name at its first NUL
            z.writestr(f"x{name[1:]}", b"nothing")
            z.infolist()[-1].filename = name
        z.infolist()[-1].file_size = 2**64 - 1
    result, _, _ = harvest(tmp_path, {"coco": root})
    assert tables(result.folder) == scene[1]
    with pytest.raises(images.ImageError) as e:
        images.read_bytes(locations.find(root, "train2017/huge.png"))
    assert e.value.reason == "too_large"


@pytest.mark.parametrize("error", [IndexError, KeyError, OverflowError, zlib.error])
def test_what_the_readers_of_archives_raise_is_one_line(tmp_path, monkeypatch, error):
    def broken(_):
        raise error("x")

    monkeypatch.setattr(archives, "_zipped", broken)
    (tmp_path / "p.zip").write_bytes(b"PK")
    with pytest.raises(StorageError, match="cannot be read as an archive.*fetch it again"):
        archives.Archive.at(tmp_path / "p.zip")


@pytest.mark.parametrize("kind", [".zip", ".tar"])
def test_an_index_above_the_limit_of_memory_is_refused_with_a_way_out(tmp_path, monkeypatch, kind):
    for n in range(20):
        images.write_png(tmp_path / "p" / f"{n}.png", photo(n))
    path = pack(kind, tmp_path / "p", "")
    monkeypatch.setattr(archives, "MAX_INDEX_BYTES", 19 * archives._ENTRY_BYTES)
    with pytest.raises(StorageError, match="more than 19 members, .*pack its files into several archives") as e:
        archives.Archive.at(path)
    assert "\n" not in str(e.value)
    monkeypatch.setattr(archives, "MAX_INDEX_BYTES", 21 * archives._ENTRY_BYTES)  # names count too
    assert archives.Archive.at(path).entry("7.png") is not None


def test_a_zip_whose_list_of_members_would_fill_the_memory_is_refused_unread(tmp_path, monkeypatch):
    path, hole = tmp_path / "p.zip", archives.MAX_LIST_BYTES + 2**20
    with path.open("wb") as f:
        f.truncate(hole)  # a sparse file: the list that its end record claims
        f.seek(0, io.SEEK_END)
        f.write(b"PK\x05\x06" + bytes(4) + b"\xff\xff" * 2 + hole.to_bytes(4, "little") + bytes(6))
    read, ask = [], archives._range
    monkeypatch.setattr(archives, "_range", lambda path, start, end: read.append(end - start) or ask(path, start, end))
    with pytest.raises(StorageError, match=f"a list of members of .* bytes, at most {archives.MAX_LIST_BYTES}"):
        archives.Archive.at(path)
    assert sum(read) < 2**20


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_the_same_in_pieces_of_any_size(tmp_path, monkeypatch, method):
    noise = np.random.default_rng(0).bytes(3000)
    whole = {"even": bytes(20_000), "noise": noise, "empty": b"", "both": noise + bytes(5000) + noise}
    with zipfile.ZipFile(tmp_path / "p.zip", "w", method) as z:
        for name, data in whole.items():
            z.writestr(name, data)
    archive = archives.Archive.at(tmp_path / "p.zip")
    for size in (1, 7, 257, 258, 259, 4096, 2**20):
        monkeypatch.setattr(archives, "_PIECE", size)
        assert all(archive.read(archive.entry(name)) == data for name, data in whole.items())


@pytest.mark.parametrize("kind", [".zip", ".tar"])
def test_a_cut_archive_is_one_line_and_a_changed_member_is_one_reject(tmp_path, kind):
    for n in range(3):
        images.write_png(tmp_path / "p" / f"{n}.png", photo(n))
    path = pack(kind, tmp_path / "p", "")
    whole = path.read_bytes()
    member = locations.find(tmp_path, "p/1.png")
    good = images.read(member)
    locations._RECENT._kept.clear()
    damaged = bytearray(whole)
    at = member.entry.offset + (600 if kind == ".zip" else 0)  # a zip knows its sums, in a tar the picture must
    damaged[at : at + 40] = bytes(40)
    path.write_bytes(damaged)
    with pytest.raises(images.ImageError):
        images.read(member)
    assert good.shape == (120, 160, 3)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StorageError, match="cannot be read as an archive.*fetch it again"):
        archives.Archive.at(path)


def test_an_archive_in_a_store_is_read_by_ranges_and_indexed_once(s3, tmp_path):
    front, bucket, root = s3
    for n in range(4):
        images.write_png(tmp_path / "p" / f"{n}.png", photo(n))
    path = pack(".zip", tmp_path / "p", "p/")
    prefix = root.removeprefix("s3://ahp/")
    bucket.put(f"{prefix}/p.zip", path.read_bytes())
    front.fault = lambda method, key, n: (0, 0, 0, 503)[n % 4]
    base = locations.place(root)
    assert all((images.read(locations.find(base, f"p/{n}.png")) == photo(n)).all() for n in range(4))
    assert locations.has_folder(base, "p") and not locations.has_folder(base, "q")
    front.forget()
    archives._opened.cache_clear()
    locations._mounted.cache_clear()
    assert images.header(locations.find(base, "p/3.png")).width == 160
    assert sum(m == "GET" and k.endswith("p.zip") for m, k in front.done) == 0  # kept: the index, and the picture
