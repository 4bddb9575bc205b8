"""Contact sheets of the world, and the fixed colours of the 20 body parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core.masks import Label2D
from ahp_toolkit.sample_world.scene import WorldScene, generate, person_crop
from ahp_toolkit.storage import images

#: One colour a LIP label, RGB: index 0 is the background.
PALETTE: tuple[tuple[int, int, int], ...] = (
    (24, 26, 30), (196, 60, 44), (124, 72, 28), (232, 128, 216), (40, 40, 200), (240, 150, 40), (220, 60, 130),
    (150, 90, 200), (250, 230, 90), (40, 110, 190), (96, 190, 160), (190, 30, 80), (240, 110, 110), (250, 208, 176),
    (90, 200, 240), (20, 140, 130), (150, 220, 100), (60, 150, 60), (230, 200, 40), (160, 120, 30),
)  # fmt: skip


def colour_labels(labels: Label2D) -> NDArray[np.uint8]:
    """A label map uint8 [H, W] in the colours of `PALETTE`, RGB uint8 [H, W, 3]."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(PALETTE)] = PALETTE
    return table[labels]


def _labelled(scene: WorldScene) -> NDArray[np.uint8]:
    out = (scene.pixels * 0.25).astype(np.uint8)
    for person in scene.people:
        seen = person.modal
        out[seen] = colour_labels(person.parsing)[seen]
    return out


def gallery(path: Path, seed: int = 0, columns: int = 6, size: int = 320) -> None:
    """Write a contact sheet PNG.

    Rows of scenes, of the same with their body parts, and of occluded people: as seen, their parts, unhidden.
    """
    scenes = [generate(seed, i, (size, size)) for i in range(2 * columns)]
    rows = []
    for r in (0, 1):
        part = scenes[r * columns : (r + 1) * columns]
        rows += [np.hstack([s.pixels for s in part]), np.hstack([_labelled(s) for s in part])]
    hidden = [
        person_crop(s, p, size // 2)
        for s in (generate(seed, i, (size, size)) for i in range(6 * columns))
        for p in s.people
        if 0.08 < p.hidden < 0.6 and not p.crowd and not p.cut and p.box.height > 0.3 * size
    ][: 2 * columns]
    for kind in ("image", "parsing", "unhidden"):
        tiles = [h[kind] if kind != "parsing" else colour_labels(h[kind] * h["amodal"]) for h in hidden]
        row = np.hstack(tiles)
        rows.append(np.pad(row, ((0, 0), (0, columns * size - row.shape[1]), (0, 0))))
    images.write_png(path, np.vstack(rows))
