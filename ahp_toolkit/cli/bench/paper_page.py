"""The filled tables as Markdown, CSV and one HTML page, the paper's figures beside ours in columns of their own.

Markdown and HTML print per cent and the paper's figures as printed; the CSV holds both as numbers of its ``unit``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader

from ahp_toolkit.cli.bench.paper_tables import TITLES, Measured, Setup, Table
from ahp_toolkit.core import text
from ahp_toolkit.core.records import Score
from ahp_toolkit.storage import files

SAMPLE = "sample world: procedural people; nothing here is a result on people."
PAPER = "Zhou et al., CVPR 2021"


@dataclass(frozen=True)
class Shown:
    """A table as text: headings, rows of as many cells, notes; ``records`` are the CSV's rows."""

    number: int
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    records: tuple[Mapping[str, Any], ...]

    @property
    def title(self) -> str:
        """The heading."""
        return f"Table {self.number}. {TITLES[self.number]}"


def metric_of(name: str, measured: Sequence[Measured]) -> str:
    """The metric that fills a column: ``name``, or what stands in where it could not be computed for every row."""
    from benchmark.metric import METRICS

    def everywhere(metric: str) -> bool:
        return all(metric in scores for m in measured for scores in m.scores)

    stand_ins = [n for n in METRICS.names() if METRICS.get(n).METRIC.stands_for == name]
    return next((n for n in stand_ins if everywhere(n)), name) if not everywhere(name) else name


def shown(setup: Setup, table: Table, made: Mapping[tuple[int, str], Measured]) -> Shown:
    """One table that was filled by training."""
    from benchmark.boards.tables import label
    from benchmark.metric import METRICS

    measured = [made[table.number, row.name] for row in table.rows]
    names = [(metric_of(ours, measured), theirs) for ours, theirs in table.columns]
    heads, rows, records = ["row"], [[row.name] for row in table.rows], list[dict[str, Any]]()
    for metric, theirs in names:
        heads.append(f"{label(METRICS.get(metric).METRIC)} (measured)")
        heads += [f"{theirs} (paper)"] if theirs else []
        for row, m, cells in zip(table.rows, measured, rows, strict=True):
            cells.append(_cell(metric, [s.get(metric) for s in m.scores]))
            cells += [row.paper[theirs]] if theirs else []
            records += _records(table, row.name, metric, m, row.paper.get(theirs, ""), theirs)
    notes = [_how(setup, measured), *(_order(table, measured, metric, theirs) for metric, theirs in names if theirs)]
    notes += [f"{m}: {METRICS.get(m).METRIC.definition}" for m, _ in names]
    if any(ours != metric for (ours, _), (metric, _) in zip(table.columns, names, strict=True)):
        notes.append("FID was not computed: Inception's weights were not found; the column is called by what it is.")
    if setup.split == "test" and table.number in (4, 5, 6):
        notes.append("The paper gives this table on its synthesized validation images alone: it has none on real ones.")
    if table.number == 4:
        notes.append("Without a modal branch a row has no modal mask of its own (–); the paper prints its input's.")
    return Shown(table.number, tuple(heads), tuple(map(tuple, rows)), tuple(notes), tuple(records))


def _cell(metric: str, scores: Sequence[Score | None]) -> str:
    """One seed: value and interval; several: mean and standard deviation; n of N where samples are missing."""
    from benchmark.metric import METRICS

    cls = METRICS.get(metric).METRIC
    known = [s for s in scores if s is not None]
    if not known:
        return "–"
    values = [s.value for s in known]
    spread = f" ± {cls.shown(float(np.std(values, ddof=1)))}" if len(values) > 1 else ""
    inside = [cls.shown(v) for s in known for v in (s.low, s.high) if len(scores) == 1 and v == v]
    inside += [f"{len(known)} of {len(scores)} seeds"] if len(known) < len(scores) else []
    inside += [_n_of(known)] if any(s.n_missing for s in known) else []
    return f"{cls.shown(mean(values))}{spread}" + (f" [{', '.join(inside)}]" if inside else "")


def _n_of(scores: Sequence[Score]) -> str:
    """``n of N``, or the least and the most n of several seeds."""
    least, most = min(s.n for s in scores), max(s.n for s in scores)
    return f"{least}{f' to {most}' if most > least else ''} of {scores[0].n + scores[0].n_missing}"


def _records(table: Table, row: str, metric: str, m: Measured, paper: str, theirs: str) -> list[dict[str, Any]]:
    from benchmark.boards.reported import figure
    from benchmark.metric import METRICS

    out = []
    for seed, (scores, folder) in enumerate(zip(m.scores, m.folders, strict=True)):
        s = scores.get(metric)
        got = {"value": s.value, "low": s.low, "high": s.high, "n": s.n, "n_missing": s.n_missing} if s else {}
        cls = METRICS.get(metric).METRIC
        about = {"table": table.number, "row": row, "seed": seed, "metric": metric, "unit": cls.stored_unit()}
        printed = figure(paper, cls.scale) if paper else ""
        out.append(about | got | {"paper_metric": theirs, "paper_value": printed, "run_id": folder.name})
    return out


def _how(setup: Setup, measured: Sequence[Measured]) -> str:
    some = next(s for m in measured for scores in m.scores for s in scores.values())
    steps = f", {setup.steps} steps in place of the recipe's" if setup.steps else ""
    fed = f"; content fed by {'the true masks' if setup.fed == 'truth' else 'stage 1 of the paper'}"
    cells = "In brackets: bootstrap 95 %, by human; n of N where samples are missing."
    if setup.seeds > 1:
        cells = f"Mean ± standard deviation over {setup.seeds} seeds; in brackets: n of N where samples are missing."
    return (
        f"Measured here: recipe {setup.recipe}{steps}, {setup.seeds} seed{'s' if setup.seeds > 1 else ''}, split "
        f"{setup.split} (dataset {some.dataset_digest[:12]}, {some.n + some.n_missing} samples)"
        f"{fed if some.board == 'content' else ''}. {cells} "
        f"The paper's figures ({PAPER}) are as printed, on its own data, by definitions that it does not give."
    )


def _order(table: Table, measured: Sequence[Measured], metric: str, theirs: str) -> str:
    """How many pairs of rows stand as in the paper."""
    from benchmark.boards.reported import figure

    pairs = []
    for row, m in zip(table.rows, measured, strict=True):
        values = [s[metric].value for s in m.scores if metric in s]
        if values:
            pairs.append((mean(values), float(figure(row.paper[theirs]))))
    both = [(a[0] - b[0]) * (a[1] - b[1]) for a, b in combinations(pairs, 2) if a[1] != b[1]]
    same = sum(v > 0 for v in both)
    return f"Order: {same} of {len(both)} pairs of rows stand by {metric} as they do by the paper's {theirs}."


def table_1(root: Path) -> Shown:
    """Table 1 from the build's own statistics."""
    from ahp_toolkit.report.statistics import people
    from ahp_toolkit.report.statistics import table_1 as counted
    from ahp_toolkit.storage.build_folder import Build

    build = Build(root)
    frame = counted(build, people(build))
    heads = ("source", "humans", "preserved", "ratio", "humans (paper)", "preserved (paper)", "ratio (paper)")
    columns = ("source", "count", "preserved", "ratio", "paper_count", "paper_preserved", "paper_ratio")
    records = frame[["kind", *columns]].to_dict("records")
    rows = tuple(tuple(_figure(c, r[c]) for c in columns) for r in records)
    notes: tuple[str, ...] = (
        "The paper's 23.9 % of COCO + VOC + LIP is computed from its counts; it prints 22.1 %, a slip.",
    )
    if build.provisional:
        notes = ("Provisional: decided by rule, not by people.", *notes)
    return Shown(1, heads, rows, notes, tuple({"table": 1, **{str(k): v for k, v in r.items()}} for r in records))


def _figure(column: str, value: Any) -> str:
    if value is None or value != value:
        return "–"
    if column == "source":
        return str(value)
    return f"{100 * value:.2f} %" if "ratio" in column else f"{int(value):,}"


# --- files --------------------------------------------------------------------------------------------------------


def write(root: Path, out: Path, tables: Sequence[Shown]) -> Path:
    """Write ``table_N.md`` and ``table_N.csv`` of each table and ``index.html`` of all; returns the page."""
    warning = SAMPLE if (root / "world" / "world.json").exists() else ""
    for table in tables:
        for suffix, said in (("md", markdown(table, warning)), ("csv", to_csv(table))):
            with files.atomic(out / f"table_{table.number}.{suffix}") as f:
                f.write(said.encode())
    env = Environment(loader=PackageLoader("ahp_toolkit", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    with files.atomic(out / "index.html") as f:
        f.write(env.get_template("paper.html").render(tables=tables, warning=warning).encode())
    return out / "index.html"


def markdown(table: Shown, warning: str = "") -> str:
    """One table with its notes."""
    lines = [f"# {text.markdown(table.title)}", "", *([f"**{warning}**", ""] if warning else [])]
    lines += [_line(table.heads), _line(["---"] * len(table.heads)), *map(_line, table.rows), ""]
    return "\n".join([*lines, *(f"- {text.markdown(n)}" for n in table.notes)]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(text.markdown, cells)) + " |"


def to_csv(table: Shown) -> str:
    """One line a row, metric and seed."""
    out = io.StringIO()
    names = list(dict.fromkeys(k for r in table.records for k in r))
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None or v != v else text.to_cell(v) for k, v in r.items()} for r in table.records)
    return out.getvalue()
