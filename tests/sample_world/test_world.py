"""A world on disk: every dataset reads back, every truth has its person, the planted cases are where it says."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from ahp_toolkit.core import masks
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import REASONS, VERDICTS, Candidate, Neighbours, Segmented
from ahp_toolkit.sample_world import generate, planted, read_truth, write_world
from ahp_toolkit.sample_world.oracle import Oracle
from ahp_toolkit.sources import SOURCES
from ahp_toolkit.storage import images

NAMES = ("coco", "lip", "objects365", "openimages", "voc_sbd")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    steps = []
    write_world(root, seed=3, scenes=27, progress=steps.append)
    assert steps == [1] * 27
    return root


def _read(root):
    for name in NAMES:
        module = SOURCES.get(name)
        for entry in module.scan(root / name):
            yield name, module.load(root / name, entry)


@pytest.fixture(scope="module")
def loaded(world):
    return list(_read(world))


def test_every_truth_is_found_through_its_source(world, loaded):
    truths = read_truth(world)
    instances = {i.instance_id: (one.image, i) for _, one in loaded if one.image for i in one.image.instances}
    assert truths and not set(truths) - set(instances)
    for id_, t in truths.items():
        image, instance = instances[id_]
        assert t.verdict in VERDICTS and (t.reason in REASONS if t.reason else t.verdict == "preserve")
        assert t.image_id == image.image.image_id
        assert (t.modal.height, t.modal.width) == (image.image.height, image.image.width)
        assert instance.label == "person"
        if t.reason != "bad_mask":
            assert instance.box.iou(t.modal.box) > 0.9
        inter, _ = masks.intersection_union(t.modal, t.amodal)
        assert inter == t.modal.area
        assert np.array_equal(t.parsing.decode() > 0, t.amodal.decode())
        scene = generate(3, t.scene, layout=None) if t.scene < 27 and t.source != "lip" else None
        if scene is not None:
            assert np.array_equal(scene.people[t.person].amodal, t.amodal.decode())


def test_all_people_of_the_readers_are_known(world, loaded):
    truths, lost = read_truth(world), set(planted(world)["at"]["unreadable"])
    people = {
        i.instance_id
        for _, one in loaded
        if one.image and one.image.image.image_id not in lost
        for i in one.image.instances
        if i.label == "person"
    }
    assert people == set(truths)


def test_planted_cases_are_where_the_world_says(world, loaded):
    found = planted(world)
    dropped = {d.id: d.reason for _, one in loaded for d in one.dropped}
    for kind in ("zero_area_box", "two_point_polygon", "wrong_size_rle", "duplicate_id"):
        assert len(found["at"][kind]) == found["counts"][kind] == 2
        assert all(i in dropped for i in found["at"][kind])
    photos = {one.image.image.image_id: one.image.image for _, one in loaded if one.image}
    for kind in ("grey", "cmyk", "png_named_jpg", "exif_turned"):
        for id_ in found["at"][kind]:
            ref = photos[id_]
            assert images.read(world / "coco" / ref.path, (ref.width, ref.height)).shape == (ref.height, ref.width, 3)
    for id_ in found["at"]["truncated_file"]:
        ref = photos[id_]
        with pytest.raises(images.ImageError):
            images.read(world / "coco" / ref.path, (ref.width, ref.height))
    assert found["counts"]["photo_in_coco_and_openimages"] == 4
    assert found["counts"]["discard:not_a_person"] > 0 and found["counts"]["discard:group"] > 0


def test_the_same_world_twice_is_the_same_bytes(tmp_path):
    def digests(folder):
        write_world(folder, seed=1, scenes=6, size=(128, 128))
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    # MATLAB files carry the time of writing
    first, second = digests(tmp_path / "a"), digests(tmp_path / "b")
    assert {k: v for k, v in first.items() if k[-4:] != ".mat"} == {k: v for k, v in second.items() if k[-4:] != ".mat"}


def test_the_oracle_knows_the_truth(world, loaded):
    oracle, truths = Oracle((str(world),)), read_truth(world)
    seen = set()
    for _, one in loaded:
        for i in one.image.instances if one.image else ():
            t = truths.get(i.instance_id)
            if t is None:
                continue
            c = Candidate(i.instance_id, one.image.image, i.box, i.mask, None, i.flags, Neighbours())
            s = Segmented(c, t.modal, 1.0, "test", 0)
            assert oracle(s).verdict == t.verdict
            seen.add(t.verdict)
            if t.verdict == "preserve":
                empty = masks.encode(np.zeros((t.modal.height, t.modal.width), bool))
                assert oracle(replace(s, mask=empty)).corrected == t.modal
    assert seen == set(VERDICTS)
    assert oracle(replace(s, candidate=replace(c, candidate_id="coco/nobody#1"))) is None


def test_what_a_user_does_wrong_is_told(tmp_path):
    with pytest.raises(UserError, match="5 scenes"):
        write_world(tmp_path, scenes=2)
    with pytest.raises(UserError):
        read_truth(tmp_path)
    with pytest.raises(UserError, match="truth"):
        Oracle((str(tmp_path),))(None)
