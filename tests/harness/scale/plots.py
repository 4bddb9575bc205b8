"""The points as pictures and one HTML page: time, memory and bytes a unit against size, the floor, and the plan."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tests.harness.scale import cost

matplotlib.use("Agg")
Points = Sequence[Mapping[str, Any]]
INK, MUTED, GRID = "#1f2937", "#6b7280", "#e5e7eb"
COLOURS = ("#3b76c4", "#e0893a", "#3f9c74", "#cc5a48", "#7d64b5", "#8a8f98", "#b58d2e", "#4aa3b8")
STYLE: Any = {
    "font.size": 9, "axes.edgecolor": MUTED, "axes.titlesize": 10.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "axes.axisbelow": True, "grid.color": GRID, "text.color": INK, "legend.frameon": False,
}  # fmt: skip
#: What a stage's costs are divided by: photos for what reads annotations, humans or samples behind.
UNIT = {"bare": "boxes", "scan": "boxes", "harvest": "photos", "verify": "photos", "duplicates": "photos",
        "segment": "humans", "network": "humans", "synth": "samples", "materialize": "samples", "report": "humans",
        "push": "candidates", "app": "candidates"}  # fmt: skip


def units(p: Mapping[str, Any]) -> float:
    """How many units a point worked on."""
    return max(1.0, float(p["said"].get(UNIT[p["stage"]], 1)))


def _series(found: Points, stages: Sequence[str]) -> dict[str, list[Mapping[str, Any]]]:
    out: dict[str, list[Mapping[str, Any]]] = {}
    for p in sorted(found, key=lambda p: units(p)):
        if p["stage"] in stages:
            name = p["stage"] if p["subject"] in ("people", "photos", "candidates") else f"{p['stage']} {p['subject']}"
            out.setdefault(name, []).append(p)
    return out


def _plain(value: float, _: int = 0) -> str:
    """A tick: 10k, 5M, 0.01."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def _sparse(value: float, _: int = 0) -> str:
    """A tick between powers of ten: twos and fives only, the others would run into each other."""
    return _plain(value) if f"{value:e}"[0] in "25" else ""


def _lines(axes: Axes, series: Mapping[str, Points], value: Any, log: bool = False) -> None:
    for k, (name, points) in enumerate(series.items()):
        line = {"color": COLOURS[k % len(COLOURS)], "ls": ("-", "--", ":")[k // len(COLOURS) % 3]}
        axes.plot([units(p) for p in points], [value(p) for p in points], marker="o", ms=4, lw=1.4, label=name, **line)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
        axes.yaxis.set_minor_formatter(FuncFormatter(_sparse))
    else:
        axes.set_ylim(bottom=0)
    if series:
        axes.legend(fontsize=7.5, loc="center left", bbox_to_anchor=(1, 0.5))


def _axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.4, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _of_scan(found: Points) -> Figure:
    figure, axes = _axes("Annotations: CPU time a box", "boxes in the file", "CPU µs a box")
    _lines(axes, _series(found, ["bare", "scan"]), lambda p: 1e6 * p["cpu_s"] / units(p))
    return figure


def _of_stages(found: Points) -> Figure:
    stages = ["harvest", "verify", "segment", "synth", "materialize", "report"]
    figure, axes = _axes("Stages: CPU time a unit", "photos (harvest, verify), humans or samples", "CPU ms a unit")
    _lines(axes, _series(found, stages), lambda p: 1e3 * p["cpu_s"] / units(p), log=True)
    return figure


def _of_memory(found: Points) -> Figure:
    figure, axes = _axes("Peak memory of the whole process tree", "boxes, photos, humans or samples", "MB")
    stages = ["scan", "harvest", "segment", "synth", "materialize", "duplicates", "report"]
    _lines(axes, _series(found, stages), lambda p: p["peak_mb"])
    return figure


def _of_bytes(found: Points) -> Figure:
    stages = ["harvest", "segment", "synth", "materialize"]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, name, title in ((left, "asked", "Bytes read a unit"), (right, "given", "Bytes written a unit")):
        axes.set_title(title)
        axes.set_xlabel("photos, humans or samples")
        axes.set_ylabel("kB a unit (calls, not disk)")
        _lines(axes, _series(found, stages), lambda p, n=name: max(1, p[n]) / units(p) / 1e3, log=True)
    if left.get_legend() is not None:
        left.get_legend().remove()
    return figure


def _of_plan(plan: Mapping[str, Any]) -> Figure:
    figure, axes = _axes("Days of the assumed fleet, by resource", "", "days (logarithmic)")
    names = list(plan["bills"])
    resources = list(plan["bills"][names[0]]["days"])
    for i, (resource, colour) in enumerate(zip(resources, COLOURS, strict=False)):
        values = [max(1e-4, plan["bills"][n]["days"][resource]) for n in names]
        axes.bar([k + (i - 2.5) * 0.14 for k in range(len(names))], values, 0.13, color=colour, label=resource)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.set_xticks(range(len(names)), [f"{n} humans" if n != "AHP" else "AHP (1.0 million)" for n in names])
    axes.grid(axis="x", visible=False)
    axes.legend(fontsize=7.5, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def draw(found: Points, plan: Mapping[str, Any]) -> dict[str, bytes]:
    """Every picture as PNG bytes by name."""
    out = {}
    with matplotlib.rc_context(STYLE):
        made = {"scan": _of_scan(found), "stages": _of_stages(found), "memory": _of_memory(found)}
        made |= {"bytes": _of_bytes(found), "plan": _of_plan(plan)}
        for name, figure in made.items():
            data = io.BytesIO()
            figure.savefig(data, format="png", dpi=130, metadata={"Software": None})
            out[name] = data.getvalue()
    return out


def _table(rows: Sequence[Sequence[Any]]) -> str:
    head, *body = ["".join(f"<td>{html.escape(str(c))}</td>" for c in row) for row in rows]
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{r}</tr>' for r in body)}</tbody></table>"


def point_rows(found: Points) -> list[tuple[str, ...]]:
    """The points as a table of text."""
    out: list[tuple[str, ...]] = [
        ("point", "units", "CPU s", "wall s", "CPU µs a unit", "peak MB", "read B a unit", "written B a unit")
    ]
    for p in found:
        n = units(p)
        per = [
            f"{p['cpu_s'] / n * 1e6:,.1f}",
            f"{p['peak_mb']:,.0f}",
            f"{p['asked'] / n:,.0f}",
            f"{p['given'] / n:,.0f}",
        ]
        out.append((p["name"], f"{n:,.0f} {UNIT[p['stage']]}", f"{p['cpu_s']:.1f}", f"{p['wall_s']:.1f}", *per))
    return out


_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Scale</title><style>
body{font:14px/1.45 system-ui,sans-serif;max-width:70rem;margin:2rem auto;color:#1f2937}img{max-width:100%}
table{border-collapse:collapse;margin:1rem 0;font-size:12.5px}td{padding:.15rem .7rem;border-bottom:1px solid #e5e7eb}
thead td{font-weight:600}td+td{text-align:right}</style><h1>Scale</h1>
<p>CPU seconds are what a figure means on a shared machine; wall seconds say how busy it was. Photos come from a small
pool of files behind hard links: the page cache holds it, so bytes read are those of read calls, not of a disk.</p>"""


def write(found: Points, plan: Mapping[str, Any], out: Path) -> Path:
    """Write each picture and ``index.html`` below ``out``; returns the page's path."""
    pictures = draw(found, plan)
    for name, data in pictures.items():
        (out / f"{name}.png").write_bytes(data)
    shown = "".join(f'<p><img src="data:image/png;base64,{base64.b64encode(d).decode()}">' for d in pictures.values())
    rates = [("rate", "value", "")]
    rates += [(k, f"{v:.4g}", "measured" if k in plan["rates"]["measured"] else "default")
              for k, v in plan["rates"].items() if k != "measured"]  # fmt: skip
    assumed = [("assumed", "value"), *((k, f"{v:.6g}") for k, v in plan["assumed"].items())]
    parts = [_HEAD, shown, "<h2>Points</h2>", _table(point_rows(found)), "<h2>The plan</h2>", _table(cost.rows(plan))]
    parts += ["<h2>Rates</h2>", _table(rates), "<h2>Assumptions</h2>", _table(assumed)]
    page = out / "index.html"
    page.write_text("".join(parts))
    return page
