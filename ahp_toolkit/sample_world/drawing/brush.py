"""Collect primitives in any order, then paint them back to front into a small tile of the frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.sample_world.drawing import raster

Point = tuple[float, float]
_GRID = np.linspace(0.0, 1.0, raster.PROFILE)
#: px beyond the frame that are painted too, to tell who is cut by it
MARGIN = 4


@dataclass(frozen=True, slots=True)
class Layer:
    """One thing alone: RGBA uint8 [h, w, 4] and labels uint8 [h, w] of a tile at (x0, y0) px of the frame.

    ``cut`` says whether any of it lies outside the frame.
    """

    rgba: NDArray[np.uint8]
    parts: NDArray[np.uint8]
    x0: int
    y0: int
    cut: bool

    def full(self, height: int, width: int) -> NDArray[np.uint8]:
        """The labels on the whole frame, uint8 [H, W]."""
        out = np.zeros((height, width), np.uint8)
        h, w = self.parts.shape
        out[self.y0 : self.y0 + h, self.x0 : self.x0 + w] = self.parts
        return out

    def mirrored(self, x: float, pairs: Sequence[tuple[int, int]], width: int, dim: float) -> Layer:
        """Its mirror image about the column ``x``, labels of ``pairs`` swapped, ``dim`` times as bright."""
        parts = np.ascontiguousarray(self.parts[:, ::-1])
        swap = np.arange(256, dtype=np.uint8)
        for a, b in pairs:
            swap[a], swap[b] = b, a
        rgba = np.ascontiguousarray(self.rgba[:, ::-1])
        rgba[..., :3] = (rgba[..., :3] * dim).astype(np.uint8)
        x0 = min(max(round(2 * x) - self.x0 - parts.shape[1], 0), width - parts.shape[1])
        return Layer(rgba, swap[parts], x0, self.y0, self.cut)


@dataclass(frozen=True, slots=True)
class Look:
    """How a primitive is painted.

    Attributes:
        mat: number of its material, from `Brush.material`.
        label: body part, 0 for none.
        key: depth; the larger is nearer.
        rounded: shading, from 0 (flat) to 1 (round).
        mode: raster.PAINT, raster.DARKEN or raster.OVER.
        mirror: -1.0 mirrors the cloth pattern around a limb.
        shade: factor of the brightness.
        tu: where the cloth pattern starts along a limb, in body units.
    """

    mat: int
    label: int
    key: float = 0.0
    rounded: float = 1.0
    mode: float = raster.PAINT
    mirror: float = 1.0
    shade: float = 1.0
    tu: float = 0.0

    def row(self, kind: float, shape: tuple[float, ...], points: tuple[int, int] = (0, 0)) -> list[float]:
        """The head of a primitive's row: ``shape`` fills columns AX to CAP1, ``points`` START and COUNT."""
        return [kind, self.label, self.mode, self.mat, *shape, self.rounded, self.tu, self.mirror, self.shade, *points]


def profile(points: Sequence[tuple[float, float]], scale: float = 1.0) -> list[float]:
    """Half-widths at raster.PROFILE even steps from control points (place in [0, 1], half-width)."""
    at, width = zip(*points, strict=True)
    return [float(v) for v in np.interp(_GRID, at, width) * scale]


class Brush:
    """Primitives with depth keys (larger is nearer). ``unit`` px is a hundredth of the thing's height."""

    def __init__(self, light: NDArray[np.float64], unit: float) -> None:
        self.light, self.unit = light, unit
        self._rows: list[tuple[float, int, list[float]]] = []
        self._materials: list[NDArray[np.float64]] = []
        self._points: list[Point] = []

    def material(self, vector: NDArray[np.float64]) -> int:
        """Register a material; returns its number."""
        self._materials.append(vector)
        return len(self._materials) - 1

    def _add(self, head: list[float], key: float, right: list[float], left: list[float]) -> None:
        self._rows.append((key, len(self._rows), [*head, *right, *left]))

    def limb(
        self,
        a: Point,
        b: Point,
        widths: list[float],
        look: Look,
        left: list[float] | None = None,
        caps: Point = (1.0, 1.0),
    ) -> None:
        """A generalised cylinder from a to b; ``widths`` (and ``left``) are half-widths in px, from `profile`."""
        self._add(look.row(raster.CYLINDER, (*a, *b, *caps)), look.key, widths, left or widths)

    def ellipse(self, c: Point, rx: float, ry: float, look: Look) -> None:
        """An ellipse, shaded as a ball (``rounded`` 1) or flat (0)."""
        pad = [0.0] * raster.PROFILE
        self._add(look.row(raster.ELLIPSE, (*c, 1, 0, 0, 0)), look.key, [max(rx, 0.05), max(ry, 0.05), *pad[2:]], pad)

    def poly(self, points: Sequence[Point], look: Look) -> None:
        """A filled polygon; ``rounded`` above 0 shades it as an upright cylinder of its width."""
        head = look.row(raster.POLYGON, (0,) * 6, (len(self._points), len(points)))
        self._points.extend(points)
        self._add(head, look.key, [0.0] * raster.PROFILE, [0.0] * raster.PROFILE)

    def line(self, a: Point, b: Point, width: float, look: Look) -> None:
        """A bar of constant ``width`` px with round ends."""
        self.limb(a, b, [width / 2] * raster.PROFILE, look)

    def _extent(self, rows: NDArray[np.float64], points: NDArray[np.float64]) -> tuple[float, float, float, float]:
        round_rows = rows[(rows[:, raster.KIND] != raster.POLYGON) & (rows[:, raster.MODE] == raster.PAINT)]
        xs, ys = [points[:, 0]], [points[:, 1]]
        if len(round_rows):
            is_limb = round_rows[:, raster.KIND] == raster.CYLINDER
            reach = round_rows[:, raster.RIGHT :].max(1) * np.where(
                is_limb, np.maximum(1, round_rows[:, raster.CAP0 : raster.CAP1 + 1].max(1)), 1
            )
            a = round_rows[:, raster.AX : raster.AY + 1]
            b = np.where(is_limb[:, None], round_rows[:, raster.BX : raster.BY + 1], a)
            for p in (a, b):
                xs += [p[:, 0] - reach, p[:, 0] + reach]
                ys += [p[:, 1] - reach, p[:, 1] + reach]
        x, y = np.concatenate(xs), np.concatenate(ys)
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())

    def render(self, height: int, width: int) -> Layer | None:
        """Paint everything, far to near; None when nothing of it lies in the frame."""
        rows = np.asarray([r for _, _, r in sorted(self._rows, key=lambda r: r[:2])], np.float64)
        points = np.asarray(self._points or [(rows[0, raster.AX], rows[0, raster.AY])], np.float64)
        ex0, ey0, ex1, ey1 = self._extent(rows, points)
        x0, y0 = max(-MARGIN, int(np.floor(ex0)) - 1), max(-MARGIN, int(np.floor(ey0)) - 1)
        x1, y1 = min(width + MARGIN, int(np.ceil(ex1)) + 1), min(height + MARGIN, int(np.ceil(ey1)) + 1)
        if x1 <= x0 or y1 <= y0:
            return None
        buffer = np.empty(((y1 - y0) * 2, (x1 - x0) * 2, 6), np.float32)
        labels = np.zeros(buffer.shape[:2], np.uint8)
        raster.draw(buffer, labels, rows, points, (float(x0), float(y0)))
        rgba, parts = raster.shrink(buffer, labels, rows, np.asarray(self._materials), self.light, self.unit)
        return _trim(rgba, parts, x0, y0, height, width)


def _trim(rgba: NDArray[np.uint8], parts: NDArray[np.uint8], x0: int, y0: int, height: int, width: int) -> Layer | None:
    fx0, fy0 = max(0, -x0), max(0, -y0)
    fx1, fy1 = min(parts.shape[1], width - x0), min(parts.shape[0], height - y0)
    inner = parts[fy0:fy1, fx0:fx1]
    cut = int(np.count_nonzero(parts)) > int(np.count_nonzero(inner))
    rows, cols = np.flatnonzero(inner.any(1)), np.flatnonzero(inner.any(0))
    if not len(rows):
        return None
    ty0, ty1 = max(fy0, fy0 + int(rows[0]) - 1), min(fy1, fy0 + int(rows[-1]) + 2)
    tx0, tx1 = max(fx0, fx0 + int(cols[0]) - 1), min(fx1, fx0 + int(cols[-1]) + 2)
    tile = np.s_[ty0:ty1, tx0:tx1]
    return Layer(np.ascontiguousarray(rgba[tile]), np.ascontiguousarray(parts[tile]), x0 + tx0, y0 + ty0, cut)
