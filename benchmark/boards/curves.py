"""Every run's figure over the occlusion ratio, one SVG a metric."""

from __future__ import annotations

from html import escape
from itertools import groupby

import numpy as np

from benchmark.boards.ranking import Board, Run
from benchmark.boards.tables import colour
from benchmark.metric import Metric

_LEFT, _TOP, _WIDTH, _HEIGHT = 52, 14, 520, 250


def curves(board: Board, metric: type[Metric]) -> str:
    """Every run's figure over the ten bins of the occlusion ratio, with its interval, if any, as a band: one SVG."""
    lines = [_points(run, metric) for run in board.runs]
    values = [v * metric.scale for line in lines for _, v, low, high in line for v in (v, low, high) if np.isfinite(v)]
    if not values:
        return ""
    low, high = min(values), max(values)
    pad = (high - low) * 0.06 or 1.0
    low, high = low - pad, high + pad
    if np.isfinite(metric.bounds[0]):
        low = max(low, metric.bounds[0] * metric.scale)
    if np.isfinite(metric.bounds[1]):
        high = min(high, metric.bounds[1] * metric.scale + pad)
    xs = [x for line in lines for x, *_ in line]
    right = min(1.0, max(xs) + 0.05)

    def at(x: float, y: float) -> tuple[float, float]:
        return _LEFT + x / right * _WIDTH, _TOP + (high - y * metric.scale) / (high - low) * _HEIGHT

    parts = [_axes(low, high, right, metric)]
    for k, line in enumerate(lines):
        parts.append(_curve([(*at(x, v), at(x, a)[1], at(x, b)[1]) for x, v, a, b in line], k, board.runs[k].model))
    box = f"0 0 {_LEFT + _WIDTH + 16} {_TOP + _HEIGHT + 44}"
    label = f'role="img" aria-label="{metric.name} over occlusion ratio"'
    return f'<svg class="curve" viewBox="{box}" {label}>{"".join(parts)}</svg>'


def _points(run: Run, metric: type[Metric]) -> list[tuple[float, float, float, float]]:
    found = []
    for (name, piece), s in run.scores.items():
        if name == metric.name and piece.startswith("ratio/") and np.isfinite(s.value):
            start, end = map(float, piece.removeprefix("ratio/").split("-"))
            found.append(((start + end) / 2, s.value, s.low, s.high))
    return sorted(found)


def _axes(low: float, high: float, right: float, metric: type[Metric]) -> str:
    out = []
    for y in (t for t in _ticks(low, high) if t <= metric.bounds[1] * metric.scale):
        py = _TOP + (high - y) / (high - low) * _HEIGHT
        out.append(f'<line class="grid" x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{py:.1f}" y2="{py:.1f}"/>')
        out.append(f'<text x="{_LEFT - 8}" y="{py + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in np.arange(0, right + 1e-9, 0.1):
        px = _LEFT + x / right * _WIDTH
        out.append(f'<text x="{px:.1f}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle">{x:.1f}</text>')
    middle = _LEFT + _WIDTH / 2
    out.append(f'<text x="{middle}" y="{_TOP + _HEIGHT + 37}" text-anchor="middle" class="axis">occlusion ratio</text>')
    return "".join(out)


def _ticks(low: float, high: float) -> list[float]:
    step = 10 ** np.floor(np.log10((high - low) / 4))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 6)
    return [round(float(v), 10) for v in np.arange(np.ceil(low / step) * step, high + 1e-12, step)]


def _curve(points: list[tuple[float, float, float, float]], k: int, model: str) -> str:
    if not points:
        return ""
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour(k)}"/>' for x, y, _, _ in points)
    return (
        f'<g class="run" data-run="{k}"><title>{escape(model)}</title>'
        f"{''.join(_band(list(part), k) for known, part in groupby(points, _has_interval) if known)}"
        f'<polyline points="{line}" fill="none" stroke="{colour(k)}" stroke-width="2.2"/>{dots}</g>'
    )


def _has_interval(point: tuple[float, float, float, float]) -> bool:
    return bool(np.isfinite(point[2:]).all())


def _band(points: list[tuple[float, float, float, float]], k: int) -> str:
    corners = [f"{x:.1f},{a:.1f}" for x, _, a, _ in points] + [f"{x:.1f},{b:.1f}" for x, _, _, b in reversed(points)]
    return f'<polygon points="{" ".join(corners)}" fill="{colour(k)}" opacity=".10"/>'
