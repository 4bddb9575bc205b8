"""What people said, at an address: a log is written over what it begins with alone, and no word is ever lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.runtime.publish import reading, working
from ahp_toolkit.storage import lease, locations
from ahp_toolkit.storage.mirror import Mirror

LOG = "decisions/kim.jsonl"


@pytest.fixture
def kim(s3, tmp_path):
    """(address of a build with one word, the log in its working folder ``a``, the log's key, the bucket)."""
    _, bucket, root = s3
    with working(locations.place(root), tmp_path / "a") as folder:
        (folder / LOG).parent.mkdir()
        (folder / LOG).write_bytes(b"1\n")
        (folder / "build.json").write_text("{}")
    return locations.place(root), folder / LOG, f"{root.removeprefix('s3://ahp/')}/{LOG}", bucket


def elsewhere(root, tmp_path):
    """Another machine was the last to write."""
    with working(root, tmp_path / "b"):
        pass


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize(
    ("here", "there", "both"),
    [
        (b"1\n2\n", b"1\n", b"1\n2\n"),
        (b"1\n", b"1\n3\n", b"1\n3\n"),
        (b"", b"1\n3\n", b"1\n3\n"),
        (None, b"1\n3\n", b"1\n3\n"),
        (b"1\n2\n", None, b"1\n2\n"),
        (b"1\n2\n", b"1\n2\n3\n", b"1\n2\n3\n"),
    ],
)
def test_the_longer_of_two_logs_stands_in_both_places(kim, tmp_path, last, here, there, both):
    root, log, key, bucket = kim
    if not last:
        elsewhere(root, tmp_path)
    log.unlink() if here is None else log.write_bytes(here)
    bucket.delete(key) if there is None else bucket.put(key, there)
    with working(root, tmp_path / "a"):
        assert log.read_bytes() == both
    assert bucket.get(key) == both


@pytest.mark.parametrize("last", [True, False])
def test_logs_that_each_lack_words_of_the_other_are_left_and_told(kim, tmp_path, last):
    root, log, key, bucket = kim
    if not last:
        elsewhere(root, tmp_path)
    log.write_bytes(b"1\n2\n")
    bucket.put(key, b"1\n3\n")
    for _ in range(2):
        with pytest.raises(UserError, match=rf"^{log}: has words that s3://\S+{LOG} lacks") as e, working(
            root, tmp_path / "a"
        ):  # fmt: skip
            pass
        assert len(str(e.value).splitlines()) == 1
        assert (log.read_bytes(), bucket.get(key)) == (b"1\n2\n", b"1\n3\n")
    log.rename(tmp_path / "mine")  # the way out that the line names
    with working(root, tmp_path / "a"):
        log.write_bytes(log.read_bytes() + b"2\n")
    assert bucket.get(key) == b"1\n3\n2\n"


def test_words_put_into_the_store_while_a_command_runs_are_not_written_over(kim, tmp_path, monkeypatch):
    root, log, key, bucket = kim
    monkeypatch.setattr(Mirror, "step", lambda self: 3600.0)
    with pytest.raises(UserError, match="has words"), working(root, tmp_path / "a"):
        log.write_bytes(b"1\n2\n")
        bucket.put(key, b"1\n3\n")
    assert (log.read_bytes(), bucket.get(key)) == (b"1\n2\n", b"1\n3\n")
    log.write_bytes(b"1\n")
    with working(root, tmp_path / "a"):
        bucket.put(key, b"1\n3\n4\n")
        log.write_bytes(b"1\n3\n")
    assert log.read_bytes() == bucket.get(key) == b"1\n3\n4\n"


def test_a_log_that_grows_beside_a_stage_takes_nothing_from_it(s3, tmp_path):
    front, bucket, root = s3
    for words in ("1\n", "1\n2\n"):
        front.forget()
        with working(locations.place(root), tmp_path / "a") as folder:
            (folder / "compose").mkdir(exist_ok=True)
            (folder / "compose/stage.json").write_text("{}")
            (folder / "compose/words.jsonl").write_text(words)
    assert not [k for m, k in front.done if k.endswith("stage.json")]
    assert len(bucket.tree(root.removeprefix("s3://ahp/"))) == 2


def test_a_log_that_is_read_from_the_cache_keeps_words_that_are_not_published(kim, tmp_path):
    root, _, key, bucket = kim
    log = reading(root) / LOG
    log.write_bytes(b"1\n2\n")
    elsewhere(root, tmp_path)
    assert (reading(root) / LOG).read_bytes() == b"1\n2\n"
    bucket.put(key, b"1\n3\n")
    with pytest.raises(UserError, match=f"^{log}: "):  # where they lie, and not the address
        reading(root)


def test_what_is_true_of_one_machine_stays_there(s3, tmp_path):
    _, bucket, root = s3
    with working(locations.place(root), tmp_path / "a") as folder:
        for name in ("build.json", LOG, "decisions/.kim.jsonl.end", "decisions/leases/leases.jsonl"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("{}\n")
    assert set(bucket.tree(root.removeprefix("s3://ahp/"))) == {"build.json", LOG}
    elsewhere(locations.place(root), tmp_path)
    with working(locations.place(root), tmp_path / "a"):
        pass
    assert (tmp_path / "a/decisions/.kim.jsonl.end").exists()


SPEAKER = """
import sys
from pathlib import Path
from ahp_toolkit.decisions.jsonl import append
from ahp_toolkit.core import places
from ahp_toolkit.runtime.publish import working
with working(places.place(sys.argv[1]), Path(sys.argv[2])) as folder:
    for n in range(100_000):
        append(folder / "decisions/kim.jsonl", {"n": n})
        print(n, flush=True)
"""


def test_a_reviewer_who_is_killed_loses_no_word(kim, tmp_path):
    root, log, key, bucket = kim
    log.write_bytes(b"")
    bucket.put(key, b"")
    speaker = subprocess.Popen(
        [sys.executable, "-c", SPEAKER, str(root), str(tmp_path / "a")], stdout=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while not bucket.get(key) and time.monotonic() < until:
        time.sleep(0.05)
    speaker.send_signal(signal.SIGKILL)
    said = [int(n) for n in speaker.communicate()[0].split()]
    assert said and bucket.get(key)
    with working(root, tmp_path / "a"):
        pass
    assert bucket.get(key) == log.read_bytes()
    assert bucket.get(key).count(b"\n") >= len(said)
    assert lease.newest(str(root)).said["released"]
