"""Pictures of the report: curves over the occlusion ratio as SVG, and grids of samples as small PNGs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np

from ahp_toolkit.core import hashing
from ahp_toolkit.core.crops import SIDE
from ahp_toolkit.core.records import Sample
from ahp_toolkit.storage import files, images, parquet
from benchmark.boards.ranking import Board, Run
from benchmark.grading.pictures import read_picture
from benchmark.grading.submission import Submission, parse
from benchmark.grading.truth import crop_of, picture_path
from benchmark.metric import Bools, Bytes, Metric

#: Okabe and Ito's colours, which colour-blind readers can tell apart, then two darker ones.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A3D9A", "#4D4D4D")
TILE = 112  # px of a tile in a grid
_LEFT, _TOP, _WIDTH, _HEIGHT = 52, 14, 520, 250


def colour(k: int) -> str:
    """The colour of the k-th run of a board."""
    return COLOURS[k % len(COLOURS)]


def curves(board: Board, metric: type[Metric]) -> str:
    """Every run's figure over the ten bins of the occlusion ratio, with its interval, if any, as a band: one SVG."""
    lines = [_points(run, metric) for run in board.runs]
    values = [v * metric.scale for line in lines for _, v, low, high in line for v in (v, low, high) if np.isfinite(v)]
    if not values:
        return ""
    low, high = min(values), max(values)
    pad = (high - low) * 0.06 or 1.0
    low, high = low - pad, high + pad
    if np.isfinite(metric.bounds[0]):
        low = max(low, metric.bounds[0] * metric.scale)
    if np.isfinite(metric.bounds[1]):
        high = min(high, metric.bounds[1] * metric.scale + pad)
    xs = [x for line in lines for x, *_ in line]
    right = min(1.0, max(xs) + 0.05)

    def at(x: float, y: float) -> tuple[float, float]:
        return _LEFT + x / right * _WIDTH, _TOP + (high - y * metric.scale) / (high - low) * _HEIGHT

    parts = [_axes(low, high, right, metric)]
    for k, line in enumerate(lines):
        parts.append(_curve([(*at(x, v), at(x, a)[1], at(x, b)[1]) for x, v, a, b in line], k, board.runs[k].model))
    box = f"0 0 {_LEFT + _WIDTH + 16} {_TOP + _HEIGHT + 44}"
    label = f'role="img" aria-label="{metric.name} over occlusion ratio"'
    return f'<svg class="curve" viewBox="{box}" {label}>{"".join(parts)}</svg>'


def _points(run: Run, metric: type[Metric]) -> list[tuple[float, float, float, float]]:
    found = []
    for (name, piece), s in run.scores.items():
        if name == metric.name and piece.startswith("ratio/") and np.isfinite(s.value):
            start, end = map(float, piece.removeprefix("ratio/").split("-"))
            found.append(((start + end) / 2, s.value, s.low, s.high))
    return sorted(found)


def _axes(low: float, high: float, right: float, metric: type[Metric]) -> str:
    out = []
    for y in (t for t in _ticks(low, high) if t <= metric.bounds[1] * metric.scale):
        py = _TOP + (high - y) / (high - low) * _HEIGHT
        out.append(f'<line class="grid" x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{py:.1f}" y2="{py:.1f}"/>')
        out.append(f'<text x="{_LEFT - 8}" y="{py + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in np.arange(0, right + 1e-9, 0.1):
        px = _LEFT + x / right * _WIDTH
        out.append(f'<text x="{px:.1f}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle">{x:.1f}</text>')
    middle = _LEFT + _WIDTH / 2
    out.append(f'<text x="{middle}" y="{_TOP + _HEIGHT + 37}" text-anchor="middle" class="axis">occlusion ratio</text>')
    return "".join(out)


def _ticks(low: float, high: float) -> list[float]:
    step = 10 ** np.floor(np.log10((high - low) / 4))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 6)
    return [round(float(v), 10) for v in np.arange(np.ceil(low / step) * step, high + 1e-12, step)]


def _curve(points: list[tuple[float, float, float, float]], k: int, model: str) -> str:
    if not points:
        return ""
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour(k)}"/>' for x, y, _, _ in points)
    return (
        f'<g class="run" data-run="{k}"><title>{escape(model)}</title>'
        f"{''.join(_band(list(part), k) for known, part in groupby(points, _has_interval) if known)}"
        f'<polyline points="{line}" fill="none" stroke="{colour(k)}" stroke-width="2.2"/>{dots}</g>'
    )


def _has_interval(point: tuple[float, float, float, float]) -> bool:
    return bool(np.isfinite(point[2:]).all())


def _band(points: list[tuple[float, float, float, float]], k: int) -> str:
    corners = [f"{x:.1f},{a:.1f}" for x, _, a, _ in points] + [f"{x:.1f},{b:.1f}" for x, _, _, b in reversed(points)]
    return f'<polygon points="{" ".join(corners)}" fill="{colour(k)}" opacity=".10"/>'


@dataclass(frozen=True)
class Grid:
    """Tiles of the same samples for all methods: ``rows`` are (caption, [(PNG data URI, figure)])."""

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
    """Draws tiles of the samples that a report needs; predictions and truth are read from where the runs found them."""

    def __init__(self, board: Board, wanted: set[str]) -> None:
        self.board = board.board
        self.samples: dict[str, Sample] = {}
        for run in board.runs:
            split = (run.folder / run.about["paths"]["split"]).resolve()
            if split.is_dir() and not self.samples:
                self.split = split
                self.samples = {s.sample_id: s for s in parquet.read_records(split, Sample) if s.sample_id in wanted}
        self.found = {k: self._fetch(r, wanted) for k, r in enumerate(board.runs)}

    def _fetch(self, run: Run, wanted: set[str]) -> tuple[Path, dict] | None:  # type: ignore[type-arg]
        path = (run.folder / run.about["paths"]["predictions"]).resolve()
        if not path.exists():
            return None
        submission = Submission(path)
        return submission.root, submission.fetch(sorted(wanted))

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
            return nothing if p.image is None else self._picture(files.safe_join(root, p.image))
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
            shown = metric.shown(float(column[i])) if column else "–"
            found.append((uri(tiles.prediction(k, name)), shown))
        rows.append((f"{name} · ratio {ratios[i]:.2f}", found))
    return Grid(title, note, ["input", "ground truth", *(r.model for r in board.runs)], rows)
