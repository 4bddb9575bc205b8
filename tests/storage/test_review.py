"""The review of a build at an address, in its working folder: what was said is published, taken up, brought back."""

from __future__ import annotations

import pytest

from ahp_toolkit.core.records import Human
from ahp_toolkit.storage import parquet
from tests.build.test_build import ahp
from tests.cli.small import data, words


@pytest.fixture
def source(tmp_path):
    return data(tmp_path / "coco", 6)


def kept(folder):
    return {h.human_id for h in parquet.read_records(folder / "review", Human)}


def test_what_is_said_in_the_working_folder_is_published_and_taken_up(s3, source, tmp_path):
    _, bucket, root = s3
    here, there = tmp_path / "here", tmp_path / "there"
    build = words(source, f"{root}/b", "-q", "--stop-after", "review", "--work")
    ahp(*build, here)
    before = kept(here)
    first, second = sorted(before)[:2]
    shown = {h.human_id: h.mask.digest for h in parquet.read_records(here / "review", Human)}
    rows = tmp_path / "words.csv"
    rows.write_text(f"candidate_id,verdict,reason,mask_digest\n{first},discard,occluded,{shown[first]}\n")
    ahp("review", "import", "--root", here, rows, "--reviewer", "ann")
    ahp(*build, here)
    log = f"{root.removeprefix('s3://ahp/')}/b/decisions/ann.jsonl"
    assert bucket.get(log) == (here / "decisions/ann.jsonl").read_bytes()
    assert kept(here) == before - {first}
    ahp(*build, there)  # another machine goes on with the review
    rows.write_text(f"candidate_id,verdict,reason,mask_digest\n{second},discard,occluded,{shown[second]}\n")
    ahp("review", "import", "--root", there, rows, "--reviewer", "ann")
    ahp(*build, there)
    ahp(*build, here)
    assert bucket.get(log).count(b"\n") == 2
    for folder in (here, there):
        assert (folder / "decisions/ann.jsonl").read_bytes() == bucket.get(log)
    assert kept(here) == kept(there) == before - {first, second}
