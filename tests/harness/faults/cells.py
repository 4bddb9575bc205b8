"""What is struck: a stage's state before it, the command that runs it, and what tells a right end from a wrong one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness.faults import child

Work = Callable[[], None]
Digest = dict[str, str]
#: Files that say when or by whom something was done; they may differ between two right ends.
TIMED = ("run.json", "timing.json", ".lock")


@dataclass(frozen=True)
class Cell:
    """One stage. ``outputs``: patterns of what it makes, below the folder; ``logs``: of what it appends to or marks.

    ``group``: whom it shares a warm process with. Its base is the end of the cell ``before``, then ``prepare`` on it.
    ``reads``: it opens photos, below ``photos`` (none: the sources of the build). ``single``: its files exist once and
    are made again from nothing, so lines that something else removes from them cannot be told; see docs/review.md.
    """

    name: str
    work: Work
    outputs: tuple[str, ...]
    logs: tuple[str, ...] = ()
    digest: Callable[[Path], Digest] | None = None
    pooled: Work | None = None
    group: str = "build"
    before: str = ""
    prepare: Callable[[Path], None] | None = None
    reads: bool = False
    photos: str = ""
    single: bool = False

    def end(self, folder: Path) -> Digest:
        """What a run left behind."""
        return (self.digest or fingerprint)(folder)

    def made(self, folder: Path) -> list[Path]:
        """The stage's own files."""
        return _found(folder, self.outputs)

    def written_logs(self, folder: Path) -> list[Path]:
        """What can be cut short."""
        return _found(folder, self.logs)


def _found(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({p for pattern in patterns for p in folder.glob(pattern) if p.is_file() and p.name != ".lock"})


def fingerprint(folder: Path) -> Digest:
    """sha256 of every file below a folder by its path; a leftover counts, a lock does not."""
    found = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in TIMED)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


# --- the build ----------------------------------------------------------------------------------------------------

SOURCES = ("coco", "lip", "objects365", "openimages", "voc_sbd")
STAGES = ("harvest", "segment", "parse", "review", "splits")


def world(folder: Path, scenes: int) -> Path:
    """The sample world that every build cell reads."""
    from ahp_toolkit.sample_world import write_world

    write_world(folder, seed=3, scenes=scenes)
    return folder


def build_args(sources: Path, workers: int = 1) -> list[str]:
    """``ahp build`` on the world, into ./out."""
    given = [x for name in SOURCES for x in ("--source", f"{name}={sources / name}")]
    return ["build", *given, "--out", "out", "--review", "provisional", "--workers", str(workers), "-q",
            "--val-humans", "3", "--test-humans", "2", "--occluders", "1"]  # fmt: skip


def build_cells(sources: Path) -> list[Cell]:
    """One cell a stage of the build, each up to that stage; then what is made of a finished build."""
    one, two = build_args(sources), build_args(sources, 2)
    cells = []
    for name in STAGES:
        outputs = {"review": ("out/review/**/*", "out/decide/**/*"), "splits": ("out/splits/**/*", "out/bank/**/*")}
        own = outputs.get(name, (f"out/{name}/**/*",))
        marks = tuple(f"out/{p}" for p in (f"{name}/stage.json", f".{name}*/shard-*.json", f".{name}*/stage.json"))
        if name == "splits":
            marks = ("out/splits/*/stage.json", "out/splits/.*/shard-*.json", "out/bank/stage.json")
        args = ("--stop-after", name)
        before = STAGES[STAGES.index(name) - 1] if name != STAGES[0] else ""
        cells.append(
            Cell(
                name, child.command(*one, *args), own, marks, None, pooled(child.command(*two, *args)), before=before,
                reads=name in ("harvest", "splits"),
            )
        )  # fmt: skip
    return [*cells, *picture_cells()]


def picture_cells() -> list[Cell]:
    """What is made of a finished build: pixels, the report, every export format."""
    from ahp_toolkit.export.formats import FORMATS

    build = {"before": "splits", "reads": True}
    write = ("build", "materialize", "--root", "out", "--split", "train", "--split", "val", "--what")
    crops, full = ("out/splits/*/crops/*", "out/splits/*/.crops.written/*"), ("out/materialized/**/*",)
    marks = ("out/splits/*/.crops.written/stage.json", "out/splits/*/.crops.written-*/shard-*.json")
    full_marks = ("out/materialized/.*.written/stage.json", "out/materialized/.*.written-*/shard-*.json")
    report = Cell("report", child.command("build", "report", "--root", "out"), ("out/report/**/*",), **build)
    export = ("build", "export", "--root", "out", "--split", "val", "--format")
    return [
        _materialize("materialize", (*write, "crops"), crops, marks),
        _materialize("materialize full", (*write, "full"), full, full_marks),
        report,
        *(Cell(f"export {f}", child.command(*export, f), ("out/export/**/*",), **build) for f in FORMATS.names()),
    ]


def _materialize(name: str, argv: tuple[str, ...], outputs: tuple[str, ...], marks: tuple[str, ...]) -> Cell:
    one, two = (child.command(*argv, "--workers", n) for n in "12")
    return Cell(name, one, outputs, marks, None, pooled(two), before="splits", reads=True)


def pooled(work: Work) -> Work:
    """The same work with pools that are forked from this warm process, so that the shim is in every worker."""

    def run() -> None:
        import concurrent.futures.process as futures
        import multiprocessing
        import signal

        def born() -> None:
            """A worker of the product is born without its command's handlers and locks, a forked one inherits them."""
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            for fd in map(int, os.listdir("/proc/self/fd")):
                with contextlib.suppress(OSError):
                    if Path(f"/proc/self/fd/{fd}").readlink().name == ".lock":
                        os.close(fd)

        os.register_at_fork(after_in_child=born)
        real = multiprocessing.get_context
        multiprocessing.get_context = lambda method=None: real("fork")  # type: ignore[assignment, misc]
        try:
            work()
        finally:
            futures._python_exit()

    return run


# --- the review ---------------------------------------------------------------------------------------------------

WORDS = 8
#: What the reviewer was told is saved; the harness's own file, on another disk than the stage's.
ACKS = Path(tempfile.gettempdir()) / f"ahp-faults-{os.getpid()}.acks"


def review_cell() -> Cell:
    """A reviewer's sitting: words that are acknowledged one by one, as the panel sees it."""
    log = ("root/decisions/*.jsonl",)
    return Cell("decisions", _sit, log, log, _said, group="review", prepare=review_base, single=True)


def _sit() -> None:
    """Send the decisions that were not acknowledged yet, as the panel does; answers are noted outside its folder."""
    from ahp_toolkit.core.errors import UserError
    from annotation.session.session import KeyPress, Session

    known = ACKS.read_text().split() if ACKS.exists() else []
    try:
        session = Session(Path("root"), "ann")
        for i, (cid, verdict, reason) in enumerate(_words(sorted(session.candidates))):
            if str(i) in known:
                continue
            session.decide(KeyPress(cid, verdict, reason, 1.5, f"2026-01-01T00:00:{i:02d}.000+00:00"))
            _acknowledge(i)
    except (UserError, OSError) as e:
        sys.stderr.write(f"ahp: {e}\n")
        sys.exit(2)


def _acknowledge(i: int) -> None:
    from tests.harness.faults.shim import real_open

    with real_open(ACKS, "a") as f:  # the harness's own file is no event
        f.write(f"{i}\n")


def _words(ids: list[str]) -> Iterator[tuple[str, str, str]]:
    words = (("preserve", ""), ("discard", "occluded"), ("refine", ""), ("", ""))  # the last takes one back
    for i in range(WORDS):
        yield ids[i // 2 if i % 4 == 3 else i], *words[i % 4]


def _said(folder: Path) -> Digest:
    """The log's entries, and that nothing acknowledged is missing."""
    from ahp_toolkit.decisions.log import read_entries, to_json

    log = folder / "root" / "decisions" / "ann.jsonl"
    lines = [to_json(e) for e in read_entries(log)] if log.exists() else []
    known = [int(i) for i in ACKS.read_text().split()] if ACKS.exists() else []
    times = {json.loads(line)["at"] for line in lines}
    lost = [i for i in known if f"2026-01-01T00:00:{i:02d}.000+00:00" not in times]
    return {"log": hashlib.sha256("\n".join(lines).encode()).hexdigest(), "lost": json.dumps(lost)}


# --- the benchmark ------------------------------------------------------------------------------------------------

TRAIN = ("bench", "train", "pix2pix", "--task", "mask", "--root", "b", "--name", "r", "-q", "--device", "cpu")
SMALL = ("width=4", "critic_width=4", "train.steps=4", "train.batch=2", "train.save_every=2")


def bench_cells() -> list[Cell]:
    """Training, prediction and scoring on a drawn build of a few people."""
    sets = [x for s in SMALL for x in ("--set", s)]
    bench: dict[str, Any] = {"group": "bench", "reads": True, "photos": "b"}
    train = Cell(
        "train", child.command(*TRAIN, *sets), ("b/cache/**/*", "b/runs/r/*"),
        ("b/runs/r/losses.csv", "b/runs/r/val.csv", "b/runs/r/tensorboard/*", "b/cache/*/stage.json"), _trained,
        prepare=bench_base, **bench,
    )  # fmt: skip
    predict = Cell(
        "predict", child.command("bench", "predict", "b/runs/r", "--split", "val", "--device", "cpu", "-q"),
        ("b/runs/r/predictions/**/*",), ("b/runs/r/predictions/val/run.json",), _predicted,
        before="train", **bench,
    )  # fmt: skip
    score = Cell(
        "score",
        child.command("bench", "score", "b/runs/r/predictions/val", "--split", "b/splits/val", "--out", "b/boards"),
        ("b/boards/**/*",), ("b/boards/*/score.json",), _scored, before="predict", **bench,
    )  # fmt: skip
    return [train, predict, score]


def _trained(folder: Path) -> Digest:
    from ahp_toolkit.nets.checkpoints import load_checkpoint
    from ahp_toolkit.nets.loop import STATE_FORMAT
    from baselines.training.runs import MODEL_FORMAT, file_of

    run = folder / "b" / "runs" / "r"
    out = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in run.glob("*.csv")}
    for name in ("best", "last"):
        out[name] = load_checkpoint(file_of(run, name), MODEL_FORMAT).digest
    out["state"] = load_checkpoint(file_of(run, "state"), STATE_FORMAT).digest
    said = json.loads((run / "run.json").read_text())
    out["run"] = json.dumps({k: said.get(k) for k in ("status", "step", "best", "val", "key", "cache")}, sort_keys=True)
    return out | _left(folder)


def _left(folder: Path) -> Digest:
    return {str(p.relative_to(folder)): "left over" for p in folder.rglob("*.tmp")}


def _predicted(folder: Path) -> Digest:
    from ahp_toolkit.core.records import Prediction
    from ahp_toolkit.storage import parquet

    out = folder / "b" / "runs" / "r" / "predictions" / "val"
    rows = [repr((p.sample_id, p.model, p.amodal, p.modal, p.image)) for p in parquet.read_records(out, Prediction)]
    said = json.loads((out / "run.json").read_text())
    about = json.dumps({k: said.get(k) for k in ("predictions", "missed", "dataset_digest", "weights")}, sort_keys=True)
    pictures = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in out.glob("images/*")}
    return {"rows": hashlib.sha256("\n".join(rows).encode()).hexdigest(), "about": about} | pictures | _left(folder)


def _scored(folder: Path) -> Digest:
    return fingerprint(folder / "b" / "boards")


# --- states before a stage ----------------------------------------------------------------------------------------


def clear(folder: Path) -> None:
    """Empty a folder."""
    for old in folder.iterdir() if folder.exists() else ():
        shutil.rmtree(old) if old.is_dir() else old.unlink()


def copy(base: Path, to: Path) -> None:
    """Put a state in place, with its times."""
    clear(to)
    shutil.copytree(base, to, dirs_exist_ok=True, symlinks=True)


def bench_base(folder: Path) -> None:
    """The drawn build at ``folder``/b: roots are absolute paths, so it is made where it is used."""
    from tests.baselines.training.world import make

    here = Path.cwd()
    os.chdir(folder)
    try:
        make(Path("b").resolve())
    finally:
        os.chdir(here)


def review_base(folder: Path) -> None:
    """A small build with people to decide on at ``folder``/root."""
    from tests.annotation import tiny_build

    tiny_build.write(folder / "root", 12, part=6)


def about(value: Any) -> str:
    """A digest in eight digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
