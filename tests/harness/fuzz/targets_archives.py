"""Zip and tar archives of photos: indexed, listed and read as a build does it, by name and by a source."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import ClassVar

from ahp_toolkit.core.errors import StorageError, UserError
from ahp_toolkit.sources import SOURCES
from ahp_toolkit.storage import archives, images, locations
from tests import source_scenes as world
from tests.harness.fuzz import check, mutate_archives
from tests.harness.fuzz.check import Outcome, Target

READ = 12  # members of an index that are read: one of thousands has the same code


class Archives(Target):
    """A COCO folder whose photos lie in one hostile archive."""

    pack: ClassVar = staticmethod(mutate_archives.zipped)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.module, self.root = SOURCES.get("coco"), folder / "root"
        shutil.rmtree(self.root, ignore_errors=True)  # of a process that died at an input
        self.root.mkdir(parents=True)
        made = [replace(s, split="train") for s in world.scenes("coco", self.module, 2, 1)]
        world.write_scenes("coco", self.root, made)
        photos = self.root / "train2017"
        self.files = {p.name: p.read_bytes() for p in sorted(photos.iterdir())}
        shutil.rmtree(photos)
        self.path, self.cache = self.root / f"train2017.{self.name}", folder / "cache"
        shutil.rmtree(self.cache, ignore_errors=True)
        self.around = {p for p in folder.rglob("*") if p.is_file()}

    def step(self, rng: Random, huge: bool) -> Outcome:
        self.path.write_bytes(type(self).pack(self.files, rng, huge))
        before = os.environ.get("AHP_CACHE")
        os.environ["AHP_CACHE"] = str(self.cache)
        try:
            return self.by_source() if rng.random() < 0.2 else self.by_name(rng)
        finally:
            self.path.unlink()
            left = {p for p in self.folder.rglob("*") if p.is_file() and self.cache not in p.parents}
            check.need(left == self.around, f"something was unpacked: {left - self.around}")
            # archives of one size within one tick of the clock are one version to the index
            shutil.rmtree(self.cache, ignore_errors=True)
            archives._opened.cache_clear()
            locations._mounted.cache_clear()
            locations._RECENT._kept.clear()
            if before is None:
                del os.environ["AHP_CACHE"]
            else:
                os.environ["AHP_CACHE"] = before

    def by_source(self) -> Outcome:
        """What `scan` and `load` make of it."""
        out = Outcome()
        try:
            for entry in self.module.scan(self.root):
                check.loaded(self.module.load(self.root, entry), out)
        except (UserError, StorageError) as e:
            check.one_line(e)
            return Outcome("refused", {type(e).__name__})
        return out

    def by_name(self, rng: Random) -> Outcome:
        """Every member of the index, looked up and read; what is read is what the index says."""
        out = Outcome()
        try:
            archive = archives.Archive.at(self.path)
            check.need(locations.has_folder(self.root, "train2017"), "no folder")
        except StorageError as e:
            check.one_line(e)
            return Outcome("refused", {"storage_error"})
        names = archive._names.to_pylist()
        check.need(names == sorted(set(names)), "names out of order")
        for name in rng.sample(names, min(READ, len(names))):
            check.need(name == archives.safe_name(name), name)
            entry = archive.entry(name)
            check.need(entry is not None and entry.offset >= 0 and entry.stored >= 0 and entry.size >= 0, entry)
            self.member(archive, name, out)
        return out

    def member(self, archive: archives.Archive, name: str, out: Outcome) -> None:
        """One member, as the photo of that name."""
        inside = name.removeprefix("train2017/")
        try:
            path = locations.find(self.root, f"train2017/{inside}")
        except ValueError as e:  # a name that no file can have
            check.printable(str(e))
            out.drop("unsafe_path")
            return
        check.need(isinstance(path, locations.Member), f"{name!r} is not found")
        try:
            data = images.read_bytes(path)
            check.need(len(data) == path.entry.size and path.stat().st_size == len(data), "size")  # type: ignore[attr-defined]
            images.header(path)
            images.decode(data)
        except images.ImageError as e:
            check.need(check._REASON.fullmatch(e.reason) is not None, e.reason)
            check.printable(str(e))
            out.drop(e.reason)


class Zip(Archives):
    """Zip."""

    name = "zip"
    share = 0.5


class Tar(Archives):
    """Tar."""

    name = "tar"
    share = 0.5
    pack: ClassVar = staticmethod(mutate_archives.tarred)
