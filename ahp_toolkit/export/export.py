"""Export a build's samples or humans to other formats (formats §6): one plug-in a format, see ``exports``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import SPLITS, Dropped
from ahp_toolkit.export.formats import FORMATS
from ahp_toolkit.export.formats.base import HUMANS, SAMPLES, Job
from ahp_toolkit.export.formats.ledger import Ledger
from ahp_toolkit.runtime.progress import Progress
from ahp_toolkit.storage import files, missing, parquet
from ahp_toolkit.storage.build_folder import Build, Render
from ahp_toolkit.storage.lock import lock

#: Formats that are made of pictures whatever ``images`` says.
PICTURE_FORMATS = ("ahp", "webdataset")
#: Photos of each source that are looked for before anything is written.
#: What an export says of itself; what the one before said, while the next is being made.
ABOUT, FORMER = "export.json", ".export.former.json"


def export(
    root: Path,
    out: Path,
    fmt: str,
    splits: Sequence[str] = SPLITS,
    what: str = SAMPLES,
    images: bool = True,
    render: Render | None = None,
    quiet: bool = False,
) -> list[Path]:
    """Write splits of a build in another format; returns the files a reader opens, ``export.json`` last.

    What cannot be exported (an unreadable photo) lies in ``dropped-SPLIT.parquet`` with its reason and is counted in
    ``export.json``; a split that the build has not made is left out. Other splits that were exported to ``out`` before
    stay; files of these splits that an earlier export made there (``files-SPLIT.txt``), and this one does not, are
    removed, but pictures whose photo is missing now.

    Args:
        root: the build folder. out: the folder to write to.
        what: ``samples`` or ``humans``.
        images: whether to write pictures too (formats of `PICTURE_FORMATS` always do).
        render: makes the pixels of a sample; needed for pictures of samples.

    Raises:
        UserError: for an unknown format, split or kind, when there is nothing to export, when not one photo of a
            source is there, when ``out`` holds an export of another format or kind, or of pictures where none are asked
            for, and when another process writes there.
    """
    build, plugin = Build(root), FORMATS.get(fmt)
    images = images or fmt in PICTURE_FORMATS
    _check(splits, what, images, render)
    totals = {s: build.count(f"splits/{s}") if what == SAMPLES else len(build.humans(s)) for s in splits}
    if not any(totals.values()):
        raise UserError(f"{build.root}: no {what} in {', '.join(splits)} to export; run `ahp build` to its end first")
    if images:
        _check_mounted(build, [s for s in splits if totals[s]], what)
    with lock(out):
        files.forget_unfinished(out, deep=True)
        return _write(build, plugin, out, fmt, totals, what, images, render, quiet)


def _write(
    build: Build,
    plugin: Any,
    out: Path,
    fmt: str,
    totals: Mapping[str, int],
    what: str,
    images: bool,
    render: Render | None,
    quiet: bool,
) -> list[Path]:
    about = {"format": fmt, "what": what}
    said = _begun(out, about, totals, images)
    made: list[Path] = []
    for split, total in totals.items():
        ledger = Ledger(out, split)
        if not total:  # it had samples once
            ledger.forget()
            said.pop(split, None)
            continue
        with ledger, Progress(f"export {split}", total, what, quiet) as bar:
            job = Job(build, out, split, what, images, render, bar.update, ledger.note)
            made += plugin.write(job)
            rejects = out / f"dropped-{split}.parquet"
            ledger.note(rejects)
            parquet.write_records(rejects, job.dropped, Dropped)
            ledger.settle(frozenset(job.absent))
        said[split] = {
            "in": total,
            "out": job.counts["written"],
            "dropped": Counter(f"{d.source}/{d.reason}" for d in job.dropped),
            "provisional": build.provisional,
            "images": images,
            "files": ledger.path.name,
        }
    files.write_json(out / ABOUT, about | _sums(said))
    (out / FORMER).unlink(missing_ok=True)
    return [*made, out / ABOUT]


def _sums(said: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """What an export says of its splits, and of them together."""
    order = [s for s in SPLITS if s in said]
    return {
        "splits": {s: said[s] for s in order},
        "provisional": any(said[s]["provisional"] for s in order),
        "counts": {f"{k}/{s}": said[s][k] for s in order for k in ("in", "out")},
        "dropped": sum((Counter(said[s]["dropped"]) for s in order), Counter[str]()),
    }


def _begun(out: Path, about: Mapping[str, Any], splits: Collection[str], images: bool) -> dict[str, dict[str, Any]]:
    """What the export that stood here said of each split.

    That no longer stands for what lies here until this one has ended; a split whose export was killed is marked
    ``unfinished`` until it is exported again.
    """
    former = _said(out / ABOUT) or _said(out / FORMER)
    of: dict[str, dict[str, Any]] = former.get("splits", {})
    if former:
        _check_same(out, former, about)
    if not images and any(of[s].get("images") for s in splits if s in of):
        raise UserError(
            f"{out} holds an export with pictures, which --no-images would remove; give another --out, or leave out "
            "--no-images"
        )
    marked = {s: of[s] | {"unfinished": True} if s in splits else of[s] for s in of}
    files.write_json(out / FORMER, {**about, "splits": marked})
    (out / ABOUT).unlink(missing_ok=True)
    return dict(of)


def _said(path: Path) -> dict[str, Any]:
    """What an export said; nothing where the file is damaged or none of ours."""
    try:
        said = files.read_json(path)
        _sums(said["splits"])
    except (UserError, OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return dict(said)


def _check_same(out: Path, former: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Refuse to mix exports: the readers of one would find the other's files."""
    if any(former.get(k) != v for k, v in about.items()):
        was, now = (f"{of.get('what')} as {of.get('format')}" for of in (former, about))
        raise UserError(f"{out}: expected no export yet or one of {now}, found one of {was}; give another --out")


def _check(splits: Sequence[str], what: str, images: bool, render: Render | None) -> None:
    if what not in (SAMPLES, HUMANS):
        raise UserError(f"expected to export samples or humans, got {what!r}")
    wrong = [s for s in splits if s not in SPLITS]
    if wrong:
        raise UserError(f"no split is named {wrong[0]!r}; known: {', '.join(SPLITS)}")
    if what == SAMPLES and images and render is None:
        raise UserError("pictures of samples need a renderer; give one, or export without pictures")


def _check_mounted(build: Build, splits: Sequence[str], what: str) -> None:
    """Refuse where a source's disk is not mounted: its pictures of a former export would be removed.

    Raises:
        UserError: when not one of the photos of a source that are looked for is there.
    """
    tables = [f"splits/{s}/humans" for s in splits]
    if build.has("harvest"):  # its photos are many: a small split whose few photos are lost is no reason to refuse
        tables = ["harvest", "harvest/occluders"]
    elif what == SAMPLES:
        tables = [t for s in splits for t in (f"splits/{s}", f"splits/{s}/occluders")]
    roots = {source: str(root) for source, root in build.roots.items()}
    missing.check_mounted(roots, *(build.root / table for table in tables))
