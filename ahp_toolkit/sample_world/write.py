"""Write a world as five miniature datasets in their true formats, with its truth and known numbers of hard cases."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box
from ahp_toolkit.sample_world import annotate, plant
from ahp_toolkit.sample_world.annotate import Annotated
from ahp_toolkit.sample_world.scene import SMALL, WorldScene, generate
from ahp_toolkit.sample_world.truth import FOLDER, PLANTED, Truth
from ahp_toolkit.sample_world.writers.base import Scene
from ahp_toolkit.storage import files, parquet

#: which dataset scene n goes to; 13 and the layouts' period have no common factor: each dataset gets every layout
TURN = (
    "coco", "openimages", "objects365", "lip", "voc_sbd", "coco", "objects365", "openimages", "coco", "objects365",
    "openimages", "coco", "openimages",
)  # fmt: skip
#: of the first scenes of COCO, so many stand in Open Images too (half of them keyless), and in LIP as crops
TWICE, CROPPED = 4, 2
SIZE = (320, 320)


def write_world(
    root: Path, seed: int = 0, scenes: int = 240, size: tuple[int, int] = SIZE,
    progress: Callable[[int], Any] | None = None,
) -> None:  # fmt: skip
    """Write ``root/{coco,voc_sbd,lip,objects365,openimages}``, ``root/truth`` and ``root/planted.json``.

    Args:
        root: the folder to write to.
        seed: the world's seed.
        scenes: how many pictures; `plant.PHOTOS` more hold the hard cases.
        size: (width, height) px of a picture.
        progress: called with 1 after each picture.

    Raises:
        UserError: for fewer scenes than datasets.
    """
    if scenes < 5:
        raise UserError(f"a world needs 5 scenes at least, one a dataset, got {scenes}")
    writer = _Writer(root, seed, scenes, size, progress)
    for name in sorted(set(TURN)):
        importlib.import_module(f"ahp_toolkit.sample_world.writers.{name}").write(root / name, writer.scenes_of(name))
    spoiled = plant.plant(root, seed, scenes)
    writer.truths = [t for t in writer.truths if t.image_id not in spoiled["unreadable"]]
    writer.truths.sort(key=lambda t: t.candidate_id)
    parquet.write_records(root / FOLDER / "part-00000.parquet", writer.truths, Truth)
    files.write_json(root / PLANTED, {"counts": writer.counts(spoiled), "at": spoiled})


class _Writer:
    """Hands each dataset its photos one by one and keeps their truth."""

    def __init__(
        self, root: Path, seed: int, scenes: int, size: tuple[int, int], progress: Callable[[int], Any] | None
    ) -> None:
        self.seed, self.size, self.progress, self.count = seed, size, progress, scenes
        self.truths: list[Truth] = []
        self.twice: list[str] = []
        self.cropped: list[str] = []

    def scenes_of(self, name: str) -> Iterator[Scene]:
        """The photos of one dataset, in order."""
        for index in range(self.count):
            if TURN[index % len(TURN)] == name:
                yield from self._take(self._annotate(name, generate(self.seed, index, self.size)))
                if self.progress is not None:
                    self.progress(1)
        own = [i for i in range(self.count) if TURN[i % len(TURN)] == "coco"]
        if name == "openimages":
            yield from self._take(self._again(own[:TWICE]))
        if name == "lip":
            yield from self._take(self._crops(own[1 : 1 + CROPPED]))
        if name == "coco":
            for index, size, layout in plant.photos(self.count, self.size):
                yield from self._take([annotate.coco(generate(self.seed, index, size, layout))])

    def _take(self, found: Iterable[Annotated]) -> Iterator[Scene]:
        for one in found:
            self.truths += one.truths
            yield one.scene

    def _annotate(self, name: str, scene: WorldScene) -> Iterable[Annotated]:
        return annotate.lip(scene) if name == "lip" else [getattr(annotate, name)(scene)]

    def _again(self, indices: list[int]) -> Iterator[Annotated]:
        """Photos of COCO once more, for Open Images; every other one without the Flickr number."""
        for n, index in enumerate(indices):
            one = annotate.openimages(generate(self.seed, index, self.size))
            if n % 2:
                one.scene = plant.without_key(one.scene)
            self.twice.append(one.scene.image.image.image_id)
            yield one

    def _crops(self, indices: list[int]) -> Iterator[Annotated]:
        for index in indices:
            for one in annotate.lip(generate(self.seed, index, self.size)):
                self.cropped.append(one.scene.image.image.image_id)
                yield one

    def counts(self, spoiled: dict[str, list[str]]) -> dict[str, int]:
        """Hard cases by name, and people by verdict, reason and usability."""
        out = Counter({name: len(ids) for name, ids in spoiled.items()})
        out["photo_in_coco_and_openimages"] = len(self.twice)
        out["crop_of_a_coco_photo"] = len(self.cropped)
        for t in self.truths:
            out["people"] += 1
            out[t.verdict] += 1
            out[f"{t.verdict}:{t.reason}" if t.reason else t.verdict] += bool(t.reason)
            out["in_the_gutter"] += _gutter(t)
            out["usable_preserved"] += t.verdict == "preserve" and not _gutter(t) and t.modal.area >= SMALL
        return dict(out)


def _gutter(t: Truth) -> bool:
    box: Box = t.modal.box
    return t.reason != "truncated" and box.touches_border(t.modal.width, t.modal.height, 5)
