"""Leaderboards from run folders: who may be ranked together, who stands where, and who is tied.

A leaderboard holds runs of one board, one dataset digest, one protocol (digest of the definitions) and, for pictures,
one thing that was given (the initial mask, or the true masks): others get a board of their own. A run is tied with the
one above when the paired bootstrap of their difference holds 0; a tie group never reaches further than what is tied
with its first run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Score
from ahp_toolkit.storage import files, parquet
from benchmark.grading.bootstrap import Estimate, tied
from benchmark.metric import METRICS, Metric

#: The metric a board is sorted by, and the order of its columns; others follow by name.
HEADLINE = {"mask": "iou_amodal", "content": "l1_image"}
#: What the methods of a content board were given beside the occluded picture.
INITIAL, TRUTH = "initial mask given", "true masks given"
_NOTHING = "nothing"  # stands on every board
_ORDER = (
    "iou_amodal", "iou_invisible", "iou_modal", "l1_mask", "boundary_iou", "iou_invisible_gtvis",
    "iou_invisible_global", "iou_amodal_global", "iou_modal_global", "l1_mask_pixel",
    "l1_image", "l1_invisible", "psnr", "ssim", "lpips", "fid", "kid",
)  # fmt: skip


@dataclass
class Run:
    """One scored submission, read back from its folder."""

    folder: Path
    about: dict[str, Any]
    scores: dict[tuple[str, str], Score]

    @property
    def model(self) -> str:
        """The method's name."""
        return str(self.about["model"])

    @cached_property
    def samples(self) -> pa.Table:
        """Each sample's facts and figures, sorted by sample id."""
        return parquet.read_table(self.folder / "samples.parquet")

    @cached_property
    def replicates(self) -> dict[str, np.ndarray]:
        """Bootstrap replicates of every metric over all samples."""
        table = parquet.read_table(self.folder / "replicates.parquet")
        return {n: np.array(table[n][0].as_py(), np.float64) for n in table.column_names}

    def estimate(self, metric: str) -> Estimate | None:
        """A metric over all samples, or None where the run has none."""
        s = self.scores.get((metric, "all"))
        return Estimate(s.value, s.low, s.high, self.replicates[metric]) if s else None


@dataclass
class Standing:
    """Where a run stands by one metric: its rank (shared in a tie) and the difference to the next better run."""

    rank: int
    tied: bool
    difference: tuple[float, float, float] | None


@dataclass
class Board:
    """One leaderboard: ``standings[metric][k]`` is where ``runs[k]`` stands; runs are in headline order."""

    board: str
    split: str
    digest: str
    protocol: str
    runs: list[Run]
    metrics: list[type[Metric]] = field(default_factory=list)
    standings: dict[str, dict[int, Standing]] = field(default_factory=dict)
    given: str = ""

    @property
    def key(self) -> str:
        """A short name for files and anchors."""
        true = "-true-masks" if self.given == TRUTH else ""
        return f"{self.split}-{self.board}{true}-{self.digest[:8]}-{self.protocol[:4]}"

    @property
    def headline(self) -> str:
        """The metric that the board is sorted by."""
        return HEADLINE[self.board]


def load_runs(boards: Path) -> list[Run]:
    """Every run folder below a boards folder, sorted by name.

    Raises:
        UserError: when there is none, or one is damaged.
    """
    runs = []
    for path in sorted(boards.glob("*/score.json")):
        scores = parquet.read_records(path.parent / "scores.parquet", Score)
        runs.append(Run(path.parent, files.read_json(path), {(s.metric, s.slice): s for s in scores}))
    if not runs:
        raise UserError(f"{boards}: expected scored runs (*/score.json), found none; run ahp bench score first")
    return runs


def boards_of(runs: Sequence[Run]) -> list[Board]:
    """Leaderboards of runs that may be compared, mask before content, by split."""
    found: dict[tuple[str, str, str, str], dict[str, list[Run]]] = {}
    for run in runs:
        for board, protocol in run.about["protocol"].items():
            key = (board, run.about["split"], run.about["dataset_digest"], protocol)
            found.setdefault(key, {}).setdefault(_given(run, board), []).append(run)
    made = []
    for key, by_given in found.items():
        for_all = by_given.pop(_NOTHING, [])
        made += [Board(*key, [*rs, *for_all], given=given) for given, rs in (by_given or {INITIAL: []}).items()]
    for b in made:
        _rank(b)
    return sorted(made, key=lambda b: (b.split, b.board != "mask", b.digest, b.protocol, b.given))


def _given(run: Run, board: str) -> str:
    """What a method was given for its pictures, as ``fed_by`` in its run.json says; one for all masks."""
    if board != "content":
        return ""
    said = run.about["run"].get("fed_by")
    return TRUTH if said == "truth" else _NOTHING if said == "nothing" else INITIAL


def _rank(board: Board) -> None:
    names = {m for r in board.runs for m, _ in r.scores}
    classes = [METRICS.get(n).METRIC for n in METRICS.names() if n in names]
    board.metrics = sorted((c for c in classes if c.board == board.board), key=_column)
    head = METRICS.get(board.headline).METRIC
    board.runs.sort(key=lambda r: (_sort_value(head, r), r.model, r.folder.name))
    for metric in board.metrics:
        board.standings[metric.name] = _standings(metric, board.runs)


def _column(metric: type[Metric]) -> tuple[int, str]:
    name = metric.stands_for or metric.name
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), metric.name)


def _sort_value(metric: type[Metric], run: Run) -> float:
    s = run.scores.get((metric.name, "all"))
    if s is None or not np.isfinite(s.value):
        return float("inf")
    return -s.value if metric.higher_is_better else s.value


def _standings(metric: type[Metric], runs: Sequence[Run]) -> dict[int, Standing]:
    order = sorted(
        (k for k, r in enumerate(runs) if np.isfinite(_sort_value(metric, r))),
        key=lambda k: _sort_value(metric, runs[k]),
    )
    out: dict[int, Standing] = {}
    leader = above = -1
    for place, k in enumerate(order, 1):
        mine = runs[k].estimate(metric.name)
        difference, same = None, False
        if above >= 0 and mine:
            upper, first = runs[above].estimate(metric.name), runs[leader].estimate(metric.name)
            if upper and first:
                equal, low, high = tied(mine, upper)
                difference = (mine.value - upper.value, low, high)
                same = equal and tied(mine, first)[0]
        rank = out[leader].rank if same else place
        if same:
            out[leader].tied = True
        else:
            leader = k
        out[k], above = Standing(rank, same, difference), k
    return out
