"""Object stores: passing failures pass, lasting ones are one line; paths, listings, the cache of fetched files."""

from __future__ import annotations

import pickle

import pytest

from ahp_toolkit.core.errors import StorageError, UserError
from ahp_toolkit.storage import files, images, locations, remote


def every(k, *statuses):
    """A fault for every ``k``-th request, the statuses in turn."""
    return lambda method, key, n: statuses[n // k % len(statuses)] if n % k == 0 else 0


def test_throttling_and_server_errors_pass(s3, tmp_path):
    front, _, root = s3
    front.fault = every(2, 503, 500)
    for n in range(6):
        (tmp_path / "x").write_bytes(b"x" * n)
        remote.upload(f"{root}/d/{n}", tmp_path / "x")
    assert [s.size for s in remote.listing(f"{root}/d")] == list(range(6))
    assert remote.read(f"{root}/d/5", 1, 3) == b"xx"
    assert remote.read(f"{root}/d/0") == b""
    assert front.refused[503] and front.refused[500]
    assert set(front.puts().values()) == {1}


def test_a_store_that_never_answers_is_one_line_with_its_address(s3, monkeypatch):
    front, _, root = s3
    monkeypatch.setattr(remote, "TRIES", 4)
    front.fault = lambda method, key, n: 503
    before = front.asked
    with pytest.raises(StorageError, match=r"^s3://\S+/x: no answer in 4 tries.*run the same command again") as e:
        remote.read(f"{root}/x")
    assert front.asked - before == 4
    assert "\n" not in str(e.value)


def test_an_unreachable_store_is_one_line(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(remote, "TRIES", 2)
    remote._filesystem.cache_clear()
    try:
        with pytest.raises(StorageError, match="no answer in 2 tries"):
            remote.stat("s3://ahp/x")
    finally:
        remote._filesystem.cache_clear()


def test_what_is_missing_is_missing(s3):
    _, _, root = s3
    assert remote.stat(f"{root}/none") is None
    assert remote.listing(f"{root}/none") == []
    with pytest.raises(FileNotFoundError):
        remote.read(f"{root}/none")
    with pytest.raises(images.ImageError) as e:
        images.read(locations.place(f"{root}/none.jpg"))
    assert e.value.reason == "missing"
    remote.delete([f"{root}/none"])


@pytest.mark.parametrize("text", ["ftp://host/x", "s3://", "s3:///x"])
def test_other_addresses_are_refused(text):
    with pytest.raises(UserError, match="expected a local path or one of"):
        locations.place(text)


def test_paths_at_an_address(s3):
    _, bucket, root = s3
    for name in ("a/one.txt", "a/two.json", "b/c/three.txt"):
        bucket.put(f"{root.removeprefix('s3://ahp/')}/{name}", name.encode())
    base = locations.place(root)
    assert str(base) == root and str(base / "a" / "one.txt") == f"{root}/a/one.txt"
    assert pickle.loads(pickle.dumps(base)) == base and str(base.parent) == "s3://ahp"
    assert (base / "a/one.txt").relative_to(base).as_posix() == "a/one.txt"
    assert [p.name for p in sorted(base.iterdir())] == ["a", "b"]
    assert [str(p) for p in base.glob("*/c/*.txt")] == [f"{root}/b/c/three.txt"]
    assert [str(p) for p in base.glob("a/two.json")] == [f"{root}/a/two.json"]
    assert (base / "a").is_dir() and not (base / "a").is_file() and (base / "a/one.txt").is_file()
    assert (base / "a/one.txt").stat().st_size == 9
    assert (base / "a/one.txt").read_text(encoding="utf-8") == "a/one.txt"
    with pytest.raises(OSError, match="never written"):
        (base / "new").open("wb")
    with pytest.raises(StorageError, match="expected a local path here"):
        open(base / "a/one.txt")  # noqa: SIM115, PTH123 it does not open


def test_a_file_is_fetched_once_and_again_when_it_changes(s3):
    front, bucket, root = s3
    key = f"{root.removeprefix('s3://ahp/')}/big.json"
    bucket.put(key, b"1" * 1000)
    path = locations.place(f"{root}/big.json")
    gets = lambda: sum(m == "GET" and k == key for m, k in front.done)  # noqa: E731
    assert path.open("rb").read() == path.open("rb").read() == b"1" * 1000
    assert gets() == 1
    bucket.put(key, b"2" * 1000)
    assert path.open("rb").read() == b"2" * 1000
    assert gets() == 2
    assert len(list((files.cache_folder() / "files").rglob("*big.json"))) == 1


@pytest.mark.parametrize("bad", ["../x", "/etc/passwd", "a/../../x", "", "c:/x", "a\x00b", "..\\x"])
def test_paths_from_data_stay_below_a_root_in_a_store(bad):
    with pytest.raises(ValueError, match="leaves its data root"):
        locations.find(locations.place("s3://ahp/root"), bad)


class AzureRefusal(Exception):
    status_code = 416


class GoogleRefusal(Exception):
    code = 416


def wrapped():
    try:
        raise AzureRefusal("The range specified is invalid")
    except AzureRefusal as e:
        raise RuntimeError("failed to download") from e


class FakeStore:
    """A client of which every read and write ends with one error."""

    def __init__(self, fail):
        self._fail = fail

    def cat_file(self, path, start, end):
        self._fail()

    pipe_file = cat_file


def raising(e):
    def fail():
        raise e

    return fail


@pytest.mark.parametrize("address", ["az://box/empty.jpg", "gs://box/empty.jpg"])
@pytest.mark.parametrize("fail", [raising(AzureRefusal()), raising(GoogleRefusal()), wrapped])
def test_an_empty_object_is_empty_in_every_store(monkeypatch, address, fail):
    monkeypatch.setattr(remote, "_filesystem", lambda scheme: FakeStore(fail))
    monkeypatch.setattr(locations, "_RECENT", locations._Recent())
    assert remote.read(address) == b""
    with pytest.raises(images.ImageError):
        images.read(locations.Remote(address))


def test_another_refusal_of_a_read_is_no_empty_object(monkeypatch):
    refusal = AzureRefusal("no")
    refusal.status_code = 400
    monkeypatch.setattr(remote, "_filesystem", lambda scheme: FakeStore(raising(refusal)))
    with pytest.raises(StorageError, match=r"^az://box/x: AzureRefusal: no"):
        remote.read("az://box/x")


def test_a_missing_bucket_is_one_line(s3, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x")
    with pytest.raises(StorageError, match=r"^s3://nobucket/x: no such bucket, s3://nobucket; make it"):
        remote.upload("s3://nobucket/x", file)
