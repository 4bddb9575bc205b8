"""A leaderboard, its speed board and its reported rows as tables, and the board as JSON."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from ahp_toolkit.core.records import Score
from ahp_toolkit.report.tables import NOTHING, Cell, Column, Table, as_cell, from_records
from benchmark.boards.ranking import RULE, Board, Run
from benchmark.boards.reported import reported
from benchmark.grading.claims import SPEED, described, number
from benchmark.metric import Metric

#: Okabe and Ito's colours, which colour-blind readers can tell apart, then two darker ones.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A3D9A", "#4D4D4D")
GIVEN = "†"  # behind a figure for which the initial mask was subtracted
_GIVEN_NOTE = f"{GIVEN}: no modal mask handed in for some or all samples; the initial mask is subtracted in its place."
_SELF = "self-reported"
_PRINTED = 32  # characters of a method's name in a paper


def colour(k: int) -> str:
    """The colour of the k-th run of a board."""
    return COLOURS[k % len(COLOURS)]


def board_table(board: Board, printed: bool = False) -> Table:
    """The board, a row a run; ``printed``: short enough for a paper, without metrics that no run has a figure of."""
    metrics = [m for m in board.metrics if not printed or board.places[m.name]]
    columns = [Column("method", number=False), Column("rank", "#"), Column("n", "n of N"), *map(column, metrics)]
    rows = []
    for k, run in enumerate(board.runs):
        place = board.places[board.headline].get(k)
        rank = Cell(place.rank, mark="=" if place.tied else "") if place else None
        made = run.record["run"]
        claims = described(made) if not printed else "with aids" if made.get("aids") else ""
        note = "; ".join([*([claims] if claims else []), *run.marks])
        name = run.model if len(run.model) <= _PRINTED or not printed else f"{run.model[: _PRINTED - 1]}…"
        method = Cell(run.model, name, note=note, colour=colour(k), hint=str(run.record["run_id"]))
        most = max(_of_board(board, run), key=lambda s: s.n)
        faults = "" if printed else ", ".join(f"{n} {kind}" for kind, n in run.record["problems"].items())
        rows.append(
            [method, rank, Cell(most.n, n_of(most), note=faults), *(_cell(board, k, m, printed) for m in metrics)]
        )
    return Table(columns, rows, board.title, notes(board))


def column(metric: type[Metric]) -> Column:
    """A metric's column: name, better direction and unit."""
    unit = "" if metric.unit == "ratio" else metric.unit
    title = f"{metric.name} {'↑' if metric.higher_is_better else '↓'}"
    return Column(metric.name, title, unit, digits=metric.digits, scale=metric.scale, hint=metric.definition)


def _cell(board: Board, row: int, metric: type[Metric], printed: bool) -> Cell:
    run = board.runs[row]
    s, place = run.scores.get((metric.name, "all")), board.places[metric.name].get(row)
    if s is None or place is None:
        reason = run.record["absent"].get(metric.name, "").partition(":")[0]
        return Cell(None, f"absent: {reason}" if reason and not printed else NOTHING)
    hint = ""
    if place.difference:
        d, low, high = (f"{v * metric.scale:+.{metric.digits}f}" for v in place.difference)
        between = "no interval" if math.isnan(place.difference[1]) else f"[{low}, {high}]"
        hint = f"{d} {between} against the first of the group above{', tied' if place.tied else ''}"
    ranks = sorted({k.rank for k in board.places[metric.name].values()})
    alone = len(board.places[metric.name]) < 2  # nothing to be the best of
    given = metric.subtracts_modal and run.record["modal"] != "own"
    few = n_of(s) if s.n < max(o.n for o in _of_board(board, run)) else ""
    shared = any(k.tied and k.rank == place.rank for k in board.places[metric.name].values())
    return Cell(
        s.value, low=s.low, high=s.high, mark=("=" if shared else "") + (GIVEN if given else ""), note=few,
        rank=0 if alone else ranks.index(place.rank) + 1, hint=hint,
    )  # fmt: skip


def _of_board(board: Board, run: Run) -> list[Score]:
    return [s for (_, piece), s in run.scores.items() if piece == "all" and s.board == board.board]


def n_of(s: Score) -> str:
    """``n of N`` of a figure."""
    return f"{s.n} of {s.n + s.n_missing}"


def notes(board: Board) -> list[str]:
    """What every form of the board prints below it."""
    first = board.runs[0].record
    out = [f"{first['samples']} samples of {first['humans']} humans. With a figure: its 95 % interval, by human."]
    if len(board.runs) > 1:
        out.append(RULE)
    if board.board == "mask" and any(r.record["modal"] != "own" for r in board.runs):
        out.append(_GIVEN_NOTE)
    if board.board == "content" and first["samples"] <= 2048:
        out.append(
            f"Small set: a 2048-d Fréchet distance of {first['samples']} pictures is biased upwards and its covariance "
            "has not full rank; compare it only at the same n, and prefer KID."
        )
    return out


def definitions(board: Board) -> list[str]:
    """Each metric's name, unit, bounds and definition."""
    return [f"{m.name} ({bounds_text(m)}): {m.definition}" for m in board.metrics]


def bounds_text(metric: type[Metric]) -> str:
    """Unit, bounds at the scale of the table, and the better direction."""
    low, high = (f"{b * metric.scale:g}".replace("inf", "∞").replace("-", "−") for b in metric.bounds)
    unit = f"{metric.unit}, " if metric.unit else ""
    return f"{unit}{low} to {high}, {'higher' if metric.higher_is_better else 'lower'} is better"


def reported_table(board: Board) -> Table:
    """The rows that papers report, by protocols of their own."""
    heads = ("method", "data", "figures", "source", "protocol")
    rows = [(r.method, r.data, ", ".join(f"{k} {v}" for k, v in r.figures.items()), r.source, r.protocol)
            for r in reported(board.board)]  # fmt: skip
    title = "Reported by papers, by protocols of their own: not comparable with the rows above"
    return Table([Column(h, number=False) for h in heads], rows, title)


def scores_table(board: Board) -> Table:
    """Every Score of the board, a row a run, slice and metric; for the CSV."""
    names = [f.name for f in fields(Score)]
    rows = [[getattr(s, n) for n in names] for r in board.runs for s in r.scores.values() if s.board == board.board]
    return Table([Column(n) for n in names], rows, board.title)


def speed_table(runs: list[Run]) -> Table | None:
    """The speed board, as each run.json claims it; None where no run claims anything."""
    columns = [Column("method", number=False)]
    columns += [Column(k, name, unit, scale=scale) for k, (name, unit, scale, _) in SPEED.items()]
    columns += [Column("device", number=False), Column("precision", number=False)]
    rows = []
    for run in runs:
        claims, seconds = run.record["run"], run.record["seconds"]
        speed = {**({"ms_per_person": 1000 * seconds} if seconds else {}), **claims.get("speed", {})}
        if not any(k in speed for k in SPEED):
            continue
        task = claims.get("task")
        method = f"{run.model} ({task})" if task in ("mask", "content") else run.model
        device = speed.get("device") or claims.get("device")
        rows.append({"method": Cell(method, note=_SELF), **speed, "device": device})
    if not rows:
        return None
    table = from_records(rows, columns, "Speed board")
    note = "Self-reported: as each run.json states it, ms / person at batch 1. The judge measured none of it."
    return Table(table.columns, table.rows, table.title, [note])


def speed_json(runs: list[Run]) -> list[dict[str, Any]]:
    """The speed board for machines: self-reported figures in the unit of `claims.SPEED`'s keys, None where unknown."""
    table = speed_table(runs)
    names = [c.name for c in table.columns] if table else []
    return [{n: as_cell(v).value for n, v in zip(names, row, strict=True)} | {"self_reported": True}
            for row in (table.rows if table else ())]  # fmt: skip


def to_json(board: Board) -> dict[str, Any]:
    """The board for machines, with definitions and reported rows, values as in the CSV; None where one is undefined."""
    rows = []
    for k, run in enumerate(board.runs):
        place = board.places[board.headline].get(k)
        rows.append({
            "rank": place.rank if place else None, "tied": bool(place and place.tied), "model": run.model,
            "run_id": run.record["run_id"], "self_reported": described(run.record["run"]), "marks": run.marks,
                "problems": run.record["problems"],
            "modal": run.record["modal"], "n": max(s.n for s in _of_board(board, run)),
            "metrics": {m.name: _json_cell(board, k, m) for m in board.metrics if k in board.places[m.name]},
            "absent": run.record["absent"],
        })  # fmt: skip
    return {
        "board": board.board, "split": board.split, "given": board.given, "dataset_digest": board.digest,
        "protocol": board.protocol, "headline": board.headline, "rule": RULE,
        "definitions": {m.name: m.definition for m in board.metrics}, "rows": rows,
        "reported": [
            {"method": r.method, "data": r.data, "source": r.source, "protocol": r.protocol, "figures": r.figures}
            for r in reported(board.board)
        ],
    }  # fmt: skip


def _json_cell(board: Board, row: int, metric: type[Metric]) -> dict[str, Any]:
    s, place = board.runs[row].scores[metric.name, "all"], board.places[metric.name][row]
    value, low, high = map(number, (s.value, s.low, s.high))
    return {
        "value": value, "interval": [low, high], "rank": place.rank, "tied": place.tied, "unit": metric.stored_unit(),
        "n": s.n, "n_missing": s.n_missing,
    }  # fmt: skip
