"""Contact sheets: candidates by verdict with their outline, and samples with all their masks. Chosen by seed."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ahp_toolkit.core import crops, hashing
from ahp_toolkit.core.masks import Bool2D, Box, Mask, encode
from ahp_toolkit.core.records import VERDICTS, Candidate, Decision, Human, ImageRef, Sample, Segmented
from ahp_toolkit.storage import images
from ahp_toolkit.storage.build_folder import Build, Pasted, Render
from ahp_toolkit.storage.images import Rgb

TILE = 208
COLUMNS = 6
_PAD, _LINE, _HEAD = 10, 15, 34
_BACK, _INK, _MUTED, _RED = (250, 250, 251), (31, 41, 55), (107, 114, 128), (190, 60, 45)
#: Outline of a candidate by verdict; the same colours stand in the report's style sheet.
VERDICT_COLOURS = {"preserve": (72, 214, 150), "refine": (255, 186, 73), "discard": (255, 104, 84)}
_MASK_COLOURS = {
    "modal": (92, 155, 230),
    "amodal": (84, 190, 145),
    "invisible": (240, 150, 70),
    "given": (165, 140, 225),
}
#: Reasons of the review for which nobody discarded the person.
UNSETTLED = ("undecided", "disagreed", "corrected_mask_unusable")
#: What a row of the samples' sheet shows, in this order.
SAMPLE_ROW = ("occluded", "modal", "amodal", "invisible", "recovered", "given initial mask")


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet, RGB uint8 [TILE, TILE, 3], and the lines under it."""

    pixels: Rgb
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Sheet:
    """A titled grid of tiles. ``note`` is printed in red at the top right (``provisional``)."""

    name: str
    title: str
    tiles: tuple[Tile, ...]
    columns: int = COLUMNS
    note: str = ""

    def draw(self) -> Rgb:
        """The whole sheet as one picture, RGB uint8 [H, W, 3]."""
        lines = max((len(t.lines) for t in self.tiles), default=0)
        step_x, step_y = TILE + _PAD, TILE + _PAD + 4 + lines * _LINE
        rows = -(-len(self.tiles) // self.columns)
        page = Image.new("RGB", (_PAD + self.columns * step_x, _PAD + _HEAD + rows * step_y), _BACK)
        pen = ImageDraw.Draw(page)
        pen.text((_PAD, _PAD), self.title, _INK, _font(17, bold=True))
        pen.text((page.width - _PAD, _PAD + 2), self.note.upper(), _RED, _font(14, bold=True), anchor="ra")
        for i, tile in enumerate(self.tiles):
            x, y = _PAD + (i % self.columns) * step_x, _PAD + _HEAD + (i // self.columns) * step_y
            page.paste(Image.fromarray(tile.pixels), (x, y))
            for k, line in enumerate(tile.lines):
                text = _fit(line, TILE, _font(12, bold=k == 0))
                pen.text((x, y + TILE + 3 + k * _LINE), text, _MUTED if k else _INK, _font(12, bold=k == 0))
        return np.asarray(page, np.uint8)


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")), size)


def _fit(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """The text cut in its middle to ``width`` px: both ends of an id tell it apart."""
    text = " ".join(text.split())
    for keep in range(len(text), 2, -1):
        shown = text if keep == len(text) else f"{text[: keep // 2]}…{text[len(text) - (keep - keep // 2) :]}"
        if font.getlength(shown) <= width:
            return shown
    return text[:3]


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
    """Some of those that the review kept, each with the mask that the dataset has of them, and whether by rule."""
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
    """Some of those that the review discarded: with the mask that was judged, why, by whom, and whether by rule."""
    settled = (d for d in build.dropped("review") if d.reason not in UNSETTLED)
    chosen = _smallest(settled, n, lambda d: str(d.id), seed)
    ids = [d.id for d in chosen]
    table = build.first_of("parse", "segment")
    known = {s.candidate.candidate_id: s for s in build.pick(table, Segmented, "candidate.candidate_id", ids)}
    words: dict[str, list[bool]] = {}
    for d in build.pick("review/decisions", Decision, "candidate_id", ids):
        words.setdefault(d.candidate_id, []).append(d.provisional)
    tiles = []
    for dropped in chosen:
        by_rule, s = all(words.get(dropped.id, [False])), known.get(dropped.id)
        lines = (dropped.id, f"{dropped.reason} · {dropped.detail}" + " · provisional" * by_rule)
        if s is None:
            tile = Tile(_grey("no segmentation record"), lines)
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
        return Tile(_grey(f"{e.reason}: {e}"), lines)
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


def _grey(reason: str) -> Rgb:
    """A grey tile that says why there is no picture."""
    page = Image.new("RGB", (TILE, TILE), (206, 210, 216))
    words, font = " ".join(reason.split()), _font(12)
    lines: list[str] = []
    while words and len(lines) < 10:
        keep = next((k for k in range(len(words), 0, -1) if font.getlength(words[:k]) <= TILE - 20), 1)
        lines.append(words[:keep])
        words = words[keep:]
    ImageDraw.Draw(page).multiline_text((10, 10), "\n".join(lines), (75, 85, 99), font, spacing=4)
    return np.asarray(page, np.uint8)


def sample_sheets(build: Build, render: Render | None, seed: int = 0, per_split: int = 6) -> list[Sheet]:
    """One sheet a split, one row a sample (`SAMPLE_ROW`). Without ``render`` the pictures are grey, the masks stand."""
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
    modal, amodal, given = (
        crops.crop_mask(m, sample.crop, TILE) for m in (sample.modal, sample.amodal, sample.given.mask)
    )
    occluded, recovered = _pictures(sample, render)
    pixels: Sequence[Rgb] = (
        occluded,
        _flat(modal, "modal"),
        _flat(amodal, "amodal"),
        _flat(amodal & ~modal, "invisible"),
        recovered,
        _flat(given, "given"),
    )
    mark = " · provisional" * sample.provisional
    place = f"bin {sample.bin}" if sample.bin >= 0 else ""  # a composite may lie in none
    under = (sample.sample_id, f"ratio {sample.occlusion_ratio:.3f}", place, f"{sample.kind}{mark}")
    notes = (*under, f"human {sample.human_id}", f"by {sample.given.maker}")
    return [Tile(p, (name, note)) for p, name, note in zip(pixels, SAMPLE_ROW, notes, strict=True)]


def _pictures(sample: Sample, render: Render | None) -> tuple[Rgb, Rgb]:
    if render is None:
        grey = _grey("not rendered: no renderer was given")
        return grey, grey
    try:
        made: Pasted = render(sample)
    except images.ImageError as e:
        grey = _grey(f"{e.reason}: {e}")
        return grey, grey
    return crops.crop_image(made.image, sample.crop, TILE), crops.crop_image(made.recovered, sample.crop, TILE)


def _flat(mask: Bool2D, name: str) -> NDArray[np.uint8]:
    out = np.full((*mask.shape, 3), (28, 33, 42), np.uint8)
    out[mask] = _MASK_COLOURS[name]
    return out


def write_sheets(sheets: Sequence[Sheet], folder: Path) -> list[Path]:
    """Write each sheet as ``<name>.png``."""
    for sheet in sheets:
        images.write_png(folder / f"{sheet.name}.png", sheet.draw())
    return [folder / f"{s.name}.png" for s in sheets]
