"""The real test set (paper §5.1): proposes where another foreground object could stand in front of a whole person.

Depth is judged by the ground. With the camera at eye height the horizon passes the eyes of whoever stands, so a person
whose feet are at y is as tall as `Ground.height_at` says, and a thing moved to another ground line grows or shrinks
alike. An occluder stands at or before the person's feet, never behind them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Bool2D, Box, Mask
from ahp_toolkit.core.records import Dropped, Human, Occluder, Placement
from ahp_toolkit.decisions.composites import FOLDER, STAGE, Composite
from ahp_toolkit.decisions.votes import judged, writing
from ahp_toolkit.occlusion.place import counts_of, occluder_at
from ahp_toolkit.occlusion.render import Renderer
from ahp_toolkit.runtime.code import code_digest
from ahp_toolkit.runtime.stage import MAIN, Job, Output, Result, Stage, finished
from ahp_toolkit.storage import files, parquet
from ahp_toolkit.storage.images import ImageError, Rgb
from ahp_toolkit.storage.parquet import to_table

EYES = 0.07  # of a person's height below the top of the head


@dataclass(frozen=True)
class Settings:
    """How composites are proposed.

    Attributes:
        per_human: proposals a human, at most.
        ratio: occlusion ratio, [low, high).
        reach: how far before the feet an object may stand, in heights of the human.
        scale: an object is resized by a factor in this range, or not proposed.
        light: largest difference of mean luminance of the two photos, in [0, 1].
        tries: objects of other photos looked at, a human.
        seed: decides everything that is random.

    Raises:
        UserError: when a value is out of its range.
    """

    per_human: int = 6
    ratio: tuple[float, float] = (0.05, 0.5)
    reach: float = 0.3
    scale: tuple[float, float] = (0.4, 2.0)
    light: float = 0.12
    tries: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.ratio
        if not 0 <= low < high <= 1:
            raise UserError(f"compose --ratio: expected 0 <= low < high <= 1, got {low:g} to {high:g}")
        if self.per_human < 1 or self.reach < 0 or not 0 < self.scale[0] <= self.scale[1]:
            raise UserError("compose: expected 1 or more proposals a human, a reach of 0 or more, and scales above 0")


@dataclass(frozen=True)
class Ground:
    """The ground of a photo, from one person standing on it (a tight box, px)."""

    person: Box

    @property
    def horizon(self) -> float:
        """Its y, px: at the person's eyes."""
        return self.person.y0 + EYES * self.person.height

    def height_at(self, y: float) -> float:
        """How tall, px, that person would be with their feet at ``y``; 0 or less at and above the horizon."""
        return self.person.height * (y - self.horizon) / (self.person.y1 - self.horizon)


def lines_for(human: Human, occluder: Occluder, same_photo: bool, reach: float, u: float) -> list[float]:
    """Ground lines, px, to try: where the object stands already, else near the feet and further before them.

    An object that its photo cuts off below must be cut off by this photo too.
    """
    feet, bottom, height = human.mask.box.y1, occluder.mask.box.y1, float(human.mask.height)
    if bottom >= occluder.mask.height - 1:
        return [height] if height <= feet + max(reach, 1.0) * human.mask.box.height else []
    own = [bottom] if same_photo and feet <= bottom else []
    new = [feet + 0.02 * human.mask.box.height, feet + u * reach * human.mask.box.height]
    return [y for y in (*own, *new) if y <= height]


def shifts(human: Bool2D, occluder: Bool2D, top: int) -> tuple[NDArray[np.int64], int]:
    """(human px covered for each x of the occluder's left edge, the first x), with its top edge at y = ``top``.

    Args:
        human: bool [H, W].
        occluder: bool [h, w], cut tight and scaled.
    """
    height, width = human.shape
    y0, y1 = max(0, top), min(height, top + occluder.shape[0])
    w = occluder.shape[1]
    if y0 >= y1:
        return np.zeros(0, np.int64), 0
    n = width + w - 1
    a = np.fft.rfft(human[y0:y1].astype(np.float64), n, axis=1)
    b = np.fft.rfft(occluder[y0 - top : y1 - top, ::-1].astype(np.float64), n, axis=1)
    return np.rint(np.fft.irfft((a * b).sum(axis=0), n)).astype(np.int64), 1 - w


def stand(
    human: Human, occluder: Occluder, y: float, scale: float, ratio: tuple[float, float], seed: int
) -> tuple[Placement, float] | None:
    """The object on ground line ``y``, somewhere along it, hiding a share in ``ratio``; None: nowhere.

    Returns (placement, exact ratio).
    """
    box = occluder.mask.box.pixels()
    tight = occluder.mask.decode()[box[1] : box[3], box[0] : box[2]]
    flip = hashing.unit_hash("flip", seed) < 0.5
    put = occluder_at(tight, Placement(occluder.occluder_id, 0, 0, scale, flip))
    person = _decoded(human.mask)
    area = human.mask.area
    counts, first = shifts(person, put, round(y) - put.shape[0])
    least, most = counts_of(ratio, area)
    fits = np.flatnonzero((counts >= least) & (counts <= most))
    if not fits.size:
        return None
    k = int(fits[int(hashing.unit_hash("place", seed) * fits.size)])
    return Placement(occluder.occluder_id, first + k, round(y) - put.shape[0], scale, flip), int(counts[k]) / area


@lru_cache(maxsize=8)
def _decoded(mask: Mask) -> Bool2D:
    return mask.decode()


@dataclass(frozen=True)
class Objects:
    """The objects to move, by photo; those of other photos to try; and the person that gives each photo's ground."""

    own: dict[str, list[Occluder]] = field(default_factory=dict)
    others: tuple[Occluder, ...] = ()
    people: dict[str, Box] = field(default_factory=dict)


def read_objects(root: Path, humans: Sequence[Human]) -> Objects:
    """Read the harvest's occluders once: those of the humans' photos, and the test split's bank where there is one."""
    photos = {h.image.image_id for h in humans}
    bank = root / "bank" / "test"
    others = tuple(parquet.read_records(bank, Occluder)) if any(bank.glob("part-*.parquet")) else ()
    elsewhere = {o.image.image_id for o in others}
    own: dict[str, list[Occluder]] = {}
    people: dict[str, Box] = {}
    for o in parquet.read_records(root / "harvest" / "occluders", Occluder):
        name = o.image.image_id
        if name in photos:
            own.setdefault(name, []).append(o)
        if name in elsewhere and o.label == "person" and o.mask.box.height > people.get(name, Box(0, 0, 0, 0)).height:
            people[name] = o.mask.box
    return Objects(own, others, people)


def _cut_off(o: Occluder) -> bool:
    """Whether the photo's left, right or upper border cuts the object: moved, its straight edge would show."""
    box = o.mask.box
    return box.x0 < 1 or box.y0 < 1 or box.x1 > o.mask.width - 1


@dataclass(frozen=True)
class Person:
    """A human to propose for. ``kept``: proposals that people have edited or voted on, carried over as they are.

    ``left``: the human is no preserved one of the test split any more; nothing new is proposed.
    """

    human: Human
    kept: tuple[Composite, ...] = ()
    left: bool = False

    def joined(self, found: Sequence[Composite]) -> list[Composite]:
        """The new proposals, a kept one in the place of one of the same objects; the other kept ones after them."""
        kept = {c.proposal_id: c for c in self.kept}
        return [*(kept.pop(c.proposal_id, c) for c in found), *kept.values()]


@dataclass(frozen=True)
class Propose:
    """The stage function."""

    settings: Settings
    objects: Objects
    roots: dict[str, str]

    def __call__(self, items: Sequence[Person]) -> Output:
        """One shard of humans: their proposals; a human without any is dropped with the reason."""
        out, render = Output({MAIN: []}), Renderer(self.roots)
        for person in items:
            human, why = person.human, ("no_composite", "no object stands plausibly before this person")
            try:
                new = [] if person.left else list(self._of(human, render))
            except ImageError as e:
                new, why = [], (f"image_{e.reason}", str(e))
            found = person.joined(new)
            out.tables[MAIN] += found
            out.counts["same_photo"] += sum(c.same_photo for c in found)
            if not found:
                out.dropped.append(_drop(human, *why))
        return out

    def _of(self, human: Human, render: Renderer) -> Iterator[Composite]:
        n, light = 0, luminance(render.photo(human.image))
        for occluder, same in self._objects(human):
            if n >= self.settings.per_human:
                return
            if _cut_off(occluder) or not render.usable(occluder):
                continue
            differs = 0.0 if same else abs(luminance(render.photo(occluder.image)) - light)
            if differs > self.settings.light:
                continue
            found = self._place(human, occluder, same)
            if found is not None:
                yield replace(found, light=differs)
                n += 1

    def _objects(self, human: Human) -> Iterator[tuple[Occluder, bool]]:
        """Objects of the human's own photo first, then some of others', in an order drawn by the seed."""
        key = (self.settings.seed, human.human_id)
        own = [o for o in self.objects.own.get(human.image.image_id, []) if not _is(human, o)]
        for o in sorted(own, key=lambda o: hashing.unit_hash(*key, o.occluder_id)):
            yield o, True
        other = [o for o in self.objects.others if o.image.photo != human.image.photo]
        other.sort(key=lambda o: hashing.unit_hash(*key, o.occluder_id))
        for o in other[: self.settings.tries]:
            yield o, False

    def _place(self, human: Human, occluder: Occluder, same: bool) -> Composite | None:
        here = Ground(human.mask.box)
        ground = human.mask.box if same else self.objects.people.get(occluder.image.image_id)
        there = Ground(ground) if ground is not None else None
        if there is None or there.height_at(occluder.mask.box.y1) <= 0:
            return None  # nothing tells how large it is, or it does not stand on the ground
        seed = hashing.seed_of(self.settings.seed, human.human_id, occluder.occluder_id)
        for y in lines_for(human, occluder, same, self.settings.reach, hashing.unit_hash("line", seed)):
            scale = here.height_at(y) / there.height_at(occluder.mask.box.y1)
            scale = round(scale * 4096) / 4096
            if not self.settings.scale[0] <= scale <= self.settings.scale[1]:
                continue
            placed = stand(human, occluder, y, scale, self.settings.ratio, seed)
            if placed is not None:
                name = f"{human.human_id}~{occluder.occluder_id}"
                return Composite(name, human, occluder, placed[0], placed[1], same, y, 0.0)
        return None


def _is(human: Human, o: Occluder) -> bool:
    same = (o.mask.height, o.mask.width) == (human.mask.height, human.mask.width)
    return o.occluder_id == human.human_id or (same and o.mask.iou(human.mask) > 0.5)


def luminance(pixels: Rgb) -> float:
    """Mean luminance of a photo in [0, 1] (Rec. 709 weights, every 8th pixel)."""
    return float((pixels[::8, ::8] @ np.array([0.2126, 0.7152, 0.0722])).mean() / 255)


def _drop(human: Human, reason: str, detail: str) -> Dropped:
    return Dropped(human.human_id, STAGE, reason, detail, human.image.source)


def propose(
    root: Path, roots: dict[str, str], settings: Settings | None = None, workers: int = 1, quiet: bool = True
) -> Result:
    """Write ROOT/compose: proposals for every preserved human of the test split.

    A proposal that somebody has edited or voted on is carried over as it is, whatever the settings, beside up to
    ``per_human`` new ones; only where its human has another mask now is it made again.

    Raises:
        UserError: when there is no reviewed build.
    """
    settings = settings or Settings()
    folder = root / FOLDER / "proposals"
    humans = [h for h in parquet.read_records(root / "review", Human) if h.split == "test" and h.verdict == "preserve"]
    code = code_digest(__name__)
    inputs = [hashing.digest_files(parquet.parts(root / f)) for f in ("review", "harvest/occluders")]
    bank = sorted((root / "bank" / "test").glob("part-*.parquet"))
    key = {
        "settings": hashing.digest_value(repr(settings)),
        "inputs": inputs,
        "bank": hashing.digest_files(bank),
        "code": code,
    }
    fn = Propose(settings, read_objects(root, humans), roots)
    while True:
        before, seen = _before(folder), _stamp(folder)
        kept = judged(root, before)
        carried = {"kept": hashing.digest_bytes(parquet.table_bytes(to_table(kept, Composite)))}
        job = Job(STAGE, folder, fn, {MAIN: Composite}, key | carried, shard_size=16, unit="human")
        result = _made(job, _people(humans, kept), workers, quiet)
        with writing(root):
            if _stamp(folder) == seen and judged(root, before) == kept:
                return _placed(result, folder)
        # somebody judged a proposal meanwhile that would have been replaced


def _made(job: Job, people: list[Person], workers: int, quiet: bool) -> Result:
    """The table beside the one that it is to replace; or that one, where it is up to date."""
    if finished(job.folder, job.key_digest) is None:
        job = replace(job, folder=_next(job.folder))
    return Stage(job, people).run(quiet=quiet, workers=workers)


def _placed(made: Result, folder: Path) -> Result:
    """Put a table in its place; only inside `votes.writing`. Killed in the middle, the one before is found again."""
    if made.folder == folder:
        files.remove_tree(_next(folder))
        return made
    if folder.exists():
        files.remove_tree(_old(folder))
        folder.rename(_old(folder))
    made.folder.rename(folder)
    files.remove_tree(_old(folder))
    return replace(made, folder=folder, fresh=True)


def _next(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-next")


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}-replaced")


def _stamp(folder: Path) -> list[list[object]]:
    return hashing.stamp(sorted(folder.glob("part-*.parquet")))


def _people(humans: Sequence[Human], kept: Sequence[Composite]) -> list[Person]:
    by_human: dict[str, list[Composite]] = {}
    for c in kept:
        by_human.setdefault(c.human.human_id, []).append(c)
    own = [(h, by_human.pop(h.human_id, [])) for h in humans]
    people = [Person(h, tuple(c for c in of if c.human.mask == h.mask)) for h, of in own]
    return people + [Person(of[0].human, tuple(of), left=True) for of in by_human.values()]


def _before(folder: Path) -> dict[str, Composite]:
    """proposal id -> proposal, of the table that is to be replaced; damaged parts are named on stderr."""
    # a run that was killed while the table changed its place left it under the other name
    there = folder if folder.exists() else _old(folder)
    found: dict[str, Composite] = {}
    for part in sorted(there.glob("part-*.parquet")):
        try:
            found |= {c.proposal_id: c for c in parquet.read_records(part, Composite)}
        except UserError:
            sys.stderr.write(f"{part}: damaged; edits and votes on its proposals count where they come out the same\n")
    return found
