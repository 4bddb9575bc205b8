"""Simulated initial masks: their IoU, mean and spread, and the same mask for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from ahp_toolkit.core.masks import Bool2D
from ahp_toolkit.occlusion.initial_mask import simulate
from tests.occlusion.shapes import blob


def iou(a: Bool2D, b: Bool2D) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("wanted", [0.6, 0.775, 0.95])
def test_each_sample_hits_its_iou(wanted: float) -> None:
    got = [iou(simulate(m, s, wanted, spread=0.0), m) for s in range(12) for m in [blob(s, 160, 120)]]
    assert np.abs(np.array(got) - wanted).max() <= 0.01


def test_the_mean_is_the_wanted_one_and_samples_lie_near() -> None:
    got = np.array([iou(simulate(m, s), m) for s in range(150) for m in [blob(s % 20, 160, 120)]])
    assert abs(got.mean() - 0.775) <= 0.01
    assert np.abs(got - 0.775).max() <= 0.11 and got.std() > 0.02


def test_same_seed_same_mask_and_wherever_it_lies() -> None:
    mask = blob(2, 160, 120)
    made = simulate(mask, 7)
    assert np.array_equal(made, simulate(mask, 7)) and not np.array_equal(made, simulate(mask, 8))
    wide = np.pad(mask, 60)
    assert np.array_equal(simulate(wide, 7), simulate(np.roll(wide, (9, -7), (0, 1)), 7).take(
        range(9, 9 + wide.shape[0]), 0, mode="wrap").take(range(-7, wide.shape[1] - 7), 1, mode="wrap"))  # fmt: skip


def test_edges_of_the_range() -> None:
    mask = blob(2, 60, 60)
    assert not simulate(np.zeros((5, 5), np.bool_), 1).any()
    assert np.array_equal(simulate(mask, 1, 1.0), mask)
    with pytest.raises(ValueError, match="IoU"):
        simulate(mask, 1, 0.0)
