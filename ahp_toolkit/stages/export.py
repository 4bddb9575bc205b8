"""Export a build's samples or humans to other formats (formats §6): one plug-in a format, see ``exports``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
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
#: What an export says of itself; what the one before said, while the next is being made; the rejects.
ABOUT, FORMER, DROPPED = "export.json", ".export.former.json", "dropped.parquet"


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

    What cannot be exported (an unreadable photo) lies in ``dropped.parquet`` with its reason and is counted in
    ``export.json``; a split that the build has not made is left out. Splits that were exported to ``out`` before in
    the same format and kind stay; other files that an earlier export made there, and this one does not, are removed.

    Args:
        root: the build folder. out: the folder to write to.
        what: ``samples`` or ``humans``.
        images: whether to write pictures too (formats of `PICTURE_FORMATS` always do).
        render: makes the pixels of a sample; needed for pictures of samples.

    Raises:
        UserError: for an unknown format, split or kind, when there is nothing to export, and when another process is
            writing to ``out``.
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
    former = _former(out)
    same = (former.get("format"), former.get("what")) == (fmt, what)
    said: dict[str, dict[str, Any]] = dict(former.get("splits", {})) if same else {}
    dropped = _dropped(out, said)
    made: list[Path] = []
    for split in splits:
        total = build.count(f"splits/{split}") if what == SAMPLES else len(build.humans(split))
        if not total:
            continue
        with Progress(f"export {split}", total, what, quiet) as bar:
            job = Job(build, out, split, what, images, render, bar.update)
            made += plugin.write(job)
        dropped[split] = job.dropped
        said[split] = {
            "in": total,
            "out": job.counts["written"],
            "dropped": Counter(f"{d.source}/{d.reason}" for d in job.dropped),
            "provisional": build.provisional,
            "files": sorted(p.relative_to(out).as_posix() for p in job.made),
        }
    _forget(out, _files(former) - _files({"splits": said}))
    order = [s for s in SPLITS if s in said]
    store.write_records(out / DROPPED, [d for s in order for d in dropped[s]], Dropped)
    about = {"format": fmt, "what": what, "splits": said, "provisional": any(s["provisional"] for s in said.values())}
    about["counts"] = {f"{k}/{s}": said[s][k] for s in order for k in ("in", "out")}
    about["dropped"] = sum((Counter(said[s]["dropped"]) for s in order), Counter[str]())
    store.write_json(out / ABOUT, about)
    (out / FORMER).unlink(missing_ok=True)
    return [*made, out / ABOUT]


def _former(out: Path) -> dict[str, Any]:
    """What the export that stood here said; it no longer stands for what lies here until this one has ended."""
    if (out / ABOUT).exists():
        (out / ABOUT).replace(out / FORMER)
    said = store.read_json(out / FORMER) if (out / FORMER).exists() else {}
    return said if isinstance(said, dict) else {}


def _dropped(out: Path, said: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Dropped]]:
    """The rejects of the splits that were exported before: they lie in the order of the splits."""
    rows = iter(list(store.read_records(out / DROPPED, Dropped)) if said and (out / DROPPED).exists() else [])
    return {s: list(islice(rows, sum(said[s]["dropped"].values()))) for s in SPLITS if s in said}


def _files(said: Mapping[str, Any]) -> set[str]:
    return {name for split in said.get("splits", {}).values() for name in split["files"]}


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
