"""From a posed skeleton and an outfit to the primitives of a dressed person, with LIP's labels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.sample_world.drawing.brush import Brush, Layer, Look, Point, profile
from ahp_toolkit.sample_world.drawing.clothes import PART, Outfit, sample_outfit
from ahp_toolkit.sample_world.drawing.head import HeadView, draw_head
from ahp_toolkit.sample_world.drawing.raster import DARKEN, OVER, material
from ahp_toolkit.sample_world.drawing.skeleton import Build, Camera, Joints, Pose, forward, sample_build, sample_pose

Projected = dict[str, tuple[float, float, float]]
_UPPER_ARM = ((0, 0.034), (0.3, 0.035), (0.7, 0.029), (1, 0.026))
_FOREARM = ((0, 0.027), (0.3, 0.029), (1, 0.0175))
_THIGH = ((0, 0.062), (0.25, 0.064), (0.8, 0.045), (1, 0.042))
_SHANK = ((0, 0.041), (0.3, 0.045), (0.75, 0.028), (1, 0.024))
_SEATED = ("sitting", "crouching")


@dataclass(frozen=True, slots=True)
class Person:
    """Who somebody is, apart from where they stand."""

    build: Build
    outfit: Outfit
    pose: Pose

    @property
    def joints(self) -> Joints:
        """The joints in the body frame."""
        return forward(self.pose, self.build)


def sample_person(rng: np.random.Generator, kind: str) -> Person:
    """A random person in a pose of `skeleton.POSES`."""
    build = sample_build(rng)
    return Person(build, sample_outfit(rng, build.female), sample_pose(rng, kind))


def render_person(
    person: Person, camera: Camera, light: NDArray[np.float64], height: int, width: int
) -> tuple[Layer | None, Projected]:
    """The person alone (None: outside the frame) and its joints in the picture."""
    at = {k: camera.project(p) for k, p in person.joints.items()}
    brush = Brush(light, camera.scale / 100.0)
    _Dresser(brush, person, camera, at).dress()
    return brush.render(height, width), at


class _Dresser:
    """Adds a person's primitives; ``s`` is px per body height, ``c`` and ``n`` cosine and sine of the yaw."""

    def __init__(self, brush: Brush, person: Person, camera: Camera, at: Projected) -> None:
        self.brush, self.person, self.o, self.at = brush, person, person.outfit, at
        self.s, self.yaw, self.girth = camera.scale, camera.yaw, person.build.girth
        self.c, self.n = math.cos(math.radians(camera.yaw)), math.sin(math.radians(camera.yaw))
        add = brush.material
        o = person.outfit
        self.skin, self.hair, self.shoe, self.sole = add(o.skin), add(o.hair), add(o.shoe), add(o.sole)
        self.top, self.sleeve, self.bottom = add(self._turned(o.top_cloth)), add(o.sleeve_cloth), add(o.bottom_cloth)
        self.coat = add(o.coat) if o.coat is not None else -1
        self.bag = add(o.bag_cloth)
        self.seated = person.pose.kind in _SEATED
        self.leg_keys = {s: self._leg_key(s) for s in "lr"}
        self.covered = self.seated and max(self.leg_keys.values()) > 0

    def _turned(self, cloth: NDArray[np.float64]) -> NDArray[np.float64]:
        """The trunk's cloth turns with the body: a logo on the chest goes out of sight from behind."""
        out = cloth.copy()
        turn = math.remainder(self.yaw, 360.0)
        out[10] -= round(turn / 57.3 * 10.0, 3)
        return out

    def _leg_key(self, s: str) -> float:
        near = [self.at[f"{s}_{j}"][2] for j in ("hip", "knee", "ankle")]
        key = sum(near) / 3 - 0.06
        return key if self.seated else min(key, -0.012) if abs(self.n) < 0.5 else min(key * 0.2 - 0.03, -0.012)

    def dress(self) -> None:
        """Everything, in any order: the keys decide what hides what."""
        for s in "lr":
            self._leg(s)
            self._arm(s)
        self._trunk()
        self._skirt()
        self._head()
        if self.o.bag:
            self._bag()

    def _xy(self, joint: str) -> Point:
        return self.at[joint][:2]

    def _wide(self, points: tuple[tuple[float, float], ...], extra: float = 0.0) -> list[float]:
        return profile([(u, w * (0.55 + 0.45 * self.girth) + extra) for u, w in points], self.s)

    # --- legs -------------------------------------------------------------------------------------------------------
    def _leg(self, s: str) -> None:
        o, key = self.o, self.leg_keys[s]
        hip, knee, ankle = self._xy(f"{s}_hip"), self._xy(f"{s}_knee"), self._xy(f"{s}_ankle")
        label = PART["left-leg" if s == "l" else "right-leg"]
        cloth_label = PART["jumpsuits"] if o.top == "jumpsuit" else PART["pants"]
        mirror = 1.0 if s == "l" else -1.0
        cloth = self.top if o.top == "jumpsuit" else self.bottom
        trousers = o.bottom == "trousers" and o.top != "dress"
        length = o.leg if trousers else 0.0
        far = 0.86 if abs(self.n) > 0.5 and self.at[f"{s}_hip"][2] < 0 else 1.0
        if length < 2.0:
            self.brush.limb(hip, knee, self._wide(_THIGH), Look(self.skin, label, key, shade=far))
            self.brush.limb(knee, ankle, self._wide(_SHANK), Look(self.skin, label, key + 1e-4, shade=far))
        self._sock(s, key, knee, ankle, far)
        self._shoe(s, key, far)
        if length > 0:
            look = Look(cloth, cloth_label, key + 4e-4, mirror=mirror, shade=far)
            self._tube((hip, knee, ankle), length, (_THIGH, _SHANK), 0.008, look)

    def _tube(
        self,
        joints: tuple[Point, Point, Point],
        length: float,
        shapes: tuple[tuple[tuple[float, float], ...], ...],
        extra: float,
        look: Look,
    ) -> None:
        """A sleeve or trouser leg over two limbs, ``length`` limbs long; the cloth runs on over the joint."""
        a, b, c = joints
        first = min(length, 1.0)
        end = _between(a, b, first)
        upper = [(u / first, w) for u, w in shapes[0] if u < first] + [(1.0, _at(shapes[0], first))]
        whole = length >= 1.0
        add = self.brush.limb
        add(a, end, self._wide(tuple(upper), extra), look, caps=(1.0, 0.9 if whole else 0.12))
        if length > 1.0:
            rest = min(length - 1.0, 0.97)
            lower = [(u / rest, w) for u, w in shapes[1] if u < rest] + [(1.0, _at(shapes[1], rest) + 0.004)]
            run = math.hypot(b[0] - a[0], b[1] - a[1]) / self.brush.unit
            add(
                b,
                _between(b, c, rest),
                self._wide(tuple(lower), extra),
                replace(look, key=look.key + 1e-4, tu=round(run, 2)),
                caps=(0.9, 0.12),
            )

    def _sock(self, s: str, key: float, knee: Point, ankle: Point, far: float) -> None:
        if self.o.socks is None:
            return
        cloth = self.brush.material(self.o.socks)
        start = _between(ankle, knee, self.o.sock_height)
        widths = self._wide(((0, _at(_SHANK, 1 - self.o.sock_height)), (1, 0.026)), 0.003)
        self.brush.limb(start, ankle, widths, Look(cloth, PART["socks"], key + 2e-4, shade=far), caps=(0.1, 1))

    def _shoe(self, s: str, key: float, far: float) -> None:
        ankle, toe = self.at[f"{s}_ankle"], self.at[f"{s}_toe"]
        label = PART["left-shoe" if s == "l" else "right-shoe"]
        dx, dy = toe[0] - ankle[0], toe[1] - ankle[1]
        heel = (ankle[0] - dx * 0.22, ankle[1] + self.s * 0.018 - dy * 0.1)
        tip = (ankle[0] + dx * 0.92, ankle[1] + dy * 0.92 + self.s * 0.004)
        widths = self._wide(((0, 0.027), (0.3, 0.031), (0.75, 0.028), (1, 0.021)))
        under = self._wide(((0, 0.026), (0.5, 0.028), (1, 0.022)))
        drop = self.s * 0.009
        key += 3e-4
        self.brush.limb(
            (heel[0], heel[1] + drop), (tip[0], tip[1] + drop), under, Look(self.sole, label, key, shade=0.8)
        )
        self.brush.limb(heel, tip, widths, Look(self.shoe, label, key + 1e-5, shade=far))
        self.brush.limb((ankle[0], ankle[1]), heel, widths, Look(self.shoe, label, key + 2e-5, shade=far))

    # --- arms -------------------------------------------------------------------------------------------------------
    def _arm(self, s: str) -> None:
        o, at = self.o, self.at
        near = (at[f"{s}_shoulder"][2] + at[f"{s}_elbow"][2] + at[f"{s}_wrist"][2]) / 3
        key = near + 0.035
        if key > 0:
            key = max(key, 0.06 if at[f"{s}_wrist"][1] > at["chest"][1] else key)
        shoulder, elbow, wrist, hand = (self._xy(f"{s}_{j}") for j in ("shoulder", "elbow", "wrist", "hand"))
        label = PART["left-arm" if s == "l" else "right-arm"]
        mirror = 1.0 if s == "l" else -1.0
        far = 0.84 if abs(self.n) > 0.5 and at[f"{s}_shoulder"][2] < 0 else 1.0
        if key > 0:
            self._cast(shoulder, elbow, wrist, key - 1e-5)
        self.brush.limb(shoulder, elbow, self._wide(_UPPER_ARM), Look(self.skin, label, key, shade=far))
        self.brush.limb(elbow, wrist, self._wide(_FOREARM), Look(self.skin, label, key + 1e-4, shade=far))
        self._hand(s, key + 2e-4, wrist, hand, label, far)
        if o.sleeve > 0 and not (o.top == "dress" and o.sleeve == 0.55):
            look = Look(self.sleeve, o.top_label, key + 3e-4, mirror=mirror, shade=far)
            self._tube((shoulder, elbow, wrist), o.sleeve, (_UPPER_ARM, _FOREARM), 0.007, look)
        if self.coat >= 0:
            look = Look(self.coat, PART["coat"], key + 5e-4, mirror=mirror, shade=far)
            self._tube((shoulder, elbow, wrist), 1.94, (_UPPER_ARM, _FOREARM), 0.013, look)

    def _cast(self, a: Point, b: Point, c: Point, key: float) -> None:
        """The soft dark line an arm leaves on what is behind it."""
        off = (-self.brush.light[0] * self.s * 0.014, self.s * 0.008)
        for p, q in ((a, b), (b, c)):
            self.brush.limb(
                (p[0] + off[0], p[1] + off[1]),
                (q[0] + off[0], q[1] + off[1]),
                self._wide(((0, 0.04), (1, 0.034))),
                Look(0, 0, key, mode=DARKEN, shade=0.83),
            )

    def _hand(self, s: str, key: float, wrist: Point, hand: Point, label: int, far: float) -> None:
        mat, part = self.skin, label
        if self.o.gloves is not None:
            mat, part = self.brush.material(self.o.gloves), PART["glove"]
        widths = self._wide(((0, 0.016), (0.45, 0.023), (1, 0.013)), 0.002 if part == PART["glove"] else 0.0)
        self.brush.limb(wrist, hand, widths, Look(mat, part, key, shade=far * 0.98), caps=(0.8, 0.9))
        side = 1.0 if (s == "l") == (self.c > 0) else -1.0
        mid = _between(wrist, hand, 0.25)
        thumb = (mid[0] - side * self.s * 0.02, mid[1] + (hand[1] - wrist[1]) * 0.4)
        self.brush.line(mid, thumb, self.s * 0.016, Look(mat, part, key + 1e-5, shade=far))

    # --- trunk ------------------------------------------------------------------------------------------------------
    def _sides(self, extra: float) -> tuple[list[float], list[float]]:
        """Half-widths from the neck (0) down to the hips (1) on the picture's right and left."""
        b, g = self.person.build, 0.5 + 0.5 * self.girth
        waist = (0.066 if b.female else 0.078) * g
        front = ((0, 0.042), (0.05, 0.07), (0.13, b.shoulder + 0.012), (0.3, 0.098), (0.62, waist), (1, b.hip + 0.036))
        chest = (0.068 if b.female else 0.058) * g
        belly = (0.05 + 0.12 * max(0.0, self.girth - 1.0)) * g
        fore = ((0, 0.03), (0.1, 0.042), (0.33, chest), (0.5, belly * 1.05), (0.75, belly * 1.1), (1, 0.062))
        back = ((0, 0.035), (0.12, 0.06), (0.3, 0.064), (0.6, 0.046 * g), (0.85, 0.066), (1, 0.072))
        f = np.asarray(profile(front)) * abs(self.c)
        right, left = (fore, back) if self.n >= 0 else (back, fore)
        out = []
        for table in (right, left):
            side = np.asarray(profile(table)) * self.n
            out.append([round(float(v), 3) for v in (np.sqrt(f * f + side * side) + extra) * self.s])
        return out[0], out[1]

    def _trunk(self) -> None:
        o = self.o
        neck = _between(self._xy("chest"), self._xy("neck"), 0.25)
        pelvis = self.at["pelvis"]
        hem = (pelvis[0], pelvis[1] + self.s * (0.015 if o.top == "shirt" else 0.035))
        right, left = self._sides(0.004)
        cap = 0.25 if o.top == "shirt" else 0.5
        if o.top == "shirt":  # the hips under the shirt's hem
            label, mat = (PART["skirt"] if o.bottom == "skirt" else PART["pants"]), self.bottom
            low = (pelvis[0], pelvis[1] + self.s * 0.03)
            hips = [r * 0.97 for r in right[-4:]] * 3
            lips = [v * 0.97 for v in left[-4:]] * 3
            self.brush.limb(
                _between(self._xy("waist"), low, 0.5),
                low,
                sorted(hips),
                Look(mat, label, -0.004, rounded=0.8),
                left=sorted(lips),
                caps=(0, 0.55),
            )
        self.brush.limb(neck, hem, right, Look(self.top, o.top_label, 0.0, rounded=0.75), left=left, caps=(0.25, cap))
        self._neckline(neck)
        if self.coat >= 0:
            self._coat(neck, hem)
        if o.scarf is not None:
            self._scarf(neck)

    def _neckline(self, neck: Point) -> None:
        if self.c > 0.2:
            at = (neck[0] + self.n * self.s * 0.03, neck[1] + self.s * 0.004)
            self.brush.ellipse(
                at,
                self.s * 0.034 * self.c,
                self.s * 0.03,
                Look(self.skin, PART["face"], 2e-4, mode=OVER, rounded=0.2, shade=0.95),
            )

    def _coat(self, neck: Point, hem: Point) -> None:
        right, left = self._sides(0.012)
        drop = 0.02 if self.seated else 0.13
        low = (hem[0], hem[1] + self.s * drop)
        stretch = lambda w: [w[min(11, int(i * (1 + 2.2 * drop)))] * (1 + 0.012 * i) for i in range(12)]  # noqa: E731
        self.brush.limb(
            neck,
            low,
            stretch(right),
            Look(self.coat, PART["coat"], 5e-4, rounded=0.75),
            left=stretch(left),
            caps=(0.3, 0.1),
        )
        if self.c > 0.25:
            middle = self.n * self.s * 0.06
            a, b = (neck[0] + middle, neck[1]), (low[0] + middle, low[1])
            if self.o.coat_open:
                wide = profile(((0, 0.034), (0.3, 0.03), (1, 0.05)), self.s * self.c)
                label, mat = (self.o.top_label, self.top)
                end = _between(a, b, 1.0 if self.o.top != "shirt" else 0.78)
                self.brush.limb(a, end, wide, Look(mat, label, 6e-4, mode=OVER, rounded=0.4), caps=(0.2, 0.1))
                if self.o.top == "shirt":
                    label = PART["skirt"] if self.o.bottom == "skirt" else PART["pants"]
                    self.brush.limb(end, b, wide[8:] * 3, Look(self.bottom, label, 55e-5, mode=OVER), caps=(0.1, 0.1))
            else:
                self.brush.limb(a, b, [self.s * 0.003] * 12, Look(self.hair, 0, 6e-4, mode=DARKEN, shade=0.7))
            self._neckline(neck)

    def _scarf(self, neck: Point) -> None:
        mat = self.brush.material(self.o.scarf)  # type: ignore[arg-type]
        label = PART["scarf"]
        up = self._xy("neck")
        at = _between(neck, up, 0.35)
        self.brush.ellipse(at, self.s * 0.052, self.s * 0.03, Look(mat, label, 0.045, rounded=0.9))
        if self.c > -0.2:
            tail = (at[0] + self.s * 0.02 * self.c + self.n * 0.06 * self.s, at[1])
            end = (tail[0] + self.s * 0.01, tail[1] + self.s * 0.15)
            self.brush.limb(tail, end, self._wide(((0, 0.018), (1, 0.024))), Look(mat, label, 0.044), caps=(0.3, 0))

    def _skirt(self) -> None:
        o = self.o
        if (o.top != "dress" and o.bottom != "skirt") or o.top == "jumpsuit":
            return
        label = PART["dress"] if o.top == "dress" else PART["skirt"]
        mat = self.top if o.top == "dress" else self.bottom
        length = 0.75 if o.leg < 1.2 else 1.25
        if self.seated:
            for s in "lr":
                joints = self._xy(f"{s}_hip"), self._xy(f"{s}_knee"), self._xy(f"{s}_ankle")
                look = Look(mat, label, self.leg_keys[s] + 6e-4)
                self._tube(joints, min(length, 0.95), (_THIGH, _SHANK), 0.016, look)
            return
        right, left = self._sides(0.004)
        ends = [_between(self._xy(f"{s}_hip"), self._xy(f"{s}_knee"), min(length, 1.0)) for s in "lr"]
        middle = ((ends[0][0] + ends[1][0]) / 2, (ends[0][1] + ends[1][1]) / 2)
        low = (middle[0], middle[1] + self.s * 0.24 * max(0.0, length - 1.0))
        gap = abs(ends[0][0] - ends[1][0]) / 2 / self.s
        flare = gap + 0.062 + 0.02 * length
        grow = lambda w: profile(((0, w[8] / self.s), (0.3, w[11] / self.s + 0.004), (1, flare)), self.s)  # noqa: E731
        top = _between(self._xy("waist"), self._xy("pelvis"), 0.35)
        run = 12.0 if o.top == "dress" else 0.0
        self.brush.limb(
            top, low, grow(right), Look(mat, label, -0.002, rounded=0.8, tu=run), left=grow(left), caps=(0, 0.06)
        )

    # --- head and bag -----------------------------------------------------------------------------------------------
    def _head(self) -> None:
        b, (x, y, near) = self.person.build, self.at["head"]
        yaw = self.yaw + self.person.pose.angles["turn"]
        side = abs(math.sin(math.radians(yaw)))
        rx, ry = self.s * 0.05 * b.head * (1 + 0.16 * side), self.s * 0.069 * b.head
        lean = math.sin(math.radians(yaw)) * self.s * 0.012
        view = HeadView(x + lean, y - self.s * 0.008, rx, ry, yaw, 0.05 + max(near, 0.0))
        draw_head(self.brush, view, self.o, self.skin, self.hair, self._xy("chest"))

    def _bag(self) -> None:
        """A bag takes the label of the garment it hangs on: LIP has no class for it."""
        label, brush, s = self.o.outer_label, self.brush, self.s
        chest, pelvis = self._xy("chest"), self._xy("pelvis")
        strap = brush.material(material("plain", (60, 50, 44)))
        if self.o.bag == "shoulder":
            side = 1.0 if self.c >= 0 else -1.0
            at = (pelvis[0] + side * s * 0.1, pelvis[1] + s * 0.03)
            brush.line(
                (chest[0] - side * s * 0.07, chest[1] + s * 0.01), at, s * 0.016, Look(strap, 0, 0.012, mode=OVER)
            )
            brush.limb(
                (at[0], at[1] - s * 0.04),
                (at[0], at[1] + s * 0.05),
                [s * 0.055] * 12,
                Look(self.bag, label, 0.015, rounded=0.5),
                caps=(0.2, 0.25),
            )
            return
        back = -self.n * s * 0.085
        if self.c > 0.3:
            for d in (-1.0, 1.0):
                x = chest[0] + d * s * 0.06
                brush.line(
                    (x, chest[1]), (x + d * s * 0.015, chest[1] + s * 0.16), s * 0.024, Look(strap, 0, 0.012, mode=OVER)
                )
        key = -0.02 if self.c > 0.3 else (0.045 if self.c < -0.3 else 0.02)
        width = s * (0.075 * abs(self.c) + 0.055 * abs(self.n))
        a, b = (chest[0] + back, chest[1] + s * 0.05), (_between(chest, pelvis, 0.85)[0] + back, pelvis[1] - s * 0.05)
        if key > 0 or abs(self.n) > 0.3:
            brush.limb(a, b, [width] * 12, Look(self.bag, label, key, rounded=0.5), caps=(0.5, 0.3))
            pocket = _between(a, b, 0.72)
            brush.limb(pocket, b, [width * 0.72] * 12, Look(self.bag, label, key + 1e-4, shade=0.88), caps=(0.2, 0.2))


def _between(a: Point, b: Point, f: float) -> Point:
    return a[0] + (b[0] - a[0]) * f, a[1] + (b[1] - a[1]) * f


def _at(shape: tuple[tuple[float, float], ...], u: float) -> float:
    return float(np.interp(u, [p[0] for p in shape], [p[1] for p in shape]))
