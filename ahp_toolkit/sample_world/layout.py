"""What a scene holds: places, light, who stands where, what hides whom. Everything is drawn from the seed alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core.hashing import seed_of
from ahp_toolkit.sample_world.drawing import background
from ahp_toolkit.sample_world.drawing.body import Person, render_person, sample_person
from ahp_toolkit.sample_world.drawing.brush import Layer
from ahp_toolkit.sample_world.drawing.objects import KINDS, Thing, kinds_for, render_thing
from ahp_toolkit.sample_world.drawing.skeleton import POSES, Camera
from ahp_toolkit.sources.base import PART_PAIRS

#: How often each layout comes in `PERIOD` scenes in a row; ``poor``, people with poor masks, only when asked for.
LAYOUTS = {
    "solo": 3, "pair": 3, "trio": 1, "hidden": 6, "overlap": 6, "crowd": 1, "close": 2, "poster": 1, "mirror": 1,
    "poor": 0,
}  # fmt: skip
PERIOD = sum(LAYOUTS.values())
_ORDER = [name for name, n in LAYOUTS.items() for _ in range(n)]
#: the largest factor of what would else hide everything
WIDEST = {"car": 0.72, "couch": 0.85, "fence": 1.0, "bush": 0.95}
#: one in so many people who could be preserved gets a poor source mask
POOR = 12


@dataclass(frozen=True, slots=True)
class Item:
    """A layer with what it is; ``person`` is the pose's name (None for a thing), ``depth`` sorts far to near."""

    layer: Layer
    depth: float
    label: str
    person: str | None = None
    yaw: float = 0.0
    crowd: bool = False
    depiction: bool = False
    reflection: bool = False
    poor: int = 0


@dataclass(slots=True)
class Plan:
    """A scene to be composited: background, shadows (x, y, rx, ry px, strength), items far to near, sensor."""

    place: str
    layout: str
    ground: NDArray[np.uint8]
    shadows: list[tuple[float, float, float, float, float]] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    noise: tuple[int, float, tuple[float, float, float]] = (0, 0.0, (1.0, 1.0, 1.0))


def plan(seed: int, index: int, width: int, height: int, layout: str | None = None) -> Plan:
    """All that scene ``index`` holds; see `scene.generate`."""
    number = seed_of("sample_world", seed, index, width, height, layout or "")
    # 7 and the period have no common factor: neighbours differ, every period holds each layout as often as said
    layout = layout or _ORDER[(index * 7) % PERIOD]
    maker = _Maker(np.random.Generator(np.random.PCG64(number)), width, height, layout)
    maker.fill(layout, number)
    return maker.plan


class _Maker:
    def __init__(self, rng: np.random.Generator, width: int, height: int, layout: str) -> None:
        self.rng, self.w, self.h = rng, width, height
        self.indoors = bool(rng.random() < 0.42) or layout in ("poster", "mirror")
        places = background.INDOORS if self.indoors else background.OUTDOORS
        place = places[int(rng.integers(len(places)))]
        ground, self.horizon = background.paint(place, height, width, rng)
        self.plan = Plan(place, "", ground)
        side = self.between(-0.75, 0.75)
        light = np.asarray([side, -0.5, 0.62])
        light = np.round(light / math.sqrt(float((light * light).sum())), 4)
        self.light = np.asarray([*light, self.between(0.5, 0.66), self.between(0.42, 0.56)])

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.rng.random())

    def fill(self, layout: str, number: int) -> None:
        self.plan.layout = layout
        _FILL[layout](self)
        self.plan.items.sort(key=lambda i: i.depth)
        warm = self.between(-0.05, 0.05)
        gain = tuple(round(g, 4) for g in (1.0 + warm, 1.0, 1.0 - warm))
        self.plan.noise = (number % (1 << 30), round(self.between(1.0, 5.0), 3), gain)  # type: ignore[assignment]

    # --- placing ----------------------------------------------------------------------------------------------------
    def foot(self, t: float) -> float:
        """Contact y px for a nearness t in [0, 1]."""
        first = self.horizon + 0.1 * self.h
        return first + t * (0.965 * self.h - first)

    def height(self, y: float) -> float:
        """A grown-up's height px with its feet at y."""
        first = self.horizon + 0.1 * self.h
        return self.h * (0.36 + 0.44 * (y - first) / (0.965 * self.h - first))

    def yaw(self) -> float:
        """Fronts, half profiles, backs and profiles."""
        base = (0, 0, 0, 20, -20, 45, -45, 90, -90, 180, 180, 150, -150, 135)[int(self.rng.integers(14))]
        return round(base + self.between(-8, 8), 1)

    def someone(self, pose: str | None = None) -> Person:
        kind = pose or POSES[(0, 0, 0, 1, 1, 2, 3, 4, 5)[int(self.rng.integers(9))]]
        return sample_person(self.rng, kind)

    def person(
        self, x: float, t: float, pose: str | None = None, grow: float = 1.0, inside: bool = True
    ) -> Item | None:
        """Put a person with its feet at (x, foot(t)); ``inside`` keeps the whole person in the frame."""
        who = self.someone(pose)
        if who.pose.kind == "arms-raised" and inside:
            t = min(t, 0.42)
        y = self.foot(t)
        size = self.height(y) * grow * self.between(0.92, 1.06) * (0.72 if who.build.head > 1.2 else 1.0)
        camera = Camera(self.yaw(), round(size, 2), round(x, 2), round(y, 2))
        layer, _ = render_person(who, camera, self.light, self.h, self.w)
        if inside and layer is not None:
            moved = self._fit(layer, x)
            camera = replace(camera, x=camera.x + moved)
            if layer.cut:
                layer, _ = render_person(who, camera, self.light, self.h, self.w)
            else:
                layer = replace(layer, x0=layer.x0 + moved)
        if layer is None:
            return None
        if who.pose.kind == "sitting":
            self._seat(camera)
        self._shadow(camera.x, y, size * 0.2)
        poor = int(self.rng.integers(1, 1 << 30)) if self.rng.integers(POOR) == 0 else 0
        item = Item(layer, y, "person", who.pose.kind, camera.yaw, poor=poor)
        self.plan.items.append(item)
        return item

    def _fit(self, layer: Layer, x: float) -> int:
        """By how many px to move so that the whole person is in the frame (at times left inside the gutter)."""
        edge = 3 if self.rng.random() < 0.04 else 10
        left, right = layer.x0, layer.x0 + layer.parts.shape[1]
        half = math.ceil(max(x - left, right - x)) if layer.cut else 0
        low, high = (
            (edge - left, self.w - edge - right) if not layer.cut else (edge + half - x, self.w - edge - half - x)
        )
        return round(min(max(0.0, low), high)) if low <= high else 0

    def _seat(self, camera: Camera) -> None:
        label = "chair" if self.indoors else "bench"
        size = camera.scale * (0.6 if self.indoors else 0.56)
        self._thing(
            Thing(label, camera.x, camera.y - camera.scale * 0.03, size, False, int(self.rng.integers(1 << 40))),
            camera.y - 0.5,
        )

    def _shadow(self, x: float, y: float, r: float) -> None:
        dx = -float(self.light[0]) * r * 0.8
        self.plan.shadows.append((round(x + dx, 2), round(y, 2), round(r * 1.15, 2), round(r * 0.34, 2), 0.45))

    def _thing(self, thing: Thing, depth: float) -> Item | None:
        layer = render_thing(thing, self.light, self.h, self.w)
        if layer is None:
            return None
        self._shadow(thing.x, thing.y, thing.size * 0.5)
        item = Item(layer, depth, thing.label)
        self.plan.items.append(item)
        return item

    def thing(self, x: float, t: float, label: str | None = None, grow: float = 1.0) -> Item | None:
        """Put a thing with its foot at (x, foot(t))."""
        names = kinds_for(self.indoors)
        label = label or names[int(self.rng.integers(len(names)))]
        y = self.foot(t)
        size = KINDS[label].height * self.height(y) * min(grow, WIDEST.get(label, 9.0)) * self.between(0.85, 1.15)
        flip = bool(self.rng.random() < 0.5)
        return self._thing(
            Thing(label, round(x, 2), round(y, 2), round(size, 2), flip, int(self.rng.integers(1 << 40))), y
        )

    def clutter(self, taken: list[float], count: int) -> None:
        """Things beside and behind people who stand at the columns ``taken``."""
        for _ in range(count):
            places = [self.between(0.02, 0.98) * self.w for _ in range(6)]
            x = max(places, key=lambda p: min((abs(p - q) for q in taken), default=0.0))
            self.thing(x, self.between(-0.12, 0.3), grow=0.9)
            taken.append(x)


# --- layouts ----------------------------------------------------------------------------------------------------------
def _row(m: _Maker, count: int, near: tuple[float, float], pose: str | None = None) -> list[float]:
    taken = []
    for i in range(count):
        x = ((i + 0.5) / count + m.between(-0.09, 0.09) / count) * m.w
        m.person(x, m.between(*near), pose)
        taken.append(x)
    return taken


def _solo(m: _Maker) -> None:
    m.clutter(_row(m, 1, (0.15, 0.95)), int(m.rng.integers(1, 4)))
    if m.rng.random() < 0.3:
        m.person(m.between(0.05, 0.95) * m.w, -0.2, "walking", grow=m.between(0.1, 0.34))


def _pair(m: _Maker) -> None:
    m.clutter(_row(m, 2, (0.0, 0.62)), int(m.rng.integers(0, 3)))


def _poor(m: _Maker) -> None:
    _row(m, 2, (0.0, 0.3), "standing")
    m.plan.items = [replace(i, poor=n + 1) for n, i in enumerate(m.plan.items)]


def _trio(m: _Maker) -> None:
    _row(m, 3, (-0.1, 0.2), "standing" if m.rng.random() < 0.5 else None)


def _hidden(m: _Maker) -> None:
    x, t = m.between(0.25, 0.75) * m.w, m.between(0.1, 0.6)
    item = m.person(x, t)
    if item is not None:
        wide = item.layer.parts.shape[1]
        at = item.layer.x0 + wide * m.between(0.05, 0.95)
        tall = 0.6 if item.layer.parts.shape[0] < 0.4 * m.h else 1.0
        m.thing(at, t + m.between(0.05, 0.25), grow=m.between(0.9, 1.3) * tall)
    if m.rng.random() < 0.7:
        m.person((x + m.between(0.4, 0.6) * m.w) % m.w, m.between(0.0, 0.5))
    m.clutter([x], 1)


def _overlap(m: _Maker) -> None:
    x = m.between(0.3, 0.6) * m.w
    for i in range(int(m.rng.integers(2, 5))):
        m.person(x + m.between(-0.2, 0.24) * m.w, 0.1 + 0.18 * i + m.between(-0.05, 0.05))


def _crowd(m: _Maker) -> None:
    layers = []
    x = m.between(0.2, 0.6) * m.w
    for i in range(8):
        who, size = m.someone("standing"), m.h * m.between(0.17, 0.2)
        camera = Camera(m.yaw(), round(size, 2), round(x + 13 * i + m.between(-4, 4), 2), round(m.foot(-0.16), 2))
        layer, _ = render_person(who, camera, m.light, m.h, m.w)
        if layer is not None:
            layers.append(layer)
    if layers:
        m.plan.items.append(Item(_together(layers, m.h, m.w), m.foot(-0.16), "person", "standing", crowd=True))
    _row(m, 2, (0.35, 0.8))


def _together(layers: list[Layer], height: int, width: int) -> Layer:
    rgba, parts = np.zeros((height, width, 4), np.uint8), np.zeros((height, width), np.uint8)
    for one in layers:
        h, w = one.parts.shape
        y0, x0, y1, x1 = max(one.y0, 0), max(one.x0, 0), min(one.y0 + h, height), min(one.x0 + w, width)
        if y0 >= y1 or x0 >= x1:  # wholly beyond the frame
            continue
        tile = np.s_[y0:y1, x0:x1]
        seen = np.s_[y0 - one.y0 : y1 - one.y0, x0 - one.x0 : x1 - one.x0]
        opaque, body = one.rgba[seen][..., 3] >= 128, one.parts[seen] > 0
        rgba[tile][opaque] = one.rgba[seen][opaque]
        parts[tile][body] = one.parts[seen][body]
    return Layer(rgba, parts, 0, 0, any(one.cut for one in layers))


def _close(m: _Maker) -> None:
    edge = m.rng.random() < 0.5
    x = (0.02 if m.rng.random() < 0.5 else 0.98) * m.w if edge else m.between(0.3, 0.7) * m.w
    m.person(
        x, 1.0 if edge else 1.35, None if edge else "standing", 1.0 if edge else m.between(1.15, 1.5), inside=False
    )
    if m.rng.random() < 0.8:
        m.person((x + m.between(0.42, 0.58) * m.w) % m.w, m.between(0.0, 0.3))
    m.clutter([x], 1)


def _frame(m: _Maker, w: float, h: float, x: float, y: float, paper: tuple[int, int, int]) -> None:
    canvas = background.Canvas(m.h, m.w, m.rng)
    canvas.pixels = m.plan.ground
    canvas.rect(x - 4, y - 4, x + w + 4, y + h + 4, canvas.pick((70, 54, 42), (40, 42, 48), (200, 176, 130)))
    canvas.rect(x, y, x + w, y + h, paper)
    canvas.poly(((x, y + h * 0.9), (x + w, y + h * 0.86), (x + w, y + h), (x, y + h)), background.shade(paper, 0.8))


def _picture_of(m: _Maker, reflection: bool) -> tuple[float, Person]:
    h = m.h * m.between(0.34, 0.42)
    w, x, y = h * 0.62, m.between(0.08, 0.65) * m.w, m.horizon - h - 6
    paper = (176, 196, 204) if reflection else (228, 206, 160)
    _frame(m, w, h, x, y, paper)
    who = m.someone("standing")
    camera = Camera(
        m.between(-25, 25) if not reflection else m.yaw(), round(h * 0.84, 2), round(x + w / 2, 2), round(y + h - 5, 2)
    )
    layer, _ = render_person(who, camera, m.light, m.h, m.w)
    if layer is not None:
        layer = _clipped(layer, x, x + w)
        if reflection:
            layer = layer.mirrored(x + w / 2, PART_PAIRS, m.w, 0.86)
        kind = {"reflection": True} if reflection else {"depiction": True}
        m.plan.items.append(Item(layer, 0.0, "person", "standing", camera.yaw, **kind))  # type: ignore[arg-type]
    return x + w / 2, who


def _clipped(layer: Layer, x0: float, x1: float) -> Layer:
    """The part of a layer between two columns."""
    a, b = max(0, round(x0) - layer.x0), min(layer.parts.shape[1], round(x1) - layer.x0)
    rgba, parts = np.ascontiguousarray(layer.rgba[:, a:b]), np.ascontiguousarray(layer.parts[:, a:b])
    return Layer(rgba, parts, layer.x0 + a, layer.y0, layer.cut)


def _poster(m: _Maker) -> None:
    x, _ = _picture_of(m, False)
    far = (x + 0.5 * m.w) % m.w
    m.person(far, m.between(0.1, 0.6))
    m.clutter([x, far], 2)


def _mirror(m: _Maker) -> None:
    x, _ = _picture_of(m, True)
    m.person((x + m.between(0.35, 0.6) * m.w) % m.w, m.between(0.0, 0.5), "standing")
    m.clutter([x], 1)


_FILL: dict[str, Callable[[_Maker], None]] = {
    "solo": _solo, "pair": _pair, "trio": _trio, "hidden": _hidden, "overlap": _overlap, "crowd": _crowd,
    "close": _close, "poster": _poster, "mirror": _mirror, "poor": _poor,
}  # fmt: skip
