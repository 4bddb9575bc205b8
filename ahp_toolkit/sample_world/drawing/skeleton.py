"""An articulated skeleton: joints, their limits, poses, and where a camera sees them.

Body frame, in units of the standing height: x to the person's own left, y up, z forward. Angles in degrees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Point3 = tuple[float, float, float]
Joints = dict[str, Point3]
#: Degrees of freedom and their limits; ``shoulder`` to ``ankle`` exist once a side (``l_``, ``r_``).
TRUNK_LIMITS = {
    "spine": (-15.0, 60.0), "lean": (-20.0, 20.0), "twist": (-25.0, 25.0), "nod": (-25.0, 35.0), "turn": (-60.0, 60.0),
}  # fmt: skip
SIDE_LIMITS = {
    "shoulder": (-50.0, 170.0), "abduct": (-5.0, 170.0), "elbow": (0.0, 145.0), "swing": (-95.0, 60.0),
    "hip": (-30.0, 120.0), "spread": (-10.0, 45.0), "knee": (0.0, 145.0), "ankle": (-35.0, 30.0),
}  # fmt: skip
LIMITS = {**TRUNK_LIMITS, **{f"{s}_{k}": v for s in "lr" for k, v in SIDE_LIMITS.items()}}
JOINTS = (
    "pelvis", "waist", "chest", "neck", "head",
    *(f"{s}_{j}" for s in "lr" for j in ("shoulder", "elbow", "wrist", "hand", "hip", "knee", "ankle", "toe")),
)  # fmt: skip
POSES = ("standing", "walking", "running", "sitting", "crouching", "arms-raised")
THIGH, SHANK, ANKLE, TORSO, NECK = 0.245, 0.245, 0.045, 0.285, 0.055
UPPER_ARM, FOREARM, HAND, FOOT = 0.165, 0.142, 0.062, 0.115


@dataclass(frozen=True, slots=True)
class Pose:
    """A named pose: an angle for every key of `LIMITS`, within its limits."""

    kind: str
    angles: dict[str, float]


@dataclass(frozen=True, slots=True)
class Build:
    """A body's shape: half shoulder and hip breadth in heights, girth as a factor, head size as a factor."""

    shoulder: float
    hip: float
    girth: float
    head: float
    female: bool


def sample_build(rng: np.random.Generator) -> Build:
    """A random body: men, women, slim and stout, a few children (large heads)."""
    female = bool(rng.random() < 0.5)
    child = bool(rng.random() < 0.12)
    return Build(
        shoulder=(0.086 if female else 0.1) + 0.008 * (rng.random() - 0.5),
        hip=(0.058 if female else 0.052) + 0.006 * (rng.random() - 0.5),
        girth=0.86 + 0.42 * rng.random() ** 1.6,
        head=(1.28 if child else 1.0) * (0.96 + 0.08 * rng.random()),
        female=female,
    )


def sample_pose(rng: np.random.Generator, kind: str) -> Pose:
    """A random pose of one of `POSES`; every angle is clipped to its limits."""
    angles = dict.fromkeys(LIMITS, 0.0)

    def spread(middle: float, width: float) -> float:
        return middle + width * (2.0 * rng.random() - 1.0)

    for s in "lr":
        angles |= {f"{s}_shoulder": spread(4, 8), f"{s}_abduct": spread(10, 5), f"{s}_elbow": spread(14, 10)}
        angles |= {f"{s}_hip": spread(0, 4), f"{s}_spread": spread(4, 3), f"{s}_knee": spread(4, 4)}
    angles |= {"spine": spread(2, 4), "lean": spread(0, 3), "nod": spread(3, 8), "turn": spread(0, 25)}
    lead, trail = ("l", "r") if rng.random() < 0.5 else ("r", "l")
    _KINDS[kind](angles, spread, lead, trail)
    return Pose(kind, {k: min(max(angles[k], lo), hi) for k, (lo, hi) in LIMITS.items()})


def _upright(a: dict[str, float], spread, lead: str, trail: str) -> None:  # type: ignore[no-untyped-def]
    choice = spread(0.5, 0.5)
    if choice < 0.18:  # hands on the hips
        for s in "lr":
            a |= {f"{s}_shoulder": -8.0, f"{s}_abduct": spread(44, 5), f"{s}_elbow": 20.0, f"{s}_swing": -88.0}
    elif choice < 0.42:  # one arm bent, as with a phone or a cup
        a |= {f"{lead}_shoulder": spread(22, 10), f"{lead}_elbow": spread(100, 20), f"{lead}_swing": -14.0}
    elif choice < 0.55:  # weight on one leg
        a |= {"lean": spread(0, 5), f"{lead}_knee": spread(18, 6), f"{lead}_hip": spread(14, 4), f"{trail}_spread": 6.0}
    elif choice < 0.68:  # pointing
        a |= {f"{lead}_shoulder": spread(60, 15), f"{lead}_abduct": spread(45, 15), f"{lead}_elbow": 8.0}


def _walking(a: dict[str, float], spread, lead: str, trail: str) -> None:  # type: ignore[no-untyped-def]
    step = spread(24, 6)
    a |= {
        f"{lead}_hip": step,
        f"{lead}_knee": spread(6, 4),
        f"{trail}_hip": -0.75 * step,
        f"{trail}_knee": spread(28, 10),
    }
    a |= {f"{trail}_shoulder": step, f"{lead}_shoulder": -step, "l_elbow": spread(24, 10), "r_elbow": spread(24, 10)}
    a |= {f"{trail}_ankle": -18.0, "spine": spread(4, 3), "twist": spread(0, 7)}


def _running(a: dict[str, float], spread, lead: str, trail: str) -> None:  # type: ignore[no-untyped-def]
    a |= {f"{lead}_hip": spread(58, 10), f"{lead}_knee": spread(70, 14), f"{trail}_hip": spread(-20, 6)}
    a |= {f"{trail}_knee": spread(48, 22), f"{trail}_ankle": -28.0, "spine": spread(14, 4), "twist": spread(0, 12)}
    a |= {f"{trail}_shoulder": spread(42, 10), f"{lead}_shoulder": spread(-38, 8)}
    a |= {"l_elbow": spread(88, 12), "r_elbow": spread(88, 12)}


def _sitting(a: dict[str, float], spread, lead: str, trail: str) -> None:  # type: ignore[no-untyped-def]
    for s in "lr":
        a |= {f"{s}_hip": spread(84, 4), f"{s}_knee": spread(84, 10), f"{s}_spread": spread(9, 5)}
        a |= {f"{s}_shoulder": spread(26, 8), f"{s}_elbow": spread(48, 14), f"{s}_abduct": spread(9, 4)}
    a["spine"] = spread(4, 7)


def _crouching(a: dict[str, float], spread, lead: str, trail: str) -> None:  # type: ignore[no-untyped-def]
    for s in "lr":
        a |= {f"{s}_hip": spread(98, 8), f"{s}_knee": spread(118, 8), f"{s}_spread": spread(16, 5)}
        a |= {f"{s}_ankle": 22.0, f"{s}_shoulder": spread(50, 12), f"{s}_elbow": spread(50, 20)}
    a |= {"spine": spread(30, 6), "nod": spread(-10, 8)}


def _arms_raised(a: dict[str, float], spread, lead: str, trail: str) -> None:  # type: ignore[no-untyped-def]
    for s in "lr" if spread(0.5, 0.5) < 0.6 else lead:
        a |= {f"{s}_shoulder": spread(6, 6), f"{s}_abduct": spread(132, 28), f"{s}_elbow": spread(8, 6)}
        a[f"{s}_swing"] = spread(20, 24)


_KINDS = {
    "standing": _upright, "walking": _walking, "running": _running, "sitting": _sitting, "crouching": _crouching,
    "arms-raised": _arms_raised,
}  # fmt: skip


def _direction(flex: float, abduct: float, side: float) -> Point3:
    f, a = math.radians(flex), math.radians(abduct)
    return side * math.sin(a), -math.cos(a) * math.cos(f), math.cos(a) * math.sin(f)


def _step(p: Point3, d: Point3, length: float) -> Point3:
    return p[0] + d[0] * length, p[1] + d[1] * length, p[2] + d[2] * length


def forward(pose: Pose, build: Build) -> Joints:
    """Joint places in the body frame; the lowest sole stands at y = 0, the pelvis over x = z = 0."""
    a = pose.angles
    out: Joints = {"pelvis": (0.0, 0.0, 0.0)}
    spine, lean = math.radians(a["spine"]), math.radians(a["lean"])
    up = (math.sin(lean), math.cos(spine) * math.cos(lean), math.sin(spine) * math.cos(lean))
    out["waist"], out["chest"] = _step(out["pelvis"], up, 0.1), _step(out["pelvis"], up, TORSO)
    nod = spine * 0.6 + math.radians(a["nod"]) * 0.5
    neck = (up[0] * 0.6, math.cos(nod), math.sin(nod))
    out["neck"] = _step(out["chest"], neck, NECK)
    out["head"] = _step(out["neck"], neck, 0.055 * build.head)
    for s, side in (("l", 1.0), ("r", -1.0)):
        _arm(out, a, s, side, build)
        _leg(out, a, s, side, build)
    ground = min(min(out[f"{s}_ankle"][1] - ANKLE, out[f"{s}_toe"][1] - 0.012) for s in "lr")
    # rounded to 2^-12 of the height: the last bits of sine and cosine differ between machines
    return {k: (_near(p[0]), _near(p[1] - ground), _near(p[2])) for k, p in out.items()}


def _near(v: float) -> float:
    return round(v * 4096.0) / 4096.0


def _arm(out: Joints, a: dict[str, float], s: str, side: float, build: Build) -> None:
    twist = math.radians(a["twist"])
    across = (math.cos(twist) * side, -0.12 * 1.0, -math.sin(twist) * side)
    shoulder = _step(out["chest"], across, build.shoulder)
    flex, abduct = a[f"{s}_shoulder"], a[f"{s}_abduct"]
    upper = _direction(flex, abduct, side)
    lower = _direction(flex + a[f"{s}_elbow"], abduct + a[f"{s}_swing"], side)
    out[f"{s}_shoulder"] = shoulder
    out[f"{s}_elbow"] = _step(shoulder, upper, UPPER_ARM)
    out[f"{s}_wrist"] = _step(out[f"{s}_elbow"], lower, FOREARM)
    out[f"{s}_hand"] = _step(out[f"{s}_wrist"], lower, HAND)


def _leg(out: Joints, a: dict[str, float], s: str, side: float, build: Build) -> None:
    hip = _step(out["pelvis"], (side, -0.2, 0.0), build.hip)
    flex, spread = a[f"{s}_hip"], a[f"{s}_spread"]
    shin = flex - a[f"{s}_knee"]
    out[f"{s}_hip"] = hip
    out[f"{s}_knee"] = _step(hip, _direction(flex, spread, side), THIGH)
    out[f"{s}_ankle"] = _step(out[f"{s}_knee"], _direction(shin, spread * 0.4, side), SHANK)
    toe = math.radians(shin + a[f"{s}_ankle"]) * 0.9
    out_turn = 0.22 * side
    out[f"{s}_toe"] = _step(
        out[f"{s}_ankle"], (out_turn, math.sin(toe) * 0.95 - 0.3 * math.cos(toe), math.cos(toe) * 0.95), FOOT
    )


@dataclass(frozen=True, slots=True)
class Camera:
    """How a body is seen: ``yaw`` degrees (0 front, 90 its face to the right, 180 back), height px, foot point px."""

    yaw: float
    scale: float
    x: float
    y: float
    pitch: float = 0.14  # sine of looking down: nearer things stand lower in the picture

    def project(self, p: Point3) -> tuple[float, float, float]:
        """A body point to (x px, y px, depth in heights, larger is nearer)."""
        c, s = math.cos(math.radians(self.yaw)), math.sin(math.radians(self.yaw))
        across, near = p[0] * c + p[2] * s, p[2] * c - p[0] * s
        x = self.x + across * self.scale
        y = self.y - (p[1] * 0.99 - near * self.pitch) * self.scale
        return round(x * 64.0) / 64.0, round(y * 64.0) / 64.0, round(near * 4096.0) / 4096.0
