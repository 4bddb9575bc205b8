"""Score one submission against one split: files in, a run folder of scores out. Never imports a model.

``<out>/<run_id>/`` holds ``scores.parquet`` (Score records), ``samples.parquet`` (each sample's facts and figures, for
curves, worst cases and grids), ``replicates.parquet`` (the bootstrap, for paired tests) and ``score.json`` (what was
scored against what, by which definitions, and every problem found). The same files give the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ahp_toolkit.core import hashing
from ahp_toolkit.core.crops import SIDE
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Sample, Score
from ahp_toolkit.runtime.engines import Engine, Task, Work, using
from ahp_toolkit.storage import files, parquet
from ahp_toolkit.storage.lock import lock
from benchmark.features.context import Context
from benchmark.grading.bootstrap import Estimate, estimate, groups_of
from benchmark.grading.identity import run_id
from benchmark.grading.pictures import digest_of, kind_of, picture_file, picture_of, read_picture
from benchmark.grading.submission import Parsed, Problem, Submission, check_ids, counted, parse
from benchmark.grading.truth import (
    CHUNK,
    Facts,
    chunks,
    crop_of,
    facts_of,
    picture_path,
    sample_pairs,
    slices,
    split_digest,
)
from benchmark.grading.truth import truth_pictures as truth_pictures
from benchmark.metric import METRICS, Absent, Bools, Bytes, MaskBatch, Metric, PictureBatch, Rows

PICTURES = 32  # pictures in memory at a time


@dataclass
class Scored:
    """A scored submission; ``folder`` is where it was written."""

    folder: Path
    model: str
    scores: list[Score]
    problems: list[Problem]
    absent: dict[str, str]


@dataclass
class _Run:
    """Everything gathered in one pass over samples.

    ``has``: whether each counts on a board, or has a modal mask of its own; ``pictures``: (sample id, sha256) of each.
    """

    metrics: dict[str, Metric]
    absent: dict[str, str]
    boards: set[str]
    problems: list[Problem] = field(default_factory=list)
    facts: list[Facts] = field(default_factory=list)
    has: dict[str, list[bool]] = field(default_factory=lambda: {"mask": [], "modal": [], "content": []})
    seconds: list[float] = field(default_factory=list)
    pictures: list[tuple[str, str]] = field(default_factory=list)


def open_metrics(boards: set[str], modal: bool, context: Context) -> tuple[dict[str, Metric], dict[str, str]]:
    """Every metric of the boards that can be computed here, and why the others cannot.

    A metric that stands for another is opened only where that one is absent.
    """
    classes: list[type[Metric]] = [METRICS.get(n).METRIC for n in METRICS.names()]
    ready: dict[str, Metric] = {}
    absent: dict[str, str] = {}
    for cls in sorted(classes, key=lambda c: bool(c.stands_for)):
        if cls.board not in boards or (cls.stands_for and cls.stands_for in ready):
            continue
        if cls.needs_modal and not modal:
            absent[cls.name] = "the submission has no modal masks"
            continue
        try:
            ready[cls.name] = cls.open(context)
        except Absent as e:
            absent[cls.name] = str(e)
    return ready, absent


def score(
    predictions: Path,
    split: Path,
    out: Path,
    context: Context | None = None,
    progress: Callable[[int], None] = lambda n: None,
    engine: Engine | None = None,
) -> Scored:
    """Score a submission (a folder or a JSON) against a split folder and write its run folder below ``out``.

    ``engine`` is where the samples are measured, `CHUNK` at a time; None: in this process.

    Raises:
        UserError: for a submission of another split, or files that cannot be read at all.
    """
    submission, pairs = Submission(predictions), sample_pairs(split)
    ids, digest = [i for i, _ in pairs], split_digest(pairs)
    check = check_ids(submission, ids, digest)
    digests = truth_pictures(split)
    boards = submission.boards()
    run = _Run(*open_metrics(boards, submission.gives("modal"), context or Context()), boards, check.problems)
    if "content" in boards and digests is None:
        boards.discard("content")
        run.metrics = {n: m for n, m in run.metrics.items() if m.board != "content"}
        run.absent["content"] = f"no true pictures: {split / 'crops'} is not there"
    if not boards:
        raise UserError(f"{predictions}: nothing to score: {run.absent.get('content', 'no amodal mask, no picture')}")
    given = frozenset(boards), submission.gives("modal"), context or Context()
    fn = Measure(predictions.absolute(), submission.digest, split.absolute(), *given)
    sees = (str(predictions), str(split))
    found: list[Measured] = []
    work: Work[Measured, Measured] = Work("score", fn, network="content" in boards, sees=sees)
    with using(engine, 1) as own:
        for part in own.imap(work, enumerate(chunks(split, CHUNK))):
            found.append(part)
            progress(len(part.facts))
    for part in sorted(found, key=lambda m: m.number):
        part.into(run)
    return _write(run, submission, split, digest, out)


@dataclass
class Measured:
    """What one chunk of samples gave: rows by metric, and the rest as in `_Run`."""

    number: int
    rows: dict[str, Rows]
    problems: list[Problem]
    facts: list[Facts]
    has: dict[str, list[bool]]
    seconds: list[float]
    pictures: list[tuple[str, str]]

    def into(self, run: _Run) -> None:
        """Add this to a run; chunks come in order."""
        for name, rows in self.rows.items():
            run.metrics[name].take(rows)
        run.problems += self.problems
        run.facts += self.facts
        run.seconds += self.seconds
        run.pictures += self.pictures
        for board, has in self.has.items():
            run.has[board] += has


@dataclass(frozen=True)
class Measure:
    """The work on one chunk of samples, picklable; ``digest`` is the submission's. A process opens networks once."""

    predictions: Path
    digest: str
    split: Path
    boards: frozenset[str]
    modal: bool
    context: Context

    def __call__(self, task: Task) -> Measured:
        """Measure the samples of one chunk."""
        number, samples = task
        submission, digests = _opened(self.predictions, self.digest), truth_pictures(self.split)
        metrics, absent = open_metrics(set(self.boards), self.modal, self.context)
        run = _Run(metrics, absent, set(self.boards), [])
        _take(run, samples, submission, self.split, digests or {})
        rows = {name: metric.rows for name, metric in metrics.items()}
        return Measured(number, rows, run.problems, run.facts, run.has, run.seconds, run.pictures)


@lru_cache(maxsize=1)
def _opened(predictions: Path, _digest: str) -> Submission:
    return Submission(predictions)


def _take(run: _Run, samples: list[Sample], submission: Submission, split: Path, digests: Mapping[str, str]) -> None:
    rows = submission.fetch([s.sample_id for s in samples])
    parsed = [parse(*rows[s.sample_id], submission.root) if s.sample_id in rows else None for s in samples]
    for p in parsed:
        if p is not None:
            run.problems += p.problems
            run.seconds += [p.seconds] if p.seconds is not None else []
    run.facts += map(facts_of, samples)
    batch = _mask_batch(samples, parsed)
    if "mask" in run.boards:
        masks = [p.masks if p is not None else None for p in parsed]
        run.has["mask"] += [m is not None for m in masks]
        run.has["modal"] += [m is not None and m[1] is not None for m in masks]
        _update(run, "mask", batch)
    if "content" in run.boards:
        invisible = batch.true_amodal & ~batch.true_modal
        for start in range(0, len(samples), PICTURES):
            part = slice(start, start + PICTURES)
            _update(
                run, "content", _pictures(run, samples[part], parsed[part], invisible[part], submission, split, digests)
            )
    else:  # not scored here, and still what was handed in
        given = [(p, s) for s, p in zip(samples, parsed, strict=True) if p is not None and p.image is not None]
        found = [(s.sample_id, digest_of(submission.root, str(p.image))) for p, s in given]
        run.pictures += [(name, digest) for name, digest in found if digest]


def _update(run: _Run, board: str, batch: MaskBatch | PictureBatch) -> None:
    for metric in run.metrics.values():
        if metric.board == board:
            metric.update(batch)


def _mask_batch(samples: Sequence[Sample], parsed: Sequence[Parsed | None]) -> MaskBatch:
    shape = (len(samples), SIDE, SIDE)
    amodal, modal, true_amodal, true_modal = (np.zeros(shape, np.bool_) for _ in range(4))
    own = np.zeros(len(samples), np.bool_)
    for i, (sample, p) in enumerate(zip(samples, parsed, strict=True)):
        true_amodal[i], true_modal[i] = crop_of(sample, "amodal"), crop_of(sample, "modal")
        masks = p.masks if p is not None else None
        if masks is None:
            continue  # a prediction that is missing or at fault scores as empty
        amodal[i], own[i] = masks[0].decode(), masks[1] is not None
        modal[i] = masks[1].decode() if masks[1] is not None else crop_of(sample, "given")
    return MaskBatch(amodal, modal, true_amodal, true_modal, own)


def _pictures(
    run: _Run,
    samples: Sequence[Sample],
    parsed: Sequence[Parsed | None],
    invisible: Bools,
    submission: Submission,
    split: Path,
    digests: Mapping[str, str],
) -> PictureBatch:
    images = np.zeros((len(samples), SIDE, SIDE, 3), np.uint8)
    truth = np.stack([_true_picture(split, s.sample_id, digests) for s in samples])
    for i, (sample, p) in enumerate(zip(samples, parsed, strict=True)):
        ok = False
        if p is not None and p.image is not None:
            try:
                data, sha = picture_file(submission.root, p.image)
                run.pictures.append((sample.sample_id, sha))
                images[i] = picture_of(data, Path(p.image).name)
                ok = True
            except ValueError as e:
                run.problems.append(Problem(kind_of(e), submission.path.name, sample.sample_id, str(e)))
        run.has["content"].append(ok)
    return PictureBatch(images, truth, invisible)


def _true_picture(split: Path, sample_id: str, digests: Mapping[str, str]) -> Bytes:
    path = picture_path(split, sample_id, "recovered")
    try:
        if path.name in digests and hashing.digest_file(path) != digests[path.name]:
            raise ValueError("its bytes are not those of digests.json")
        return read_picture(path)
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: true picture of {sample_id} cannot be used ({e}); materialize the split again") from e


def _write(run: _Run, submission: Submission, split: Path, digest: str, out: Path) -> Scored:
    order = np.argsort([f.sample_id for f in run.facts], kind="stable")
    facts = [run.facts[i] for i in order]
    members, groups = slices(facts), groups_of([f.human_id for f in facts])
    folder = out / run_id(submission, digest, run.pictures)
    scores: list[Score] = []
    replicates: dict[str, list[float]] = {}
    columns: dict[str, Any] = {n: [getattr(f, n) for f in facts] for n in Facts.__dataclass_fields__}
    for metric in run.metrics.values():
        rows = metric.rows[order]
        has = np.array(run.has["modal" if metric.needs_modal else metric.board])[order]
        found = estimate(metric, rows, groups, members, digest)
        scores += [_score(metric, submission, s, e, has[members[s]], folder.name, digest) for s, e in found.items()]
        replicates[metric.name] = found["all"].replicates.tolist()
        columns[metric.name] = metric.each(rows)
    for board in sorted(run.boards):
        columns[f"has_{board}"] = np.array(run.has[board])[order]
    with lock(folder):
        files.forget_unfinished(folder)
        (folder / "score.json").unlink(missing_ok=True)  # it says that the rest is whole
        parquet.write_records(folder / "scores.parquet", scores, Score)
        parquet.write_table(folder / "samples.parquet", pa.table(columns))
        parquet.write_table(folder / "replicates.parquet", pa.table({k: [v] for k, v in sorted(replicates.items())}))
        files.write_json(folder / "score.json", _about(run, submission, split, digest, folder))
    return Scored(folder, submission.model, scores, run.problems, run.absent)


def _score(
    metric: Metric, submission: Submission, name: str, found: Estimate, has: Bools, run: str, digest: str
) -> Score:
    n = int(has.sum())
    return Score(
        metric.board, submission.model, metric.name, name, found.value, metric.stored_unit(), metric.higher_is_better,
        found.low, found.high, n, len(has) - n, run, digest,
    )  # fmt: skip


def _about(run: _Run, submission: Submission, split: Path, digest: str, folder: Path) -> dict[str, Any]:
    missing = {
        board: sorted(f.sample_id for f, has in zip(run.facts, run.has[board], strict=True) if not has)
        for board in sorted(run.boards)
    }
    return {
        "model": submission.model,
        "run_id": folder.name,
        "split": split.resolve().name,
        "dataset_digest": digest,
        "samples": len(run.facts),
        "humans": len({f.human_id for f in run.facts}),
        "boards": sorted(run.boards),
        "definitions": {n: m.definition for n, m in sorted(run.metrics.items())},
        "protocol": {b: protocol(b) for b in sorted(run.boards)},
        "absent": run.absent,
        "problems": counted(run.problems),
        "problem_list": [str(p) for p in run.problems[:200]],
        "missing": {board: len(names) for board, names in missing.items()},
        "missing_list": {board: names[:200] for board, names in missing.items()},
        "seconds": float(np.median(run.seconds)) if run.seconds else None,
        "run": submission.run,
        # relative, so that the boards move together with what they point at
        "paths": {
            "predictions": os.path.relpath(submission.path.resolve(), folder.resolve()),
            "split": os.path.relpath(split.resolve(), folder.resolve()),
        },
    }


def protocol(board: str) -> str:
    """The identity of a board's definitions: rows of two protocols are never ranked together."""
    classes = [METRICS.get(n).METRIC for n in METRICS.names()]
    return hashing.digest_value({c.name: c.definition for c in classes if c.board == board})


def figures(scores: Sequence[Score], name: str = "all") -> Iterator[tuple[str, Score]]:
    """(metric, score) of one slice."""
    return ((s.metric, s) for s in scores if s.slice == name)
