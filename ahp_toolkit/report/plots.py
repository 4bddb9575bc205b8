"""The charts of a build: figure 5, occlusion densities, sizes, reasons for dropping."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ahp_toolkit.report.charts import BLUE, GREEN, ORANGE, RED, VIOLET, Chart, counts, names, span
from ahp_toolkit.report.statistics import PAPER_SCENE_MIN, Tables
from ahp_toolkit.storage import files

_PALE = "#a9c3e3"
_ROW = 20  # px of a lying bar with its room


def draw(tables: Tables) -> dict[str, str]:
    """Every chart that has something to show, as SVG by name; an occlusion chart a split."""
    charts = {
        "aspect_ratio": _aspect_ratio(tables["aspect_ratio"]),
        "scenes": _scenes(tables["scenes"]),
        **{
            f"occlusion_{split}": _occlusion(frame, str(split))
            for split, frame in tables["occlusion"].groupby("split", sort=False)
        },
        "size": _size(tables["size"]),
        "drops": _drops(tables["drops"]),
    }
    made = {}
    for name, chart in charts.items():
        if chart is not None:
            table = tables[name if name in tables else "occlusion"]
            chart.mark = "PROVISIONAL" if table["status"].iloc[0] == "provisional" else ""
            made[name] = chart.svg()
    return made


def write_plots(tables: Tables, folder: Path) -> dict[str, str]:
    """`draw`, and each chart written as ``<name>.svg``."""
    made = draw(tables)
    for name, svg in made.items():
        files.write_bytes(folder / f"{name}.svg", svg.encode())
    return made


def _bars(frame: pd.DataFrame) -> list[tuple[float, float, float]]:
    return list(frame[["low", "high", "count"]].astype(float).itertuples(index=False, name=None))


def _aspect_ratio(frame: pd.DataFrame) -> Chart | None:
    total = int(frame["count"].sum())
    if not total:
        return None
    inside = (frame["low"] >= 1.5) & (frame["high"] <= 3.5)
    y = counts("preserved humans", frame["count"].max())
    chart = Chart("Figure 5a: aspect ratio", span("height / width", 0, 6), y)
    chart.bars(_bars(frame), [BLUE if i else _PALE for i in inside])
    share = f"{frame.loc[inside, 'count'].sum() / total:.0%} in 1.5 to 3.5"
    for text, down in ((share, 16), ("(paper: almost half)", 32)):
        chart.text(chart.x.high, y.high, text, colour=BLUE, shift=(0, down))
    return chart


def _lying(title: str, label: str, texts: list[str], values: list[int], colour: str) -> Chart:
    """A chart of lying bars, the largest on top: texts and values from the smallest up."""
    short = [t if len(t) <= 28 else f"{t[:27]}…" for t in texts]
    room = span(label, 0.0, max(1.0, 1.14 * max(values)), whole=True)
    chart = Chart(title, room, names(short), height=max(60, _ROW * len(short)), width=360, across=True)
    chart.lying(values, colour)
    return chart


def _scenes(frame: pd.DataFrame) -> Chart | None:
    if frame.empty:
        return None
    many = frame[frame["count"] > PAPER_SCENE_MIN]
    top = (many if len(many) >= 5 else frame).head(20)[::-1]
    title = "Figure 5b: scene categories"
    return _lying(title, "preserved humans", top["scene"].tolist(), top["count"].tolist(), GREEN)


def _occlusion(frame: pd.DataFrame, split: str) -> Chart:
    requested = frame["requested_count"].notna().any()
    most = frame[["count", "requested_count"]].max().max()
    title = f"Occlusion ratio: {split} (n = {frame['count'].sum()})"
    chart = Chart(title, span("hidden share of the person", 0, 1), counts("samples", most))
    chart.bars(_bars(frame), ORANGE)
    if requested:
        chart.steps([*frame["low"], frame["high"].iloc[-1]], frame["requested_count"].tolist(), "the density requested")
    return chart


def _size(frame: pd.DataFrame) -> Chart | None:
    if not frame["count"].sum():
        return None
    bins = names([f"< {high:.0f}" for high in frame["high"]], "square root of the mask's area, px")
    chart = Chart("Size of the humans", bins, counts("humans", frame["count"].max()))
    chart.bars([(k, k + 1, n) for k, n in enumerate(frame["count"].tolist())], VIOLET)
    return chart


def _drops(frame: pd.DataFrame) -> Chart | None:
    if frame.empty:
        return None
    summed = frame.groupby(["stage", "reason"], sort=False)["count"].sum().sort_values().tail(20)
    texts = [f"{stage}: {reason}" for stage, reason in summed.index]
    return _lying("Reasons for dropping", "records", texts, summed.tolist(), RED)
