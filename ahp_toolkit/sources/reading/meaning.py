"""What an annotation's outlines mean: the visible part, the whole person, or both (formats §6).

COCO's ``segmentation`` is the visible part. In COCOA-cls it is the whole person beside ``visible_mask``, in KINS beside
``inmodal_seg`` or as ``a_segm`` and ``i_segm``; this module knows the fields (`coco_json`) and keeps the two apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ahp_toolkit.core import values
from ahp_toolkit.core.masks import Box, Mask, encode, intersection_union
from ahp_toolkit.sources.reading import coco_json as js

#: Two outlines of one person, drawn or rasterised apart, agree but for such a share of their px.
_SAME = 0.02


class Outlines(NamedTuple):
    """A person's masks, as far as they are known, and boxes; ``occluded`` is None where the file does not say it.

    ``modal`` is the visible part, ``amodal`` the whole; ``rate`` the hidden share in [0, 1] as the file gives it.
    """

    modal: Mask | None
    amodal: Mask | None
    box: Box | None
    amodal_box: Box | None
    occluded: bool | None
    rate: float | None = None


def plain(segmentation: Any, bbox: Any, height: int, width: int) -> Outlines:
    """The outlines of an annotation with COCO's own fields.

    Raises:
        BadValue: for a segmentation or box without a meaning.
    """
    mask = values.segmentation(segmentation, height, width)
    return Outlines(mask, None, values.box(bbox) or (mask.box if mask else None), None, None)


def outlines(record: Mapping[str, Any], height: int, width: int) -> Outlines:
    """The outlines of an annotation that may have amodal fields.

    Raises:
        BadValue: for a segmentation, box or rate without a meaning.
    """
    seg = values.segmentation(record.get("segmentation"), height, width)
    modal = values.segmentation(_first(record, js.MODAL), height, width)
    amodal = values.segmentation(_first(record, js.AMODAL), height, width)
    hidden = _hidden(record, height, width)
    rate = _rate(record)
    own_box = values.box(record.get("bbox"))
    box = values.box(_first(record, js.MODAL_BOX), "visible box")
    amodal_box = values.box(_first(record, js.AMODAL_BOX), "amodal box")
    if modal is None and hidden is None and rate is None and box is not None and seg is not None and amodal is None:
        # only boxes tell whether the outline is the visible one
        if seg.box.iou(box) < 1 - 10 * _SAME:
            amodal = seg
    elif amodal is None and (modal is not None or hidden is not None or rate is not None):
        amodal = seg
    if modal is None and hidden is not None and amodal is not None:
        modal = encode(amodal.decode() & ~hidden.decode())
    if modal is None and amodal is not seg:
        modal = seg
    hidden_share = rate if rate is not None else _share(modal, amodal, box, amodal_box or own_box)
    if modal is None and hidden is None and (rate == 0 or (rate is None and not hidden_share)):
        modal = amodal if amodal is not None and (rate == 0 or box is not None) else modal
    if modal is not None and modal is not seg:
        box = box or modal.box
    box = box or own_box or (modal.box if modal else None)
    occluded = None if hidden_share is None else hidden_share > (0 if rate is not None else _SAME)
    whole_box = amodal_box or (own_box if amodal is not None else None) or (amodal.box if amodal else None)
    return Outlines(modal, amodal, box, whole_box, _flag_occluded(record, occluded), rate)


def _first(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((record[n] for n in names if record.get(n) not in (None, [], "")), None)


def _hidden(record: Mapping[str, Any], height: int, width: int) -> Mask | None:
    """The hidden part; an empty one is a mask without pixels, not none."""
    value = _first(record, js.HIDDEN)
    if isinstance(value, dict):
        return values.rle(value, height, width)
    return values.segmentation(value, height, width)


def _rate(record: Mapping[str, Any]) -> float | None:
    """The hidden share as the file gives it.

    Raises:
        BadValue: ``bad_rate`` for what is no number in [0, 1].
    """
    value, visible = _first(record, js.RATE), _first(record, js.VISIBLE_RATE)
    if value is None and visible is None:
        return None
    rate = values.number(value, "bad_rate") if value is not None else 1 - values.number(visible, "bad_rate")
    if not 0 <= rate <= 1:
        raise values.BadValue("bad_rate", f"expected a hidden share in [0, 1], got {rate:g}")
    return rate


def _share(modal: Mask | None, amodal: Mask | None, box: Box | None, whole: Box | None) -> float | None:
    """The hidden share by the masks, else by the boxes; None where neither tells."""
    if modal is not None and amodal is not None:
        return 1 - intersection_union(modal, amodal)[0] / max(1, amodal.area)
    if box is not None and whole is not None:
        return 1 - box.intersection(whole) / max(1e-9, whole.area)
    return None


def _flag_occluded(record: Mapping[str, Any], found: bool | None) -> bool | None:
    """True where the outlines or a flag tell of an occlusion."""
    flag = flag_of(record, "occluded")
    if flag is None:
        flag = values.flag(record.get("is_occluded"))
    return flag if found is None else found or bool(flag)


def flag_of(record: Mapping[str, Any], name: str) -> bool | None:
    """A flag of an annotation: its own field, else CVAT's ``attributes``.

    Raises:
        BadValue: ``bad_flag``.
    """
    found = values.flag(record.get(name))
    attributes = record.get("attributes")
    return values.flag(attributes.get(name)) if found is None and isinstance(attributes, dict) else found
