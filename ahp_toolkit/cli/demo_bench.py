"""The demo's end: a few models trained for minutes on the sample world, and an honest leaderboard of them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ahp_toolkit.cli.bench import runs
from ahp_toolkit.storage import files

if TYPE_CHECKING:
    from baselines.training.train import Training

NOTE = (
    "sample world: procedural people; nothing here is a result on people. Every model has the debug recipe (64 px, "
    "half of the width) and far too few steps"
)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Entry:
    """A model of the demo's boards, with few steps (0: none): all stay inside the demo's 12 minutes on 2 cores."""

    model: str
    task: str
    steps: int


ENTRIES = (
    Entry("initial", "mask", 0),
    Entry("nothing", "content", 0),
    Entry("human_deocclusion", "mask", 200),
    Entry("pcnets", "mask", 200),
    Entry("pix2pix", "mask", 200),
    Entry("deeplab", "mask", 200),
    Entry("pcnets", "content", 100),
    Entry("pix2pix", "content", 100),
)
SPLIT = "val"


def jobs(out: Path, seed: int, entries: tuple[Entry, ...] = ENTRIES) -> list[Training]:
    """The training runs of the demo."""
    from baselines.training.train import Training

    return [
        Training(root=out, model=e.model, task=e.task, recipe="debug", steps=e.steps or None, seed=seed, device="cpu")
        for e in entries
    ]


def run_boards(out: Path, seed: int, workers: int, say: Say, entries: tuple[Entry, ...] = ENTRIES) -> Path:
    """Train, predict ``val``, score and report; returns the page, ``out``/boards/index.html."""
    from benchmark.boards.report import write_report
    from benchmark.features.context import Context

    split = runs.write_crops(out, SPLIT, workers)
    steps = ", ".join(f"{e.model}/{e.task} {e.steps}" for e in entries if e.steps)
    say(f"benchmark  recipe debug with fewer steps than its 600 and 200, so that the demo stays short: {steps}")
    folders = [_made(job, split, say) for job in jobs(out, seed, entries)]
    boards, context = out / "boards", Context(cache=out / "boards" / "cache")
    kept = {_scored(folder, split, boards, context, say) for folder in folders}
    for old in boards.glob("*/score.json"):
        if old.parent not in kept:  # of another seed, or of other data
            shutil.rmtree(old.parent)
    write_report(boards, boards, seed, f"{NOTE}: {steps}.")
    page = boards / "index.html"
    (boards / "leaderboard.html").replace(page)
    return page


def _made(job: Training, split: Path, say: Say) -> Path:
    """The predictions of one model."""
    begun = time.monotonic()
    run, trained = runs.train_once(job)
    spent = time.monotonic() - begun
    predictions, predicted = runs.predict_once(run, split, device=job.device)
    record = files.read_json(predictions / "run.json")
    took = f" in {spent:.0f} s" if trained else " (up to date)"
    fresh = f"trained {job.steps} steps{took}" if job.steps else "nothing to train"
    again = "" if predicted else " (up to date)"
    say(f"{'train':10s} {job.model}/{job.task}: {fresh}, {record['predictions']} predictions{again}")
    return predictions


def _scored(predictions: Path, split: Path, boards: Path, context: object, say: Say) -> Path:
    folder, fresh = runs.score_once(predictions, split, boards, context)  # type: ignore[arg-type]
    model = files.read_json(folder / "score.json")["model"]
    found = runs.scores_of(folder)
    shown = [f"{n} {found[n].value:.3f}" for n in ("iou_amodal", "iou_invisible", "l1_invisible") if n in found]
    say(f"{'score':10s} {model}: {', '.join(shown)}{'' if fresh else '  (up to date)'}")
    return folder
