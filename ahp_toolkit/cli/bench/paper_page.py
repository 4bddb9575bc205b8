"""The filled tables as Markdown, CSV and one HTML page, the paper's figures beside ours in columns of their own.

Markdown and HTML print per cent and the paper's figures as printed; the CSV holds both as numbers of its ``unit``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader

from ahp_toolkit.cli.bench.paper_tables import TITLES, Measured, Row, Setup, Table
from ahp_toolkit.core import text
from ahp_toolkit.core.records import Score
from ahp_toolkit.report import tables as printer
from ahp_toolkit.report.tables import Cell, Column
from ahp_toolkit.storage import files

SAMPLE = "sample world: procedural people; nothing here is a result on people."
PAPER = "Zhou et al., CVPR 2021"
_PAPER = "(paper)"  # in the heading of the paper's columns, which the page shades


@dataclass(frozen=True)
class Filled:
    """A table for people, with its notes, and the records of its CSV."""

    number: int
    table: printer.Table
    records: Sequence[Mapping[str, Any]]

    def csv(self) -> str:
        """One line a row, metric and seed."""
        names = list(dict.fromkeys(k for r in self.records for k in r))
        return printer.from_records(self.records, [Column(n) for n in names]).csv()


def filled(setup: Setup, table: Table, made: Mapping[tuple[int, str], Measured]) -> Filled:
    """One table that was filled by training."""
    from benchmark.boards.tables import column
    from benchmark.metric import METRICS

    measured = [made[table.number, row.name] for row in table.rows]
    columns = [Column("row", number=False)]
    rows: list[list[Any]] = [[row.name] for row in table.rows]
    records = list[dict[str, Any]]()
    for metric, theirs in table.columns:
        own = column(METRICS.get(metric))
        columns.append(Column(metric, f"{own.title} (measured)", own.unit, digits=own.digits, scale=own.scale))
        columns += [Column(theirs, f"{theirs} {_PAPER}", hint=_PAPER)] if theirs else []
        for row, m, cells in zip(table.rows, measured, rows, strict=True):
            cells.append(_cell(own, m, metric))
            cells += [row.paper[theirs]] if theirs else []
            records += _records(table, row, metric, m, theirs)
    notes = [_how(setup, measured)]
    notes += [_order(table, measured, metric, theirs) for metric, theirs in table.columns if theirs]
    notes += [f"{m}: {METRICS.get(m).definition}" for m, _ in table.columns]
    if setup.split == "test" and table.number in (4, 5, 6):
        notes.append("The paper gives this table on its synthesized validation images alone: it has none on real ones.")
    if table.number == 4:
        notes.append("Without a modal branch a row has no modal mask of its own; the paper prints its input's.")
    return Filled(table.number, printer.Table(columns, rows, _title(table.number), notes), records)


def _title(number: int) -> str:
    return f"Table {number}. {TITLES[number]}"


def _cell(column: Column, measured: Measured, metric: str) -> Cell:
    """One seed: value and interval; several: mean and standard deviation; n of N where samples are missing."""
    scores = measured.scores
    known = [s[metric] for s in scores if metric in s]
    if not known:
        reason = next((a[metric] for a in measured.absent if metric in a), "no figure")
        return Cell(None, f"absent: {reason.partition(':')[0]}")
    values = [s.value for s in known]
    notes = [f"{len(known)} of {len(scores)} seeds"] if len(known) < len(scores) else []
    notes += [_n_of(known)] if any(s.n_missing for s in known) else []
    if len(scores) == 1:
        return Cell(values[0], low=known[0].low, high=known[0].high, note=", ".join(notes))
    spread = f" ± {column.show(float(np.std(values, ddof=1)))}" if len(values) > 1 else ""
    return Cell(mean(values), f"{column.show(mean(values))}{spread}", note=", ".join(notes))


def _n_of(scores: Sequence[Score]) -> str:
    """``n of N``, or the least and the most n of several seeds."""
    least, most = min(s.n for s in scores), max(s.n for s in scores)
    return f"{least}{f' to {most}' if most > least else ''} of {scores[0].n + scores[0].n_missing}"


def _records(table: Table, row: Row, metric: str, measured: Measured, theirs: str) -> list[dict[str, Any]]:
    from benchmark.boards.reported import figure
    from benchmark.metric import METRICS

    out, cls = [], METRICS.get(metric)
    printed = row.paper.get(theirs, "")
    for seed, (scores, folder) in enumerate(zip(measured.scores, measured.folders, strict=True)):
        s = scores.get(metric)
        out.append({
            "table": table.number, "row": row.name, "seed": seed, "metric": metric, "unit": cls.stored_unit(),
            "value": s.value if s else None, "low": s.low if s else None, "high": s.high if s else None,
            "n": s.n if s else None, "n_missing": s.n_missing if s else None, "paper_metric": theirs,
            "paper_value": figure(printed, cls.scale) if printed else "", "run_id": folder.name,
        })  # fmt: skip
    return out


def _how(setup: Setup, measured: Sequence[Measured]) -> str:
    some = next(s for m in measured for scores in m.scores for s in scores.values())
    steps = f", {setup.steps} steps in place of the recipe's" if setup.steps else ""
    fed = f"; content fed by {'the true masks' if setup.fed == 'truth' else 'stage 1 of the paper'}"
    cells = "In brackets: 95 % interval, by human; n of N where samples are missing."
    if setup.seeds > 1:
        cells = f"Mean ± standard deviation over {setup.seeds} seeds; in brackets: n of N where samples are missing."
    return (
        f"Measured here: recipe {setup.recipe}{steps}, {setup.seeds} seed{'s' if setup.seeds > 1 else ''}, split "
        f"{setup.split} (dataset {some.dataset_digest[:12]}, {some.n + some.n_missing} samples)"
        f"{fed if some.board == 'content' else ''}. {cells} "
        f"The paper's figures ({PAPER}) are as printed, on its own data, by definitions that it does not give."
    )


def _order(table: Table, measured: Sequence[Measured], metric: str, theirs: str) -> str:
    """How many pairs of rows have the order of the paper's."""
    from benchmark.boards.reported import figure

    pairs = []
    for row, m in zip(table.rows, measured, strict=True):
        values = [s[metric].value for s in m.scores if metric in s]
        if values:
            pairs.append((mean(values), float(figure(row.paper[theirs]))))
    both = [(a[0] - b[0]) * (a[1] - b[1]) for a, b in combinations(pairs, 2) if a[1] != b[1]]
    same = sum(v > 0 for v in both)
    return f"Order: {same} of {len(both)} pairs of rows are ordered by {metric} as by the paper's {theirs}."


def table_1(root: Path) -> Filled:
    """Table 1 from the build's own statistics."""
    from ahp_toolkit.report.statistics import people
    from ahp_toolkit.report.statistics import table_1 as counted
    from ahp_toolkit.storage.build_folder import Build

    build = Build(root)
    names = ["kind", "source", "count", "preserved", "ratio", "paper_count", "paper_preserved", "paper_ratio"]
    frame = counted(build, people(build))[names]
    records = [{str(k): v for k, v in r.items()} for r in frame.to_dict("records")]
    columns = [Column("source", number=False)]
    for suffix, prefix in (("", ""), (f" {_PAPER}", "paper_")):
        columns += [
            Column(f"{prefix}count", f"humans{suffix}", hint=suffix.strip(), digits=0),
            Column(f"{prefix}preserved", f"preserved{suffix}", hint=suffix.strip(), digits=0),
            Column(f"{prefix}ratio", f"ratio{suffix}", "%", digits=2, scale=100, hint=suffix.strip()),
        ]
    notes = ["The paper's 23.9 % of COCO + VOC + LIP is computed from its counts; it prints 22.1 %, a slip."]
    if build.provisional:
        notes.insert(0, "Provisional: decided by rule, not by people.")
    table = printer.from_records(records, columns, _title(1))
    table = printer.Table(table.columns, table.rows, table.title, notes)
    return Filled(1, table, [{"table": 1, **r} for r in records])


def write(root: Path, out: Path, made: Sequence[Filled]) -> Path:
    """Write ``table_N.md`` and ``table_N.csv`` of each table and ``index.html`` of all; returns the page."""
    warning = SAMPLE if (root / "world" / "world.json").exists() else ""
    for one in made:
        files.write_bytes(out / f"table_{one.number}.md", markdown(one.table, warning).encode())
        files.write_bytes(out / f"table_{one.number}.csv", one.csv().encode())
    env = Environment(loader=PackageLoader("ahp_toolkit.cli", "bench"), autoescape=True, trim_blocks=True)
    page = env.get_template("paper.html").render(made=made, warning=warning)
    files.write_bytes(out / "index.html", page.encode())
    return out / "index.html"


def markdown(table: printer.Table, warning: str = "") -> str:
    """One table with its notes."""
    parts = [f"# {text.markdown(table.title)}", *([f"**{warning}**"] if warning else []), table.markdown().rstrip("\n")]
    return "\n\n".join([*parts, "\n".join(f"- {text.markdown(n)}" for n in table.notes)]) + "\n"
