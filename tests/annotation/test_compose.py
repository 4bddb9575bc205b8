"""Real composites: plausible depth, wanted ratios, votes that are never lost, and only what all voters passed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box, encode
from ahp_toolkit.core.records import Human, ImageRef, Occluder, Placement, Sample
from ahp_toolkit.decisions import log, votes
from ahp_toolkit.decisions.votes import Nudge
from ahp_toolkit.occlusion.place import ratio_of
from ahp_toolkit.occlusion.render import Renderer
from ahp_toolkit.stages import composites
from ahp_toolkit.storage import images, parquet
from ahp_toolkit.storage.build_folder import Build
from annotation.composites import compose, preview
from annotation.composites.compose import Ground, Settings
from tests.annotation.small import H, W, occluder, person, picture, rectangle, write


def human(photo: int, **changes) -> Human:
    s = person(photo, 1)
    c = s.candidate
    return replace(
        Human(c.candidate_id, c.image, s.mask.box, s.mask, None, "", "test", ("ann",)), **changes
    )  # fmt: skip


def objects() -> list[Occluder]:
    """A chair that stands before the person of photo 0, one behind (its base is higher), lamps that do not stand."""
    here, there = human(0).image, human(1).image
    other = ImageRef("coco/000009", "coco", "000009.png", W, H, "coco/000009")
    return [
        occluder(here, (66, 45, 82, 66), "coco/000000#chair"),
        occluder(here, (70, 5, 80, 12), "coco/000000#lamp"),
        occluder(here, (0, 40, 10, 66), "coco/000000#cut"),
        occluder(there, (70, 30, 84, 50), "coco/000001#far"),
        occluder(other, (10, 30, 40, 70), "coco/000009#table"),
        occluder(other, (60, 10, 75, 75), "coco/000009#person", "person"),
    ]


@pytest.fixture
def root(tmp_path):
    people = [person(i, 1) for i in (0, 1, 9)]
    write(tmp_path, people, photos=True)
    images.write_png(tmp_path / "data/coco/000009.png", picture(people[2]))
    humans = [human(0), human(1), human(2, split="train"), human(3, verdict="refine")]
    parquet.write_records(tmp_path / "review/part-00000.parquet", humans, Human)
    parquet.write_records(tmp_path / "harvest/occluders/part-00000.parquet", objects(), Occluder)
    bank = [o for o in objects() if o.image.photo == "coco/000009"]
    parquet.write_records(tmp_path / "bank/test/part-00000.parquet", bank, Occluder)
    return tmp_path


def propose(root, **settings):
    return compose.propose(root, Build(root).data_roots, Settings(**settings))


def test_a_person_on_level_ground_grows_as_they_come_nearer():
    ground = Ground(Box(0, 100, 50, 300))
    assert ground.horizon == pytest.approx(114)
    assert ground.height_at(300) == pytest.approx(200)
    assert ground.height_at(300 + 186) == pytest.approx(400)
    assert ground.height_at(100) < 0


@given(st.integers(0, 2**32), st.integers(-5, H), st.integers(1, 20), st.integers(1, 20))
def test_shifts_count_exactly(seed, top, h, w):
    rng = np.random.default_rng(seed)
    a, b = rng.random((H, W)) < 0.4, rng.random((h, w)) < 0.7
    counts, first = compose.shifts(a, b, top)
    for k in rng.integers(0, max(1, len(counts)), 3) if len(counts) else ():
        x, got = first + int(k), 0
        for y in range(h):
            for u in range(w):
                if 0 <= top + y < H and 0 <= x + u < W:
                    got += bool(a[top + y, x + u] and b[y, u])
        assert counts[k] == got


def test_proposals_stand_before_the_person_at_the_wanted_ratio(root):
    done = propose(root)
    found = list(votes.read_composites(root).values())
    assert {c.human.human_id for c in found} == {human(0).human_id, human(1).human_id}
    assert {c.occluder.occluder_id for c in found} <= {
        "coco/000000#chair", "coco/000001#far", "coco/000009#table", "coco/000009#person",
    }  # fmt: skip
    assert done.counts["out"] == len(found) >= 4
    for c in found:
        box = c.occluder.mask.box.pixels()
        tight = c.occluder.mask.decode()[box[1] : box[3], box[0] : box[2]]
        assert ratio_of(c.human.mask.decode(), [tight], [c.placement]) == c.ratio
        assert 0.05 <= c.ratio < 0.5
        bottom = c.placement.dy + round(tight.shape[0] * c.placement.scale)
        assert abs(bottom - c.ground) <= 1 and bottom >= c.human.mask.box.y1 and bottom <= H
        assert c.light <= 0.12
    (chair,) = (c for c in found if c.occluder.occluder_id == "coco/000000#chair" and c.same_photo)
    assert (chair.placement.scale, chair.ground) == (1.0, 66.0)  # it keeps its depth
    far = [c for c in found if c.occluder.occluder_id == "coco/000001#far"]
    assert all(c.placement.scale > 1 for c in far)  # it comes nearer


def test_the_same_settings_give_the_same_bytes_and_a_person_without_any_is_named(root):
    propose(root)
    first = (root / "compose/proposals/part-00000.parquet").read_bytes()
    assert propose(root).fresh is False
    propose(root, seed=1)
    propose(root)
    assert (root / "compose/proposals/part-00000.parquet").read_bytes() == first
    done = propose(root, scale=(50.0, 60.0))
    assert done.dropped == {"coco/no_composite": 2}


def test_only_what_all_voters_passed_becomes_a_sample(root):
    propose(root)
    ids = [v.composite.proposal_id for v in votes.proposals(root, "edit", "ed", 99)]
    a, b, c, d = ids[:4]
    votes.act(root, "ed", a, "pick")
    moved = votes.act(root, "ed", b, "nudge", Nudge(1, 2, 1.1))
    votes.act(root, "ed", c, "reject")
    votes.act(root, "ed", d, "pick")
    assert moved.composite.placement != votes.read_composites(root)[b].placement
    assert [v.composite.proposal_id for v in votes.proposals(root, "vote", "v1", 9)] == [a, b, d]
    assert votes.proposals(root, "vote", "ed", 9) == []
    for v in ("v1", "v2"):
        votes.act(root, v, a, "pass")
        votes.act(root, v, b, "pass")
    votes.act(root, "v1", d, "pass")
    votes.act(root, "v2", d, "fail")
    assert [v.composite.proposal_id for v in votes.proposals(root, "done", "x", 9)] == [a, b]
    done = composites.write_test(root)
    assert done.counts["out"] == 2
    samples = list(parquet.read_records(root / "splits/test", Sample))
    assert [(s.sample_id, s.kind, s.split) for s in samples] == [
        (f"test/{i}", "composite", "test") for i in sorted((a, b))
    ]
    render = Renderer(Build(root).data_roots, root / "splits/test")
    for s in samples:
        pasted = render(s)  # checked against its digest
        assert encode(pasted.modal) == s.modal and pasted.ratio == pytest.approx(s.occlusion_ratio)
    assert composites.write_test(root).fresh is False


def test_a_nudge_voids_votes_an_undo_takes_back_and_editors_do_not_vote(root):
    propose(root)
    pid = votes.proposals(root, "edit", "ed", 1)[0].composite.proposal_id
    with pytest.raises(UserError, match="nobody has picked it"):
        votes.act(root, "v1", pid, "pass")
    old = votes.act(root, "ed", pid, "pick")
    votes.act(root, "v1", pid, "pass")
    votes.act(root, "v2", pid, "pass")
    assert votes.views(root)[pid].passed() and not votes.views(root)[pid].passed(3)
    assert votes.act(root, "ed", pid, "nudge", Nudge(1)).votes == {}
    assert votes.act(root, "v1", pid, "pass", version=old.version).votes == {}  # saw it before the nudge
    assert votes.act(root, "ed", pid, "undo").version == old.version
    assert votes.act(root, "v1", pid, "pass").votes["v1"] is True
    with pytest.raises(UserError, match="has edited it"):
        votes.act(root, "ed", pid, "pass")
    again = votes.act(root, "v1", pid, "pick")  # a voter who edits has no vote any more
    assert again.editors == {"ed", "v1"} and "v1" not in again.votes
    before = votes.log_of(root).read_text()
    assert len(before.splitlines()) == 8 and all(json.loads(line)["at"] for line in before.splitlines())


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("ed", "nothing", "pick"), "no such proposal"),
        (("ed", None, "dance"), "expected one of pick"),
        (("../x", None, "pick"), "letter"),
        (("ed", None, "nudge", Nudge(float("nan"))), "a nudge in px"),
        (("ed", None, "nudge", Nudge(0, 0, 99)), "a factor of 0.1"),
        (("ed", None, "nudge", Nudge(5000)), "hides nothing"),
    ],
)
def test_actions_that_make_no_sense_are_refused_and_not_logged(root, args, why):
    propose(root)
    first = next(iter(votes.read_composites(root)))
    who, pid, *rest = args
    with pytest.raises(UserError, match=why):
        votes.act(root, who, pid or first, *rest)
    assert not votes.log_of(root).exists()


def test_a_resized_object_keeps_the_middle_of_its_ground_line(root):
    propose(root)
    c = next(iter(votes.read_composites(root).values()))
    w, h = c.occluder.mask.box.width * c.placement.scale, c.occluder.mask.box.height * c.placement.scale
    big = votes.nudged(c, 0, 0, 1.5).placement
    assert abs((big.dx + 0.75 * w) - (c.placement.dx + w / 2)) <= 1.5
    assert abs((big.dy + 1.5 * h) - (c.placement.dy + h)) <= 1.5


def test_the_preview_shows_the_object(root):
    propose(root)
    c = votes.read_composites(root)
    chair = next(v for v in c.values() if v.occluder.occluder_id.endswith("chair"))
    shown = preview.preview(root, chair, 128)
    away = preview.preview(root, replace(chair, placement=Placement(chair.occluder.occluder_id, 5000, 0)), 128)
    assert shown.shape == (128, 128, 3) and (shown != away).any()


def test_humans_that_changed_since_are_dropped_by_name_and_none_passed_is_an_error(root):
    propose(root)
    with pytest.raises(UserError, match="no composite has passed 2 voters"):
        composites.write_test(root)
    pid = votes.proposals(root, "edit", "ed", 1)[0].composite.proposal_id
    votes.act(root, "ed", pid, "pick")
    for v in ("v1", "v2"):
        votes.act(root, v, pid, "pass")
    new = encode(rectangle(32, 12, 45, 50))
    parquet.write_records(root / "review/part-00000.parquet", [human(0, mask=new), human(1, mask=new)], Human)
    assert composites.write_test(root).dropped == {"coco/human_changed": 1}


def test_the_log_survives_a_crash_in_the_middle_of_a_line(tmp_path):
    path = tmp_path / "votes.jsonl"
    assert list(log.read_objects(path)) == []
    log.append_line(path, '{"a": 1}')
    with path.open("ab") as f:
        f.write(b'{"a": 2')
    assert list(log.read_objects(path)) == [{"a": 1}]
    log.append_line(path, '{"a": 3}')
    assert list(log.read_objects(path)) == [{"a": 1}, {"a": 3}]
    for text in ("[]\n", "{\n"):
        path.write_text(text)
        with pytest.raises(UserError, match="votes.jsonl, line 1: expected a JSON object"):
            list(log.read_objects(path))


def test_logs_of_two_places_are_united_by_id(root):
    propose(root)
    pid = next(iter(votes.read_composites(root)))
    for who, action in (("ed", "pick"), ("v1", "pass"), ("v1", "undo"), ("v2", "pass")):
        votes.act(root, who, pid, action)
    before, path = votes.views(root)[pid], votes.log_of(root)
    assert set(before.votes) == {"v2"}
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*reversed(lines), *lines]) + "\n")
    assert votes.views(root)[pid] == before
