"""Export a build's samples or humans to other formats (formats §6): one plug-in a format in `formats`.

An export is written into a new folder beside its place and renamed there at the end, so that the place always holds one
whole export or none. What a killed export leaves is removed by the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import SPLITS, Dropped
from ahp_toolkit.export.formats import FORMATS
from ahp_toolkit.export.formats.base import HUMANS, SAMPLES, Job
from ahp_toolkit.runtime.progress import Progress
from ahp_toolkit.storage import files, missing, parquet
from ahp_toolkit.storage.build_folder import Build, Render
from ahp_toolkit.storage.lock import lock

#: The record of an export in its folder: format, splits, counts, and the names beside it that the export made.
RECORD = "export.json"


@dataclass(frozen=True)
class Contents:
    """What is exported: ``samples`` or ``humans``, with or without pictures; ``render`` makes pixels of a sample."""

    what: str = SAMPLES
    images: bool = True
    render: Render | None = None

    def __post_init__(self) -> None:
        if self.what not in (SAMPLES, HUMANS):
            raise UserError(f"expected to export samples or humans, got {self.what!r}")
        if self.what == SAMPLES and self.images and self.render is None:
            raise UserError("pictures of samples need a renderer; give one, or export without pictures")


def export(
    root: Path, out: Path, fmt: str, splits: Sequence[str], contents: Contents, quiet: bool = False
) -> list[Path]:
    """Write splits of a build in another format; returns the files a reader opens, ``export.json`` last.

    The export at ``out`` is replaced; splits that it held are exported again, and files beside those that it made stay.
    A record that cannot be exported (an unreadable photo) is in ``dropped-SPLIT.parquet`` with its reason, and counted
    in ``export.json``. A split that the build has not made is left out.

    Raises:
        UserError: for an unknown format or split, when there is nothing to export, when not one photo of a source is
            there, when ``out`` holds something else than an export of this format and kind, or one with pictures where
            none are wanted, and when another process writes there.
    """
    build, plugin = Build(root), FORMATS.get(fmt)
    if plugin.PICTURES:
        contents = Contents(contents.what, True, contents.render)
    unknown = [s for s in splits if s not in SPLITS]
    if unknown:
        raise UserError(f"no split is named {unknown[0]!r}; known: {', '.join(SPLITS)}")
    with _folder_beside(out) as new:
        former = _former(out, fmt, contents)
        every = [s for s in SPLITS if s in {*splits, *former.get("splits", {})}]
        sizes = {s: build.count(f"splits/{s}") if contents.what == SAMPLES else len(build.humans(s)) for s in every}
        if not any(sizes[s] for s in splits):
            wanted = ", ".join(splits)
            raise UserError(f"{build.root}: no {contents.what} in {wanted} to export; run `ahp build` to its end first")
        present = [s for s in every if sizes[s]]
        if contents.images:
            _check_mounted(build, present, contents.what)
        made: list[Path] = []
        record: dict[str, Any] = {"format": fmt, "what": contents.what, "images": contents.images, "splits": {}}
        for split in present:
            with Progress(f"export {split}", sizes[split], contents.what, quiet) as bar:
                job = Job(build, new, split, contents.what, contents.images, contents.render, bar.update)
                made += plugin.write(job)
            parquet.write_records(new / f"dropped-{split}.parquet", job.dropped, Dropped)
            dropped = Counter(f"{d.source}/{d.reason}" for d in job.dropped)
            record["splits"][split] = {"in": sizes[split], "out": job.counts["written"], "dropped": dropped}
        record["provisional"] = build.provisional
        record["made"] = sorted(p.name for p in new.iterdir())
        files.write_json(new / RECORD, record)
        _replace(out, new, {*former.get("made", ()), RECORD})
    return [*(out / p.relative_to(new) for p in made), out / RECORD]


@contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """An empty folder beside ``out`` that this process alone writes; it is removed at the end."""
    work = out.absolute().with_name(f".{out.absolute().name}.exporting")
    with lock(work):
        if not out.exists() and (work / "old").exists():  # killed between the two renames
            (work / "old").rename(out)
        for left in ("new", "old"):
            files.remove_tree(work / left)
        (work / "new").mkdir()
        try:
            yield work / "new"
        finally:
            files.remove_tree(work)


def _replace(out: Path, new: Path, own: set[str]) -> None:
    """Put a finished export in the place of the former one, whose files are ``own``; all others are kept."""
    old = new.with_name("old")
    if out.exists():
        out.rename(old)
    new.rename(out)
    for path in old.iterdir() if old.exists() else ():
        if path.name not in own and not (out / path.name).exists():
            path.rename(out / path.name)


def _former(out: Path, fmt: str, contents: Contents) -> dict[str, Any]:
    """The record of the export at ``out``; {} where there is none.

    Raises:
        UserError: when another export or anything else is there.
    """
    if not out.exists() or not any(out.iterdir()):
        return {}
    try:
        record = files.read_json(out / RECORD)
        found, splits, made = f"{record['what']} as {record['format']}", dict(record["splits"]), list(record["made"])
        images, readable = bool(record["images"]), all(isinstance(v, str) for v in (*splits, *made))
    except (UserError, OSError, ValueError, TypeError, KeyError, AttributeError):
        found, splits, made, images, readable = "files that are no export", {}, [], False, False
    wanted = f"{contents.what} as {fmt}"
    if not readable or found != wanted:
        raise UserError(f"{out}: expected no export yet or one of {wanted}, found {found}; give another --out")
    if images and not contents.images:
        raise UserError(f"{out} holds an export with pictures, which --no-images would remove; give another --out")
    return {"splits": splits, "made": made}


def _check_mounted(build: Build, splits: Sequence[str], what: str) -> None:
    """Refuse to replace an export where a source's disk is not mounted.

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
