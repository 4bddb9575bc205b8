"""One picture of the world with its full truth: people and things in depth order, light, shadows, sensor noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core import crops
from ahp_toolkit.core.masks import Bool2D, Box, Label2D
from ahp_toolkit.sample_world.drawing import raster
from ahp_toolkit.sample_world.drawing.brush import Layer
from ahp_toolkit.sample_world.layout import Plan, plan

Rgb = NDArray[np.uint8]
#: A person with a larger hidden share is occluded; below it, what a hand holds leaves the body's structure.
HIDDEN = 0.005
SMALL = 300


@dataclass(frozen=True, slots=True)
class WorldPerson:
    """A person with all that is true of it. Masks bool [H, W], ``parsing`` uint8 [H, W] of the whole (amodal) body.

    ``given`` is what a source would say the visible mask is: ``modal``, or a poor mask where one is planted (``poor``).
    ``hidden`` is the share of the amodal mask that others cover; ``cut`` says that the frame cuts the person.
    """

    layer: Layer
    modal: Bool2D
    amodal: Bool2D
    parsing: Label2D
    given: Bool2D
    hidden: float
    yaw: float
    pose: str
    verdict: str
    reason: str
    cut: bool = False
    crowd: bool = False
    depiction: bool = False
    reflection: bool = False
    poor: bool = False

    @property
    def occluded(self) -> bool:
        """Whether anything in the picture hides a part of this person."""
        return self.hidden > HIDDEN

    @property
    def truncated(self) -> bool:
        """Whether the frame cuts this person."""
        return self.cut

    @property
    def box(self) -> Box:
        """The tight box of what is visible."""
        return box_of(self.modal)


@dataclass(frozen=True, slots=True)
class WorldObject:
    """A thing: its class name, its visible mask bool [H, W], and the tight box of that."""

    label: str
    modal: Bool2D
    box: Box
    cut: bool
    occluded: bool


@dataclass(frozen=True, slots=True)
class WorldScene:
    """A picture: ``pixels`` RGB uint8 [H, W, 3]; people and objects far to near; ``clean`` is it before the sensor."""

    seed: int
    index: int
    place: str
    layout: str
    pixels: Rgb
    clean: Rgb
    people: tuple[WorldPerson, ...]
    objects: tuple[WorldObject, ...]
    noise: tuple[int, float, tuple[float, float, float]]

    def unhidden(self, person: WorldPerson) -> Rgb:
        """The picture with this person in front of everything: what a recovered image should show."""
        canvas = self.clean.copy()
        raster.over(canvas, person.layer.rgba, person.layer.x0, person.layer.y0)
        return _sensed(canvas, self.noise)


def box_of(mask: Bool2D) -> Box:
    """The tight box of a mask; all zeros when it is empty."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return Box(0.0, 0.0, 0.0, 0.0)
    return Box(float(cols[0]), float(rows[0]), float(cols[-1] + 1), float(rows[-1] + 1))


def person_crop(scene: WorldScene, person: WorldPerson, size: int = 256, factor: float = 1.15) -> dict[str, Rgb]:
    """The square crop around a whole person, size x size: ``image``, ``unhidden`` RGB; ``modal``, ``amodal`` and
    ``parsing`` uint8 labels."""
    square = crops.square_around(box_of(person.amodal), factor)
    return {
        "image": crops.crop_image(scene.pixels, square, size),
        "unhidden": crops.crop_image(scene.unhidden(person), square, size),
        "modal": crops.crop_labels(person.modal.astype(np.uint8), square, size),
        "amodal": crops.crop_labels(person.amodal.astype(np.uint8), square, size),
        "parsing": crops.crop_labels(person.parsing, square, size),
    }


def generate(seed: int, index: int, size: tuple[int, int] = (320, 320), layout: str | None = None) -> WorldScene:
    """Scene ``index`` of the world ``seed``: the same arguments give the same bytes.

    Args:
        seed: the world's seed.
        index: the scene's number; its layout follows from it, so that any `layout.PERIOD` in a row hold every kind.
        size: (width, height) px of the picture, 64 at least.
        layout: one of `layout.LAYOUTS`; None: the index decides.

    Raises:
        ValueError: for a size below 64 px.
    """
    width, height = size
    if min(size) < 64:
        raise ValueError(f"a scene needs 64 px a side at least, got {width}x{height}")
    p = plan(seed, index, width, height, layout)
    canvas = p.ground.copy()
    for x, y, rx, ry, strength in p.shadows:
        raster.shadow(canvas, x, y, rx, ry, strength)
    for item in p.items:
        raster.over(canvas, item.layer.rgba, item.layer.x0, item.layer.y0)
    people, things = _truth(p, height, width)
    return WorldScene(
        seed, index, p.place, p.layout, _sensed(canvas, p.noise), canvas, people, things, p.noise
    )  # fmt: skip


def _sensed(canvas: Rgb, noise: tuple[int, float, tuple[float, float, float]]) -> Rgb:
    out: Rgb = raster.sensor(canvas, noise[0], noise[1], np.asarray(noise[2]))
    return out


def _truth(p: Plan, height: int, width: int) -> tuple[tuple[WorldPerson, ...], tuple[WorldObject, ...]]:
    covered = np.zeros((height, width), np.bool_)
    people: list[WorldPerson] = []
    things: list[WorldObject] = []
    for item in reversed(p.items):
        parts = item.layer.full(height, width)
        whole = parts > 0
        modal = whole & ~covered
        covered |= whole
        if not modal.any():
            continue
        hidden = 1.0 - int(np.count_nonzero(modal)) / int(np.count_nonzero(whole))
        if item.person is None:
            things.append(WorldObject(item.label, modal, box_of(modal), item.layer.cut, hidden > HIDDEN))
            continue
        found = WorldPerson(
            item.layer, modal, whole, parts, modal, hidden, item.yaw, item.person, "preserve", "", item.layer.cut,
            item.crowd, item.depiction, item.reflection,
        )  # fmt: skip
        people.append(_judged(found, item.poor))
    return tuple(reversed(people)), tuple(reversed(things))


def _judged(person: WorldPerson, poor: int) -> WorldPerson:
    """The right review verdict with its reason; a poor mask is planted only on who would be preserved."""
    reason = _reason(person)
    if reason:
        return replace(person, verdict="discard", reason=reason)
    if poor:
        given = poor_mask(person.modal, poor)
        return replace(person, verdict="refine", reason="bad_mask", given=given, poor=True)
    return person


def _reason(person: WorldPerson) -> str:
    if person.depiction or person.reflection:
        return "not_a_person"
    if person.crowd:
        return "group"
    if person.cut:
        return "truncated"
    if person.occluded:
        return "occluded"
    return "too_small" if int(np.count_nonzero(person.modal)) < SMALL else ""


def poor_mask(mask: Bool2D, seed: int) -> Bool2D:
    """What a careless annotator would draw: the outline of a few points, or one that lost the legs or an arm."""
    box = box_of(mask)
    if seed % 2:  # a coarse outline
        points = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        hull = cv2.convexHull(max(points, key=len))
        out = np.zeros(mask.shape, np.uint8)
        cv2.fillPoly(out, [cv2.approxPolyDP(hull, 0.04 * box.height, True)], 1)
        return out.view(np.bool_)
    lost = mask.copy()
    lost[round(box.y0 + 0.7 * box.height) :] = False
    return lost
