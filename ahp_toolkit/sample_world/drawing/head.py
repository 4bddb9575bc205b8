"""Heads: skull, face, hair, hats, seen from any side. A head point has an azimuth from the face and an elevation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from ahp_toolkit.sample_world.drawing.brush import Brush, Look, Point, profile
from ahp_toolkit.sample_world.drawing.clothes import PART, Outfit
from ahp_toolkit.sample_world.drawing.raster import OVER, material

#: hairline: elevation (degrees) by azimuth from the middle of the face
_LINES = {
    "short": ((0, 36), (45, 30), (62, 4), (88, -6), (125, -34), (180, -40)),
    "crop": ((0, 44), (45, 38), (65, 14), (88, 4), (125, -22), (180, -30)),
    "long": ((0, 34), (40, 24), (58, -24), (90, -45), (130, -58), (180, -60)),
    "bald": ((0, 89), (60, 89), (90, 30), (120, 10), (180, -10)),
    "cap": ((0, 22), (90, 16), (180, 2)),
    "beanie": ((0, 26), (90, 4), (180, -8)),
    "brim": ((0, 26), (90, 24), (180, 18)),
}
_STYLE_LINE = {"bob": "long", "tail": "short", "bun": "short", "afro": "short"}
_VOLUME = {"short": 1.08, "crop": 1.03, "bob": 1.1, "long": 1.09, "tail": 1.06, "bun": 1.06, "afro": 1.42, "bald": 1.01}


@dataclass(frozen=True, slots=True)
class HeadView:
    """A head in the picture: centre and half-sizes px, yaw degrees (0: the face to us), nearness key."""

    x: float
    y: float
    rx: float
    ry: float
    yaw: float
    key: float

    def at(self, azimuth: float, elevation: float, out: float = 1.0) -> tuple[float, float, float]:
        """A point of the surface: x px, y px, and its nearness in [-1, 1]."""
        a, e = math.radians(azimuth + self.yaw), math.radians(elevation)
        near = math.cos(e) * math.cos(a)
        return (
            _snap(self.x + self.rx * out * math.cos(e) * math.sin(a)),
            _snap(self.y - self.ry * out * math.sin(e)),
            near,
        )


def _snap(v: float) -> float:
    return round(v * 64.0) / 64.0


def _line(name: str, azimuth: float) -> float:
    az = abs((azimuth + 180.0) % 360.0 - 180.0)
    table = _LINES[name]
    for (a0, e0), (a1, e1) in pairwise(table):
        if az <= a1:
            return e0 + (e1 - e0) * (az - a0) / (a1 - a0)
    return float(table[-1][1])


def _shell(view: HeadView, name: str, volume: float, lift: float = 0.0) -> list[Point]:
    """What covers the skull above a hairline, as a polygon: the line along the visible half, then the outline back."""
    points: list[Point] = []
    for i in range(13):
        screen = -90.0 + 15.0 * i
        e = _line(name, screen - view.yaw) + lift
        x, y, _ = view.at(screen - view.yaw, min(e, 88.0), volume if abs(screen) == 90 else 1.0)
        points.append((x, y))
    start = _line(name, 90.0 - view.yaw) + lift
    end = 180.0 - (_line(name, -90.0 - view.yaw) + lift)
    for i in range(13):
        e = math.radians(start + (end - start) * i / 12.0)
        points.append((_snap(view.x + view.rx * volume * math.cos(e)), _snap(view.y - view.ry * volume * math.sin(e))))
    return points


def draw_head(brush: Brush, view: HeadView, outfit: Outfit, skin: int, hair: int, neck: Point) -> None:
    """Add a whole head to the brush; ``neck`` is the base of the neck px, ``shoulders`` the shoulders' y px."""
    face, key = PART["face"], view.key
    front = math.cos(math.radians(view.yaw))
    widths = profile(((0, 0.62), (1, 0.66)), view.rx)
    brush.limb((view.x, view.y + view.ry * 0.5), neck, widths, Look(skin, face, -0.004, shade=0.88), caps=(0.5, 0.5))
    _back_hair(brush, view, outfit, hair, front)
    brush.ellipse((view.x, view.y - view.ry * 0.12), view.rx, view.ry * 0.88, Look(skin, face, key, rounded=0.8))
    toward = math.sin(math.radians(view.yaw))
    jaw = (view.x + view.rx * 0.22 * toward, view.y + view.ry * 0.42)
    brush.ellipse(jaw, view.rx * 0.76, view.ry * 0.58, Look(skin, face, key + 1e-4, rounded=0.75))
    for az in (-92.0, 92.0):
        x, y, near = view.at(az, -4.0, 1.0)
        if near > -0.35:
            brush.ellipse((x, y), view.rx * 0.16, view.ry * 0.2, Look(skin, face, key + 2e-4, shade=0.92))
    _features(brush, view, outfit, hair, skin)
    if outfit.hair_style != "bald" or outfit.hat == "":
        style = _STYLE_LINE.get(outfit.hair_style, outfit.hair_style)
        volume = min(_VOLUME[outfit.hair_style], 1.12) if outfit.hat else _VOLUME[outfit.hair_style]
        lift = -10.0 * outfit.fringe if style in ("short", "long") else 0.0
        brush.poly(_shell(view, style, volume, lift), Look(hair, PART["hair"], key + 6e-4, rounded=0.75))
    _hat(brush, view, outfit)


def _back_hair(brush: Brush, view: HeadView, outfit: Outfit, hair: int, front: float) -> None:
    key = 0.04 - 0.2 * front
    label, style = PART["hair"], outfit.hair_style
    back = -math.sin(math.radians(view.yaw))
    if style in ("long", "bob"):
        drop = view.y + view.ry * (1.0 if style == "bob" else 2.0 + outfit.fringe)
        widths = profile(((0, 1.04), (0.5, 1.1), (1, 0.98 if style == "bob" else 0.8)), view.rx)
        middle = view.x + back * view.rx * 0.32
        brush.limb(
            (middle, view.y - view.ry * 0.3),
            (middle, drop),
            widths,
            Look(hair, label, key, rounded=0.7),
            caps=(0.8, 0.25),
        )
    elif style == "bun":
        knot = (view.x + back * view.rx * 0.75, view.y - view.ry * 0.82)
        brush.ellipse(
            knot, view.rx * 0.48, view.rx * 0.44, Look(hair, label, view.key + (-0.001 if front > 0.2 else 0.002))
        )
    elif style == "tail":
        a = (view.x + back * view.rx * 1.0, view.y - view.ry * 0.25)
        b = (view.x + back * view.rx * 1.5, view.y + view.ry * 1.25)
        widths = profile(((0, 0.22), (0.4, 0.4), (1, 0.12)), view.rx)
        brush.limb(a, b, widths, Look(hair, label, view.key + (-0.002 if front > -0.2 else 0.002)))
    elif style == "afro":
        brush.ellipse(
            (view.x, view.y - view.ry * 0.2), view.rx * 1.5, view.ry * 1.2, Look(hair, label, view.key - 0.001)
        )


def _features(brush: Brush, view: HeadView, outfit: Outfit, hair: int, skin: int) -> None:
    face, key = PART["face"], view.key + 3e-4
    white, dark = brush.material(material("plain", (238, 236, 232))), brush.material(material("plain", (40, 30, 26)))
    frame = brush.material(material("plain", (26, 26, 30), (90, 90, 100)))
    for side in (-1.0, 1.0):
        x, y, near = view.at(26.0 * side, 2.0)
        if near > 0.15:
            squash = max(0.35, near)
            brush.ellipse(
                (x, y), view.rx * 0.19 * squash, view.ry * 0.085, Look(white, face, key, rounded=0, mode=OVER)
            )
            brush.ellipse((x, y), view.rx * 0.1 * squash, view.ry * 0.085, Look(dark, face, key, rounded=0, mode=OVER))
            bx, by, _ = view.at(27.0 * side, 17.0)
            brush.ellipse(
                (bx, by), view.rx * 0.26 * squash, view.ry * 0.05, Look(hair, face, key, rounded=0, mode=OVER)
            )
            if outfit.glasses:
                spot = (x, y + view.ry * 0.02)
                size = view.rx * 0.33 * squash
                brush.ellipse(
                    spot, size, view.ry * 0.19, Look(frame, PART["sunglasses"], key + 2e-4, rounded=0.5, mode=OVER)
                )
    if outfit.glasses:
        for a0, a1 in ((-26.0, 26.0), (26.0, 80.0), (-80.0, -26.0)):
            p, q = view.at(a0, 5.0), view.at(a1, 5.0)
            low, high = min(p[2], q[2]), max(p[2], q[2])
            if low > 0.05 or (a0 + a1 != 0 and high > 0.5 and low > -0.3):
                brush.line(p[:2], q[:2], view.ry * 0.09, Look(frame, PART["sunglasses"], key + 2e-4, mode=OVER))
    _nose_and_mouth(brush, view, outfit, hair, skin, brush.material(outfit.lips))


def _nose_and_mouth(brush: Brush, view: HeadView, outfit: Outfit, hair: int, skin: int, lips: int) -> None:
    face, key = PART["face"], view.key + 3e-4
    nose, tip = view.at(0.0, 0.0, 1.03), view.at(0.0, -18.0, 1.12)
    if tip[2] > -0.15:
        widths = profile(((0, 0.08), (1, 0.16)), view.rx)
        brush.limb(nose[:2], tip[:2], widths, Look(skin, face, key + 1e-4, shade=0.96))
    mouth = view.at(0.0, -38.0)
    if mouth[2] > 0.1:
        if outfit.beard:
            chin = view.at(0.0, -50.0)
            brush.ellipse(
                chin[:2], view.rx * 0.62, view.ry * 0.34, Look(hair, face, key - 1e-5, rounded=0.6, mode=OVER)
            )
        size = view.rx * 0.3 * max(0.4, mouth[2])
        brush.ellipse(
            (mouth[0], mouth[1] + view.ry * 0.02), size, view.ry * 0.055, Look(lips, face, key, rounded=0, mode=OVER)
        )


def _hat(brush: Brush, view: HeadView, outfit: Outfit) -> None:
    if not outfit.hat:
        return
    label, key = PART["hat"], view.key + 8e-4
    cloth = brush.material(outfit.hat_cloth)
    brush.poly(_shell(view, outfit.hat, 1.17, 0.0), Look(cloth, label, key, rounded=0.8))
    toward, front = math.sin(math.radians(view.yaw)), math.cos(math.radians(view.yaw))
    if outfit.hat == "brim":
        centre = (view.x, view.y - view.ry * 0.42)
        brush.ellipse(centre, view.rx * 1.85, view.ry * 0.24, Look(cloth, label, key - 1e-4, rounded=0.3, shade=0.86))
    elif outfit.hat == "cap" and front > -0.35:
        centre = (view.x + view.rx * 0.95 * toward, view.y - view.ry * (0.4 - 0.06 * front))
        brush.ellipse(
            centre,
            view.rx * (0.92 - 0.1 * front),
            view.ry * (0.1 + 0.1 * max(0.0, front)),
            Look(cloth, label, key + 1e-4, rounded=0.4, shade=0.82),
        )
