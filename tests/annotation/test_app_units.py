"""Masks and boxes through FiftyOne's relative units and back, and through a canvas that painted them larger."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahp_toolkit.core import masks
from annotation.app.units import crop_of, mask_of, relative


@st.composite
def frames(draw) -> masks.Mask:
    h, w = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    y0, x0 = draw(st.integers(0, h - 1)), draw(st.integers(0, w - 1))
    y1, x1 = draw(st.integers(y0 + 1, h)), draw(st.integers(x0 + 1, w))
    frame = np.zeros((h, w), np.bool_)
    frame[y0:y1, x0:x1] = rng.random((y1 - y0, x1 - x0)) < draw(st.sampled_from([0.1, 0.5, 1.0]))
    frame[y0, x0] = True
    return masks.encode(frame)


@settings(max_examples=300)
@given(frames())
def test_the_round_trip_is_exact(mask):
    crop = crop_of(mask)
    assert crop.shape == (mask.box.height, mask.box.width)
    assert mask_of(relative(mask), crop, mask.height, mask.width) == mask
    x, y, w, h = relative(mask)
    back = np.array([x * mask.width, y * mask.height, (x + w) * mask.width, (y + h) * mask.height])
    assert np.abs(back - np.array(mask.box)).max() < 1e-9


@settings(max_examples=150)
@given(frames(), st.integers(2, 7), st.sampled_from([1, 255]))
def test_a_crop_at_canvas_resolution_comes_back_exactly(mask, factor, value):
    crop = crop_of(mask)
    canvas = cv2.resize(crop * value, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    canvas = canvas.reshape(crop.shape[0] * factor, crop.shape[1] * factor)
    assert mask_of(relative(mask), canvas, mask.height, mask.width) == mask


def test_large_frames_are_exact_and_a_box_beyond_the_frame_is_cut():
    frame = np.zeros((3001, 4999), np.bool_)
    frame[17:2983, 33:4001] = np.random.default_rng(0).random((2966, 3968)) < 0.5
    mask = masks.encode(frame)
    assert mask_of(relative(mask), crop_of(mask), 3001, 4999) == mask
    over = mask_of([-0.5, -0.5, 2.0, 2.0], np.ones((8, 8), np.uint8), 20, 30)
    assert over.area == 600


@pytest.mark.parametrize("shape", [(539, 709), (3, 2)])
def test_a_painted_mask_of_any_resolution_fills_its_box(shape):
    mask = mask_of([0.25, 0.25, 0.5, 0.5], np.full(shape, 255, np.uint8), 120, 160)
    assert tuple(mask.box) == (40, 30, 120, 90)
    assert mask.area == 80 * 60
