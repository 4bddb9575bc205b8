"""Things that stand about and hide people: the furniture, vehicles, plants and animals of the world.

Each kind draws itself with a foot point (0, 0) and a height of 1, x to the right and y up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.sample_world.drawing.brush import Brush, Layer, Look, Point
from ahp_toolkit.sample_world.drawing.raster import PROFILE, material

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object: its draw function, height in heads of a person (1 = a person's height), where it stands."""

    draw: Callable[[Pen], None]
    height: float
    places: str = "io"  # i indoors, o outdoors
    colours: tuple[Colour, ...] = ((120, 84, 56), (60, 64, 72), (176, 60, 52), (66, 104, 150), (208, 200, 188))


class Pen:
    """Draws in the object's own units onto a brush; ``flip`` mirrors it."""

    def __init__(self, brush: Brush, x: float, y: float, size: float, flip: bool, rng: np.random.Generator) -> None:
        self.brush, self.x, self.y, self.size, self.flip, self.rng = brush, x, y, size, -1.0 if flip else 1.0, rng
        self.colour: Colour = (0, 0, 0)

    def mat(
        self, colour: Colour | float | None = None, pattern: str = "plain", second: Colour | None = None,
        size: float = 6.0, grain: float = 0.16, fold: float = 0.0,
    ) -> int:  # fmt: skip
        """A material: a colour, the object's own colour (None), or that made darker or lighter by a factor."""
        if not isinstance(colour, tuple):
            r, g, b = (int(min(250, v * (1.0 if colour is None else colour))) for v in self.colour)
            colour = (r, g, b)
        return self.brush.material(material(pattern, colour, second or (235, 232, 224), size, fold, grain))

    def at(self, x: float, y: float) -> Point:
        """Object units to px, on a grid of 1/64."""
        px, py = self.x + self.flip * x * self.size, self.y - y * self.size
        return round(px * 64.0) / 64.0, round(py * 64.0) / 64.0

    def poly(self, points: Sequence[Point], mat: int, rounded: float = 0.0, shade: float = 1.0) -> None:
        """A polygon."""
        self.brush.poly([self.at(*p) for p in points], Look(mat, 1, rounded=rounded, shade=shade))

    def rect(self, a: Point, b: Point, mat: int, rounded: float = 0.0, shade: float = 1.0) -> None:
        """An upright rectangle with opposite corners a and b."""
        (x0, y0), (x1, y1) = a, b
        self.poly(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), mat, rounded, shade)

    def ball(self, c: Point, r: Point, mat: int, rounded: float = 0.95, shade: float = 1.0) -> None:
        """An ellipse around c with the radii ``r`` along x and y."""
        look = Look(mat, 1, rounded=rounded, shade=shade)
        self.brush.ellipse(self.at(*c), r[0] * self.size, r[1] * self.size, look)

    def bar(self, a: Point, b: Point, width: float, mat: int, end: float = -1.0, shade: float = 1.0) -> None:
        """A round bar, tapering to ``end`` where given."""
        last = width if end < 0 else end
        widths = [(width + (last - width) * i / (PROFILE - 1)) / 2 * self.size for i in range(PROFILE)]
        self.brush.limb(self.at(*a), self.at(*b), widths, Look(mat, 1, shade=shade), caps=(0.6, 0.6))

    def ring(self, x: float, y: float, r: float, width: float, mat: int) -> None:
        """A circle's outline, in 24 bars."""
        for i in range(24):
            a, b = math.radians(15.0 * i), math.radians(15.0 * (i + 1))
            p = (x + r * math.cos(a), y + r * math.sin(a))
            self.bar(p, (x + r * math.cos(b), y + r * math.sin(b)), width, mat)


def _chair(p: Pen) -> None:
    wood, dark = p.mat(pattern="streaks", second=(70, 48, 30)), p.mat(0.7)
    for x in (-0.2, 0.22):
        p.bar((x, 0.48), (x * 1.05, 0.0), 0.05, dark)
    p.poly(((-0.24, 0.44), (0.26, 0.44), (0.21, 0.53), (-0.2, 0.53)), wood)
    for x in (-0.19, 0.19):
        p.bar((x, 0.5), (x, 1.0), 0.05, wood)
    for y in (0.66, 0.8, 0.94):
        p.bar((-0.19, y), (0.19, y), 0.07, wood)
    for x in (-0.25, 0.27):
        p.bar((x, 0.45), (x * 1.05, -0.03), 0.055, wood)


def _table(p: Pen) -> None:
    wood, dark = p.mat(pattern="planks", second=(60, 42, 28), size=5), p.mat(0.6)
    for x in (-0.72, 0.68):
        p.bar((x, 0.9), (x, 0.08), 0.08, dark)
    for x in (-0.85, 0.82):
        p.bar((x, 0.9), (x, 0.0), 0.1, wood)
    p.poly(((-0.95, 0.88), (0.95, 0.88), (0.8, 1.0), (-0.8, 1.0)), wood, shade=1.08)
    p.rect((-0.95, 0.78), (0.95, 0.88), dark)


def _bush(p: Pen) -> None:
    leaf, dark = p.mat((70, 112, 52), "dots", (112, 150, 74), 5, 0.5), p.mat((44, 78, 40), grain=0.6)
    for i in range(16):
        a = 2 * math.pi * i / 16
        x, y = 0.55 * math.cos(a) * (0.7 + 0.5 * p.rng.random()), 0.48 + 0.36 * math.sin(a)
        p.ball((x, y), (0.24, 0.2), dark if i % 3 == 0 else leaf, 0.7)
    p.ball((0, 0.45), (0.5, 0.42), leaf, 0.6)


def _plant(p: Pen) -> None:
    pot, leaf = p.mat((170, 92, 60)), p.mat((58, 118, 60), "lines", (96, 150, 80), 3)
    for i in range(11):
        x = (i - 5) * 0.075
        lift = 0.92 - 0.1 * abs(i - 5) * 0.9 + 0.1 * p.rng.random()
        p.bar((0, 0.34), (x * 0.7, 0.38 + lift * 0.3), 0.05, leaf)
        p.bar((x * 0.7, 0.38 + lift * 0.3), (x * 1.5, lift), 0.1, leaf, 0.01)
    p.poly(((-0.14, 0), (0.14, 0), (0.2, 0.36), (-0.2, 0.36)), pot, 0.9)
    p.rect((-0.22, 0.32), (0.22, 0.4), pot, 0.9, 1.1)


def _pole(p: Pen) -> None:
    metal = p.mat((120, 124, 128))
    p.bar((0, 0), (0, 0.98), 0.045, metal)
    p.rect((-0.045, 0), (0.045, 0.06), metal, 0.9)
    p.ball((0, 0.99), (0.05, 0.03), p.mat((240, 230, 190)))


def _box(p: Pen) -> None:
    card = p.mat((184, 144, 98), grain=0.2)
    p.rect((-0.6, 0), (0.6, 0.88), card)
    p.poly(((-0.6, 0.88), (0.6, 0.88), (0.45, 1.0), (-0.45, 1.0)), card, shade=1.15)
    p.rect((-0.08, 0.0), (0.08, 0.88), p.mat((214, 190, 150)))
    p.rect((0.2, 0.15), (0.48, 0.35), p.mat((240, 240, 236)))


def _car(p: Pen) -> None:
    body, glass, dark = p.mat(grain=0.02), p.mat((92, 116, 132), grain=0.05), p.mat((30, 30, 34))
    p.poly(((-0.78, 0.6), (-0.5, 1.0), (0.42, 1.0), (0.78, 0.62)), body, shade=1.05)
    p.poly(((-0.66, 0.62), (-0.46, 0.94), (-0.05, 0.94), (-0.05, 0.62)), glass)
    p.poly(((0.03, 0.62), (0.03, 0.94), (0.38, 0.94), (0.64, 0.62)), glass, shade=0.9)
    p.poly(((-1.42, 0.2), (-1.4, 0.5), (-0.8, 0.62), (0.85, 0.64), (1.4, 0.52), (1.45, 0.2)), body, 0.25)
    p.rect((-1.42, 0.16), (1.45, 0.24), dark)
    p.ball((-1.36, 0.44), (0.07, 0.06), p.mat((250, 244, 214)))
    p.ball((1.4, 0.44), (0.05, 0.06), p.mat((190, 30, 30)))
    for x in (-0.9, 0.92):
        p.ball((x, 0.22), (0.24, 0.23), dark, 0.3)
        p.ball((x, 0.22), (0.13, 0.13), p.mat((170, 172, 176)), 0.6)


def _bicycle(p: Pen) -> None:
    tyre, frame = p.mat((28, 28, 30)), p.mat(grain=0.02)
    for x in (-0.55, 0.55):
        p.ring(x, 0.36, 0.34, 0.045, tyre)
        for i in range(6):
            a = math.radians(30.0 * i + 10)
            dx, dy = 0.33 * math.cos(a), 0.33 * math.sin(a)
            p.bar((x - dx, 0.36 - dy), (x + dx, 0.36 + dy), 0.012, p.mat((170, 170, 172)))
    for start, end in (((-0.55, 0.36), (-0.25, 0.78)), ((-0.25, 0.78), (0.05, 0.34)), ((0.05, 0.34), (-0.55, 0.36)),
                 ((-0.25, 0.78), (0.38, 0.8)), ((0.05, 0.34), (0.38, 0.8)), ((0.38, 0.92), (0.55, 0.36))):  # fmt: skip
        p.bar(start, end, 0.055, frame)
    p.bar((-0.4, 0.88), (-0.14, 0.88), 0.08, tyre)
    p.bar((-0.27, 0.88), (-0.24, 0.76), 0.04, tyre)
    p.bar((0.34, 0.98), (0.52, 0.98), 0.05, tyre)


def _dog(p: Pen) -> None:
    fur, dark = p.mat((150, 104, 62), "streaks", (110, 74, 46), 3), p.mat((40, 32, 28))
    for x in (-0.42, 0.3):
        p.bar((x + 0.08, 0.45), (x + 0.1, 0.03), 0.12, fur, 0.08, 0.8)
    p.bar((-0.45, 0.55), (0.4, 0.58), 0.36, fur, 0.4)
    p.bar((-0.5, 0.62), (-0.72, 0.95), 0.1, fur, 0.04)
    for x in (-0.45, 0.38):
        p.bar((x, 0.45), (x, 0.02), 0.14, fur, 0.09)
    p.bar((0.45, 0.66), (0.58, 0.9), 0.24, fur, 0.22)
    p.ball((0.62, 0.92), (0.19, 0.16), fur)
    p.bar((0.7, 0.87), (0.88, 0.83), 0.16, fur, 0.1)
    p.ball((0.9, 0.85), (0.04, 0.035), dark)
    p.ball((0.7, 0.96), (0.025, 0.025), dark)
    p.bar((0.54, 1.02), (0.48, 0.8), 0.12, dark, 0.06)


def _sign(p: Pen) -> None:
    p.bar((0, 0), (0, 0.7), 0.035, p.mat((140, 142, 146)))
    n = 8
    ring = [
        (0.2 * math.cos(math.pi * (2 * i + 1) / n), 0.8 + 0.2 * math.sin(math.pi * (2 * i + 1) / n)) for i in range(n)
    ]
    p.poly(ring, p.mat((240, 240, 238)))
    p.poly([(x * 0.9, 0.8 + (y - 0.8) * 0.9) for x, y in ring], p.mat((192, 34, 40), grain=0.04))
    p.rect((-0.13, 0.77), (0.13, 0.83), p.mat((244, 244, 242)))


def _bin(p: Pen) -> None:
    body = p.mat(pattern="lines", second=(40, 44, 46), size=4)
    p.poly(((-0.26, 0), (0.26, 0), (0.33, 0.84), (-0.33, 0.84)), body, 0.9)
    p.rect((-0.36, 0.82), (0.36, 0.92), p.mat(0.7), 0.9)
    p.ball((0, 0.93), (0.3, 0.08), p.mat(0.8), 0.6)


def _barrel(p: Pen) -> None:
    wood, hoop = p.mat((142, 94, 54), "lines", (110, 70, 40), 8), p.mat((70, 70, 74))
    p.poly(((-0.32, 0), (0.32, 0), (0.4, 0.3), (0.4, 0.7), (0.32, 1), (-0.32, 1), (-0.4, 0.7), (-0.4, 0.3)), wood, 0.92)
    for y, x in ((0.1, 0.36), (0.3, 0.405), (0.66, 0.405), (0.86, 0.365)):
        p.rect((-x, y), (x, y + 0.06), hoop, 0.92)
    p.ball((0, 0.99), (0.32, 0.05), p.mat((120, 80, 48)), 0.2)


def _umbrella(p: Pen) -> None:
    cloth = p.mat(pattern="lines", second=(240, 236, 226), size=17, grain=0.05)
    p.bar((0, 0.0), (0, 0.9), 0.035, p.mat((90, 70, 54)))
    arc = [(0.62 * math.cos(math.pi * i / 14), 0.6 + 0.4 * math.sin(math.pi * i / 14)) for i in range(15)]
    scallop = [(-0.62 + 0.155 * i, 0.6 + (0.035 if i % 2 else 0.0)) for i in range(1, 8)]
    p.poly(arc + scallop, cloth, 0.85)
    p.bar((0, 1.0), (0, 1.05), 0.03, p.mat((60, 50, 44)))


def _suitcase(p: Pen) -> None:
    body, dark = p.mat(pattern="rings", second=(50, 50, 56), size=9), p.mat((44, 44, 48))
    for x in (-0.12, 0.12):
        p.bar((x, 0.7), (x, 0.98), 0.03, dark)
    p.bar((-0.12, 0.98), (0.12, 0.98), 0.05, dark)
    p.bar((-0.18, 0.12), (-0.18, 0.66), 0.2, body)
    p.rect((-0.28, 0.06), (0.28, 0.74), body, 0.5)
    for x in (-0.2, 0.2):
        p.ball((x, 0.03), (0.05, 0.04), dark)


def _bench(p: Pen) -> None:
    wood, iron = p.mat((140, 98, 60), "planks", (90, 62, 40), 4), p.mat((46, 50, 50))
    for x in (-0.95, 0.95):
        p.bar((x, 0.0), (x, 0.98), 0.07, iron)
        p.bar((x, 0.5), (x * 0.93, 0.0), 0.06, iron)
    for y in (0.62, 0.76, 0.9):
        p.rect((-1.1, y), (1.1, y + 0.1), wood)
    p.poly(((-1.12, 0.42), (1.12, 0.42), (1.05, 0.54), (-1.05, 0.54)), wood, shade=1.1)


def _hydrant(p: Pen) -> None:
    red = p.mat((196, 44, 40), grain=0.05)
    p.rect((-0.24, 0), (0.24, 0.1), red, 0.9)
    p.rect((-0.18, 0.08), (0.18, 0.76), red, 0.95)
    p.ball((0, 0.78), (0.2, 0.16), red)
    p.rect((-0.05, 0.9), (0.05, 1.0), red, 0.9)
    for x in (-0.24, 0.24):
        p.ball((x, 0.55), (0.09, 0.1), p.mat((214, 190, 60)))
    p.ball((0, 0.5), (0.11, 0.11), red, shade=0.9)


def _ball(p: Pen) -> None:
    p.ball((0, 0.5), (0.5, 0.5), p.mat(pattern="checks", second=(244, 242, 236), size=26, grain=0.02))


def _tv(p: Pen) -> None:
    dark = p.mat((28, 28, 32), grain=0.02)
    p.rect((-0.5, 0.0), (0.5, 0.06), dark)
    p.rect((-0.05, 0.04), (0.05, 0.26), dark)
    p.rect((-0.85, 0.2), (0.85, 1.0), dark)
    p.rect((-0.8, 0.25), (0.8, 0.96), p.mat((70, 110, 160), "dots", (190, 206, 220), 18, 0.3))


def _cart(p: Pen) -> None:
    wire, dark = p.mat((160, 164, 168)), p.mat((40, 40, 44))
    p.poly(
        ((-0.4, 0.38), (0.42, 0.38), (0.55, 0.86), (-0.5, 0.86)), p.mat((110, 114, 120), "checks", (188, 190, 194), 3)
    )
    for a, b in (((-0.5, 0.86), (0.55, 0.86)), ((-0.4, 0.38), (0.42, 0.38)), ((-0.4, 0.38), (-0.34, 0.1)),
                 ((0.42, 0.38), (0.36, 0.1)), ((-0.34, 0.1), (0.36, 0.1)), ((-0.5, 0.86), (-0.68, 0.98))):  # fmt: skip
        p.bar(a, b, 0.045, wire)
    for x in (-0.3, 0.32):
        p.ball((x, 0.05), (0.06, 0.05), dark)


def _fence(p: Pen) -> None:
    wood = p.mat((196, 184, 164), "streaks", (160, 146, 124), 4)
    for y in (0.28, 0.72):
        p.rect((-1.3, y), (1.3, y + 0.09), wood, shade=0.8)
    for i in range(9):
        x = -1.24 + 0.31 * i
        p.poly(((x - 0.085, 0), (x + 0.085, 0), (x + 0.085, 0.88), (x, 1.0), (x - 0.085, 0.88)), wood, 0.2)


def _cone(p: Pen) -> None:
    orange, white = p.mat((232, 106, 36), grain=0.05), p.mat((242, 240, 236))
    p.rect((-0.42, 0), (0.42, 0.08), orange)
    p.poly(((-0.3, 0.08), (0.3, 0.08), (0.05, 1), (-0.05, 1)), orange, 0.9)
    p.poly(((-0.21, 0.4), (0.21, 0.4), (0.15, 0.62), (-0.15, 0.62)), white, 0.9)


def _lamp(p: Pen) -> None:
    metal = p.mat((60, 56, 54))
    p.ball((0, 0.015), (0.14, 0.025), metal)
    p.bar((0, 0.02), (0, 0.8), 0.025, metal)
    p.poly(((-0.17, 0.76), (0.17, 0.76), (0.1, 1.0), (-0.1, 1.0)), p.mat((240, 220, 170)), 0.6)


def _sofa(p: Pen) -> None:
    cloth = p.mat(fold=0.25, pattern="plain")
    p.rect((-1.0, 0.4), (1.0, 1.0), cloth, 0.2)
    p.rect((-1.05, 0.1), (1.05, 0.5), cloth, 0.15, 0.86)
    for x in (-0.5, 0.5):
        p.bar((x - 0.28, 0.5), (x + 0.28, 0.5), 0.22, cloth, shade=1.08)
    for x in (-1.1, 1.1):
        p.bar((x, 0.12), (x, 0.62), 0.26, cloth)
    for x in (-1.0, 1.0):
        p.rect((x - 0.05, 0), (x + 0.05, 0.1), p.mat((50, 40, 34)))


KINDS: dict[str, Kind] = {
    "chair": Kind(_chair, 0.54, "i"), "dining table": Kind(_table, 0.43, "i"), "bush": Kind(_bush, 0.55, "o"),
    "potted plant": Kind(_plant, 0.55), "pole": Kind(_pole, 1.7, "o"), "box": Kind(_box, 0.34),
    "car": Kind(_car, 0.82, "o"), "bicycle": Kind(_bicycle, 0.6, "o"), "dog": Kind(_dog, 0.38),
    "stop sign": Kind(_sign, 1.35, "o"), "bin": Kind(_bin, 0.52), "barrel": Kind(_barrel, 0.55),
    "umbrella": Kind(_umbrella, 1.15, "o"), "suitcase": Kind(_suitcase, 0.44), "bench": Kind(_bench, 0.5, "o"),
    "fire hydrant": Kind(_hydrant, 0.45, "o"), "sports ball": Kind(_ball, 0.16), "tv": Kind(_tv, 0.5, "i"),
    "cart": Kind(_cart, 0.6), "fence": Kind(_fence, 0.6, "o"), "traffic cone": Kind(_cone, 0.42, "o"),
    "lamp": Kind(_lamp, 0.85, "i"), "couch": Kind(_sofa, 0.5, "i"),
}  # fmt: skip


def kinds_for(indoors: bool) -> list[str]:
    """The names of the kinds that stand indoors (or outdoors)."""
    return [name for name, kind in KINDS.items() if ("i" if indoors else "o") in kind.places]


@dataclass(frozen=True, slots=True)
class Thing:
    """One object: what, where its foot is (px), its height px, mirrored or not, and the seed of its details."""

    label: str
    x: float
    y: float
    size: float
    flip: bool
    seed: int

    def moved(self, x: float) -> Thing:
        """The same thing elsewhere."""
        return replace(self, x=x)


def render_thing(thing: Thing, light: NDArray[np.float64], height: int, width: int) -> Layer | None:
    """The object alone; None when it lies outside the frame."""
    rng = np.random.Generator(np.random.PCG64(thing.seed))
    kind = KINDS[thing.label]
    brush = Brush(light, max(thing.size, 8.0) / 100.0)
    pen = Pen(brush, thing.x, thing.y, thing.size, thing.flip, rng)
    colour = kind.colours[int(rng.integers(len(kind.colours)))]
    pen.colour = tuple(int(v) for v in np.clip(np.asarray(colour) + rng.integers(-18, 19, 3), 10, 240))  # type: ignore[assignment]
    kind.draw(pen)
    return brush.render(height, width)
