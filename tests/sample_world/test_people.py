"""Skeletons, sides, outfits: what a person is made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahp_toolkit.sample_world.drawing.body import render_person, sample_person
from ahp_toolkit.sample_world.drawing.clothes import PART
from ahp_toolkit.sample_world.drawing.objects import KINDS, Thing, render_thing
from ahp_toolkit.sample_world.drawing.skeleton import (
    FOREARM,
    JOINTS,
    LIMITS,
    POSES,
    SHANK,
    THIGH,
    UPPER_ARM,
    Camera,
    forward,
    sample_build,
    sample_pose,
)

LIGHT = np.array([-0.45, -0.5, 0.74, 0.6, 0.5])
SEEDS = st.integers(0, 2**32)


def _rng(seed):
    return np.random.Generator(np.random.PCG64(seed))


@given(SEEDS, st.sampled_from(POSES))
@settings(max_examples=60, deadline=None)
def test_every_angle_keeps_its_limits_and_every_bone_its_length(seed, kind):
    rng = _rng(seed)
    pose, build = sample_pose(rng, kind), sample_build(rng)
    assert set(pose.angles) == set(LIMITS)
    assert all(lo <= pose.angles[k] <= hi for k, (lo, hi) in LIMITS.items())
    joints = forward(pose, build)
    assert set(joints) == set(JOINTS) and len(JOINTS) >= 14
    for s in "lr":
        bones = (
            ("shoulder", "elbow", UPPER_ARM),
            ("elbow", "wrist", FOREARM),
            ("hip", "knee", THIGH),
            ("knee", "ankle", SHANK),
        )
        for a, b, length in bones:
            got = np.linalg.norm(np.subtract(joints[f"{s}_{a}"], joints[f"{s}_{b}"]))
            assert got == pytest.approx(length, abs=1e-3)
    assert min(p[1] for p in joints.values()) == pytest.approx(0.0, abs=0.05)


def _columns(parts, label):
    return np.flatnonzero((parts == label).any(0))


@pytest.mark.parametrize("yaw, left_is_right", [(0.0, True), (180.0, False)])
def test_left_is_the_persons_own_left(yaw, left_is_right):
    checked = 0
    for seed in range(12):
        layer, at = render_person(sample_person(_rng(seed), "standing"), Camera(yaw, 220, 120, 250), LIGHT, 270, 240)
        assert (at["l_shoulder"][0] > at["r_shoulder"][0]) == left_is_right
        left, right = (_columns(layer.parts, PART[f"{s}-shoe"]) for s in ("left", "right"))
        if len(left) and len(right):
            assert (left.mean() > right.mean()) == left_is_right
            checked += 1
    assert checked >= 8


def test_the_same_person_wears_the_same_sleeves_on_both_sides():
    person = sample_person(_rng(3), "standing")
    front, _ = render_person(person, Camera(0, 220, 120, 250), LIGHT, 270, 240)
    again, _ = render_person(person, Camera(0, 220, 120, 250), LIGHT, 270, 240)
    assert np.array_equal(front.rgba, again.rgba) and np.array_equal(front.parts, again.parts)


def test_the_frame_cuts_and_the_layer_says_so():
    person = sample_person(_rng(4), "standing")
    whole, _ = render_person(person, Camera(0, 200, 120, 250), LIGHT, 270, 240)
    cut, _ = render_person(person, Camera(0, 200, 4, 250), LIGHT, 270, 240)
    gone, _ = render_person(person, Camera(0, 200, 900, 250), LIGHT, 270, 240)
    assert not whole.cut and cut.cut and gone is None


@pytest.mark.parametrize("label", sorted(KINDS))
def test_every_kind_of_thing_can_be_drawn(label):
    layer = render_thing(Thing(label, 160, 250, 120, False, 1), LIGHT, 320, 320)
    other = render_thing(Thing(label, 160, 250, 120, True, 1), LIGHT, 320, 320)
    assert layer is not None and other is not None
    assert np.count_nonzero(layer.parts) > 150
    assert len(np.unique(layer.rgba[..., :3].reshape(-1, 3), axis=0)) > 10
    assert layer.y0 + layer.parts.shape[0] <= 264  # stands on its foot


def test_there_are_many_kinds():
    assert len(KINDS) >= 20
