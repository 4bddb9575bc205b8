"""Leaderboards from run folders: which runs are ranked together, and by which rule.

A leaderboard holds runs of one board, one truth (digest of the split, and for pictures of its true crops), one protocol
(digest of the definitions) and, for pictures, one kind of input (the initial mask, or the true masks): others get a
board of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Score
from ahp_toolkit.storage import files, parquet
from benchmark.grading.bootstrap import Estimate, difference, tied
from benchmark.grading.foreign import plain_bytes
from benchmark.grading.identity import run_id_of
from benchmark.grading.score import SCORED
from benchmark.grading.submission import Submission, digest_of
from benchmark.metric import METRICS, Metric

#: The rule of ranks, as every form of a board prints it and `_places` computes it.
RULE = (
    "Ranks: from the best down, a method is compared with the first method of the group above it. It shares that "
    "method's rank (=) if the paired 95 % interval of their difference (by human: difference ± t standard errors) "
    "holds 0 or cannot be computed; otherwise it opens a group, and its rank is 1 + the number of methods above it."
)
#: The metric a board is sorted by, and the order of its columns; others follow by name.
HEADLINE = {"mask": "iou_amodal", "content": "l1_image"}
#: What the methods of a content board were given beside the occluded picture.
INITIAL, TRUTH = "initial mask given", "true masks given"
_NOTHING = "nothing"  # a method that needs no mask is on every board
_ORDER = (
    "iou_amodal", "iou_invisible", "iou_modal", "l1_mask", "boundary_iou", "iou_invisible_gtvis",
    "iou_invisible_global", "iou_amodal_global", "iou_modal_global", "l1_mask_pixel",
    "l1_image", "l1_invisible", "psnr", "ssim", "lpips", "fid", "kid",
)  # fmt: skip
_MOST_BYTES = 32 * 2**20  # of a score.json


@dataclass
class Run:
    """One scored submission, read back from its folder; ``record`` is its score.json."""

    folder: Path
    record: dict[str, Any]
    scores: dict[tuple[str, str], Score]

    @property
    def model(self) -> str:
        """The method's name."""
        return str(self.record["model"])

    @cached_property
    def samples(self) -> pa.Table:
        """Each sample's facts and figures, sorted by sample id."""
        return parquet.read_table(self.folder / "samples.parquet")

    @cached_property
    def shares(self) -> dict[str, np.ndarray]:
        """Each human's share of the error of every metric over all samples."""
        table = parquet.read_table(self.folder / "shares.parquet")
        return {n: np.array(table[n][0].as_py(), np.float64) for n in table.column_names}

    def estimate(self, metric: str) -> Estimate:
        """A metric over all samples.

        Raises:
            KeyError: when the run has no figure of it.
        """
        s = self.scores[metric, "all"]
        return Estimate(s.value, s.low, s.high, self.shares[metric])

    @cached_property
    def marks(self) -> list[str]:
        """The judge's own remarks on the row."""
        copies = self.record["true_pictures"]
        found = [f"{copies} of its pictures equal the true ones"] if copies else []
        return [*found, *(["changed after it was scored"] if self._changed() else [])]

    def _changed(self) -> bool:
        """Whether the submission's files are there, and no longer those that were scored."""
        path = (self.folder / self.record["paths"]["predictions"]).resolve()
        if not path.exists():
            return False
        try:
            if digest_of(path) != self.record["submission"]:
                return True
            ids = self.samples["sample_id"].to_pylist()
            return run_id_of(Submission(path, checked=True), ids, self.record["dataset_digest"]) != self.folder.name
        except (UserError, OSError):
            return True


@dataclass
class Place:
    """A run's rank by one metric, whether others share it, and the difference to the first method of the group above.

    ``difference`` is (value, low, high), None for the best.
    """

    rank: int
    tied: bool
    difference: tuple[float, float, float] | None


@dataclass
class Board:
    """One leaderboard: ``places[metric][k]`` is the place of ``runs[k]``; runs are in headline order."""

    board: str
    split: str
    digest: str
    protocol: str
    runs: list[Run]
    metrics: list[type[Metric]] = field(default_factory=list)
    places: dict[str, dict[int, Place]] = field(default_factory=dict)
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

    @property
    def title(self) -> str:
        """The heading."""
        given = f", {self.given}" if self.given else ""
        return f"{self.board.capitalize()} board, split {self.split}{given} (dataset {self.digest[:12]})"


def load_runs(boards: Path) -> tuple[list[Run], dict[str, str]]:
    """Every run folder below a boards folder, sorted by name, and the folders left out, with the reason.

    Raises:
        UserError: when there is no usable run.
    """
    runs, left_out = list[Run](), dict[str, str]()
    for path in sorted(boards.glob("*/score.json")):
        try:
            runs.append(load_run(path.parent))
        except UserError as e:
            left_out[path.parent.name] = f"{e}; score it again"
    if not runs:
        why = "".join(f"; {name}: {reason}" for name, reason in left_out.items())
        raise UserError(f"{boards}: expected scored runs (*/score.json), found none; run ahp bench score first{why}")
    return runs, left_out


def load_run(folder: Path) -> Run:
    """A run folder as `score` wrote it.

    Raises:
        UserError: when it was not scored into this boards folder, or was changed since.
    """
    mark = folder.parent / SCORED / f"{folder.name}.json"
    if not mark.is_file():
        raise UserError("was not scored into this boards folder")
    data = plain_bytes(folder / "score.json", _MOST_BYTES)
    if files.read_json(mark).get("score") != hashlib.sha256(data).hexdigest():
        raise UserError("its score.json was changed after it was scored")
    record = json.loads(data)
    for name, digest in record["tables"].items():
        if not (folder / name).is_file() or digest != hashing.digest_file(folder / name):
            raise UserError(f"its {name} is missing or was changed after it was scored")
    scores = parquet.read_records(folder / "scores.parquet", Score)
    return Run(folder, record, {(s.metric, s.slice): s for s in scores})


def boards_of(runs: Sequence[Run]) -> list[Board]:
    """Leaderboards of runs that may be compared, mask before content, by split."""
    found: dict[tuple[str, str, str, str], dict[str, list[Run]]] = {}
    for run in runs:
        for board, protocol in run.record["protocol"].items():
            key = (board, run.record["split"], run.record["dataset_digests"][board], protocol)
            found.setdefault(key, {}).setdefault(_given(run, board), []).append(run)
    made = []
    for key, by_given in found.items():
        for_all = by_given.pop(_NOTHING, [])
        made += [Board(*key, [*rs, *for_all], given=given) for given, rs in (by_given or {INITIAL: []}).items()]
    for b in made:
        _rank(b)
    return sorted(made, key=lambda b: (b.split, b.board != "mask", b.digest, b.protocol, b.given))


def _given(run: Run, board: str) -> str:
    """The masks a method was given for its pictures, as ``fed_by`` in its run.json claims; '' on the mask board."""
    if board != "content":
        return ""
    claims = run.record["run"]
    if claims.get("trained") is False or claims.get("fed_by") == "nothing":
        return _NOTHING
    return TRUTH if claims.get("fed_by") == "truth" else INITIAL


def _rank(board: Board) -> None:
    names = {m for r in board.runs for m, _ in r.scores} | {m for r in board.runs for m in r.record["absent"]}
    known = METRICS.all()
    board.metrics = sorted((known[n] for n in names if n in known and known[n].board == board.board), key=_column)
    head = METRICS.get(board.headline)
    board.runs.sort(key=lambda r: (_sort_value(head, r), r.model, r.folder.name))
    for metric in board.metrics:
        board.places[metric.name] = _places(metric, board.runs)


def _column(metric: type[Metric]) -> tuple[int, str]:
    return (_ORDER.index(metric.name) if metric.name in _ORDER else len(_ORDER), metric.name)


def _sort_value(metric: type[Metric], run: Run) -> float:
    s = run.scores.get((metric.name, "all"))
    if s is None or not np.isfinite(s.value):
        return float("inf")
    return -s.value if metric.higher_is_better else s.value


def _places(metric: type[Metric], runs: Sequence[Run]) -> dict[int, Place]:
    """Ranks by `RULE`; runs without a figure have none."""
    values = sorted((v, k) for k, r in enumerate(runs) if np.isfinite(v := _sort_value(metric, r)))
    out: dict[int, Place] = {}
    leader: tuple[int, Estimate] | None = None
    for place, (_, k) in enumerate(values, 1):
        mine = runs[k].estimate(metric.name)
        if leader is not None and tied(mine, leader[1]):
            out[leader[0]].tied = True
            out[k] = Place(out[leader[0]].rank, True, difference(mine, leader[1]))
        else:
            out[k] = Place(place, False, difference(mine, leader[1]) if leader else None)
            leader = k, mine
    return out
