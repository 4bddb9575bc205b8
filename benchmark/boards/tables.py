"""A leaderboard as plain rows, and those as Markdown, CSV, LaTeX (booktabs) and JSON."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ahp_toolkit.core import text
from ahp_toolkit.core.records import Score
from benchmark.boards.ranking import Board, Run
from benchmark.boards.reported import Reported, reported
from benchmark.metric import METRICS, Metric

SPEED = {
    "parameters": ("Parameters", "M", 1e-6),
    "flops": ("FLOPs", "G", 1e-9),
    "ms_per_person": ("ms / person", "ms", 1.0),
    "people_per_second": ("people / s", "1/s", 1.0),
    "peak_memory_mb": ("peak memory", "MB", 1.0),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure of a table as text, with its interval, its rank (0: none) and whether that rank is shared.

    ``low`` and ``high`` are empty where there is no interval; ``few`` is ``n of N`` where n is less than the board's.
    """

    text: str
    low: str
    high: str
    rank: int
    tied: bool
    place: int
    value: float | None
    versus: str = ""
    few: str = ""


def cells(board: Board, row: int) -> list[Cell]:
    """The cells of one run, in the order of the board's metrics."""
    return [_cell(board, row, m) for m in board.metrics]


def _cell(board: Board, row: int, metric: type[Metric]) -> Cell:
    s = board.runs[row].scores.get((metric.name, "all"))
    stand = board.standings[metric.name].get(row)
    if s is None or stand is None:
        return Cell("–", "", "", 0, False, 0, None)
    values = sorted({k.rank for k in board.standings[metric.name].values()})
    versus = ""
    if stand.difference:
        d, low, high = (f"{v * metric.scale:+.{metric.digits}f}" for v in stand.difference)
        between = "no interval" if np.isnan(stand.difference[1]) else f"[{low}, {high}]"
        versus = f"{d} {between} against the next better{', tied' if stand.tied else ''}"
    alone = len(board.standings[metric.name]) < 2  # nothing to be the best of
    place = 0 if alone else values.index(stand.rank) + 1
    low, high = ("" if np.isnan(v) else metric.shown(v) for v in (s.low, s.high))
    few = _n_of(s) if s.n < _n(board, board.runs[row]) else ""
    return Cell(metric.shown(s.value), low, high, stand.rank, stand.tied, place, s.value, versus, few)


def label(metric: type[Metric]) -> str:
    """A column's heading: name, unit and the better direction."""
    unit = f" {metric.unit}" if metric.unit not in ("ratio", "") else ""
    return f"{metric.name}{unit} {'↑' if metric.higher_is_better else '↓'}"


def scored_of(board: Board, run: Run) -> str:
    """``n of N`` of a run on a board; a metric may count fewer (of modal masks)."""
    return _n_of(max(_all(board, run), key=lambda s: s.n))


def _all(board: Board, run: Run) -> list[Score]:
    return [s for (_, name), s in run.scores.items() if name == "all" and s.board == board.board]


def _n(board: Board, run: Run) -> int:
    return max(s.n for s in _all(board, run))


def _n_of(s: Score) -> str:
    return f"{s.n} of {s.n + s.n_missing}"


def rank_text(board: Board, row: int) -> str:
    """The rank by the headline metric, with ``=`` in a tie."""
    stand = board.standings[board.headline].get(row)
    return "–" if stand is None else f"{stand.rank}{'=' if stand.tied else ''}"


def title(board: Board) -> str:
    """A board's heading."""
    given = f", {board.given}" if board.given else ""
    return f"{board.board.capitalize()} board, split {board.split}{given} (dataset {board.digest[:12]})"


def markdown(board: Board) -> str:
    """The board with intervals, its definitions, and the reported rows apart."""
    head = ["#", "method", "n", *(label(m) for m in board.metrics)]
    lines = [f"## {text.markdown(title(board))}", "", _row(head), _row(["---"] * len(head))]
    for k, run in enumerate(board.runs):
        body = [_md_cell(c) for c in cells(board, k)]
        lines.append(_row([rank_text(board, k), text.markdown(run.model), scored_of(board, run), *body]))
    said = "`=`: shares its rank with its neighbour: a tie by the paired bootstrap (by human). Best in bold."
    lines += ["", *([said, ""] if len(board.runs) > 1 else []), "Definitions:", ""]
    lines += [f"- `{m.name}` ({bounds_text(m)}): {m.definition}" for m in board.metrics]
    lines += ["", "### Reported by papers, by protocols of their own: not comparable with the rows above", ""]
    lines += [_row(["method", "data", "figures", "source"]), _row(["---"] * 4)]
    lines += [
        _row([text.markdown(v) for v in (r.method, r.data, _figures(r), r.source)]) for r in reported(board.board)
    ]
    return "\n".join(lines) + "\n"


def bounds_text(metric: type[Metric]) -> str:
    """Unit and bounds in words, at the scale of the table."""
    low, high = (
        "∞" if np.isinf(b) and b > 0 else "−∞" if np.isinf(b) else f"{b * metric.scale:g}" for b in metric.bounds
    )
    return f"{metric.unit}, {low} to {high}, {'higher' if metric.higher_is_better else 'lower'} is better"


def _row(items: list[str]) -> str:
    return "| " + " | ".join(items) + " |"


def _md_cell(c: Cell) -> str:
    if c.value is None:
        return "–"
    shown = f"**{c.text}**" if c.place == 1 else c.text
    inside = ", ".join(v for v in (c.low, c.high, c.few) if v)
    return f"{shown}{'=' if c.tied else ''}" + (f" [{inside}]" if inside else "")


def _figures(r: Reported) -> str:
    return ", ".join(f"{k} {v}" for k, v in r.figures.items())


def to_csv(board: Board) -> str:
    """One line a run and slice and metric: every Score of the board, values as they are (IoU: 0 to 1, a ``ratio``)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = (
        "board",
        "model",
        "metric",
        "slice",
        "value",
        "unit",
        "higher_is_better",
        "low",
        "high",
        "n",
        "n_missing",
        "run_id",
        "dataset_digest",
    )
    writer.writerow(names)
    for run in board.runs:
        for s in run.scores.values():
            if s.board == board.board:
                said = replace(s, unit="ratio") if s.unit == "%" else s  # boards scored earlier
                writer.writerow([text.to_cell(getattr(said, n)) for n in names])
    return out.getvalue()


_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\^{}",
}


def tex(said: str) -> str:
    """Text with TeX's special characters escaped, on one line."""
    return "".join(_TEX.get(c, c) for c in text.one_line(said))


def latex(board: Board) -> str:
    """A booktabs table: best in bold, second underlined."""
    arrows = [tex(m.name) + (r" $\uparrow$" if m.higher_is_better else r" $\downarrow$") for m in board.metrics]
    lines = [
        f"% {text.one_line(title(board))}; needs \\usepackage{{booktabs}}",
        f"\\begin{{tabular}}{{l{'r' * len(board.metrics)}}}",
        "\\toprule",
        " & ".join(["Method", *arrows]) + r" \\",
        "\\midrule",
    ]
    lines += [" & ".join([tex(r.model), *map(_tex_cell, cells(board, k))]) + r" \\" for k, r in enumerate(board.runs)]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _tex_cell(c: Cell) -> str:
    if c.value is None:
        return "--"
    return rf"\textbf{{{c.text}}}" if c.place == 1 else rf"\underline{{{c.text}}}" if c.place == 2 else c.text


def to_json(board: Board) -> dict[str, Any]:
    """The board for machines, with definitions and reported rows, values as in the CSV; None where one is undefined."""
    rows = []
    for k, run in enumerate(board.runs):
        found = dict(zip((m.name for m in board.metrics), cells(board, k), strict=True))
        rows.append(
            {
                "rank": rank_text(board, k), "model": run.model, "run_id": run.about["run_id"],
                "n": scored_of(board, run),
                "problems": run.about["problems"],
                "metrics": {n: _json_cell(run, n, c) for n, c in found.items() if c.value is not None},
            }
        )  # fmt: skip
    return {
        "board": board.board, "split": board.split, "given": board.given,
        "dataset_digest": board.digest, "protocol": board.protocol,
        "headline": board.headline, "definitions": {m.name: m.definition for m in board.metrics}, "rows": rows,
        "reported": [
            {"method": r.method, "data": r.data, "source": r.source, "protocol": r.protocol, "figures": r.figures}
            for r in reported(board.board)
        ],
    }  # fmt: skip


def _json_cell(run: Run, name: str, c: Cell) -> dict[str, Any]:
    s = run.scores[(name, "all")]
    interval = [None if np.isnan(v) else v for v in (s.low, s.high)]
    unit = METRICS.get(name).METRIC.stored_unit()
    return {
        "value": s.value, "interval": interval, "rank": c.rank, "tied": c.tied, "unit": unit, "n": s.n,
        "n_missing": s.n_missing,
    }  # fmt: skip


def speed_rows(runs: list[Run]) -> list[dict[str, str]]:
    """The speed board: what each run.json says of its own cost, device and precision; a dash for what is no number."""
    out = []
    for run in runs:
        told = run.about["run"].get("speed")
        said = told if isinstance(told, dict) else {}
        seconds = run.about.get("seconds")
        if "ms_per_person" not in said and seconds is not None:
            said = {**said, "ms_per_person": 1000 * seconds}
        if not any(k in said for k in SPEED):
            continue
        task = run.about["run"].get("task")
        row = {"method": f"{run.model} ({text.one_line(task)})" if task in ("mask", "content") else run.model}
        for key, (_, _, scale) in SPEED.items():
            row[key] = _number(said.get(key), scale)
        row["device"] = text.one_line(said.get("device") or run.about["run"].get("device") or "not said")
        row["precision"] = text.one_line(said.get("precision") or "not said")
        out.append(row)
    return out


def _number(value: object, scale: float) -> str:
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return f"{value * scale:.4g}"
    except OverflowError:  # an integer that no float holds
        pass
    return "–"
