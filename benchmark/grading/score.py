"""Score one submission against one split: files in, a run folder of scores out. Never imports a model.

``<out>/<run_id>/`` holds ``scores.parquet`` (Score records), ``samples.parquet`` (each sample's facts and figures, for
curves, worst cases and grids), ``shares.parquet`` (each human's share of the error, for ties) and ``score.json`` (what
was scored against what, by which definitions, every problem found, and the digests of the three tables). The same files
give the same bytes. ``<out>/scored/<run_id>.json`` holds the digest of ``score.json``: a folder that was put there by
anything else is no run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
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
from benchmark.grading.bootstrap import Estimate, estimates, groups_of
from benchmark.grading.identity import run_id
from benchmark.grading.pictures import digest_of, kind_of, picture_file, picture_of
from benchmark.grading.records import Parsed, Problems, parse
from benchmark.grading.submission import Submission, check_apart, check_ids
from benchmark.grading.truth import (
    CHUNK,
    Facts,
    TrueCrops,
    chunks,
    crop_of,
    facts_of,
    sample_pairs,
    slices,
    split_digest,
    true_crops,
    true_digests,
)
from benchmark.metric import METRICS, Absent, Bools, MaskBatch, Metric, PictureBatch, Rows

PICTURES = 32  # pictures in memory at a time
TABLES = ("scores.parquet", "samples.parquet", "shares.parquet")
_LISTED = 200  # problems and missing samples in score.json
#: Where the digests of the runs lie that were scored into a boards folder.
SCORED = "scored"


@dataclass
class Scored:
    """A scored submission; ``folder`` is where it was written, ``absent`` why a metric has no figure."""

    folder: Path
    model: str
    scores: list[Score]
    problems: Problems
    absent: dict[str, str]


@dataclass
class Measured:
    """What samples gave: rows by metric, faults, facts, and per sample whether it counts on a board.

    ``has``: mask and content: it counts there; modal: it has a modal mask of its own. ``pictures``: (sample id, sha256)
    of each; ``copies``: how many pictures are the true ones.
    """

    rows: dict[str, list[Rows]] = field(default_factory=dict)
    problems: Problems = field(default_factory=Problems)
    facts: list[Facts] = field(default_factory=list)
    has: dict[str, list[bool]] = field(default_factory=lambda: {"mask": [], "modal": [], "content": []})
    seconds: list[float] = field(default_factory=list)
    pictures: list[tuple[str, str]] = field(default_factory=list)
    copies: int = 0

    def add(self, other: Measured) -> None:
        """Append what later samples gave."""
        for name, rows in other.rows.items():
            self.rows.setdefault(name, []).extend(rows)
        for name, flags in other.has.items():
            self.has[name] += flags
        self.problems.extend(other.problems)
        self.facts += other.facts
        self.seconds += other.seconds
        self.pictures += other.pictures
        self.copies += other.copies


def open_metrics(boards: set[str], modal: bool, context: Context) -> tuple[dict[str, Metric], dict[str, str]]:
    """Every metric of the boards that can be computed here, and why the others cannot."""
    ready: dict[str, Metric] = {}
    absent: dict[str, str] = {}
    for name, cls in METRICS.all().items():
        if cls.board not in boards:
            continue
        if cls.needs_modal and not modal:
            absent[name] = "no modal masks: the submission has none"
            continue
        try:
            ready[name] = cls.open(context)
        except Absent as e:
            absent[name] = str(e)
    return ready, absent


def score(
    predictions: Path,
    split: Path,
    out: Path,
    context: Context | None = None,
    engine: Engine | None = None,
) -> Scored:
    """Score a submission (a folder or one file) against a split folder and write its run folder below ``out``.

    ``engine`` measures the samples, `CHUNK` at a time; None: this process does.

    Raises:
        UserError: for a submission of another split or one that cannot be read, and for true crops that were changed.
    """
    submission, pairs = Submission(predictions), sample_pairs(split)
    check_apart(submission, split)
    digest, boards, crops = split_digest(pairs), submission.boards(), true_crops(split)
    problems = check_ids(submission, [i for i, _ in pairs], digest).problems
    no_crops = "" if crops else f"no true pictures: {split / 'crops'} has no digests.json; run ahp build materialize"
    boards -= {"content"} if no_crops else set()
    if not boards:
        raise UserError(f"{predictions}: nothing to score: {no_crops or 'no amodal mask, no picture'}")
    modal, context = submission.gives("modal"), context or Context()
    fn = Measure(predictions.absolute(), submission.digest, split.absolute(), frozenset(boards), modal, context)
    sees = (str(predictions), str(split))
    found: dict[int, Measured] = {}
    work: Work[tuple[int, Measured], tuple[int, Measured]] = Work("score", fn, network="content" in boards, sees=sees)
    with using(engine, 1) as own:
        found.update(own.imap(work, enumerate(chunks(split, CHUNK))))
    whole = Measured(problems=problems)
    for _, part in sorted(found.items()):
        whole.add(part)
    ready, absent = open_metrics(boards, modal, context)
    absent |= {"content": no_crops} if no_crops and submission.gives("image") else {}
    digests = {b: d for b, d in sorted(true_digests(split, pairs).items()) if b in boards}
    return _Writer(submission, split, digest, digests, whole, ready, absent).write(out)


@dataclass(frozen=True)
class Measure:
    """The work on one chunk of samples, picklable; ``digest`` is the submission's. A process opens networks once."""

    predictions: Path
    digest: str
    split: Path
    boards: frozenset[str]
    modal: bool
    context: Context

    def __call__(self, task: Task) -> tuple[int, Measured]:
        """Measure the samples of one chunk."""
        number, samples = task
        submission = _opened(self.predictions, self.digest)
        metrics, _ = open_metrics(set(self.boards), self.modal, self.context)
        rows = submission.fetch([s.sample_id for s in samples])
        parsed = [parse(*rows[s.sample_id], submission.root) if s.sample_id in rows else Parsed() for s in samples]
        out = Measured(facts=[facts_of(s) for s in samples])
        for p in parsed:
            out.problems.extend(p.problems)
            out.seconds += [p.seconds] if p.seconds is not None else []
        batch = _mask_batch(samples, parsed)
        if "mask" in self.boards:
            out.has["mask"] = [p.masks is not None for p in parsed]
            out.has["modal"] = [p.masks is not None and p.masks[1] is not None for p in parsed]
            _update(metrics, "mask", batch)
        crops = true_crops(self.split) if "content" in self.boards else None
        invisible = batch.true_amodal & ~batch.true_modal
        for start in range(0, len(samples), PICTURES):
            if crops is not None:
                part = slice(start, start + PICTURES)
                found = _pictures(out, submission, crops, samples[part], parsed[part], invisible[part])
                _update(metrics, "content", found)
        if crops is None and submission.root is not None:  # part of the submission's identity all the same
            given = [(s.sample_id, p.image) for s, p in zip(samples, parsed, strict=True) if p.image is not None]
            out.pictures = [(i, d) for i, image in given if (d := digest_of(submission.root, image))]
        out.rows = {name: [metric.rows] for name, metric in metrics.items()}
        return number, out


@lru_cache(maxsize=1)
def _opened(predictions: Path, _digest: str) -> Submission:
    return Submission(predictions, checked=True)


def _update(metrics: dict[str, Metric], board: str, batch: MaskBatch | PictureBatch) -> None:
    for metric in metrics.values():
        if metric.board == board:
            metric.update(batch)


def _mask_batch(samples: Sequence[Sample], parsed: Sequence[Parsed]) -> MaskBatch:
    shape = (len(samples), SIDE, SIDE)
    amodal, modal, true_amodal, true_modal = (np.zeros(shape, np.bool_) for _ in range(4))
    own = np.zeros(len(samples), np.bool_)
    for i, (sample, p) in enumerate(zip(samples, parsed, strict=True)):
        true_amodal[i], true_modal[i] = crop_of(sample, "amodal"), crop_of(sample, "modal")
        if p.masks is None:
            continue  # a prediction that is missing or at fault scores as empty
        amodal[i], own[i] = p.masks[0].decode(), p.masks[1] is not None
        modal[i] = p.masks[1].decode() if p.masks[1] is not None else crop_of(sample, "given")
    return MaskBatch(amodal, modal, true_amodal, true_modal, own)


def _pictures(
    out: Measured,
    submission: Submission,
    crops: TrueCrops,
    samples: Sequence[Sample],
    parsed: Sequence[Parsed],
    invisible: Bools,
) -> PictureBatch:
    images = np.zeros((len(samples), SIDE, SIDE, 3), np.uint8)
    truth = np.stack([crops.picture(s.sample_id) for s in samples])
    for i, (sample, p) in enumerate(zip(samples, parsed, strict=True)):
        good = False
        if p.image is not None and submission.root is not None:
            try:
                found = (submission.root / p.image).stat()
                if (found.st_dev, found.st_ino) in crops.inodes:
                    raise ValueError("is a link to a picture of the split; hand in a picture of your own")
                data, sha = picture_file(submission.root, p.image)
                out.pictures.append((sample.sample_id, sha))
                images[i] = picture_of(data, Path(p.image).name)
                good = True
            except (ValueError, OSError) as e:
                kind = kind_of(e) if isinstance(e, ValueError) else "bad_picture"
                out.problems.add(kind, submission.path.name, sample.sample_id, e)
        if good and invisible[i].any() and np.array_equal(images[i], truth[i]):
            out.copies += 1
            out.problems.add("true_picture", submission.path.name, sample.sample_id, "equals the true picture")
        out.has["content"].append(good)
    return PictureBatch(images, truth, invisible)


@dataclass
class _Writer:
    """Writes the run folder of a scored submission; ``digests``: the identity of the truth by board."""

    submission: Submission
    split: Path
    digest: str
    digests: dict[str, str]
    found: Measured
    metrics: dict[str, Metric]
    absent: dict[str, str]

    def write(self, out: Path) -> Scored:
        """Write the three tables, then score.json."""
        order = np.argsort([f.sample_id for f in self.found.facts], kind="stable")
        facts = [self.found.facts[i] for i in order]
        members, groups = slices(facts), groups_of([f.human_id for f in facts])
        folder = out / run_id(self.submission, self.digest, self.found.pictures)
        measured = {n: (m, np.concatenate(self.found.rows[n])[order]) for n, m in self.metrics.items()}
        figures = estimates(measured, groups, members, self.digest)
        scores: list[Score] = []
        columns: dict[str, Any] = {n: [getattr(f, n) for f in facts] for n in Facts.__dataclass_fields__}
        for name, (metric, rows) in measured.items():
            has = np.array(self.found.has["modal" if metric.needs_modal else metric.board])[order]
            scores += [self._score(metric, s, e, has[members[s]], folder.name) for s, e in figures[name].items()]
            columns[name] = metric.each(rows)
        for board in self.digests:
            columns[f"has_{board}"] = np.array(self.found.has[board])[order]
        shares = {name: [found["all"].shares.tolist()] for name, found in sorted(figures.items())}
        with lock(folder):
            files.forget_unfinished(folder)
            (folder / "score.json").unlink(missing_ok=True)  # its presence means that the rest is whole
            parquet.write_records(folder / "scores.parquet", scores, Score)
            parquet.write_table(folder / "samples.parquet", pa.table(columns))
            parquet.write_table(folder / "shares.parquet", pa.table(shares))
            files.write_json(folder / "score.json", self._record(folder))
            mark = {"score": hashing.digest_file(folder / "score.json")}
            files.write_json(out / SCORED / f"{folder.name}.json", mark)
        return Scored(folder, self.submission.model, scores, self.found.problems, self.absent)

    def _score(self, metric: Metric, piece: str, found: Estimate, has: Bools, run: str) -> Score:
        n = int(has.sum())
        return Score(
            metric.board, self.submission.model, metric.name, piece, found.value, metric.stored_unit(),
            metric.higher_is_better, found.low, found.high, n, len(has) - n, run, self.digests[metric.board],
        )  # fmt: skip

    def _record(self, folder: Path) -> dict[str, Any]:
        found = self.found
        missing = {
            board: sorted(f.sample_id for f, has in zip(found.facts, found.has[board], strict=True) if not has)
            for board in self.digests
        }
        own = sum(found.has["modal"])
        return {
            "model": self.submission.model,
            "run_id": folder.name,
            "submission": self.submission.digest,
            "split": self.split.resolve().name,
            "dataset_digest": self.digest,
            "dataset_digests": self.digests,
            "samples": len(found.facts),
            "humans": len({f.human_id for f in found.facts}),
            "boards": sorted(self.digests),
            "definitions": {n: m.definition for n, m in sorted(self.metrics.items())},
            "protocol": {b: protocol(b) for b in self.digests},
            "absent": self.absent,
            "modal": "own" if own == sum(found.has["mask"]) else "some" if own else "none",
            "true_pictures": found.copies,
            "problems": found.problems.counts,
            "problem_list": [str(p) for p in list(found.problems)[:_LISTED]],
            "missing": {board: len(names) for board, names in missing.items()},
            "missing_list": {board: names[:_LISTED] for board, names in missing.items()},
            "seconds": float(np.median(found.seconds)) if found.seconds else None,
            "run": self.submission.run,
            "tables": {name: hashing.digest_file(folder / name) for name in TABLES},
            # relative, so that the boards move together with what they point at
            "paths": {
                "predictions": os.path.relpath(self.submission.path.resolve(), folder.resolve()),
                "split": os.path.relpath(self.split.resolve(), folder.resolve()),
            },
        }


def protocol(board: str) -> str:
    """The identity of a board's definitions: rows of two protocols are never ranked together."""
    return hashing.digest_value({n: c.definition for n, c in METRICS.all().items() if c.board == board})


def figures(scores: Sequence[Score], name: str = "all") -> Iterator[tuple[str, Score]]:
    """(metric, score) of one slice."""
    return ((s.metric, s) for s in scores if s.slice == name)
