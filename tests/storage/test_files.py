from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pyarrow as pa
import pytest

from ahp_toolkit.core import hashing, records
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box, encode, encode_labels
from ahp_toolkit.storage import files, parquet

M = encode(np.eye(6, 8, dtype=bool))
IMAGE = records.ImageRef("coco/1", "coco", "a/b.jpg", 8, 6, "flickr/7", "d" * 64, "4")
CANDIDATE = records.Candidate(
    "coco/1#2", IMAGE, Box(0, 1, 2, 3), M, None, records.Flags(occluded=True, crowd=False), records.Neighbours(2, 0.5)
)
EXAMPLES = {
    "Candidate": CANDIDATE,
    "Occluder": records.Occluder("coco/1#3", IMAGE, "dog", M.box, M, M.area),
    "Segmented": records.Segmented(CANDIDATE, M, 0.5, "deeplab@1", 3, encode_labels(np.eye(6, 8, dtype=np.uint8)), "x"),
    "Decision": records.Decision("coco/1#2", "refine", "ann", "0" * 16, "bad_mask", M, 2.5, "2026-01-01T00:00:00Z"),
    "Human": records.Human("coco/1#2", IMAGE, M.box, M, None, "", "val", ("ann", "bob")),
    "Sample": records.Sample(
        "val/coco/1#2~0", "val", "coco/1#2", IMAGE, (records.Placement("o", -3, 4, 0.5, True),), 2**62,
        records.Given(M, "simulated"), M, M, Box(0, 0, 8, 8), 0.0, 1, "e" * 64,
    ),
    "Prediction": records.Prediction("s", "m", M, None, "x.png", 0.1),
    "Dropped": records.Dropped("x", "harvest", "small", "é \n '", "coco"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_records_survive_the_disk(tmp_path, name):
    record = EXAMPLES[name]
    parquet.write_records(tmp_path / "part-00000.parquet", [record, record], type(record))
    assert list(parquet.read_records(tmp_path, type(record))) == [record, record]
    assert parquet.schema_of(type(record)).names == [f.name for f in fields(type(record))]


def test_same_records_same_bytes(tmp_path):
    for name in ("a", "b"):
        parquet.write_records(tmp_path / name, [CANDIDATE], records.Candidate)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_empty_table_keeps_its_schema(tmp_path):
    parquet.write_records(tmp_path / "part-0.parquet", [], records.Human)
    assert list(parquet.read_records(tmp_path, records.Human)) == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: records.Segmented(CANDIDATE, M, 1.5, "x", 0), "score: expected a number in"),
        (lambda: records.Decision("a", "maybe", "ann", "0" * 16), "verdict: expected one of discard, preserve, refine"),
        (lambda: records.Human("a", IMAGE, M.box, M, None, "", "dev", ()), "split: expected one of train"),
        (lambda: records.ImageRef("", "coco", "x", 1, 1), "image_id: expected a non-empty id"),
    ],
)
def test_a_record_checks_itself_at_birth(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_modal_must_lie_in_amodal():
    other = encode(~np.eye(6, 8, dtype=bool))
    values = {f.name: getattr(EXAMPLES["Sample"], f.name) for f in fields(records.Sample)}
    with pytest.raises(ValueError, match="subset of amodal"):
        records.Sample(**values | {"modal": other})


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.atomic(path, "w") as f:
        f.write("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x"]


def test_a_damaged_table_is_one_clear_line(tmp_path):
    path = tmp_path / "part-00000.parquet"
    parquet.write_records(path, [CANDIDATE], records.Candidate)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="part-00000.parquet: cannot be read as Parquet"):
        list(parquet.read_records(tmp_path, records.Candidate))


@pytest.mark.parametrize("bad", ["../x", "/etc/passwd", "a/../../x", "", "a\x00b", "C:/x", "..\\x", "link/x"])
def test_paths_never_leave_their_root(tmp_path, bad):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leaves its data root"):
        files.safe_join(root, bad)


def test_inner_paths_and_inner_links_are_fine(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert files.safe_join(tmp_path, "b/c.jpg") == tmp_path / "b" / "c.jpg"


def test_seeds_depend_on_the_keys_alone():
    assert hashing.seed_of(0, "a") == 8617095791668180470
    assert 0 <= hashing.unit_hash("x") < 1
    assert hashing.seed_of("a", "b") != hashing.seed_of("ab")


def test_a_table_with_more_columns_is_read(tmp_path):
    table = parquet.to_table([EXAMPLES["Dropped"]], records.Dropped).append_column("new", pa.array([1]))
    assert list(parquet.from_table(table, records.Dropped)) == [EXAMPLES["Dropped"]]


#: A locale that knows no ü; `-X utf8=0` lets it be.
ELSEWHERE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
WRITTEN = """
import locale, sys
from pathlib import Path
from ahp_toolkit.storage import files as store
from annotation.app import guide
from baselines.data import people
assert locale.getpreferredencoding(False).upper() not in ("UTF-8", "UTF8")
folder = Path(sys.argv[1])
with store.atomic(folder / "x.json", "w") as f:
    f.write('{"a": ["\\u00fc"]}')
assert (folder / "x.json").read_bytes() == b'{"a": ["\\xc3\\xbc"]}'
assert store.read_json(folder / "x.json") == people.boxes_file(folder / "x.json") == {"a": ["\\u00fc"]}
assert "Reviewing people" in guide.page()
"""


def test_our_files_are_utf8_whatever_the_locale(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", WRITTEN, str(tmp_path)], env=os.environ | ELSEWHERE, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr


def test_a_json_file_that_is_no_text_is_told(tmp_path):
    (tmp_path / "x.json").write_bytes(b'{"a": "\xff\xfe"}')
    with pytest.raises(UserError, match=r"x\.json: cannot be read as JSON"):
        files.read_json(tmp_path / "x.json")
