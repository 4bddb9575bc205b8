"""Export a build's samples or humans to other formats (formats §6): one plug-in a format, see ``exports``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core import store
from ..core.errors import UserError
from ..core.lock import lock
from ..core.progress import Progress
from ..core.records import SPLITS, Dropped
from .build_folder import Build, Render
from .exports import FORMATS
from .exports.base import HUMANS, SAMPLES, Job

#: Formats that are made of pictures whatever ``images`` says.
PICTURE_FORMATS = ("ahp", "webdataset")
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
    stay; files of these splits that an earlier export made there, and this one does not, are removed.

    Args:
        root: the build folder. out: the folder to write to.
        what: ``samples`` or ``humans``.
        images: whether to write pictures too (formats of `PICTURE_FORMATS` always do).
        render: makes the pixels of a sample; needed for pictures of samples.

    Raises:
        UserError: for an unknown format, split or kind, when there is nothing to export, when ``out`` holds an export
            of another format or kind, or of pictures where none are asked for, and when another process writes there.
    """
    build, plugin = Build(root), FORMATS.get(fmt)
    images = images or fmt in PICTURE_FORMATS
    _check(build, splits, what, images, render)
    with lock(out):
        store.forget_unfinished(out, deep=True)
        return _write(build, plugin, out, fmt, splits, what, images, render, quiet)


def _write(
    build: Build,
    plugin: Any,
    out: Path,
    fmt: str,
    splits: Sequence[str],
    what: str,
    images: bool,
    render: Render | None,
    quiet: bool,
) -> list[Path]:
    totals = {s: build.count(f"splits/{s}") if what == SAMPLES else len(build.humans(s)) for s in splits}
    splits = [s for s in splits if totals[s]]
    about = {"format": fmt, "what": what, "images": images}
    former = _begun(out, about, splits)
    said: dict[str, dict[str, Any]] = dict(former)
    made: list[Path] = []
    for split in splits:
        with Progress(f"export {split}", totals[split], what, quiet) as bar:
            job = Job(build, out, split, what, images, render, bar.update)
            made += plugin.write(job)
        dropped = out / f"dropped-{split}.parquet"
        store.write_records(dropped, job.dropped, Dropped)
        said[split] = {
            "in": totals[split],
            "out": job.counts["written"],
            "dropped": Counter(f"{d.source}/{d.reason}" for d in job.dropped),
            "provisional": build.provisional,
            "files": sorted(p.relative_to(out).as_posix() for p in [*job.made, dropped]),
        }
    _forget(out, _files(former) - _files(said))
    store.write_json(out / ABOUT, about | _sums(said))
    (out / FORMER).unlink(missing_ok=True)
    return [*made, out / ABOUT]


def _sums(said: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """What an export says of its splits, and of them together."""
    order = [s for s in SPLITS if s in said]
    return {
        "splits": said,
        "provisional": any(said[s]["provisional"] for s in order),
        "counts": {f"{k}/{s}": said[s][k] for s in order for k in ("in", "out")},
        "dropped": sum((Counter(said[s]["dropped"]) for s in order), Counter[str]()),
    }


def _begun(out: Path, about: Mapping[str, Any], splits: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the export that stood here said of each split.

    That no longer stands for what lies here until this one has ended; a split whose export was killed is marked
    ``unfinished`` until it is exported again.
    """
    former = _said(out / ABOUT) or _said(out / FORMER)
    if former:
        _check_same(out, former, about)
    of: dict[str, dict[str, Any]] = former.get("splits", {})
    if of:
        marked = {s: of[s] | {"unfinished": True} if s in splits else of[s] for s in of}
        store.write_json(out / FORMER, former | {"splits": marked})
    (out / ABOUT).unlink(missing_ok=True)
    return of


def _said(path: Path) -> dict[str, Any]:
    """What an export said; nothing where the file is damaged or none of ours."""
    try:
        said = store.read_json(path)
        _files(said["splits"])
    except (UserError, OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return dict(said)


def _check_same(out: Path, former: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Refuse to mix exports: the readers of one would find the other's files, and pictures would go without a word."""
    kinds = ("format", "what")
    if any(former.get(k) != about[k] for k in kinds):
        was, now = (f"{of.get('what')} as {of.get('format')}" for of in (former, about))
        raise UserError(f"{out}: expected no export yet or one of {now}, found one of {was}; give another --out")
    if former.get("images") and not about["images"]:
        raise UserError(
            f"{out} holds an export with pictures, which --no-images would remove; give another --out, or leave out "
            "--no-images"
        )


def _files(splits: Mapping[str, Any]) -> set[str]:
    return {name for split in splits.values() for name in split["files"]}


def _forget(out: Path, names: Iterable[str]) -> None:
    """Remove files that an earlier export made and this one did not, and the folders that this empties."""
    for name in sorted(names):
        try:
            path = store.safe_join(out, name)
        except ValueError:  # not a name that we wrote
            continue
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == out or not _emptied(folder):
                break


def _emptied(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:  # something lies in it
        return False
    return True


def _check(build: Build, splits: Sequence[str], what: str, images: bool, render: Render | None) -> None:
    if what not in (SAMPLES, HUMANS):
        raise UserError(f"expected to export samples or humans, got {what!r}")
    wrong = [s for s in splits if s not in SPLITS]
    if wrong:
        raise UserError(f"no split is named {wrong[0]!r}; known: {', '.join(SPLITS)}")
    tables = [f"splits/{s}" for s in splits] if what == SAMPLES else [*(f"splits/{s}/humans" for s in splits), "review"]
    if not any(build.count(t) for t in tables):
        raise UserError(f"{build.root}: no {what} in {', '.join(splits)} to export; run `ahp build` to its end first")
    if what == SAMPLES and images and render is None:
        raise UserError("pictures of samples need a renderer; give one, or export without pictures")
