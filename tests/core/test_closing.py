"""What bags and straps cut out of a person is closed; gaps between limbs stay; nothing is added outside."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ahp_toolkit.core.closing import Closing
from ahp_toolkit.core.masks import Mask, encode

CORNERS = 40  # px: the corners of a gap are thinner than a strap


def person() -> np.ndarray:
    """A body of 500 x 200 px, solid to its hips, then two legs that meet at the feet."""
    mask = np.zeros((540, 240), bool)
    mask[20:520, 20:220] = True
    mask[300:510, 90:150] = False
    return mask


def closed(mask: np.ndarray, closing: Closing | None = None) -> tuple[np.ndarray, int]:
    made, added = (closing or Closing())(encode(mask))
    return made.decode(), added


def test_a_strap_a_bag_and_specks_are_closed_and_the_legs_stay_apart() -> None:
    whole, cut = person(), person()
    cut[40:300, 60:65] = False  # a strap of 5 px, 1 % of the height
    cut[200:260, 120:200] = False  # a bag
    cut[100:104, 100:104] = False  # a speck
    made, added = closed(cut)
    assert (made & whole).sum() == whole.sum() and (made & ~whole).sum() <= CORNERS
    assert added == int(made.sum()) - int(cut.sum())


def test_upright_gaps_wedges_and_wide_slits_stay_open() -> None:
    for gap in (np.s_[100:220, 150:200], np.s_[20:160, 100:110]):  # an arm's gap; a slit of 2 %, open above
        mask = person()
        mask[gap] = False
        assert closed(mask)[1] <= CORNERS
    wedge = person()
    for k in range(80):
        wedge[100 + k, 100 : 101 + k] = False  # an arm on the hip: half of its rectangle
    assert closed(wedge)[1] <= 2 * CORNERS
    assert closed(wedge, Closing(slit=0.0))[1] == 0


def test_masks_without_px_or_of_one_px_stay() -> None:
    for mask in (np.zeros((5, 7), bool), np.eye(1, dtype=bool), np.ones((3, 3), bool)):
        assert closed(mask)[1] == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 0.1))
def test_nothing_is_removed_and_the_box_stays(seed: int, slit: float) -> None:
    rng = np.random.default_rng(seed)
    mask = encode(rng.random((rng.integers(1, 60), rng.integers(1, 60))) < rng.random())
    made, added = Closing(slit=slit)(mask)
    assert isinstance(made, Mask) and made.box == mask.box and added == made.area - mask.area >= 0
    assert not (mask.decode() & ~made.decode()).any()
