"""Every run's figure over the occlusion ratio, one SVG a metric."""

from __future__ import annotations

import numpy as np

from ahp_toolkit.report.charts import Axis, Chart, span
from benchmark.boards.ranking import Board, Run
from benchmark.boards.tables import colour
from benchmark.metric import Metric


def curves(board: Board, metric: type[Metric]) -> str:
    """Every run's figure over the ten bins of the occlusion ratio, with its interval, if any, as a band: one SVG."""
    lines = [_points(run, metric) for run in board.runs]
    values = [v for line in lines for point in line for v in point[1:] if np.isfinite(v)]
    if not values:
        return ""
    low, high = min(values), max(values)
    pad = (high - low) * 0.06 or 1.0
    bounds = [b * metric.scale for b in metric.bounds]
    y = span("", max(low - pad, bounds[0]), min(high + pad, bounds[1] + pad))
    y = Axis("", y.low, y.high, [t for t in y.ticks if t[0] <= bounds[1]])
    right = min(1.0, max(x for line in lines for x, *_ in line) + 0.05)
    x = Axis("occlusion ratio", 0.0, right, [(v, f"{v:.1f}") for v in np.arange(0, right + 1e-9, 0.1)])
    chart = Chart("", x, y, width=520, height=250, label=f"{metric.name} over occlusion ratio")
    for k, line in enumerate(lines):
        if line:
            chart.curve(line, colour(k), board.runs[k].model, k)
    return chart.svg()


def _points(run: Run, metric: type[Metric]) -> list[tuple[float, float, float, float]]:
    """(middle of the bin, figure, low, high) at the scale of the table, in the order of the bins."""
    found = []
    for (name, piece), s in run.scores.items():
        if name == metric.name and piece.startswith("ratio/") and np.isfinite(s.value):
            start, end = map(float, piece.removeprefix("ratio/").split("-"))
            found.append(((start + end) / 2, s.value * metric.scale, s.low * metric.scale, s.high * metric.scale))
    return sorted(found)
