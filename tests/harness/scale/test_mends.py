"""What was mended for scale gives what the plain way gives, to the last record."""

from __future__ import annotations

import gc
import math
import weakref
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahp_toolkit.core import hashing, masks
from ahp_toolkit.core.hashing import photo_hash
from ahp_toolkit.core.records import Human, ImageRef, Occluder
from ahp_toolkit.occlusion.densities import PRESETS, Target, assign, quota
from ahp_toolkit.occlusion.render import Renderer
from ahp_toolkit.stages import synthesize
from ahp_toolkit.stages.review import SplitSizes, Thresholds, _cut, thresholds
from ahp_toolkit.storage import parquet
from tests import fake_build


@pytest.mark.parametrize("n", [0, 1, 7, 100])
@pytest.mark.parametrize("name", sorted(PRESETS))
def test_targets_made_on_demand_are_those_of_the_whole_list(n, name):
    density, whole = PRESETS[name], []
    for i, count in enumerate(quota(density, n)):
        low, high = density.interval(i)
        edges = [low + (high - low) * k / count for k in range(count)] + [high]
        whole += [Target(i, a, b) for a, b in pairwise(edges)]
    order = sorted(range(n), key=lambda k: hashing.unit_hash("density", 3, k))
    made = assign(density, n, 3)
    assert list(made) == [whole[k] for k in order] == made[0:n] and len(made) == n
    assert all(math.isfinite(t.high) for t in made)


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    return fake_build.make(tmp_path_factory.mktemp("mends"), photos=12, split="train")


@pytest.mark.parametrize("most", [None, 0, 3, 100])
def test_the_chosen_humans_are_the_first_by_hash(build, most):
    parts = [str(p) for p in parquet.parts(build / "review")]
    every = [h for h in parquet.read_records(build / "review", Human) if h.verdict == "preserve" and h.split == "train"]
    by_hash = sorted(every, key=lambda h: hashing.unit_hash("human", h.human_id))[:most]
    chosen = synthesize.chosen(parts, "train", most)
    tasks = list(synthesize.tasks(parts, chosen, assign(PRESETS["val"], 3 * len(chosen), 0)))
    got = [t.human.human_id for t in tasks if t.targets]
    assert [t.human for t in tasks] == every and chosen.every == len(every)
    assert sorted(got) == sorted(h.human_id for h in by_hash) and len(chosen) == len(by_hash)
    assert not synthesize.chosen(parts, "val", most)
    assert np.all(np.diff([[h.human_id for h in every].index(i) for i in got]) > 0) if got else True


def test_a_part_is_rendered_from_its_own_occluders(tmp_path, monkeypatch):
    mask = masks.encode(np.ones((4, 4), np.bool_))
    image = ImageRef("coco/1", "coco", "1.jpg", 4, 4)
    for part in range(3):
        one = Occluder(f"coco/1#{part}", image, "cup", mask.box, mask, 16)
        parquet.write_records(tmp_path / "occluders" / f"part-{part:05d}.parquet", [one], Occluder)
    read, plain = [], parquet.read_records
    monkeypatch.setattr(parquet, "read_records", lambda path, cls: (read.append(path.name), plain(path, cls))[1])
    render = Renderer({}, tmp_path, "part-00001.parquet")
    assert render._occluder("coco/1#1").occluder_id == "coco/1#1" and read == ["part-00001.parquet"]
    assert render._occluder("coco/1#2").occluder_id == "coco/1#2" and read[1:] == ["occluders"]
    with pytest.raises(KeyError):
        render._occluder("coco/1#9")


def test_what_a_shard_cut_out_goes_with_it():
    """Renderers that waited for the garbage collector held 30 MB each: memory grew with the number of shards."""
    mask = masks.encode(np.ones((4, 4), np.bool_))
    render = Renderer({"coco": "/nowhere"})
    cup = Occluder("x#1", ImageRef("x/1", "coco", "1.jpg", 4, 4), "cup", mask.box, mask, 16)
    render._photos._last = "coco\n1.jpg", np.zeros((4, 4, 3), np.uint8)
    assert render.usable(cup)
    gone = weakref.ref(render)
    gc.disable()
    try:
        del render
        assert gone() is None
    finally:
        gc.enable()


@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 400), val=st.integers(0, 12), test=st.integers(0, 6), each=st.integers(1, 4))
def test_thresholds_need_only_the_lowest_photos(n, val, test, each):
    photos = [f"p{k // each}" for k in range(n)]
    sizes = SplitSizes(val, test)
    per_hash = Counter(map(photo_hash, photos))
    ordered = sorted(per_hash)
    low, i = _cut(ordered, 0, per_hash, min(val, int(n * sizes.max_val)))
    high, _ = _cut(ordered, i, per_hash, min(test, int(n * sizes.max_test)))
    assert thresholds(iter(photos), sizes) == Thresholds(low, max(low, high))
