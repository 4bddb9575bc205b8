"""Decisions by rule and by people, and splits by photo."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import encode, encode_labels
from ahp_toolkit.core.records import Candidate, Flags, ImageRef, Neighbours, Segmented
from ahp_toolkit.decisions import rule
from ahp_toolkit.stages import review


def segmented(**changes) -> Segmented:
    m = np.zeros((100, 80), bool)
    m[20:80, 20:50] = True
    mask = encode(m)
    image = ImageRef("coco/1", "coco", "x.jpg", 80, 100, "coco/1")
    candidate = Candidate("coco/1#1", image, mask.box, mask, None, Flags(), Neighbours(mask_contact=0.0))
    inner = {k: changes.pop(k) for k in ("flags", "neighbours") if k in changes}
    return replace(Segmented(replace(candidate, **inner), mask, 0.9, "source_mask@source", 0), **changes)


def two_pieces():
    m = np.zeros((100, 80), bool)
    m[20:50, 20:50] = m[60:80, 20:50] = True
    return encode(m)


HEADLESS = encode_labels(np.full((100, 80), 5, np.uint8))


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        ({}, "preserve", ""),
        ({"flags": Flags(occluded=True)}, "discard", "occluded"),
        ({"flags": Flags(truncated=True)}, "discard", "truncated"),
        ({"flags": Flags(depiction=True)}, "discard", "not_a_person"),
        ({"neighbours": Neighbours(crowd=True, mask_contact=0.0)}, "discard", "group"),
        ({"neighbours": Neighbours(mask_contact=0.3)}, "discard", "occluded"),
        ({"neighbours": Neighbours(box_cover=0.5)}, "discard", "occluded"),
        ({"neighbours": Neighbours(box_cover=0.5, mask_contact=0.0)}, "preserve", ""),
        ({"border_touch": 4}, "discard", "truncated"),
        ({"mask": two_pieces()}, "discard", "occluded"),
        ({"score": 0.2}, "refine", "bad_mask"),
        ({"parsing": HEADLESS, "parser": "source_parsing@source"}, "discard", "truncated"),
        ({"parsing": HEADLESS, "parser": "hrnet@1"}, "preserve", ""),
    ],
)
def test_the_rule_and_its_mark(changes, verdict, reason):
    d = rule.decide(segmented(**changes))
    assert (d.verdict, d.reason, d.provisional) == (verdict, reason, True)


@given(st.lists(st.integers(0, 400), min_size=0, max_size=800))
def test_splits_give_the_asked_sizes_and_keep_photos_whole(photos):
    keys = [f"coco/{p}" for p in photos]
    sizes = review.SplitSizes(val=40, test=10)
    cut = review.thresholds(keys, sizes)
    got = Counter(cut.split(k) for k in keys)
    most = max(Counter(keys).values(), default=0)
    for name, want, share in (("val", 40, 0.2), ("test", 10, 0.1)):
        want = min(want, int(len(keys) * share))
        assert want <= got[name] <= want + max(most - 1, 0) or (want == 0 and got[name] == 0)


def test_folds_show_every_photo_once_and_have_no_test():
    keys = [f"coco/{i}" for i in range(400)]
    cuts = [review.thresholds(keys, review.SplitSizes(fold=(k, 5))) for k in range(1, 6)]
    for key in keys:
        assert sorted(cut.split(key) for cut in cuts) == ["train"] * 4 + ["val"]
    assert min(sum(cut.split(k) == "val" for k in keys) for cut in cuts) > 50


@pytest.mark.parametrize("value", ["0/5", "6/5", "1/1", "a/b", "3", "-1/3"])
def test_a_wrong_fold_is_one_line(value):
    from ahp_toolkit.build.config import fold_of

    with pytest.raises(UserError, match="expected K/N"):
        fold_of(value)


def test_splits_do_not_depend_on_order():
    keys = [f"coco/{i}" for i in range(500)]
    assert review.thresholds(keys, review.SplitSizes()) == review.thresholds(keys[::-1], review.SplitSizes())
