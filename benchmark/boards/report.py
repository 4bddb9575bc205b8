"""The report: every leaderboard as Markdown, CSV, LaTeX and JSON, and one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from ahp_toolkit.core.text import markdown
from ahp_toolkit.storage import files
from benchmark.boards import tables
from benchmark.boards.charts import Grid, Tiles, colour, curves, grid, pick_disagreement, pick_seeded, pick_worst
from benchmark.boards.ranking import Board, Run, boards_of, load_runs
from benchmark.boards.reported import Reported, reported
from benchmark.metric import METRICS, Metric

_SEEDED, _DISAGREED, _WORST = 4, 4, 6  # samples a grid
_GRID_RUNS = 8  # methods in one grid: the first of the board


def write_report(boards: Path, out: Path, seed: int = 0, note: str = "") -> list[Path]:
    """Write the report of a boards folder.

    Args:
        boards: what ``ahp bench score`` wrote.
        out: a folder for ``leaderboard.{md,json,html}`` and ``<board>.{csv,tex}``.
        seed: chooses the samples of the seeded grids.
        note: one line that page and Markdown open with, such as what the data are.

    Raises:
        UserError: when there is nothing to report.
    """
    runs = load_runs(boards)
    found = boards_of(runs)
    texts = {
        "leaderboard.md": "# Leaderboards\n\n"
        + (f"{markdown(note)}\n\n" if note else "")
        + "\n".join(map(tables.markdown, found))
        + _speed_md(runs),
        "leaderboard.html": _page(found, runs, seed, note),
    }
    for board in found:
        texts[f"{board.key}.csv"] = tables.to_csv(board)
        texts[f"{board.key}.tex"] = tables.latex(board)
    made = [*(out / name for name in texts), out / "leaderboard.json"]
    files.forget_dead(*made)
    for name, text in texts.items():
        with files.atomic(out / name) as f:
            f.write(text.encode())
    files.write_json(
        out / "leaderboard.json", {"boards": list(map(tables.to_json, found)), "speed": tables.speed_rows(runs)}
    )
    return made


def _speed_md(runs: list[Run]) -> str:
    rows = tables.speed_rows(runs)
    if not rows:
        return ""
    heads = ["method", *(f"{name} ({unit})" for name, unit, _ in tables.SPEED.values()), "device", "precision"]
    lines = [
        f"| {' | '.join(heads)} |",
        f"|{' --- |' * len(heads)}",
        *(f"| {' | '.join(map(markdown, r.values()))} |" for r in rows),
    ]
    return "\n## Speed board\n\n" + "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Section:
    """One board, ready for the template."""

    board: Board
    title: str
    metrics: list[type[Metric]]
    rows: list[dict[str, Any]]
    curves: list[tuple[str, str]]
    grids: list[Grid]
    worst: list[Grid]
    reported: list[Reported]
    absent: dict[str, str]
    notes: list[str]


def _page(found: list[Board], runs: list[Run], seed: int, note: str) -> str:
    env = Environment(loader=PackageLoader("benchmark", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    env.filters["breakable"] = _breakable
    env.globals.update(colour=colour, label=tables.label, bounds=tables.bounds_text, speed=tables.SPEED)
    sections = [_section(b, seed) for b in found]
    page = env.get_template("report.html").render(sections=sections, speed_rows=tables.speed_rows(runs), note=note)
    script = page.rpartition("<script>")[2].partition("</script>")[0]  # ours alone may run, by its digest
    return page.replace("SCRIPT-DIGEST", base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(), 1)


def _breakable(heading: str) -> list[str]:
    """The pieces between which a heading may wrap: after underscores, its arrow never alone."""
    return re.findall("[^_]*_|[^_]+", heading.replace(" ↑", "\xa0↑").replace(" ↓", "\xa0↓"))


def _section(board: Board, seed: int) -> _Section:
    rows = [
        {
            "rank": tables.rank_text(board, k), "model": run.model, "n": tables.scored_of(board, run),
            "cells": tables.cells(board, k), "problems": run.about["problems"], "run_id": run.about["run_id"],
            "recipe": run.about["run"].get("recipe", ""), "colour": colour(k),
        }
        for k, run in enumerate(board.runs)
    ]  # fmt: skip
    drawn = [(tables.label(m), curves(board, m)) for m in board.metrics]
    return _Section(
        board, tables.title(board), board.metrics, rows, [d for d in drawn if d[1]], *_grids(board, seed),
        reported(board.board), _absent(board), _notes(board),
    )  # fmt: skip


def _absent(board: Board) -> dict[str, str]:
    """Why a metric of the board has no figure, by metric; what some methods have names those that have not."""
    found: dict[str, dict[str, list[str]]] = {}
    for run in board.runs:
        for name, reason in run.about["absent"].items():
            if _on(board, name):
                found.setdefault(name, {}).setdefault(reason, []).append(run.model)
    shown = {m.name for m in board.metrics}
    return {name: _why(reasons, name in shown) for name, reasons in found.items()}


def _why(reasons: dict[str, list[str]], some_have: bool) -> str:
    if not some_have:
        return "; ".join(reasons)
    return "; ".join(f"not for {', '.join(models)}: {reason}" for reason, models in reasons.items())


def _on(board: Board, name: str) -> bool:
    return name in METRICS.names() and METRICS.get(name).METRIC.board == board.board


def _notes(board: Board) -> list[str]:
    about = board.runs[0].about
    notes = [f"{about['samples']} samples of {about['humans']} humans; intervals: bootstrap 95 %, by human."]
    if board.board == "content" and about["samples"] <= 2048:
        notes.append(
            f"Small set: a 2048-d Fréchet distance of {about['samples']} pictures is biased upwards and its covariance "
            "has not full rank; compare it only at the same n, and prefer KID."
        )
    return notes


def _grids(board: Board, seed: int) -> tuple[list[Grid], list[Grid]]:
    """Samples side by side, and the worst of each method; disagreement takes two."""
    metric = METRICS.get("iou_invisible" if board.board == "mask" else "l1_invisible").METRIC
    if not all(metric.name in r.samples.column_names for r in board.runs):
        return [], []
    shown = replace(board, runs=board.runs[:_GRID_RUNS])
    seeded = pick_seeded(shown, _SEEDED, seed)
    disagreed = pick_disagreement(shown, metric.name, _DISAGREED) if len(shown.runs) > 1 else []
    worst = {k: pick_worst(r, metric, _WORST) for k, r in enumerate(shown.runs)}
    names = shown.runs[0].samples["sample_id"].to_pylist()
    tiles = Tiles(shown, {names[i] for i in (*seeded, *disagreed, *(i for w in worst.values() for i in w))})
    if not tiles.samples:
        return [], []
    figure = f"Under each tile: {metric.name} of the sample."
    note = f"Spread over the occlusion ratio, seed {seed}. {figure}"
    made = [grid(shown, tiles, seeded, metric, "Chosen by seed", note)]
    if disagreed:
        note = f"Where the methods' figures spread most. {figure}"
        made.append(grid(shown, tiles, disagreed, metric, "Greatest disagreement", note))
    each = []
    for k, picked in worst.items():
        only = replace(board, runs=[shown.runs[k]])
        each.append(grid(only, tiles.only(k), picked, metric, f"Worst cases of {shown.runs[k].model}", figure))
    return made, each
