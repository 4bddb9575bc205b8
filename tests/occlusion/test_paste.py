"""Pasting: the relations between image and masks, bytes by seed, crops that agree with the full frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ahp_toolkit.core.crops import crop_image, crop_labels, square_around
from ahp_toolkit.core.masks import Box, encode
from ahp_toolkit.core.records import Placement
from ahp_toolkit.occlusion.paste import Cutout, cut_out, paste, paste_into_crop, sample_digest
from ahp_toolkit.occlusion.place import hidden_by
from tests.occlusion.shapes import blob, picture

placements = st.builds(
    Placement, st.just("o"), st.integers(-60, 100), st.integers(-60, 120), st.sampled_from([0.2, 0.45, 0.8, 1.0, 1.7]),
    st.booleans(),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 999), st.lists(placements, min_size=1, max_size=3))
def test_relations_of_image_and_masks(seed: int, where: list[Placement]) -> None:
    photo, human = picture(seed, 130, 100), blob(seed, 130, 100)
    cutouts = [cut_out(picture(seed + k, 60, 70), blob(seed + k, 60, 70, 1)) for k in range(len(where))]
    before = photo.copy()
    made = paste(photo, human, list(zip(cutouts, where, strict=True)))
    cover = hidden_by(human.shape, [c.mask for c in cutouts], where)
    assert np.array_equal(photo, before)
    assert np.array_equal(made.occluder, cover)
    assert np.array_equal(made.modal, human & ~cover) and np.array_equal(made.amodal, human)
    assert np.array_equal(made.invisible, made.amodal & ~made.modal)
    assert made.ratio == pytest.approx((human & cover).sum() / human.sum())
    assert np.array_equal(made.image[~cover], photo[~cover])
    assert np.array_equal(made.recovered[human], photo[human])
    assert np.array_equal(made.recovered[~human], made.image[~human])
    again = paste(photo, human, list(zip(cutouts, where, strict=True)))
    assert sample_digest(made.image, made.modal, human) == sample_digest(again.image, again.modal, human)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 999), placements, st.sampled_from([32, 64, 200]))
def test_the_crop_path_hides_the_crop_of_the_full_frame(seed: int, where: Placement, size: int) -> None:
    photo, human = picture(seed, 130, 100), blob(seed, 130, 100)
    cutout = cut_out(picture(seed + 1, 60, 70), blob(seed + 1, 60, 70, 1))
    box = square_around(encode(human).box, 1.3)
    full = paste(photo, human, [(cutout, where)])
    crop, amodal = crop_image(photo, box, size), crop_labels(human, box, size)
    made = paste_into_crop(crop, amodal, box, [(cutout, where)])
    inside = crop_labels(np.ones(human.shape, np.bool_), box, size)
    assert np.array_equal(made.occluder & inside, crop_labels(full.occluder, box, size))
    assert np.array_equal(made.modal, crop_labels(full.modal, box, size))
    assert np.array_equal(made.image[~made.occluder], crop[~made.occluder])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 999), placements, st.integers(-40, 60), st.integers(-40, 80), st.integers(8, 90))
def test_a_crop_of_its_own_size_has_the_bytes_of_the_whole_paste(seed, where, x0, y0, side) -> None:
    photo, human = picture(seed, 130, 100), blob(seed, 130, 100)
    cutout = cut_out(picture(seed + 1, 60, 70), blob(seed + 1, 60, 70, 1))
    box = Box(x0, y0, x0 + side, y0 + side)
    full = paste(photo, human, [(cutout, where)])
    made = paste_into_crop(crop_image(photo, box, side), crop_labels(human, box, side), box, [(cutout, where)])
    inside = crop_labels(np.ones(human.shape, np.bool_), box, side)
    assert np.array_equal(made.image[inside], crop_image(full.image, box, side)[inside])


@pytest.mark.parametrize("flip", [False, True])
def test_straight_edges_are_as_soft_as_those_inside_the_crop(flip: bool) -> None:
    mask = np.zeros((40, 40), np.bool_)
    mask[10:30, 10:30] = True  # its sides are those of the tight crop
    black, whole = np.zeros((60, 60, 3), np.uint8), np.ones((60, 60), np.bool_)
    layer = (cut_out(np.full((40, 40, 3), 160, np.uint8), mask), Placement("o", 20, 20, 1.0, flip))
    grey = paste(black, whole, [layer]).image[20:40, 20:40, 0]
    edge = np.pad(np.full((18, 18), 160), 1, constant_values=120)  # 12 sixteenths; 9 at the corners
    edge[[0, 0, -1, -1], [0, -1, 0, -1]] = 90
    assert np.array_equal(grey, edge)
    out = paste(black, whole, [(layer[0], Placement("o", 50, -10, 1.0, flip))]).image[:10, 50:, 0]
    assert np.array_equal(out, edge[10:, :10])  # cut by the photo, O goes on beyond it: no soft edge there


@pytest.mark.parametrize("scale", [0.15, 0.4, 1.0, 1.9])
@pytest.mark.parametrize("flip", [False, True])
def test_the_occluders_background_never_shows(scale: float, flip: bool) -> None:
    y, x = np.mgrid[:90, :110]
    mask = ((y - 45) / 36) ** 2 + ((x - 55) / 44) ** 2 < 1
    photo = np.zeros((90, 110, 3), np.uint8)
    photo[:, :, 2] = 255  # blue background; the occluder's edge pixels are half background too
    photo[mask] = (100, 0, 127)
    photo[ndimage.binary_erosion(mask)] = (200, 0, 0)
    layer = (cut_out(photo, mask), Placement("o", 5, 5, scale, flip))
    made = paste(np.zeros((250, 250, 3), np.uint8), np.ones((250, 250), np.bool_), [layer])
    seen = made.image[made.occluder]
    assert seen[:, 2].max() == 0 and seen[:, 0].min() >= 100 and seen[:, 0].max() == 200


def test_mirrored_colours_follow_the_mirrored_mask() -> None:
    photo, mask = picture(1, 20, 30), np.zeros((20, 30), np.bool_)
    mask[4:16, 5:25] = True
    black, whole = np.zeros((40, 40, 3), np.uint8), np.ones((40, 40), np.bool_)
    made = paste(black, whole, [(cut_out(photo, mask), Placement("o", 3, 2, 1.0, True))])
    assert np.array_equal(made.image[6:10, 8:18], photo[8:12, 10:20][:, ::-1])


def test_a_masks_crop_and_the_full_mask_cut_the_same() -> None:
    photo, mask = picture(7, 60, 70), blob(7, 60, 70, 1)
    a, b = cut_out(photo, mask), cut_out(photo, mask[2:58, 3:66], Box(3, 2, 66, 58))
    assert isinstance(a, Cutout) and np.array_equal(a.mask, b.mask)
    assert all(np.array_equal(x, y) for x, y in zip(a.levels, b.levels, strict=True))


def test_wrong_sizes_and_empty_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="size"):
        cut_out(picture(0, 9, 9), np.ones((8, 9), np.bool_))
    with pytest.raises(ValueError, match="empty"):
        cut_out(picture(0, 9, 9), np.zeros((9, 9), np.bool_))
    with pytest.raises(ValueError, match="size"):
        paste(picture(0, 9, 9), np.ones((8, 9), np.bool_), [])


def test_digest_is_of_the_exact_pixels() -> None:
    image, mask = picture(2, 8, 8), blob(2, 8, 8, 1)
    digest = sample_digest(image, mask, mask)
    changed = image.copy()
    changed[0, 0, 0] ^= 1
    assert digest != sample_digest(changed, mask, mask) and digest != sample_digest(image, ~mask, mask)
