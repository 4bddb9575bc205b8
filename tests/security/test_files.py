"""Files: paths from data stay in their root, links plant nothing, submissions claim nothing, privacy is the umask's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahp_toolkit.core import limits
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.storage import files
from ahp_toolkit.storage.lock import lock
from benchmark.grading import probe
from benchmark.grading.records import parse
from benchmark.grading.submission import Submission

PIECES = st.sampled_from(["..", ".", "a", "/", "//", "\\", "C:", "~", "a b", "\x00", "", "é", "link", "…", "%2e%2e"])


@settings(max_examples=200)
@given(st.lists(PIECES, max_size=6).map("/".join))
def test_a_path_from_data_stays_below_its_root(tmp_path_factory: pytest.TempPathFactory, said: str) -> None:
    root = tmp_path_factory.getbasetemp() / "root"
    (root / "a").mkdir(parents=True, exist_ok=True)
    if not (root / "link").is_symlink():
        (root / "link").symlink_to("/etc")
    try:
        path = files.safe_join(root, said)
    except ValueError:
        return
    assert os.path.realpath(path).startswith(os.path.realpath(root))


def test_links_inside_a_root_are_followed_and_those_out_of_it_refused(tmp_path: Path) -> None:
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "root" / "a" / "x.png").write_bytes(b"x")
    (tmp_path / "secret").write_bytes(b"s")
    (tmp_path / "root" / "in").symlink_to("a")
    (tmp_path / "root" / "out").symlink_to(tmp_path)
    (tmp_path / "root" / "a" / "y.png").symlink_to(tmp_path / "secret")
    assert files.safe_join(tmp_path / "root", "in/x.png").read_bytes() == b"x"
    for path in ("out/secret", "a/y.png", "in/y.png", "in/../../secret", "/etc/passwd"):
        with pytest.raises(ValueError, match="leaves its data root"):
            files.safe_join(tmp_path / "root", path)


def test_a_link_in_the_lock_files_place_costs_its_target_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "diary.txt"
    victim.write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").symlink_to(victim)
    with pytest.raises(UserError, match="a link lies"), lock(tmp_path / "out"):
        pass
    assert victim.read_text() == "mine"


def test_a_link_in_a_files_place_is_replaced_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "diary.txt"
    victim.write_text("mine")
    (tmp_path / "a.json").symlink_to(victim)
    files.write_json(tmp_path / "a.json", {})
    assert victim.read_text() == "mine" and not (tmp_path / "a.json").is_symlink()


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o000, 0o644)])
def test_the_users_umask_decides_who_may_read(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        files.write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == mode


def test_json_is_weighed_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big, deep = tmp_path / "predictions.json", tmp_path / "deep.json"
    with big.open("wb") as f:
        f.truncate(limits.MAX_JSON_BYTES + 1)
    deep.write_text("[" * 200_000)
    for path in (big, deep):
        with pytest.raises(UserError, match="cannot be read as JSON"):
            files.read_json(path)
        with pytest.raises(UserError, match="at most|cannot be read as JSON"):
            Submission(path)


def test_a_submission_hands_in_no_file_of_somebody_else(tmp_path: Path) -> None:
    other, mine = tmp_path / "other", tmp_path / "mine"
    for folder in (other, mine):
        folder.mkdir()
    (other / "predictions.json").write_text("[]")
    (other / "run.json").write_text("{}")
    (mine / "predictions.json").symlink_to(other / "predictions.json")
    with pytest.raises(UserError, match="leaves its data root"):
        Submission(mine)
    (mine / "predictions.json").unlink()
    (mine / "predictions.json").write_text("[]")
    (mine / "run.json").symlink_to(other / "run.json")
    with pytest.raises(UserError, match="leaves its data root"):
        Submission(mine)
    (other / "x.png").write_bytes(b"")
    (mine / "x.png").symlink_to(other / "x.png")
    for path in ("x.png", "../other/x.png", "/etc/passwd"):
        (fault,) = parse("here", {"sample_id": "a", "image": path}, mine).problems
        assert fault.kind == "bad_path"


def test_a_table_of_a_few_kilobytes_is_not_unpacked_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One name of 50 kB, which a dictionary repeats 20,000 times: 1 GB once it stands in memory."""
    names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(20_000, np.int32)), pa.array(["x" * 50_000]))
    file = tmp_path / "predictions.parquet"
    pq.write_table(pa.table({"sample_id": names}), file, compression="zstd", store_schema=False)
    assert file.stat().st_size < 100_000
    said = Submission(tmp_path)
    before = pa.total_allocated_bytes()
    longest = peak = 0
    for _, name in said.ids():
        longest, peak = max(longest, len(name)), max(peak, pa.total_allocated_bytes() - before)
    assert longest <= 1024 and peak < 100 * 2**20
    monkeypatch.setattr(probe, "ROWS", 19_999)
    with pytest.raises(UserError, match="20000 rows"):
        list(said.ids())
