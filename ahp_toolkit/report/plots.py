"""The build's pictures of figures: figure 5, occlusion densities, sizes, drop reasons. Agg, no display needed."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from ahp_toolkit.report.statistics import PAPER_SCENE_MIN, Tables
from ahp_toolkit.storage import files

#: One meaning, one colour, in every picture and in the report's style sheet.
INK, MUTED, GRID = "#1f2937", "#6b7280", "#e5e7eb"
BLUE, ORANGE, GREEN, RED, VIOLET = "#3b76c4", "#e0893a", "#3f9c74", "#cc5a48", "#7d64b5"
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.parse_math": False,  # labels come from data: a '$' is a dollar
    "legend.frameon": False,
}
_DPI = 150
_STAMP = 0.22  # in: a strip above the axes, for the word PROVISIONAL alone


def draw(tables: Tables) -> dict[str, bytes]:
    """Every picture that has something to show, as PNG bytes by name."""
    makers: dict[str, Callable[[Tables], Figure | None]] = {
        "aspect_ratio": _aspect_ratio,
        "scenes": _scenes,
        "occlusion": _occlusion,
        "size": _size,
        "drops": _drops,
    }
    made = {}
    with matplotlib.rc_context(_STYLE):
        for name, maker in makers.items():
            figure = maker(tables)
            if figure is not None:
                made[name] = _png(figure, str(tables[name]["status"].iloc[0]))
    return made


def write_plots(tables: Tables, folder: Path) -> dict[str, bytes]:
    """`draw`, and each picture written as ``<name>.png``."""
    made = draw(tables)
    for name, data in made.items():
        with files.atomic(folder / f"{name}.png") as f:
            f.write(data)
    return made


def wide(tables: Tables, name: str) -> bool:
    """Whether a picture holds plots side by side: the page gives it the whole width, or its words are too small."""
    return name == "occlusion" and tables[name]["split"].nunique() > 1


def _png(figure: Figure, status: str) -> bytes:
    if status == "provisional":
        engine = figure.get_layout_engine()
        assert isinstance(engine, ConstrainedLayoutEngine)
        engine.set(rect=(0, 0, 1, 1 - _STAMP / figure.get_figheight()))
        figure.text(0.995, 0.99, "PROVISIONAL", ha="right", va="top", color=RED, weight="bold", size=8)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=_DPI, metadata={"Software": None})
    return out.getvalue()


def _axes(width: float, height: float, title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    _dress(axes, title, x, y)
    return figure, axes


def _dress(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(axis="x", visible=False)
    axes.tick_params(length=0)


def _whole(axis: Axis) -> None:
    """Ticks of an axis of counts: there is no quarter of a sample."""
    axis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))


def _bars(axes: Axes, frame: pd.DataFrame, colour: str | list[str]) -> None:
    low, width = frame["low"].to_numpy(), (frame["high"] - frame["low"]).to_numpy()
    axes.bar(low, frame["count"].to_numpy(), width=width * 0.92, align="edge", color=colour)
    _whole(axes.yaxis)


def _aspect_ratio(tables: Tables) -> Figure | None:
    frame = tables["aspect_ratio"]
    if not frame["count"].sum():
        return None
    figure, axes = _axes(5.2, 3.0, "Figure 5a: aspect ratio", "height / width", "preserved humans")
    inside = (frame["low"] >= 1.5) & (frame["high"] <= 3.5)
    _bars(axes, frame, [BLUE if i else "#a9c3e3" for i in inside])
    share = frame.loc[inside, "count"].sum() / frame["count"].sum()
    axes.set_xlim(0, 6)
    note = f"{share:.0%} in 1.5 to 3.5\n(paper: almost half)"
    axes.text(0.985, 0.95, note, transform=axes.transAxes, ha="right", va="top", color=BLUE)
    return figure


def _scenes(tables: Tables) -> Figure | None:
    frame = tables["scenes"]
    if frame.empty:
        return None
    many = frame[frame["count"] > PAPER_SCENE_MIN]
    top = (many if len(many) >= 5 else frame).head(20)[::-1]
    figure, axes = _axes(5.2, max(2.0, 0.9 + 0.24 * len(top)), "Figure 5b: scene categories", "preserved humans", "")
    axes.grid(axis="x", visible=True)
    axes.grid(axis="y", visible=False)
    axes.barh([_short(s) for s in top["scene"]], top["count"].to_numpy(), color=GREEN, height=0.72)
    _whole(axes.xaxis)
    return figure


def _short(text: str) -> str:
    return text if len(text) <= 28 else text[:27] + "…"


def _occlusion(tables: Tables) -> Figure | None:
    frame = tables["occlusion"]
    if frame.empty:
        return None
    splits = list(dict.fromkeys(frame["split"]))
    figure = Figure(figsize=(10.8 if wide(tables, "occlusion") else 5.2, 3.2), layout="constrained")
    for axes, split in zip(np.atleast_1d(figure.subplots(1, len(splits))), splits, strict=True):
        mine = frame[frame["split"] == split]
        _dress(axes, f"Occlusion ratio: {split} (n = {mine['count'].sum()})", "hidden share of the person", "samples")
        _bars(axes, mine, ORANGE)
        if mine["asked_count"].notna().any():
            edges = np.append(mine["low"].to_numpy(), mine["high"].iloc[-1])
            axes.stairs(mine["asked_count"].to_numpy(), edges, color=INK, lw=1.4, ls=(0, (3, 2)), label="asked for")
            axes.legend(loc="upper right")
        axes.set_xlim(0, 1)
    return figure


def _size(tables: Tables) -> Figure | None:
    frame = tables["size"]
    if not frame["count"].sum():
        return None
    figure, axes = _axes(5.2, 3.0, "Size of the humans", "square root of the mask's area, px", "humans")
    names = [f"{lo:.0f}–{hi:.0f}" for lo, hi in zip(frame["low"], frame["high"], strict=True)]
    axes.bar(names, frame["count"].to_numpy(), color=VIOLET, width=0.86)
    _whole(axes.yaxis)
    axes.tick_params(axis="x", labelrotation=35)
    return figure


def _drops(tables: Tables) -> Figure | None:
    frame = tables["drops"]
    if frame.empty:
        return None
    summed = frame.groupby(["stage", "reason"], sort=False)["count"].sum().sort_values().tail(20)
    figure, axes = _axes(5.2, max(2.0, 0.9 + 0.24 * len(summed)), "Reasons for dropping", "records", "")
    axes.grid(axis="x", visible=True)
    axes.grid(axis="y", visible=False)
    axes.barh([_short(f"{s}: {r}") for s, r in summed.index], summed.to_numpy(), color=RED, height=0.72)
    _whole(axes.xaxis)
    axes.margins(x=0.12)
    for i, n in enumerate(summed):
        axes.text(n, i, f" {n:,}", va="center", color=MUTED, size=8)
    return figure
