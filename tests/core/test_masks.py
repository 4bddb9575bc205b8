from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from ahp_toolkit.core import crops, masks
from ahp_toolkit.core.masks import Box, Mask

BOOLS = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(lambda s: arrays(np.bool_, s))


@given(BOOLS)
def test_encode_decode_is_exact(m):
    made = masks.encode(m)
    assert np.array_equal(made.decode(), m)
    assert made.area == m.sum()
    assert masks.from_runs(made.runs(), *m.shape) == made


@given(BOOLS)
def test_runs_agree_with_pycocotools(m):
    made = masks.encode(m)
    flat = np.repeat(np.arange(made.runs().size) % 2, made.runs())
    assert np.array_equal(flat.reshape(m.shape, order="F"), coco.decode(made.rle))


@given(arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 2**29)))
def test_runs_are_written_as_pycocotools_writes_them(runs):
    spare = [*runs.tolist(), *[0] * 40]  # its buffer is too small for few and long runs; short ones behind make room
    wanted = coco.frPyObjects({"size": [1, 1], "counts": spare}, 1, 1)["counts"]
    assert masks._compressed(np.array(spare)) == wanted
    assert np.array_equal(masks._rle_runs(masks._compressed(runs)), runs)


@given(st.tuples(st.integers(1, 20), st.integers(1, 20)).flatmap(lambda s: arrays(np.bool_, (2, *s))))
def test_frames_beyond_what_pycocotools_writes_are_the_same(two):
    wanted = [masks.encode(m) for m in two]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "_WRITES_BEHIND", 0)
        assert [masks.encode(m) for m in two] == wanted
        for intersect in (True, False):
            assert (
                masks.merge(wanted, intersect).decode().tolist()
                == ((two[0] & two[1]) if intersect else (two[0] | two[1])).tolist()
            )
        assert masks.intersection_union(*wanted) == ((two[0] & two[1]).sum(), (two[0] | two[1]).sum())


@given(BOOLS, st.data())
def test_runs_of_nothing_between_others_are_joined(m, data):
    """pycocotools' merge has room for a run a pixel, and writes behind it for more."""
    runs = masks.encode(m).runs().tolist()
    for _ in range(data.draw(st.integers(0, 60))):
        at = data.draw(st.integers(1, len(runs)))
        runs[at:at] = [0, 0]
    assert masks.from_runs(np.array(runs), *m.shape) == masks.encode(m)
    assert masks.Mask(*m.shape, masks._compressed(np.array(runs))) == masks.encode(m)


@given(BOOLS, st.integers(1, 9))
def test_numbers_written_longer_than_needed_are_the_same_numbers(m, more):
    """pycocotools shifts an int by more than it has bits."""

    def long(number: bytes) -> bytes:
        sign = 0x1F if number[-1] - 48 & 0x10 else 0
        return bytes([*(((c - 48) | 0x20) + 48 for c in number), *[(sign | 0x20) + 48] * (more - 1), sign + 48])

    made = masks.encode(m)
    found = Mask(*m.shape, b"".join(map(long, re.findall(rb"[P-o]*[0-O]", made.counts))))
    assert np.array_equal(found.decode(), m) and np.array_equal(found.runs(), made.runs())
    assert found == made or more < 6


def test_no_runs_fill_no_frame():
    """pycocotools writes a byte behind the buffer of an empty list."""
    with pytest.raises(ValueError, match="cover 0 pixels, expected 1"):
        masks.from_rle([1, 1], [], 1, 1)


def test_box_is_tight_and_half_open():
    m = np.zeros((10, 12), bool)
    m[2:5, 3:9] = True
    assert masks.encode(m).box == Box(3, 2, 9, 5)


@pytest.mark.parametrize("counts", [b"", b"04", b"\xff\xff", b"o", b"ooooooooooooooooooooooooooooo0", b"11111"])
def test_rle_that_does_not_fill_its_frame_is_refused(counts):
    with pytest.raises(ValueError, match="RLE"):
        Mask(7, 9, counts)


@given(st.binary(max_size=40), st.integers(1, 50), st.integers(1, 50))
def test_hostile_rle_is_a_mask_of_that_size_or_a_value_error(counts, h, w):
    try:
        made = Mask(h, w, counts)
    except ValueError:
        return
    assert made.decode().shape == (h, w)


@pytest.mark.parametrize("form", [list, bytes, str])
def test_all_three_rle_forms(form):
    m = np.zeros((6, 5), bool)
    m[1:4, 2:4] = True
    made = masks.encode(m)
    counts = {list: [int(r) for r in made.runs()], bytes: made.counts, str: made.counts.decode()}[form]
    assert masks.from_rle([6, 5], counts, 6, 5) == made


def test_rle_of_another_size_says_both_sizes():
    with pytest.raises(ValueError, match=r"\[6, 5\].*\[5, 6\]"):
        masks.from_rle([6, 5], [30], 5, 6)


def test_polygons_are_united_and_short_ones_left_out():
    square = [1, 1, 4, 1, 4, 3, 1, 3]
    assert masks.from_polygons([square, [1, 1, 2, 2]], 8, 8).area == 6
    with pytest.raises(ValueError, match="three or more points"):
        masks.from_polygons([[1, 1, 2, 2]], 8, 8)
    with pytest.raises(ValueError, match="finite"):
        masks.from_polygons([[0, 0, float("nan"), 3, 3, 3]], 8, 8)


def test_far_away_polygons_do_not_crash():
    made = masks.from_polygons([[-1e9, -1e9, 1e9, -1e9, 1e9, 1e9, -1e9, 1e9]], 20, 30)
    assert made.area == 600


def test_border_rule_of_five_pixels():
    m = np.zeros((40, 40), bool)
    m[5:35, 5:35] = True
    assert not masks.encode(m).touches_border(5)
    m[4, 10] = True
    assert masks.encode(m).touches_border(5)
    m[4, 10], m[35, 10] = False, True
    assert masks.encode(m).touches_border(5)


def test_iou_of_empty_masks_is_one_and_of_two_frames_an_error():
    empty = masks.encode(np.zeros((4, 4), bool))
    assert empty.iou(empty) == 1.0
    with pytest.raises(ValueError, match="two frames"):
        empty.iou(masks.encode(np.zeros((4, 5), bool)))


@given(st.tuples(st.integers(1, 30), st.integers(1, 30)).flatmap(lambda s: arrays(np.uint8, s)))
def test_label_maps_round_trip(labels):
    made = masks.encode_labels(labels)
    assert np.array_equal(made.decode(), labels)
    assert set(made.labels) == set(np.unique(labels)) - {0}


@given(BOOLS, st.integers(-20, 30), st.integers(-20, 30), st.integers(2, 50), st.sampled_from([8, 16, 33]))
def test_crop_from_runs_is_the_crop_of_the_pixels(m, x, y, side, size):
    box = Box(x, y, x + side, y + side)
    assert np.array_equal(crops.crop_mask(masks.encode(m), box, size), crops.crop_labels(m, box, size))


def test_crop_outside_the_photo_is_black():
    out = crops.crop_image(np.full((20, 20, 3), 200, np.uint8), Box(-20, -20, 20, 20), 40)
    assert out[:20].max() == 0 and out[:, :20].max() == 0 and out[20:, 20:].min() == 200


def test_square_holds_the_box():
    square = crops.square_around(Box(10, 20, 30, 90), 1.2, (0.05, -0.05))
    assert square.width == square.height == 84
    assert square.x0 <= 10 and square.x1 >= 30 and square.y0 <= 20 and square.y1 >= 90
