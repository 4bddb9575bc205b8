"""The paper's Tables 2 to 6 as plans: the run of each row, its cost, and its figures.

A job that several rows share (Table 4's last row is Table 2's, Table 6 repeats rows of Table 5) is trained once. The
paper's figures are in columns of their own. Without Inception's weights the cells of FID say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ahp_toolkit.cli.bench import runs
from ahp_toolkit.core.errors import UserError

if TYPE_CHECKING:
    from ahp_toolkit.core.records import Score
    from baselines.training.train import Training
    from benchmark.features.context import Context

NUMBERS = (1, 2, 3, 4, 5, 6)
TITLES = {
    1: "Statistics of the sources: humans, preserved, ratio",
    2: "Mask completion",
    3: "Content recovery",
    4: "Ablation of the refined mask completion network",
    5: "Ablation of the background's weight",
    6: "Ablation of the parsing guided content recovery network",
}
#: Columns of a table: our metric and the paper's column that it answers ('' where the paper has none).
COLUMNS: dict[int, tuple[tuple[str, str], ...]] = {
    2: (("l1_mask", "l1"), ("iou_amodal", "IoU amodal"), ("iou_invisible", "IoU invisible")),
    3: (("l1_image", "l1"), ("l1_invisible", ""), ("fid", "FID")),
    4: (("iou_modal", "IoU modal"), ("iou_amodal", "IoU amodal"), ("iou_invisible", "IoU invisible")),
    5: (("fid", "FID"), ("l1_invisible", "")),
    6: (("fid", "FID"), ("l1_invisible", "")),
}
#: Model of each method that the paper compares, in its order.
TABLE2 = {
    "Mask R-CNN": "mask_rcnn", "DeepLab": "deeplab", "Pix2Pix": "pix2pix", "SeGAN": "segan", "OVSR": "ovsr",
    "PCNets": "pcnets", "Human de-occlusion": "human_deocclusion",
}  # fmt: skip
TABLE3 = {
    "Pix2Pix": "pix2pix", "DeepFill v2": "deepfillv2", "SeGAN": "segan", "OVSR": "ovsr", "PCNets": "pcnets",
    "Human de-occlusion": "human_deocclusion",
}  # fmt: skip
OURS = "human_deocclusion"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Setup:
    """The options that all runs of a plan share.

    ``steps`` replaces the recipe's; ``fed``: the masks of content runs, ``truth`` or ``cascade``; ``settings`` override
    those of recipe and row (for trials).
    """

    root: Path
    recipe: str = "debug"
    split: str = "val"
    seeds: int = 1
    steps: int | None = None
    device: str = "auto"
    workers: int = 0
    fed: str = "truth"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def job(self, model: str, task: str, settings: Mapping[str, Any], seed: int) -> Training:
        """The training run of one row and seed."""
        from baselines.training.train import Training

        given = {**settings, **self.settings}
        return Training(
            self.root, model, task, self.recipe, seed, given, device=self.device, workers=self.workers,
            steps=self.steps, quiet=False,
        )  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One row: its name, its runs (one a seed), and the paper's figures by the paper's column names."""

    name: str
    jobs: tuple[Training, ...]
    paper: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """A table to be filled by training."""

    number: int
    task: str
    rows: tuple[Row, ...]

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """(our metric, the paper's column)."""
        return COLUMNS[self.number]


def plan(setup: Setup, numbers: Sequence[int]) -> list[Table]:
    """The tables that need runs, in order.

    Raises:
        UserError: for a table that the paper does not have.
    """
    unknown = [n for n in numbers if n not in NUMBERS]
    if unknown:
        raise UserError(f"--tables {unknown[0]}: the paper's tables are {', '.join(map(str, NUMBERS))}")
    return [_table(setup, n) for n in sorted(set(numbers)) if n != 1]


def _table(setup: Setup, number: int) -> Table:
    task = "mask" if number in (2, 4) else "content"
    rows = []
    for name, model, settings, paper in _lines(number, setup.split):
        jobs = tuple(setup.job(model, task, settings, seed) for seed in range(setup.seeds))
        rows.append(Row(name, jobs, paper))
    return Table(number, task, tuple(rows))


def _lines(number: int, split: str) -> Iterator[tuple[str, str, Mapping[str, Any], Mapping[str, str]]]:
    """(name, model, settings, the paper's figures) of each row."""
    from baselines.models.human_deocclusion import TABLE4, TABLE5, TABLE6, ContentSettings, MaskSettings
    from benchmark.boards.reported import TABLE_5, TABLE_6, reported

    if number in (2, 3):
        real = "real" if split == "test" else "synthesized"
        printed = {r.method: r.figures for r in reported("mask" if number == 2 else "content") if real in r.data}
        for name, model in (TABLE2 if number == 2 else TABLE3).items():
            yield name, model, {}, printed[name]
        return
    if number == 4:
        ablations = [r.figures for r in reported("mask") if r.method.startswith("ablation")]
        for (name, settings), figures in zip(TABLE4.items(), ablations, strict=True):
            yield name, OURS, _changed(settings, MaskSettings()), figures
        return
    ours, theirs = (TABLE5, TABLE_5) if number == 5 else (TABLE6, TABLE_6)
    for (name, settings), value in zip(ours.items(), theirs.values(), strict=True):
        yield name, OURS, _changed(settings, ContentSettings()), {"FID": value}


def _changed(settings: Mapping[str, Any], own: object) -> dict[str, Any]:
    """The settings that differ from the model's own, so that equal rows of two tables are one run."""
    return {k: v for k, v in settings.items() if getattr(own, k) != v}


# --- the cost ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """One run of the plan: the rows it fills, the steps left, and seconds a step (None: unknown)."""

    job: Training
    rows: tuple[str, ...]
    steps: int
    seconds: float | None
    known_by: str

    @property
    def total(self) -> float:
        """Seconds of training left, 0 where a step's time is unknown."""
        return self.steps * (self.seconds or 0.0)


def unique(setup: Setup, tables: Sequence[Table]) -> list[tuple[Training, list[str]]]:
    """Each run once, with the rows that it fills; the cascade's stage-1 run among them where content is fed by it."""
    found: dict[str, tuple[Training, list[str]]] = {}

    def take(job: Training, row: str) -> None:
        found.setdefault(str(runs.identity(job)), (job, []))[1].append(row)

    for table in tables:
        for row in table.rows:
            for job in row.jobs:
                if table.task == "content" and setup.fed == "cascade":
                    take(setup.job(OURS, "mask", {}, job.seed), f"feeds table {table.number}")
                take(job, f"table {table.number} '{row.name}'")
    return [(job, sorted(set(rows))) for job, rows in found.values()]


def costs(setup: Setup, tables: Sequence[Table], timing: Path | None = None) -> Iterator[Cost]:
    """The cost of each run of the plan; with ``timing`` (a folder) unknown step times are measured."""
    for job, rows in unique(setup, tables):
        total = job.resolved().steps[job.task]
        left = 0 if runs.finished(job) else max(0, total - runs.steps_done(job))
        seconds, known_by = runs.seconds_per_step(job, timing) if left else (None, "up to date")
        yield Cost(job, tuple(rows), left, seconds, known_by)


# --- the results ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """The results of one row, by seed: scored figures by metric, folders, and reasons of metrics without a figure."""

    scores: tuple[Mapping[str, Score], ...]
    folders: tuple[Path, ...]
    absent: tuple[Mapping[str, str], ...] = ()


def fill(
    setup: Setup, tables: Sequence[Table], boards: Path, context: Context, say: Say
) -> dict[tuple[int, str], Measured]:
    """Train, predict and score whatever is not up to date; results by (table, row)."""
    if not tables:
        return {}
    split = runs.write_crops(setup.root, setup.split, max(1, setup.workers))
    done: dict[str, Path] = {}
    made: dict[tuple[int, str], Measured] = {}
    for table in tables:
        for row in table.rows:
            for job in row.jobs:
                key = str(runs.identity(job))
                if key not in done:
                    done[key] = _one(setup, job, split, boards, context, say)
            folders = tuple(done[str(runs.identity(job))] for job in row.jobs)
            found = tuple(map(runs.scores_of, folders))
            made[table.number, row.name] = Measured(found, folders, tuple(map(runs.absent_of, folders)))
    return made


def _one(setup: Setup, job: Training, split: Path, boards: Path, context: Context, say: Say) -> Path:
    """The scored folder of one run."""
    feeder = None
    if job.task == "content" and setup.fed == "cascade":
        feeder, _ = runs.train_once(setup.job(OURS, "mask", {}, job.seed))
    run, trained = runs.train_once(job)
    predictions, predicted = runs.predict_once(run, split, feeder, job.device)
    folder, scored = runs.score_once(predictions, split, boards, context)
    done = [step for step, new in (("trained", trained), ("predicted", predicted), ("scored", scored)) if new]
    say(f"{run.name}: {', '.join(done) or 'up to date'}")
    return folder
