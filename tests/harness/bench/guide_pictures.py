"""The pictures of the reviewers' guide, drawn from the sample world."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ahp_toolkit.core import crops
from ahp_toolkit.sample_world import WorldPerson, WorldScene, generate
from ahp_toolkit.storage import images
from ahp_toolkit.storage.files import atomic

SIDE, COLOURS, OUTLINE = 224, 96, (0, 240, 255)
WORN = {1, 3, 4, 11}  # LIP: hat, glove, sunglasses, scarf
_SEED, _SCENES = 3, 400
Case = Callable[[WorldScene, WorldPerson], bool]


def _hider(kind: str) -> Case:
    def case(scene: WorldScene, p: WorldPerson) -> bool:
        if p.reason != "occluded" or not 0.12 < p.hidden < 0.5:
            return False
        hidden = p.amodal & ~p.modal
        others = [o.modal for o in scene.people if o is not p] if kind == "person" else [o.modal for o in scene.objects]
        return any((hidden & m).sum() > 0.9 * hidden.sum() for m in others)

    return case


def _decided(verdict: str, reason: str = "") -> Case:
    return lambda scene, p: p.verdict == verdict and p.reason == reason


def _upright(p: WorldPerson) -> bool:
    return p.pose in ("standing", "walking") and p.box.height > 150


#: picture -> whether a person of the sample world is a case of it
CASES: dict[str, Case] = {
    "preserve_whole": lambda s, p: p.verdict == "preserve" and _upright(p) and not WORN & set(np.unique(p.parsing)),
    "preserve_worn": lambda s, p: p.verdict == "preserve" and _upright(p) and {1, 3} <= set(np.unique(p.parsing)),
    "discard_person": _hider("person"),
    "discard_thing": _hider("thing"),
    "discard_cut": _decided("discard", "truncated"),
    "discard_picture": _decided("discard", "not_a_person"),
    "discard_group": _decided("discard", "group"),
    "discard_small": _decided("discard", "too_small"),
    "refine_coarse": lambda s, p: p.poor and _upright(p) and not _lost(p),
    "refine_lost": lambda s, p: p.poor and _upright(p) and _lost(p),
}


def _lost(p: WorldPerson) -> bool:
    return bool((p.given & ~p.modal).sum() == 0)


def guide_pictures(folder: Path) -> list[Path]:
    """Draw one picture a case from the sample world: the crop a reviewer sees, with the mask's outline."""
    written = []
    for name, scene, person in _examples():
        written.append(folder / f"{name}.png")
        _write(written[-1], _picture(scene, person))
    return written


def _examples() -> Iterator[tuple[str, WorldScene, WorldPerson]]:
    wanted = dict(CASES)
    for index in range(_SCENES):
        scene = generate(_SEED, index, (480, 480))
        for person in scene.people:
            name = next((n for n, case in wanted.items() if case(scene, person)), None)
            if name:
                del wanted[name]
                yield name, scene, person
        if not wanted:
            return


def _picture(scene: WorldScene, person: WorldPerson) -> images.Rgb:
    y, x = np.nonzero(person.given)
    box = crops.Box(float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1))
    square = crops.square_around(box, 1.5)
    out = crops.crop_image(scene.pixels, square, SIDE)
    mask = crops.crop_labels(person.given.astype(np.uint8), square, SIDE)
    ring = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    out[ring] = OUTLINE
    return out


def _write(path: Path, pixels: images.Rgb) -> None:
    small = Image.fromarray(pixels).quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    with atomic(path) as f:
        small.save(f, "PNG", optimize=True)
