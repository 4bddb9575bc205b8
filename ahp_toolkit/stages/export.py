"""Export a build's samples or humans to other formats (formats §6): one plug-in a format, see ``exports``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
    ``export.json``; a split that the build has not made is left out.

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
    counts: Counter[str] = Counter()
    dropped: list[Dropped] = []
    made: list[Path] = []
    for split in splits:
        total = build.count(f"splits/{split}") if what == SAMPLES else len(build.humans(split))
        if not total:
            continue
        with Progress(f"export {split}", total, what, quiet) as bar:
            job = Job(build, out, split, what, images, render, bar.update)
            made += plugin.write(job)
        counts.update({f"in/{split}": total, f"out/{split}": job.counts["written"]})
        dropped += job.dropped
    store.write_records(out / "dropped.parquet", dropped, Dropped)
    reasons = Counter(f"{d.source}/{d.reason}" for d in dropped)
    said = {"format": fmt, "what": what, "counts": counts, "dropped": reasons, "provisional": build.provisional}
    store.write_json(out / "export.json", said)
    return [*made, out / "export.json"]


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
