"""Every run's figure over the occlusion ratio, one chart a metric."""

from __future__ import annotations

import numpy as np

from ahp_toolkit.report.charts import Chart, span
from benchmark.boards.ranking import Board, Run
from benchmark.boards.tables import colour
from benchmark.metric import Metric

Point = tuple[float, float, float, float]


def curves(board: Board, metric: type[Metric]) -> str:
    """Every run's figure over the ten bins of the ratio, with its interval, if any, as a band: SVG, '' without any."""
    lines = [_points(run, metric) for run in board.runs]
    values = [v for line in lines for point in line for v in point[1:] if np.isfinite(v)]
    if not values:
        return ""
    low, high = min(values), max(values)
    pad = (high - low) * 0.06 or 1.0
    low, high = max(low - pad, metric.bounds[0] * metric.scale), min(high + pad, metric.bounds[1] * metric.scale + pad)
    right = min(1.0, max(point[0] for line in lines for point in line) + 0.05)
    label = f"{metric.name} over occlusion ratio"
    chart = Chart("", span("occlusion ratio", 0.0, right), span("", low, high), 520, 250, label=label)
    for k, line in enumerate(lines):
        if line:
            chart.curve(line, colour(k), board.runs[k].model, k)
    return chart.svg()


def _points(run: Run, metric: type[Metric]) -> list[Point]:
    found, scale = list[Point](), metric.scale
    for (name, piece), s in run.scores.items():
        if name == metric.name and piece.startswith("ratio/") and np.isfinite(s.value):
            start, end = map(float, piece.removeprefix("ratio/").split("-"))
            found.append(((start + end) / 2, s.value * scale, s.low * scale, s.high * scale))
    return sorted(found)
