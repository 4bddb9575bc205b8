"""The report: every leaderboard as Markdown, CSV, LaTeX and JSON, and one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader

from ahp_toolkit.core.text import markdown
from ahp_toolkit.report.tables import Table
from ahp_toolkit.storage import files
from benchmark.boards import tables
from benchmark.boards.curves import curves
from benchmark.boards.grids import Grid, grids
from benchmark.boards.ranking import Board, boards_of, load_runs


def write_report(boards: Path, out: Path, seed: int = 0, note: str = "") -> list[Path]:
    """Write the report of a boards folder; runs that cannot be trusted are left out, and named on the page.

    Args:
        boards: the folder that ``ahp bench score`` wrote.
        out: a folder for ``leaderboard.{md,json,html}`` and ``<board>.{csv,tex}``.
        seed: chooses the samples of the seeded grids.
        note: one line at the top of page and Markdown, for example on the data.

    Raises:
        UserError: when there is nothing to report.
    """
    runs, left_out = load_runs(boards)
    found = boards_of(runs)
    speed = tables.speed_table(runs)
    report = {"boards": list(map(tables.to_json, found)), "left_out": left_out}
    texts = {
        "leaderboard.md": _markdown(found, speed, left_out, note),
        "leaderboard.html": _page(found, speed, left_out, seed, note),
    }
    for board in found:
        texts[f"{board.key}.csv"] = tables.scores_table(board).csv()
        texts[f"{board.key}.tex"] = tables.board_table(board, printed=True).latex()
    made = [*(out / name for name in texts), out / "leaderboard.json"]
    files.forget_dead(*made)
    for name, text in texts.items():
        files.write_bytes(out / name, text.encode())
    files.write_json(out / "leaderboard.json", report | {"speed": tables.speed_json(runs)})
    return made


def _markdown(found: list[Board], speed: Table | None, left_out: Mapping[str, str], note: str) -> str:
    out = ["# Leaderboards", *([markdown(note)] if note else [])]
    out += [f"- left out: {markdown(name)}: {markdown(reason)}" for name, reason in left_out.items()]
    for board in found:
        table, others = tables.board_table(board), tables.reported_table(board)
        out += [f"## {markdown(table.title)}", table.markdown(), *map(markdown, table.notes), "Definitions:"]
        out += ["\n".join(f"- {markdown(d)}" for d in tables.definitions(board))]
        out += [f"### {markdown(others.title)}", others.markdown()]
    if speed is not None:
        out += [f"## {speed.title}", speed.markdown(), *map(markdown, speed.notes)]
    return "\n\n".join(t.rstrip("\n") for t in out) + "\n"


@dataclass(frozen=True)
class _Section:
    """One board, ready for the template."""

    board: Board
    table: Table
    reported: Table
    legend: list[tuple[str, str]]
    curves: list[tuple[str, str]]
    grids: list[Grid]
    worst: list[Grid]
    definitions: list[str]


def _page(found: list[Board], speed: Table | None, left_out: Mapping[str, str], seed: int, note: str) -> str:
    env = Environment(
        loader=PackageLoader("benchmark", "boards"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    sections = [_section(b, seed) for b in found]
    page = env.get_template("report.html").render(sections=sections, speed=speed, left_out=left_out, note=note)
    script = page.rpartition("<script>")[2].partition("</script>")[0]  # ours alone may run, by its digest
    return page.replace("SCRIPT-DIGEST", base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(), 1)


def _section(board: Board, seed: int) -> _Section:
    drawn = [(tables.column(m).heading, curves(board, m)) for m in board.metrics]
    table = tables.board_table(board)
    return _Section(
        board, table, tables.reported_table(board),
        [(tables.colour(k), r.model) for k, r in enumerate(board.runs)], [d for d in drawn if d[1]],
        *grids(board, seed), tables.definitions(board),
    )  # fmt: skip
