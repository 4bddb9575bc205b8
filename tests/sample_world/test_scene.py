"""Scenes: same seed same bytes, masks that fit together, verdicts that follow from geometry."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest

from ahp_toolkit.sample_world import PALETTE, generate, person_crop
from ahp_toolkit.sample_world.layout import LAYOUTS, PERIOD
from ahp_toolkit.sources.base import PARTS


@pytest.fixture(scope="module")
def scenes():
    return [generate(5, i) for i in range(60)]


def test_the_same_seed_gives_the_same_bytes():
    def digest(seed, index):
        s = generate(seed, index, (200, 160))
        h = hashlib.sha256(s.pixels.tobytes())
        for p in s.people:
            h.update(p.parsing.tobytes() + p.modal.tobytes() + p.given.tobytes())
        return h.hexdigest()

    assert digest(1, 7) == digest(1, 7)
    assert len({digest(1, 7), digest(2, 7), digest(1, 8)}) == 3


def test_every_layout_comes_as_often_as_said():
    got = Counter(generate(0, i, (96, 96)).layout for i in range(PERIOD))
    assert got == Counter(LAYOUTS)


def test_masks_fit_together(scenes):
    for s in scenes:
        taken = np.zeros(s.pixels.shape[:2], np.int64)
        for p in s.people:
            assert not (p.modal & ~p.amodal).any()
            assert np.array_equal(p.parsing > 0, p.amodal)
            assert p.parsing.max() < len(PARTS)
            taken += p.modal
        for o in s.objects:
            taken += o.modal
        assert taken.max() <= 1  # no px belongs to two


def test_a_nearer_person_hides_a_farther_one(scenes):
    met = 0
    for s in scenes:
        for i, far in enumerate(s.people):
            for near in s.people[i + 1 :]:
                both = far.amodal & near.amodal
                met += bool(both.any())
                assert not (far.modal & near.amodal).any()
    assert met > 20


def test_all_parts_poses_and_verdicts_occur(scenes):
    parts = set().union(*(np.unique(p.parsing) for s in scenes for p in s.people))
    assert parts == set(range(20))
    assert len(PALETTE) == len(PARTS) and len(set(PALETTE)) == len(PARTS)
    people = [p for s in scenes for p in s.people]
    assert {p.pose for p in people} == {"standing", "walking", "running", "sitting", "crouching", "arms-raised"}
    assert {p.reason for p in people} >= {"", "occluded", "truncated", "not_a_person", "group", "bad_mask"}
    assert {s.place for s in scenes} >= {"street", "park", "beach", "field", "living room", "office", "gym", "shop"}
    share = sum(p.verdict == "preserve" for p in people) / len(people)
    assert 0.35 <= share <= 0.56


def test_verdicts_follow_from_geometry(scenes):
    for p in (p for s in scenes for p in s.people):
        if p.verdict == "preserve":
            assert not (p.occluded or p.truncated or p.crowd or p.depiction or p.reflection or p.poor)
            assert np.count_nonzero(p.modal) >= 300
        if p.reason == "occluded":
            assert np.count_nonzero(p.modal) < np.count_nonzero(p.amodal)
        if p.reason == "truncated":
            y, x = np.nonzero(p.amodal)
            assert min(x.min(), y.min()) == 0 or x.max() == 319 or y.max() == 319
        if p.verdict == "refine":
            overlap = np.count_nonzero(p.given & p.modal) / np.count_nonzero(p.given | p.modal)
            assert overlap < 0.93
        else:
            assert np.array_equal(p.given, p.modal)


def test_the_unhidden_picture_changes_the_hidden_px_only(scenes):
    done = 0
    for s in scenes:
        for p in s.people:
            if not 0.1 < p.hidden < 0.7:
                continue
            shown = s.unhidden(p)
            changed = (shown != s.pixels).any(-1)
            outside = ~p.amodal
            assert (changed & p.amodal & ~p.modal).sum() > 0.5 * (p.amodal & ~p.modal).sum()
            # the person's own soft edge is all that may change elsewhere
            grown = np.zeros_like(outside)
            grown[1:-1, 1:-1] = p.amodal[:-2, 1:-1] | p.amodal[2:, 1:-1] | p.amodal[1:-1, :-2] | p.amodal[1:-1, 2:]
            assert not (changed & outside & ~grown).any()
            crop = person_crop(s, p, 64)
            assert {k: v.shape[:2] for k, v in crop.items()} == dict.fromkeys(crop, (64, 64))
            done += 1
    assert done > 8


def test_a_scene_too_small_is_refused():
    with pytest.raises(ValueError, match="64 px"):
        generate(0, 0, (32, 64))
