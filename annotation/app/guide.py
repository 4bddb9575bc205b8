"""The reviewers' page GUIDE.md as HTML with its pictures inside, and the making of these pictures."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import markdown
import numpy as np
from PIL import Image

from ahp_toolkit.core import crops
from ahp_toolkit.storage import images
from ahp_toolkit.storage.files import atomic

if TYPE_CHECKING:
    from ahp_toolkit.sample_world import WorldPerson, WorldScene

HERE = Path(__file__).parents[1]
GUIDE = HERE / "GUIDE.md"
SIDE, COLOURS, OUTLINE = 224, 96, (0, 240, 255)
WORN = {1, 3, 4, 11}  # LIP: hat, glove, sunglasses, scarf
_SEED, _SCENES = 3, 400
_STYLE = """body{font:16px/1.55 system-ui,sans-serif;max-width:62rem;margin:1.5rem auto 4rem;padding:0 1.5rem;
background:#16181d;color:#e8eaed}h1,h2{line-height:1.2;margin:1.6em 0 .5em}h1{margin-top:0}
img{width:150px;border-radius:8px;display:block}table{border-collapse:collapse;width:100%}
td,th{padding:.55rem .8rem;border-bottom:1px solid #2f343d;text-align:left;vertical-align:middle}
td:first-child{width:170px}code,kbd{background:#2a2e36;padding:.1em .45em;border-radius:4px}a{color:#8ab4f8}"""

Case = Callable[["WorldScene", "WorldPerson"], bool]


def page() -> str:
    """GUIDE.md as one self-contained HTML page."""
    body = markdown.markdown(GUIDE.read_text(encoding="utf-8"), extensions=["tables"])
    body = re.sub(r'src="(guide/[a-z_]+\.png)"', _inline, body)
    return f"<!doctype html><meta charset='utf-8'><title>Guide</title><style>{_STYLE}</style>{body}"


def _inline(match: re.Match[str]) -> str:
    path = HERE / match.group(1)
    data = base64.b64encode(path.read_bytes()).decode() if path.exists() else ""
    return f'src="data:image/png;base64,{data}"'


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
    from ahp_toolkit.sample_world import generate

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
