"""Contact sheets of the page: candidates by verdict with their outline, samples with all their masks, by seed."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from ahp_toolkit.core import crops, hashing
from ahp_toolkit.core.masks import Bool2D, Box, Mask, encode
from ahp_toolkit.core.records import VERDICTS, Candidate, Decision, Human, ImageRef, Sample, Segmented
from ahp_toolkit.storage import images
from ahp_toolkit.storage.build_folder import Build, Render
from ahp_toolkit.storage.images import Rgb

TILE = 208
COLUMNS = 6
#: Outline of a candidate by verdict.
VERDICT_COLOURS = {"preserve": (72, 214, 150), "refine": (255, 186, 73), "discard": (255, 104, 84)}
_MASK_COLOURS = {
    "modal": (92, 155, 230),
    "amodal": (84, 190, 145),
    "invisible": (240, 150, 70),
    "initial": (165, 140, 225),
}
#: Reasons of the review for which nobody discarded the person.
UNSETTLED = ("undecided", "disagreed", "corrected_mask_unusable")
#: The tiles of a row of the samples' sheet.
SAMPLE_ROW = ("occluded", "modal", "amodal", "invisible", "recovered", "initial mask")


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet, RGB uint8 [TILE, TILE, 3], and the lines under it."""

    pixels: Rgb
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Sheet:
    """A titled grid of tiles; ``note`` (``provisional``) is shown as a red tag."""

    name: str
    title: str
    tiles: tuple[Tile, ...]
    columns: int = COLUMNS
    note: str = ""


def candidate_sheets(build: Build, seed: int = 0, per_verdict: int = 18) -> list[Sheet]:
    """One sheet a verdict, as the review ended; before it one sheet of candidates. Empty sheets are left out."""
    sheets = []
    for verdict in VERDICTS:
        made = (_discarded if verdict == "discard" else _kept)(build, seed, per_verdict, verdict)
        note = "provisional" if any(provisional for _, provisional in made) else ""
        if made:
            tiles = tuple(tile for tile, _ in made)
            sheets.append(Sheet(f"candidates_{verdict}", f"Candidates: {verdict}", tiles, note=note))
    return sheets or _unreviewed(build, seed, per_verdict)


def _smallest(items: Iterable[Any], n: int, key: Callable[[Any], str], seed: int) -> list[Any]:
    """The n items whose seeded hash is smallest: a random choice that does not depend on the order."""
    return heapq.nsmallest(n, items, key=lambda x: (hashing.unit_hash("sheet", seed, key(x)), key(x)))


def _kept(build: Build, seed: int, n: int, verdict: str) -> list[tuple[Tile, bool]]:
    """Some humans that the review kept, with the mask of the dataset, and whether they were kept by rule."""
    found = build.columns("review", "human_id", "verdict")
    mine = found["human_id"].filter(pc.equal(found["verdict"], verdict)).to_pylist()
    ids = _smallest(mine, n, str, seed)
    humans = {h.human_id: h for h in build.pick("review", Human, "human_id", ids)}
    tiles = []
    for h in (humans[i] for i in ids):
        lines = (h.human_id, f"{verdict} · by {', '.join(h.reviewers)}" + " · provisional" * h.provisional)
        tiles.append((_outlined(build, h.image, h.box, h.mask, VERDICT_COLOURS[verdict], lines), h.provisional))
    return tiles


def _discarded(build: Build, seed: int, n: int, verdict: str) -> list[tuple[Tile, bool]]:
    """Some humans that the review discarded, with the mask that was judged and the reason, and whether by rule."""
    settled = (d for d in build.dropped("review") if d.reason not in UNSETTLED)
    chosen = _smallest(settled, n, lambda d: str(d.id), seed)
    ids = [d.id for d in chosen]
    table = build.first_of("parse", "segment")
    known = {s.candidate.candidate_id: s for s in build.pick(table, Segmented, "candidate.candidate_id", ids)}
    provisional: dict[str, list[bool]] = {}
    for d in build.pick("review/decisions", Decision, "candidate_id", ids):
        provisional.setdefault(d.candidate_id, []).append(d.provisional)
    tiles = []
    for dropped in chosen:
        by_rule, s = all(provisional.get(dropped.id, [False])), known.get(dropped.id)
        lines = (dropped.id, f"{dropped.reason} · {dropped.detail}" + " · provisional" * by_rule)
        if s is None:
            tile = _grey("no segmentation record", lines)
        else:
            tile = _outlined(build, s.candidate.image, s.candidate.box, s.mask, VERDICT_COLOURS[verdict], lines)
        tiles.append((tile, by_rule))
    return tiles


def _unreviewed(build: Build, seed: int, n: int) -> list[Sheet]:
    ids = build.columns("harvest", "candidate_id")["candidate_id"].to_pylist()
    picked = set(_smallest(ids, n, str, seed))
    found = build.pick("harvest", Candidate, "candidate_id", picked)
    white = (255, 255, 255)
    tiles = tuple(_outlined(build, c.image, c.box, c.mask, white, (c.candidate_id, "not reviewed")) for c in found)
    return [Sheet("candidates", "Candidates, not reviewed yet", tiles, note="not reviewed")] if tiles else []


def _outlined(
    build: Build, image: ImageRef, box: Box, mask: Mask | None, colour: tuple[int, int, int], lines: tuple[str, ...]
) -> Tile:
    """The photo around a person's box, with the outline of the mask (or of the box where there is no mask)."""
    try:
        pixels = build.pixels(image)
    except images.ImageError as e:
        return _grey(f"{e.reason}: {e}", lines)
    square = crops.square_around(box, 1.5)
    tile = crops.crop_image(pixels, square, TILE)
    shape = _box_mask(box, pixels.shape[:2]) if mask is None else mask
    return Tile(_outline(tile, crops.crop_mask(shape, square, TILE), colour), lines)


def _box_mask(box: Box, shape: tuple[int, ...]) -> Mask:
    full = np.zeros(shape[:2], np.bool_)
    x0, y0, x1, y1 = box.clip(shape[1], shape[0]).pixels()
    full[y0:y1, x0:x1] = True
    return encode(full)


def _outline(tile: Rgb, mask: Bool2D, colour: tuple[int, int, int]) -> Rgb:
    """A two-pixel line in ``colour`` on the mask's edge, with a dark line around it so that it shows on any photo."""
    inside = mask.astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    line = (inside - cv2.erode(inside, kernel, iterations=2)).astype(bool)
    halo = (cv2.dilate(inside, kernel) - inside).astype(bool)
    out = tile.copy()
    out[halo] = (out[halo] * 0.35).astype(np.uint8)
    out[line] = colour
    return out


def _grey(reason: str, lines: tuple[str, ...]) -> Tile:
    """A grey tile, with the reason why there is no picture as its last line."""
    return Tile(np.full((TILE, TILE, 3), (206, 210, 216), np.uint8), (*lines, reason))


def sample_sheets(build: Build, render: Render | None, seed: int = 0, per_split: int = 6) -> list[Sheet]:
    """One sheet a split, one row a sample (`SAMPLE_ROW`). Without ``render`` the pictures are grey."""
    sheets = []
    for split in build.splits():
        ids = _smallest(build.columns(f"splits/{split}", "sample_id")["sample_id"].to_pylist(), per_split, str, seed)
        samples = sorted(build.pick(f"splits/{split}", Sample, "sample_id", ids), key=lambda s: s.occlusion_ratio)
        tiles = tuple(t for s in samples for t in sample_tiles(s, render))
        note = "provisional" if any(s.provisional for s in samples) else ""
        if tiles:
            sheets.append(Sheet(f"samples_{split}", f"Samples: {split}", tiles, len(SAMPLE_ROW), note))
    return sheets


def sample_tiles(sample: Sample, render: Render | None) -> list[Tile]:
    """The six tiles of `SAMPLE_ROW` for one sample, on its own square crop."""
    modal, amodal, initial = (
        crops.crop_mask(m, sample.crop, TILE) for m in (sample.modal, sample.amodal, sample.given.mask)
    )
    mark = " · provisional" * sample.provisional
    place = f"bin {sample.bin}" if sample.bin >= 0 else ""  # a composite may lie in none
    under = (sample.sample_id, f"ratio {sample.occlusion_ratio:.3f}", place, f"{sample.kind}{mark}")
    lines = list(zip(SAMPLE_ROW, (*under, f"human {sample.human_id}", f"by {sample.given.maker}"), strict=True))
    masks = ((modal, "modal"), (amodal, "amodal"), (amodal & ~modal, "invisible"), (initial, "initial"))
    flat = [_flat(mask, name) for mask, name in masks]
    try:
        made = None if render is None else render(sample)
        missing = "not rendered: no renderer was given"
    except images.ImageError as e:
        made, missing = None, f"{e.reason}: {e}"
    if made is None:
        occluded, recovered = (_grey(missing, lines[k]) for k in (0, 4))
    else:
        occluded, recovered = (
            Tile(crops.crop_image(pixels, sample.crop, TILE), lines[k])
            for k, pixels in ((0, made.image), (4, made.recovered))
        )
    shown = [Tile(pixels, lines[k]) for k, pixels in zip((1, 2, 3, 5), flat, strict=True)]
    return [occluded, *shown[:3], recovered, shown[3]]


def _flat(mask: Bool2D, name: str) -> NDArray[np.uint8]:
    out = np.full((*mask.shape, 3), (28, 33, 42), np.uint8)
    out[mask] = _MASK_COLOURS[name]
    return out
