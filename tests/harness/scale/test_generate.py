"""Generated annotations are read by the real readers with the counts that were written; same seed, same bytes."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from ahp_toolkit.build.config import Harvesting
from ahp_toolkit.core import hashing
from ahp_toolkit.core.records import Candidate
from ahp_toolkit.sources import SOURCES
from ahp_toolkit.storage import files as disk
from ahp_toolkit.storage import parquet
from tests.build.steps import config, made
from tests.harness.scale import generate, measure, people, pictures, run
from tests.harness.scale.shapes import COCO_SIZES, FULL, SIZES

TINY = 1e-4


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """One root a source, of a ten-thousandth of its size."""
    root = tmp_path_factory.mktemp("scale")
    return root, {name: generate.write(name, root / name, 10 * TINY if name == "coco" else TINY) for name in FULL}


@pytest.mark.parametrize("source", sorted(FULL))
def test_readers_find_what_was_written(source, sources):
    root, said = sources[0] / source, sources[1][source]
    entries = list(SOURCES.get(source).scan(root))
    fraction = said.fraction
    assert said.boxes == round(FULL[source].boxes * fraction) and said.images == round(FULL[source].images * fraction)
    if source != "coco":  # COCO's scan gives every annotated photo
        assert len(entries) == said.photos_with_people
    pictures.link_all(root, pictures.photos_of(source, root), each=1)
    loaded = [SOURCES.get(source).load(root, e) for e in entries]
    seen = [x.image for x in loaded if x.image is not None]
    assert len(seen) == len(entries)
    persons = sum(i.label == "person" for s in seen for i in s.instances)
    lost = sum(d.reason in ("duplicate", "duplicate_label", "zero_area") for x in loaded for d in x.dropped)
    assert said.people - lost <= persons <= said.people
    assert 0.75 < said.people / (FULL[source].people * said.boxes) < 1.33


@pytest.mark.parametrize("source", sorted(FULL))
def test_same_seed_same_bytes_and_the_size_of_the_original(source, sources, tmp_path):
    said = sources[1][source]
    generate.write(source, tmp_path, said.fraction)
    first, again = (hashing.digest_file(p / generate.FILES[source]) for p in (sources[0] / source, tmp_path))
    assert first == again
    generate.write(source, tmp_path, said.fraction, seed=1)
    assert hashing.digest_file(tmp_path / generate.FILES[source]) != first
    assert 0.8 < said.bytes / said.fraction / FULL[source].bytes < 1.15


def test_links_share_a_bounded_pool_and_stay_below_the_root(tmp_path):
    wanted = [(f"train/patch{k % 3}/{k}.jpg", SIZES[4]) for k in range(50)]
    n, mean = pictures.link_all(tmp_path, wanted, each=2)
    files = {(tmp_path / name).stat().st_ino for name, _ in wanted}
    assert n == 50 and len(files) == 2 and mean > 20_000
    assert disk.safe_join(tmp_path, wanted[0][0]).is_file()


def test_nearly_all_generated_people_pass_the_harvest(tmp_path):
    people.write_people(tmp_path / "coco", 30)
    made(config(tmp_path / "out", {"coco": tmp_path / "coco"}, harvest=Harvesting(verify=False)), "harvest")
    kept = list(parquet.read_records(tmp_path / "out" / "harvest", Candidate))
    assert len(kept) >= 28
    assert all(c.mask is not None and c.neighbours.mask_contact == 0 for c in kept)
    assert all((c.image.width, c.image.height) in COCO_SIZES for c in kept)


def test_a_point_is_measured_and_its_tree_watched(tmp_path):
    r = run.one("duplicates/photos/300", tmp_path, tmp_path / "log")
    assert r["said"]["photos"] == 300 and r["cpu_s"] > 0
    assert r["peak_mb"] > 20 and r["asked"] > 10_000
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / "a.json").write_text(json.dumps(r))
    run.write_tables(run.gather(tmp_path), tmp_path)
    assert "duplicates/photos/300" in (tmp_path / "points.csv").read_text()
    child = subprocess.Popen(["sleep", "60"])
    assert {os.getpid(), child.pid} <= set(measure.below(os.getpid()))
    child.kill()
    child.wait()
    assert measure.io_of("self")["rchar"] > 0 and measure.io_of(2**22 + 1) == {}
