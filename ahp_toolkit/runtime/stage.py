"""Run a stage: shards in, tables out; resume by digest, Dropped kept, counts, progress.

A stage is a plain function over one shard of items; what it returns is written as ``part-NNNNN.parquet`` of each of its
tables. Shards are cut by position, never by the number of workers, and random numbers come from record ids, so the
bytes do not depend on who ran what. Work in progress lies in ``.<stage>-<key>`` beside the stage's folder; a shard is
done when its ``shard-NNNNN.json`` is there and the files that it names have the content it names; the finished
folder replaces the old one by rename. Killed at any moment, the same call goes on from the last whole shard; a stage
that was damaged after its end is made again.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Dropped
from ahp_toolkit.runtime import logging, signals, timing
from ahp_toolkit.runtime.engines import Engine, Task, Work, using
from ahp_toolkit.runtime.progress import Progress
from ahp_toolkit.storage import files as disk
from ahp_toolkit.storage import parquet
from ahp_toolkit.storage.parquet import to_table

MAIN = ""  # the name of a stage's own table: its parts lie in the stage's folder itself


@dataclass
class Output:
    """What a stage function makes of one shard: records by table name, rejects with reasons, counts."""

    tables: dict[str, list[Any]] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Job:
    """One stage run. ``key`` holds all that its result depends on: options, input digests, code (see `code_digest`).

    ``growing`` shards double in size every eight, up to 32 times ``shard_size``: small inputs fill all workers, large
    ones do not make too many files. ``network``: the function runs a network, which an engine may give a GPU.
    ``beside``: what others lay in the stage's folder, which stays when it is made again with the same digest.
    ``check``: called before the first shard; raises `UserError` where the stage cannot be made now.
    """

    name: str
    folder: Path
    fn: Callable[[Sequence[Any]], Output]
    tables: Mapping[str, type]
    key: Mapping[str, Any]
    shard_size: int = 32
    growing: bool = False
    unit: str = "record"
    network: bool = False
    beside: tuple[str, ...] = ()
    check: Callable[[], None] | None = None

    def size_of(self, number: int) -> int:
        """Items in shard ``number``."""
        return self.shard_size * (min(32, 2 ** (number // 8)) if self.growing else 1)

    @property
    def key_digest(self) -> str:
        """sha256 hex of the key."""
        return hashing.digest_value([self.name, self.key])

    @property
    def partial(self) -> Path:
        """Where unfinished work lies."""
        return self.folder.parent / f".{self.folder.name}-{self.key_digest[:16]}"


@dataclass(frozen=True)
class Result:
    """How a stage ended. ``fresh`` is False when nothing had to be computed."""

    name: str
    folder: Path
    counts: dict[str, int]
    dropped: dict[str, int]
    digest: str
    fresh: bool


def finished(folder: Path, key_digest: str | None = None) -> Result | None:
    """The result of a finished stage folder, or None (also when it was made with another key).

    With a key, None too when the folder is not what the stage left: its stage is made again.

    Raises:
        UserError: without a key, when ``stage.json`` is damaged.
    """
    mark = folder / "stage.json"
    if not mark.exists():
        return None
    record = disk.read_sealed(mark)
    if key_digest is None:
        record = record or disk.read_json(mark)
        if "files" in record and disk.read_sealed(mark) is None:
            raise UserError(f"{mark}: damaged since it was made; run the command that made it again")
    elif record is None or record["key_digest"] != key_digest or not _is_whole(folder, record["files"]):
        return None
    return Result(record["name"], folder, record["counts"], record["dropped"], record["digest"], False)


def _is_whole(folder: Path, files: Mapping[str, str]) -> bool:
    """Whether a stage's files are what it left; warns of the first that is not."""
    for name, digest in files.items():
        if not _is(folder / name, digest):
            logging.event("damaged", "warning", path=str(folder / name))
            sys.stderr.write(f"{folder / name}: missing or damaged since it was made; the stage is made again\n")
            return False
    return True


def _is(path: Path, digest: str) -> bool:
    try:
        return hashing.digest_file(path) == digest
    except OSError:
        return False


def digest_of(folder: Path) -> str:
    """The digest of a finished stage.

    Raises:
        UserError: when it is not finished.
    """
    done = finished(folder)
    if done is None:
        raise UserError(f"{folder}: expected a finished stage (stage.json), found none; run ahp build first")
    return done.digest


class Step(Protocol):
    """A part of a build that is made at once: a stage over shards, a network's training, the page."""

    @property
    def name(self) -> str:
        """The name that users and the log know."""

    @property
    def total(self) -> int | None:
        """Number of items, where it is known before they are read."""

    def up_to_date(self) -> bool:
        """Whether running the step would make nothing; warns where a finished step was damaged."""

    def begun(self) -> bool:
        """Whether an earlier run was stopped in the middle."""

    def run(self, engine: Engine, quiet: bool = False, again: bool = False) -> Result:
        """Make the step, or go on with it, or do nothing; ``again``: make it even where it is up to date."""


@dataclass(frozen=True)
class Stage:
    """A job with its items: a list, or a function that gives them in a fixed order.

    Attributes:
        size: number of items, where ``items`` is a function and the number is known.
        inner: folder of a stage whose drops and counts (those named ``what/source``) belong to this one's account.
        again: make it even where it is up to date.
    """

    job: Job
    items: Sequence[Any] | Callable[[], Iterable[Any]]
    size: int | None = None
    inner: Path | None = None
    again: bool = False

    @property
    def name(self) -> str:
        """See `Step.name`."""
        return self.job.name

    @property
    def total(self) -> int | None:
        """See `Step.total`."""
        return self.size if callable(self.items) else len(self.items)

    def up_to_date(self) -> bool:
        """See `Step.up_to_date`."""
        return not self.again and finished(self.job.folder, self.job.key_digest) is not None

    def begun(self) -> bool:
        """See `Step.begun`."""
        return any(self.job.partial.glob("shard-*.json"))

    def run(
        self, engine: Engine | None = None, quiet: bool = False, again: bool = False, *, workers: int = 1
    ) -> Result:
        """Run the stage to its end, or go on with it, or do nothing when it is finished.

        Args:
            engine: where the shards are worked on; it is left open.
            quiet: no progress bar.
            again: run even where a whole result is there.
            workers: processes, where no engine is given; 1 runs in this one.

        Raises:
            UserError: what a stage function, an input or the job's check says a user must mend.
        """
        job = self.job
        inner = finished(self.inner) if self.inner is not None else None
        done = None if again or self.again else finished(job.folder, job.key_digest) or _ended(job)
        if done is not None:
            forget_stale(job)
            _log_result(done)
            return done
        if job.check is not None:
            job.check()
        start = time.monotonic()
        forget_stale(job)
        job.partial.mkdir(parents=True, exist_ok=True)
        items = self.items() if callable(self.items) else self.items
        with Progress(job.name, self.total, job.unit, quiet) as bar, using(engine, workers) as own:
            for n in own.imap(_work(job), _pending(job, items, bar)):
                bar.update(n)
            workers = own.workers
        result = _finish(job, inner, start, workers)
        _log_result(result, time.monotonic() - start)
        return result


def _log_result(r: Result, seconds: float = 0.0) -> None:
    fields: dict[str, Any] = {"counts": r.counts, "dropped": r.dropped, "fresh": r.fresh, "digest": r.digest}
    logging.event("stage_result", stage=r.name, seconds=round(seconds, 3), **fields)


@dataclass(frozen=True)
class _Made:
    """One shard as files: (path below the stage's folder, bytes), the completion mark last."""

    items: int
    files: list[tuple[str, bytes]]


@dataclass(frozen=True)
class _Shard:
    """The picklable unit of work: run the stage function and make its files; whoever keeps them writes them."""

    fn: Callable[[Sequence[Any]], Output]
    tables: dict[str, type]
    folder: Path
    stage: str

    def make(self, task: Task) -> _Made:
        """Run the stage function over one shard."""
        number, items = task
        start = time.monotonic()
        out = self.fn(items)
        unknown = set(out.tables) - set(self.tables)
        if unknown:
            raise ValueError(f"stage {self.stage} made tables it did not declare: {sorted(unknown)}")
        files = [_table(n, number, out.tables.get(n, []), cls) for n, cls in self.tables.items()]
        files.append(_table("dropped", number, out.dropped, Dropped))
        made = {f"out{'/' + n if n else ''}": len(out.tables.get(n, [])) for n in self.tables}
        counts = Counter({"in": len(items)} | made)
        counts.update(out.counts)
        reasons = Counter(f"{d.source}/{d.reason}" if d.source else d.reason for d in out.dropped)
        digests = {n: hashlib.sha256(data).hexdigest() for n, data in files}
        mark = {"counts": counts, "dropped": reasons, "seconds": logging.seconds(start), "files": digests}
        return _Made(len(items), [*files, (_mark(Path(), number).name, disk.sealed(mark))])

    def keep(self, made: _Made) -> int:
        """Write the files, the mark last; returns the number of items."""
        signals.check()  # what was made while a signal got lost may be an error's work
        for name, data in made.files:
            disk.write_bytes(self.folder / name, data)
        return made.items


def _work(job: Job) -> Work[_Made, int]:
    shard = _Shard(job.fn, dict(job.tables), job.partial, job.name)
    # what the stage functions that read photos or run networks call them
    roots, weights = getattr(job.fn, "roots", {}), getattr(job.fn, "weights", None)
    files = [weights] if weights and Path(weights).exists() else []  # else the name of published ones
    return Work(job.name, shard.make, shard.keep, job.network, str(job.partial), (*map(str, roots.values()), *files))


def _table(name: str, number: int, records: Sequence[Any], cls: type) -> tuple[str, bytes]:
    return part_path(Path(), name, number).as_posix(), parquet.table_bytes(to_table(records, cls))


def part_path(folder: Path, table: str, number: int) -> Path:
    """Where shard ``number`` of a table lies."""
    return (folder / table if table else folder) / f"part-{number:05d}.parquet"


def _mark(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.json"


def _pending(job: Job, items: Iterable[Any], bar: Progress) -> Iterator[tuple[int, Sequence[Any]]]:
    """Cut the items into shards and pass on those that are not done yet; an empty input is one empty shard."""
    stream = iter(items)
    for number in itertools.count():
        shard = list(itertools.islice(stream, job.size_of(number)))
        if not shard and number > 0:
            return
        record = _made(_mark(job.partial, number))
        if record is not None:
            bar.skip(len(shard))
        else:
            yield number, shard
        if not shard:
            return


def _made(mark: Path) -> dict[str, Any] | None:
    """What a shard's mark says; None where it is not there, or it or a file that it names is not what was written."""
    record = disk.read_sealed(mark) if mark.exists() else None
    whole = record is not None and all(_is(mark.parent / name, digest) for name, digest in record["files"].items())
    return record if whole else None


def forget_stale(job: Job) -> None:
    """Remove what other runs of a stage have left: work of other options, and what a finished one replaced."""
    for old in job.folder.parent.glob(f".{job.folder.name}-*"):
        if old != job.partial and old.is_dir():
            disk.remove_tree(old)


def _finish(job: Job, carry: Result | None, start: float, workers: int) -> Result:
    """Sum up the shards, write ``dropped.parquet``, ``timing.json`` and ``stage.json``; put the folder in its place."""
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    spent: list[float] = []
    files: dict[str, str] = {}
    marks = sorted(job.partial.glob("shard-*.json"))
    for mark in marks:
        record = _made(mark)
        if record is None:  # written a moment ago
            raise UserError(f"{mark}: not what was written; look at the disk, then run the same command again")
        counts.update(record["counts"])
        reasons.update(record["dropped"])
        spent.append(record["seconds"])
        files.update(record["files"])
    inherited = []
    if carry is not None:
        counts.update({k: n for k, n in carry.counts.items() if "/" in k and not k.startswith("out/")})
        reasons.update(carry.dropped)
        inherited = [carry.folder / "dropped.parquet"]
    dropped = job.partial / "dropped.parquet"
    parquet.concat([*inherited, *parquet.parts(job.partial / "dropped")], dropped)
    counts["dropped"] = sum(reasons.values())
    parts = sorted(job.partial / name for name in files)
    digest = hashing.digest_value([[p.name, files[p.relative_to(job.partial).as_posix()]] for p in parts])
    kept = {n: d for n, d in files.items() if not n.startswith("dropped/")} | {
        dropped.name: hashing.digest_file(dropped)
    }
    record = {
        "name": job.name,
        "key_digest": job.key_digest,
        "key": job.key,
        "counts": dict(sorted(counts.items())),
        "dropped": dict(sorted(reasons.items())),
        "digest": digest,
        "shards": len(marks),
        "files": kept,
    }
    before = carry.folder if carry else None
    timing.write(job.partial, counts["in"], spent, time.monotonic() - start, workers, before)
    disk.write_bytes(job.partial / "stage.json", disk.sealed(record))
    _settle(job)
    return Result(job.name, job.folder, record["counts"], record["dropped"], digest, True)


def _ended(job: Job) -> Result | None:
    """The result of a stage that was killed between its end and the move of its folder: the move is made up for."""
    done = finished(job.partial, job.key_digest) if (job.partial / "stage.json").exists() else None
    if done is None:
        return None
    _settle(job)
    return replace(done, folder=job.folder)


def _settle(job: Job) -> None:
    """Put a whole folder in its place, with the stage's own files alone."""
    own = {Path(name).parts[0] for name in (disk.read_sealed(job.partial / "stage.json") or {}).get("files", ())}
    for left in list(job.partial.iterdir()):
        if left.name not in own | {"stage.json", timing.NAME}:
            disk.remove_tree(left) if left.is_dir() else left.unlink()
    for left in job.partial.rglob(".*.tmp"):
        left.unlink()
    if _digest(job.folder) == _digest(job.partial):
        for name in job.beside:
            if (job.folder / name).exists():
                (job.folder / name).rename(job.partial / name)
    _replace(job.folder, job.partial)


def _digest(folder: Path) -> Any:
    return (disk.read_sealed(folder / "stage.json") or {}).get("digest")


def _replace(folder: Path, new: Path) -> None:
    """Put ``new`` in the place of ``folder``. Between the two renames ``new`` is whole: the next call ends the move."""
    old = folder.parent / f".{folder.name}-replaced"
    disk.remove_tree(old)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    disk.remove_tree(old)
