"""Train, predict, score: the benchmark's three steps, each skipped where its result is up to date.

A run is compared by model and version, settings, recipe, options, seed and data (``run.json``); predictions by the
split's and the weights' digests; a score by its digests, its definitions and the metrics that could be computed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ahp_toolkit.build import config
from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Score
from ahp_toolkit.runtime.engines import LocalEngine
from ahp_toolkit.stages.materialize import materialize
from ahp_toolkit.storage import files, parquet

if TYPE_CHECKING:
    from baselines.training.train import Training
    from benchmark.features.context import Context

MEASURED = 3  # steps of a measurement
Json = dict[str, Any]


# --- training -----------------------------------------------------------------------------------------------------


def identity(job: Training) -> Json:
    """Everything a run's weights depend on, as in its run.json; equal for jobs that would train the same."""
    from baselines.base import MODELS
    from baselines.training.record import init_digest, options
    from baselines.training.runs import splits_digests

    recipe = job.resolved()
    found = {
        "model": job.model,
        "model_version": MODELS.get(job.model).VERSION,
        "task": job.task,
        "settings": _settings(job.model, job.task, job.recipe, json.dumps(job.settings)),
        "recipe_values": asdict(replace(recipe, save_every=0)),
        "seed": job.seed,
        "training": options(job),
        "init": init_digest(job),
        "train": splits_digests(job.root).get("train"),
    }
    return dict(json.loads(json.dumps(found)))


@cache
def _settings(model: str, task: str, recipe: str, given: str) -> Json:
    from baselines.training.recipes import model_settings, recipe_of

    return model_settings(model, task, recipe_of(recipe), json.loads(given))


def _runs(root: Path) -> Iterator[tuple[Path, Json]]:
    for path in sorted(root.glob("runs/*/run.json")):
        yield path.parent, files.read_json(path)


def finished(job: Training) -> Path | None:
    """The finished run of this very job, if there is one."""
    wanted = identity(job)
    for folder, record in _runs(job.out or job.root):
        if record.get("status") == "done" and _identity_of(record) == wanted and (folder / "last.safetensors").exists():
            return folder
    return None


def steps_done(job: Training) -> int:
    """How many of a job's steps were trained, whether or not its run is finished."""
    wanted = identity(job)
    same = [record for _, record in _runs(job.out or job.root) if _identity_of(record) == wanted]
    return max((int(record.get("step", 0)) for record in same), default=0)


def _identity_of(record: Json) -> Json:
    own = {k: record.get(k) for k in ("model", "model_version", "task", "settings", "seed", "training")}
    if "vgg_asked" in record:  # as in the job: the run keeps the network that it found
        own["settings"] = {**record["settings"], "vgg": record["vgg_asked"]}
    own["init"] = record.get("init_digest")
    values = {**record.get("recipe_values", {}), "save_every": 0}
    return own | {"recipe_values": values, "train": record.get("splits", {}).get("train")}


def train_once(job: Training) -> tuple[Path, bool]:
    """The run folder of a job, and whether this call trained anything."""
    from baselines.training.train import train

    done = finished(job)
    return (done, False) if done is not None else (train(job), True)


def seconds_per_step(job: Training, timing: Path | None = None) -> tuple[float | None, str]:
    """Seconds of a step (None: unknown), and the source of the figure.

    The source is a run of the same job, a run of the same model and recipe with other settings, an earlier measurement,
    or, with ``timing`` (a folder), a few steps that are trained now and thrown away.
    """
    wanted = identity(job)
    alike: list[tuple[bool, float]] = []
    for _, record in _runs(job.out or job.root):
        pace, own = record.get("seconds_per_step"), _identity_of(record)
        if pace and _cost(own) == _cost(wanted):
            alike.append((own["settings"] == wanted["settings"], float(pace)))
    if alike:
        return max(alike)[1], "a run"
    return (None, "not known") if timing is None else (_measured(job, timing), "measured")


def _cost(record: Json) -> Json:
    values = {k: record["recipe_values"].get(k) for k in ("size", "batch", "width", "precision")}
    return values | {k: record[k] for k in ("model", "model_version", "task")}


def _measured(job: Training, timing: Path) -> float:
    from baselines.training.train import train

    listed = timing / "steps.json"
    known: Mapping[str, float] = files.read_json(listed) if listed.exists() else {}
    key = hashing.digest_value({"cost": _cost(identity(job)), "on": job.device})
    if key not in known:
        folder = train(replace(job, out=timing, stop_at=MEASURED, save_every=MEASURED, name="", quiet=True))
        known = {**known, key: float(files.read_json(folder / "run.json")["seconds_per_step"])}
        shutil.rmtree(timing / "runs")
        files.write_json(listed, known)
    return known[key]


# --- prediction ---------------------------------------------------------------------------------------------------


def predict_once(run: Path, split: Path, feeder: Path | None = None, device: str = "auto") -> tuple[Path, bool]:
    """The prediction folder of a run (a content run fed by ``feeder``, else by the truth), and whether it is new."""
    from baselines.inference.predict import Options, predict_run
    from baselines.training.runs import split_digest, weights_file

    out = run / "predictions" / (split.name + (f"-fed-by-{feeder.name}" if feeder else ""))
    mark = out / "run.json"
    used = [weights_file(run), *([weights_file(feeder)] if feeder else [])]
    record = files.read_json(mark) if mark.exists() else {}
    if record.get("weights_files") == [hashing.digest_file(w) for w in used]:  # by content: clocks go wrong
        whole = any(out.glob("part-*.parquet")) and record.get("parts") == hashing.digest_files(parquet.parts(out))
        if whole and record.get("dataset_digest") == split_digest(split):
            return out, False
    return predict_run(run, split, out, feeder, options=Options(device=device, quiet=True)), True


# --- scoring ------------------------------------------------------------------------------------------------------


def write_crops(root: Path, split: str, workers: int = 1) -> Path:
    """Write the split's 256x256 crops, which content is scored against; returns the split's folder.

    Raises:
        UserError: when the build has no such split.
    """
    folder = root / "splits" / split
    if not any(folder.glob("part-*.parquet")):
        raise UserError(f"{folder}: expected a split of a finished build, found none; run ahp build --out {root}")
    with LocalEngine(workers) as engine:
        materialize(root, config.read(root).roots, folder, [split], "crops", engine)
    return folder


def score_once(predictions: Path, split: Path, boards: Path, context: Context) -> tuple[Path, bool]:
    """The scored run's folder below ``boards``, and whether this call scored it."""
    from benchmark.grading.score import score

    found = _scored(predictions, split, boards, context)
    return (found, False) if found is not None else (score(predictions, split, boards, context).folder, True)


def _scored(predictions: Path, split: Path, boards: Path, context: Context) -> Path | None:
    """The folder of an earlier scoring of the same files by the same definitions, if nothing of it was changed."""
    from benchmark.boards.ranking import load_run
    from benchmark.grading.identity import run_id_of
    from benchmark.grading.score import open_metrics, protocol
    from benchmark.grading.submission import Submission
    from benchmark.grading.truth import sample_pairs, true_digests

    submission, pairs = Submission(predictions), sample_pairs(split)
    digests = true_digests(split, pairs)
    folder = boards / run_id_of(submission, [i for i, _ in pairs], digests["mask"])
    try:
        record = load_run(folder).record
    except UserError:
        return None  # not scored yet, or damaged since
    expected = {board: digests.get(board) for board in submission.boards() if digests.get(board)}
    ready, _ = open_metrics(set(record["boards"]), submission.gives("modal"), context)
    same = record["dataset_digests"] == expected and set(ready) == set(record["definitions"])
    return folder if same and all(protocol(b) == d for b, d in record["protocol"].items()) else None


def absent_of(folder: Path) -> dict[str, str]:
    """Why a scored run has no figure of a metric, by metric."""
    return dict(files.read_json(folder / "score.json")["absent"])


def scores_of(folder: Path) -> dict[str, Score]:
    """The figures of a scored run over all samples, by metric."""
    return {s.metric: s for s in parquet.read_records(folder / "scores.parquet", Score) if s.slice == "all"}
