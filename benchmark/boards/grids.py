"""Grids of samples: input, truth and every method's answer side by side, as small JPEGs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from ahp_toolkit.core import hashing
from ahp_toolkit.core.crops import SIDE
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Sample
from ahp_toolkit.storage import files, images, parquet
from benchmark.boards.ranking import Board, Run
from benchmark.grading.pictures import read_picture
from benchmark.grading.records import Row, parse
from benchmark.grading.submission import Submission, digest_of
from benchmark.grading.truth import crop_of, picture_path
from benchmark.metric import METRICS, Bools, Bytes, Metric

TILE = 112  # px of a tile in a grid
_SEEDED, _DISAGREED, _WORST = 4, 4, 6  # samples per grid
_RUNS = 8  # methods in one grid: the first of the board


@dataclass(frozen=True)
class Grid:
    """Tiles of the same samples for all methods: ``rows`` are (caption, [(JPEG data URI, figure)])."""

    title: str
    note: str
    heads: list[str]
    rows: list[tuple[str, list[tuple[str, str]]]]


def pick_seeded(board: Board, count: int, seed: int) -> list[int]:
    """``count`` samples by seed alone, spread over the occlusion ratio."""
    ratios = np.array(board.runs[0].samples["ratio"].to_pylist())
    names = board.runs[0].samples["sample_id"].to_pylist()
    strata = np.array_split(np.argsort(ratios, kind="stable"), min(count, len(ratios)))
    return [int(min(s, key=lambda i: hashing.unit_hash("grid", seed, names[i]))) for s in strata]


def pick_disagreement(board: Board, metric: str, count: int) -> list[int]:
    """The samples on which the methods' figures differ most (standard deviation), at most one a human."""
    each = [np.array(r.samples[metric].to_pylist(), np.float64) for r in board.runs if metric in r.samples.column_names]
    spread = np.nan_to_num(np.std(each, axis=0)) if len(each) > 1 else np.zeros(len(each[0]))
    humans = board.runs[0].samples["human_id"].to_pylist()
    return _one_a_human(np.argsort(-spread, kind="stable"), humans, count)


def pick_worst(run: Run, metric: type[Metric], count: int) -> list[int]:
    """The samples on which a method does worst, at most one a human."""
    each = np.array(run.samples[metric.name].to_pylist(), np.float64)
    each = np.where(np.isnan(each), -np.inf if not metric.higher_is_better else np.inf, each)
    order = np.argsort(each if metric.higher_is_better else -each, kind="stable")
    return _one_a_human(order, run.samples["human_id"].to_pylist(), count)


def _one_a_human(order: np.ndarray, humans: Sequence[str], count: int) -> list[int]:
    seen: set[str] = set()
    picked: list[int] = []
    for i in order.tolist():
        if humans[i] not in seen and len(picked) < count:
            seen.add(humans[i])
            picked.append(i)
    return picked


class Tiles:
    """Tiles of the samples of a report; predictions and truth are read from the paths in score.json."""

    def __init__(self, board: Board, wanted: set[str]) -> None:
        self.board = board.board
        self.samples: dict[str, Sample] = {}
        for run in board.runs:
            split = (run.folder / run.record["paths"]["split"]).resolve()
            if any(split.glob("part-*.parquet")) and not self.samples:
                self.split = split
                self.samples = {s.sample_id: s for s in parquet.read_records(split, Sample) if s.sample_id in wanted}
        self.samples = self.samples if wanted <= set(self.samples) else {}  # another split is there by now
        self.found = {k: self._fetch(r, wanted) for k, r in enumerate(board.runs)}

    def _fetch(self, run: Run, wanted: set[str]) -> tuple[Path | None, dict[str, tuple[str, Row]]] | None:
        """A run's records of the wanted samples; None where its files are not those that were scored."""
        path = (run.folder / run.record["paths"]["predictions"]).resolve()
        try:
            if not path.exists() or digest_of(path) != run.record["submission"]:
                return None
            submission = Submission(path, checked=True)
            return submission.root, submission.fetch(sorted(wanted))
        except (UserError, OSError):
            return None

    def only(self, k: int) -> Tiles:
        """The same truth with the k-th run as the only one."""
        one = copy(self)
        one.found = {0: self.found[k]}
        return one

    def input(self, name: str) -> Bytes:
        """The occluded crop, or grey where no pictures are materialized."""
        return self._picture(picture_path(self.split, name, "occluded"))

    def _picture(self, path: Path) -> Bytes:
        try:
            return read_picture(path)
        except ValueError:
            return np.full((SIDE, SIDE, 3), 205, np.uint8)

    def truth(self, name: str) -> Bytes:
        """The truth: the recovered crop (content) or the visible and invisible masks over the occluded one (mask)."""
        if self.board == "content":
            return self._picture(picture_path(self.split, name, "recovered"))
        s = self.samples[name]
        return _overlay(self.input(name), crop_of(s, "amodal"), crop_of(s, "modal"), None)

    def prediction(self, k: int, name: str) -> Bytes:
        """The k-th run's answer; dark grey where it has none."""
        nothing = np.full((SIDE, SIDE, 3), 90, np.uint8)
        found = self.found[k]
        if found is None or name not in found[1]:
            return nothing
        root, rows = found
        where, row = rows[name]
        p = parse(where, row, root)
        if self.board == "content":
            return nothing if p.image is None or root is None else self._picture(files.safe_join(root, p.image))
        if p.masks is None:
            return nothing
        s, (amodal, own) = self.samples[name], p.masks
        modal = own.decode() if own is not None else crop_of(s, "given")
        return _overlay(self.input(name), amodal.decode(), modal, crop_of(s, "amodal"))


def _overlay(picture: Bytes, amodal: Bools, modal: Bools, outline: Bools | None) -> Bytes:
    """Visible part blue, invisible part orange, the true outline white."""
    out = cv2.addWeighted(picture, 0.55, np.full_like(picture, 255), 0.45, 0).astype(np.float32)
    for mask, tint in ((amodal & modal, (0, 114, 178)), (amodal & ~modal, (230, 120, 0))):
        out[mask] = 0.35 * out[mask] + 0.65 * np.array(tint, np.float32)
    done = out.astype(np.uint8)
    if outline is not None:
        contours, _ = cv2.findContours(outline.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(done, contours, -1, (20, 20, 20), 4)
        cv2.drawContours(done, contours, -1, (255, 255, 255), 2)
    return done


def uri(picture: Bytes) -> str:
    """A tile as a JPEG data URI."""
    small = np.asarray(cv2.resize(picture, (TILE * 2, TILE * 2), interpolation=cv2.INTER_AREA), np.uint8)
    return "data:image/jpeg;base64," + base64.b64encode(images.encode_jpeg(small, 80)).decode()


def grid(board: Board, tiles: Tiles, picked: list[int], metric: type[Metric], title: str, note: str) -> Grid:
    """One row a sample: input, truth, then every method with its figure."""
    table = board.runs[0].samples
    names, ratios = table["sample_id"].to_pylist(), table["ratio"].to_pylist()
    columns = [
        r.samples[metric.name].to_pylist() if metric.name in r.samples.column_names else None for r in board.runs
    ]
    rows = []
    for i in picked:
        name = names[i]
        found = [(uri(tiles.input(name)), ""), (uri(tiles.truth(name)), "")]
        for k, column in enumerate(columns):
            shown = f"{column[i] * metric.scale:.{metric.digits}f}" if column and column[i] == column[i] else "–"
            found.append((uri(tiles.prediction(k, name)), shown))
        rows.append((f"{name} · ratio {ratios[i]:.2f}", found))
    return Grid(title, note, ["input", "ground truth", *(r.model for r in board.runs)], rows)


def grids(board: Board, seed: int) -> tuple[list[Grid], list[Grid]]:
    """Samples side by side, and the worst of each method; disagreement takes two."""
    metric = METRICS.get("iou_invisible" if board.board == "mask" else "l1_invisible")
    if not all(metric.name in r.samples.column_names for r in board.runs):
        return [], []
    shown = replace(board, runs=board.runs[:_RUNS])
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
        note = f"The methods' figures differ most on these. {figure}"
        made.append(grid(shown, tiles, disagreed, metric, "Greatest disagreement", note))
    each = []
    for k, picked in worst.items():
        only = replace(board, runs=[shown.runs[k]])
        each.append(grid(only, tiles.only(k), picked, metric, f"Worst cases of {shown.runs[k].model}", figure))
    return made, each
