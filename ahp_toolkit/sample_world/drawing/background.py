"""Backgrounds: rooms and streets, parks and fields, painted straight onto the picture, with where the ground begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.sample_world.drawing import raster

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]
#: outdoor and indoor places by name
OUTDOORS = ("street", "park", "beach", "field")
INDOORS = ("living room", "office", "gym", "shop")


class Canvas:
    """A picture being painted; coordinates in px, drawn with anti-aliased polygons in fixed point."""

    def __init__(self, height: int, width: int, rng: np.random.Generator) -> None:
        self.pixels: Pixels = np.zeros((height, width, 3), np.uint8)
        self.h, self.w, self.rng = height, width, rng

    def gradient(self, y0: float, y1: float, top: Colour, bottom: Colour) -> None:
        """Rows y0 to y1 from one colour to another."""
        a, b = max(0, int(y0)), min(self.h, int(y1))
        t = ((np.arange(a, b) - y0) / max(1.0, y1 - y0))[:, None]
        rows = np.asarray(top) * (1 - t) + np.asarray(bottom) * t
        self.pixels[a:b] = rows.astype(np.uint8)[:, None]

    def poly(self, points: Sequence[tuple[float, float]], colour: Colour) -> None:
        """A filled polygon."""
        xy = np.asarray([[round(x * 16), round(y * 16)] for x, y in points], np.int32)
        cv2.fillPoly(self.pixels, [xy], colour, cv2.LINE_AA, 4)

    def rect(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """A filled rectangle."""
        self.poly(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), colour)

    def disc(self, x: float, y: float, r: float, colour: Colour, squash: float = 1.0) -> None:
        """A filled ellipse."""
        centre, axes = (round(x * 16), round(y * 16)), (round(r * 16), round(r * squash * 16))
        cv2.ellipse(self.pixels, centre, axes, 0, 0, 360, colour, -1, cv2.LINE_AA, 4)

    def line(self, a: tuple[float, float], b: tuple[float, float], colour: Colour, width: int = 1) -> None:
        """A line of ``width`` px."""
        p, q = (round(a[0] * 16), round(a[1] * 16)), (round(b[0] * 16), round(b[1] * 16))
        cv2.line(self.pixels, p, q, colour, width, cv2.LINE_AA, 4)

    def mottle(self, y0: float, y1: float, size: float, amount: float) -> None:
        """Soft spots on rows y0 to y1."""
        seed = int(self.rng.integers(1 << 30))
        raster.mottle(self.pixels, max(0, int(y0)), min(self.h, int(y1)), size, seed, amount)

    def pick(self, *colours: Colour) -> Colour:
        """One of the colours, a little changed."""
        c = colours[int(self.rng.integers(len(colours)))]
        return tuple(int(min(250, max(6, v + d))) for v, d in zip(c, self.rng.integers(-10, 11, 3), strict=True))  # type: ignore[return-value]

    def far(self, low: float, high: float) -> float:
        """A uniform number."""
        return low + (high - low) * float(self.rng.random())


def shade(colour: Colour, factor: float) -> Colour:
    """A colour made darker or lighter."""
    return tuple(int(min(255, v * factor)) for v in colour)  # type: ignore[return-value]


def paint(place: str, height: int, width: int, rng: np.random.Generator) -> tuple[Pixels, float]:
    """A background uint8 [H, W, 3] of one of `OUTDOORS` or `INDOORS`, and the y px at which its ground begins."""
    canvas = Canvas(height, width, rng)
    ground = height * (0.46 + 0.12 * float(rng.random()))
    _PLACES[place](canvas, ground)
    return canvas.pixels, ground


def _sky(c: Canvas, ground: float) -> None:
    top = c.pick((96, 146, 206), (132, 172, 214), (160, 172, 188), (206, 160, 130))
    c.gradient(0, ground, top, (216, 224, 228))
    c.mottle(0, ground, c.w / 3, 0.16)


def _tree(c: Canvas, x: float, base: float, size: float) -> None:
    leaf = c.pick((74, 112, 56), (92, 126, 62), (58, 92, 54), (150, 120, 54))
    c.poly(((x - size * 0.05, base), (x + size * 0.05, base), (x + size * 0.03, base - size * 0.5),
            (x - size * 0.03, base - size * 0.5)), (86, 64, 46))  # fmt: skip
    for i in range(7):
        dx, dy = c.far(-0.26, 0.26) * size, c.far(0.42, 0.86) * size
        c.disc(x + dx, base - dy, size * 0.2, shade(leaf, 0.8 + 0.07 * i), 0.85)


def _building(c: Canvas, x0: float, x1: float, top: float, base: float) -> None:
    wall = c.pick((178, 140, 116), (196, 186, 168), (150, 152, 158), (168, 104, 84), (214, 204, 182))
    c.rect(x0, top, x1, base, wall)
    c.rect(x0, top, x1, top + 3, shade(wall, 0.75))
    step, glass = c.far(16, 24), c.pick((70, 88, 104), (96, 112, 124), (56, 66, 80))
    x = x0 + step * 0.4
    while x + step * 0.55 < x1:
        y = top + step * 0.5
        while y + step * 0.6 < base - step:
            c.rect(x, y, x + step * 0.5, y + step * 0.62, shade(wall, 1.16))
            c.rect(x + 1, y + 1, x + step * 0.5 - 1, y + step * 0.62 - 1, glass)
            y += step * 1.1
        x += step
    c.rect((x0 + x1) / 2 - step * 0.35, base - step * 1.1, (x0 + x1) / 2 + step * 0.35, base, shade(wall, 0.5))


def _street(c: Canvas, ground: float) -> None:
    _sky(c, ground)
    x = c.far(-40, 0)
    while x < c.w:
        wide = c.far(50, 110)
        _building(c, x, x + wide - c.far(0, 5), ground - c.far(80, 160), ground + 2)
        x += wide
    tone = c.pick((120, 120, 122), (138, 134, 128), (104, 106, 110))
    c.gradient(ground, c.h, shade(tone, 1.14), shade(tone, 0.92))
    edge = ground + c.far(16, 40)
    c.rect(0, ground, c.w, edge, c.pick((176, 170, 160), (158, 156, 152)))
    c.line((0, edge), (c.w, edge), (90, 88, 86), 2)
    for i in range(-1, 6):
        x0, y = i * c.w / 4 + 10, c.h * 0.93
        c.poly(((x0, y), (x0 + 34, y), (x0 + 38, y + 6), (x0 + 2, y + 6)), (208, 206, 196))
    c.mottle(ground, c.h, 9, 0.14)
    if c.far(0, 1) < 0.5:
        _tree(c, c.far(20, c.w - 20), edge, c.far(100, 160))


def _park(c: Canvas, ground: float) -> None:
    _sky(c, ground)
    c.poly([(0, ground), *((c.w * i / 8, ground - c.far(8, 40)) for i in range(9)), (c.w, ground)], (108, 134, 112))
    grass = c.pick((104, 138, 70), (124, 150, 80), (92, 124, 66))
    c.gradient(ground, c.h, shade(grass, 1.1), shade(grass, 0.82))
    c.mottle(ground, c.h, 6, 0.3)
    x = c.far(0.2, 0.8) * c.w
    c.poly(((x, ground), (x + 12, ground), (x + c.far(60, 140), c.h), (x - c.far(10, 60), c.h)), (190, 172, 138))
    for _ in range(int(c.rng.integers(3, 7))):
        _tree(c, c.far(0, c.w), ground + c.far(0, 22), c.far(80, 170))


def _beach(c: Canvas, ground: float) -> None:
    _sky(c, ground * 0.8)
    c.gradient(ground * 0.8, ground, (70, 132, 158), (124, 180, 186))
    c.mottle(ground * 0.8, ground, 12, 0.2)
    sand = c.pick((216, 196, 154), (204, 182, 140))
    c.gradient(ground, c.h, shade(sand, 0.92), sand)
    c.poly(
        [(0, ground - 3), *((c.w * i / 10, ground + c.far(-1, 5)) for i in range(11)), (c.w, ground - 3)],
        (236, 240, 236),
    )
    c.mottle(ground, c.h, 7, 0.13)


def _field(c: Canvas, ground: float) -> None:
    _sky(c, ground)
    tone = c.pick((196, 174, 96), (150, 160, 84), (176, 150, 110))
    c.gradient(ground, c.h, shade(tone, 1.08), shade(tone, 0.8))
    c.mottle(ground, c.h, 5, 0.32)
    c.poly(
        [(0, ground + 2), *((c.w * i / 6, ground - c.far(4, 60)) for i in range(7)), (c.w, ground + 2)], (122, 138, 150)
    )
    x = c.far(0, c.w)
    c.rect(x, ground - 34, x + 56, ground + 4, c.pick((170, 76, 60), (206, 200, 190)))
    c.poly(((x - 5, ground - 34), (x + 28, ground - 56), (x + 61, ground - 34)), (96, 74, 66))
    for i in range(9):
        c.line((i * c.w / 8, ground - 2), (i * c.w / 8, ground + 16), (104, 82, 62), 3)
    c.line((0, ground + 2), (c.w, ground + 2), (104, 82, 62), 2)


def _room(c: Canvas, ground: float, walls: tuple[Colour, ...], floors: tuple[Colour, ...]) -> Colour:
    wall, floor = c.pick(*walls), c.pick(*floors)
    c.gradient(0, ground, shade(wall, 0.94), shade(wall, 1.05))
    if c.far(0, 1) < 0.4:
        step = c.far(12, 26)
        for i in range(int(c.w / step) + 1):
            c.rect(i * step, 0, i * step + step * 0.35, ground, shade(wall, 0.93))
    c.gradient(ground, c.h, shade(floor, 0.86), shade(floor, 1.06))
    middle = c.far(0.3, 0.7) * c.w
    for i in range(-16, 17):
        c.line((middle + i * 14, ground), (middle + i * 60, c.h), shade(floor, 0.82))
    if c.far(0, 1) < 0.5:
        for i in range(1, 7):
            y = ground + (c.h - ground) * (i / 6) ** 1.8
            c.line((0, y), (c.w, y), shade(floor, 0.82))
    c.mottle(ground, c.h, 14, 0.1)
    c.rect(0, ground - 7, c.w, ground, shade(wall, 1.22))
    c.line((0, ground), (c.w, ground), shade(wall, 0.6))
    return wall


def _window(c: Canvas, x: float, y: float, w: float, h: float) -> None:
    c.rect(x - 3, y - 3, x + w + 3, y + h + 3, (236, 234, 228))
    c.rect(x, y, x + w, y + h, c.pick((170, 204, 226), (196, 214, 222), (60, 70, 96)))
    c.rect(x, y + h * 0.68, x + w, y + h, c.pick((120, 150, 104), (140, 150, 150)))
    c.line((x + w / 2, y), (x + w / 2, y + h), (236, 234, 228), 2)
    c.line((x, y + h / 2), (x + w, y + h / 2), (236, 234, 228), 2)


def _shelf(c: Canvas, x: float, y: float, w: float, h: float, rows: int) -> None:
    wood = c.pick((140, 104, 72), (196, 190, 180), (96, 72, 54))
    c.rect(x, y, x + w, y + h, shade(wood, 0.7))
    for r in range(rows):
        y0, y1 = y + h * r / rows + 3, y + h * (r + 1) / rows
        at = x + 3
        while at < x + w - 7:
            wide = c.far(3, 8)
            book = c.pick((168, 60, 52), (60, 92, 134), (214, 186, 110), (80, 120, 84), (222, 218, 206), (70, 64, 80))
            c.rect(at, y0 + c.far(0, 0.4) * (y1 - y0), at + wide - 0.7, y1, book)
            at += wide
        c.rect(x, y1 - 2, x + w, y1 + 1, wood)


def _picture(c: Canvas, x: float, y: float, w: float, h: float) -> None:
    c.rect(x - 3, y - 3, x + w + 3, y + h + 3, c.pick((64, 52, 44), (206, 178, 120), (238, 236, 232)))
    c.rect(x, y, x + w, y + h, c.pick((180, 196, 206), (220, 200, 170), (110, 134, 130)))
    c.poly(((x, y + h), (x + w * 0.35, y + h * 0.45), (x + w * 0.7, y + h)), c.pick((92, 108, 96), (150, 110, 84)))
    c.disc(x + w * 0.72, y + h * 0.3, min(w, h) * 0.13, (240, 214, 140))


def _living(c: Canvas, ground: float) -> None:
    _room(
        c,
        ground,
        ((214, 198, 172), (178, 192, 190), (202, 176, 166), (190, 200, 170)),
        ((150, 108, 72), (172, 136, 98)),
    )
    _window(c, c.far(10, c.w * 0.3), c.far(18, 40), c.far(50, 80), ground * 0.5)
    _picture(c, c.far(c.w * 0.5, c.w * 0.62), c.far(24, 50), c.far(34, 54), c.far(28, 44))
    _shelf(c, c.far(c.w * 0.72, c.w * 0.85), ground * 0.3, c.far(44, 70), ground * 0.7 + 3, 5)


def _office(c: Canvas, ground: float) -> None:
    _room(c, ground, ((206, 210, 212), (190, 200, 208), (222, 218, 208)), ((128, 132, 138), (110, 118, 132)))
    for i in range(int(c.rng.integers(2, 4))):
        _window(c, 14 + i * c.w / 3, c.far(20, 30), c.w / 4.2, ground * 0.45)
    x = c.far(0, c.w * 0.6)
    c.rect(x, ground - 34, x + 110, ground - 28, (176, 146, 112))
    c.rect(x + 6, ground - 28, x + 12, ground + 3, (90, 92, 96))
    c.rect(x + 96, ground - 28, x + 102, ground + 3, (90, 92, 96))
    c.rect(x + 36, ground - 64, x + 76, ground - 40, (38, 40, 46))
    c.rect(x + 39, ground - 61, x + 73, ground - 43, (120, 160, 190))


def _gym(c: Canvas, ground: float) -> None:
    wall = _room(c, ground, ((196, 176, 140), (160, 176, 188)), ((198, 152, 98), (186, 138, 88)))
    for y in (0.3, 0.62):
        c.rect(0, ground * y, c.w, ground * y + 4, shade(wall, 0.7))
    for i in range(9):
        c.line((i * c.w / 8, 0), (i * c.w / 8, ground), shade(wall, 0.86), 2)
    x = c.far(40, c.w - 80)
    c.rect(x, ground * 0.12, x + 54, ground * 0.42, (238, 238, 236))
    c.rect(x + 17, ground * 0.24, x + 37, ground * 0.36, (206, 60, 50))
    c.disc(c.w / 2, c.h * 0.96, c.w * 0.4, (220, 226, 230), 0.22)
    c.disc(c.w / 2, c.h * 0.96, c.w * 0.385, (188, 142, 92), 0.2)


def _shop(c: Canvas, ground: float) -> None:
    _room(c, ground, ((226, 222, 212), (210, 216, 206)), ((196, 194, 190), (176, 168, 156)))
    x = c.far(-30, 0)
    while x < c.w:
        wide = c.far(60, 100)
        _shelf(c, x, ground * 0.28, wide, ground * 0.74, 4)
        x += wide + c.far(2, 26)
    for i in range(4):
        c.rect(20 + i * c.w / 4, 6, 20 + i * c.w / 4 + 44, 12, (252, 250, 240))


_PLACES: dict[str, Callable[[Canvas, float], None]] = {
    "street": _street, "park": _park, "beach": _beach, "field": _field, "living room": _living, "office": _office,
    "gym": _gym, "shop": _shop,
}  # fmt: skip
