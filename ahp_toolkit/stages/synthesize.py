"""STAGE synth: Human x Occluder -> frozen Samples by occlusion bin (paper §4.1, §5.1; spec §2).

Every sample has its own narrow slice of its bin as target, so that ratios over the split are uniform inside the bins.
Occluders are drawn by seed; a pair that provably cannot reach the slice gives way to the next occluder, and the slice
widens to the whole bin as occluders fail. The recorded ratio is counted on the final pixels.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ahp_toolkit.core import hashing
from ahp_toolkit.core.crops import kept_inside, square_around
from ahp_toolkit.core.masks import Box, Mask, encode
from ahp_toolkit.core.records import Dropped, Given, Human, Occluder, Sample
from ahp_toolkit.nets.weights import weights_key, weights_stamp
from ahp_toolkit.occlusion.bits import Packed, pack
from ahp_toolkit.occlusion.densities import Density, Target, assign, parse
from ahp_toolkit.occlusion.initial_mask import simulate
from ahp_toolkit.occlusion.paste import Pasted, sample_digest
from ahp_toolkit.occlusion.place import Placed, Settings, place_target
from ahp_toolkit.occlusion.render import Renderer
from ahp_toolkit.runtime.code import code_digest
from ahp_toolkit.runtime.stage import MAIN, Job, Output, Stage, digest_of
from ahp_toolkit.segmenters import SEGMENTERS
from ahp_toolkit.segmenters.base import built, prompt_of
from ahp_toolkit.stages.bank import occluder_by_id, read_bank
from ahp_toolkit.stages.materialize import BESIDE
from ahp_toolkit.storage import images, parquet

STAGE, SIMULATED = "synth", "simulated"
OVER_SIZE = "beyond_the_size"
CROP_FACTOR = (1.15, 1.5)


@dataclass(frozen=True)
class Task:
    """One preserved human of a split with the targets of its samples; none: the split has enough humans without it."""

    human: Human
    targets: tuple[Target, ...]


@dataclass(frozen=True)
class Chosen:
    """The humans that a split's samples are made of: ``ids``, or all ``every`` preserved ones of the split."""

    split: str
    every: int
    ids: frozenset[str] | None = None

    def __len__(self) -> int:
        return self.every if self.ids is None else len(self.ids)

    def __contains__(self, human: Human) -> bool:
        return self.ids is None or human.human_id in self.ids


def chosen(parts: Sequence[str], split: str, most: int | None) -> Chosen:
    """The preserved humans of a split, at most ``most`` of them (the first by hash); all take no memory."""
    every = sum(len(_preserved(p, split)) for p in parts)
    if most is None or every <= most:
        return Chosen(split, every)
    ids = (i for p in parts for i in _preserved(p, split).to_pylist())
    return Chosen(split, every, frozenset(heapq.nsmallest(most, ids, key=lambda i: hashing.unit_hash("human", i))))


def _preserved(part: str, split: str) -> pa.ChunkedArray:
    table = parquet.read_table(Path(part), ["human_id", "split", "verdict"])
    return table.filter(pc.and_(pc.equal(table["split"], split), pc.equal(table["verdict"], "preserve")))["human_id"]


def tasks(parts: Sequence[str], humans: Chosen, targets: Sequence[Target]) -> Iterator[Task]:
    """The preserved humans of the split in table order: the chosen ones each with its share of the targets."""
    each, at = len(targets) // max(len(humans), 1), 0
    for part in parts:
        for human in parquet.read_records(Path(part), Human):
            if human.split != humans.split or human.verdict != "preserve":
                continue
            taken = each if human in humans else 0
            yield Task(human, tuple(targets[at : at + taken]))
            at += taken


@dataclass(frozen=True)
class Initial:
    """What makes the frozen initial mask: ``simulated`` at a mean modal ``iou``, or a segmenter's name."""

    maker: str = SIMULATED
    weights: str | None = None
    iou: float = 0.775
    device: str = "auto"

    def key(self) -> dict[str, Any]:
        """What the masks depend on beside the pixels, for a stage's key; where a network runs is no part of it."""
        own = {"iou": self.iou} if self.maker == SIMULATED else {"weights": weights_key(self.weights)}
        return {"maker": self.maker} | own

    def modules(self) -> tuple[str, ...]:
        """The plug-in whose code makes the masks, for `code_digest`."""
        return () if self.maker == SIMULATED else (SEGMENTERS.module(self.maker),)


@dataclass(frozen=True)
class Synth:
    """The stage function. ``bank`` is the folder of the split's occluders, ``roots`` maps sources to data roots."""

    split: str
    density: Density
    settings: Settings
    initial: Initial
    seed: int
    bank: str
    roots: dict[str, str]

    def __call__(self, items: Sequence[Task]) -> Output:
        """One shard of humans: their samples, and the humans and occluders these need."""
        out = Output({MAIN: [], "humans": [], "occluders": []})
        renderer = Renderer(self.roots)
        for task in items:
            if not task.targets:
                detail = f"{self.split} has the humans that were asked for; it gets whole photos, so some are over"
                out.dropped.append(Dropped(task.human.human_id, STAGE, OVER_SIZE, detail, task.human.image.source))
                continue
            try:
                photo = renderer.photo(task.human.image)
            except (images.ImageError, ValueError) as e:
                reason = f"image_{getattr(e, 'reason', 'unsafe')}"
                out.dropped.append(Dropped(task.human.human_id, STAGE, reason, str(e), task.human.image.source))
                continue
            self._human(task, photo, renderer, out)
        return out

    def _human(self, task: Task, photo: images.Rgb, renderer: Renderer, out: Output) -> None:
        packed, used = pack(task.human.mask), set[str]()
        for k, target in enumerate(task.targets):
            sample_id = f"{self.split}/{task.human.human_id}~{k}"
            seed = hashing.seed_of(self.seed, sample_id)
            candidates = self._occluders(task.human, seed, used, renderer)
            placed = place_target(packed, candidates, target, self.density, seed, self.settings)
            if placed is None:
                detail = f"no occluder of the split's {len(read_bank(self.bank))} reaches bin {target.bin}"
                out.dropped.append(Dropped(sample_id, STAGE, "no_placement", detail, task.human.image.source))
                continue
            occluder = occluder_by_id(self.bank, placed.placement.occluder_id)
            used.add(occluder.occluder_id)
            pasted = renderer.paste(photo, task.human.mask, [(occluder, placed.placement)])
            out.tables[MAIN].append(self.sample(task.human, sample_id, seed, target, placed, pasted))
            out.tables["occluders"].append(occluder)
            out.counts[f"bin{target.bin}"] += 1
        out.tables["humans"].append(task.human)

    def _occluders(self, human: Human, seed: int, used: set[str], renderer: Renderer) -> Iterator[tuple[str, Packed]]:
        """The split's occluders in seeded order: not used for this human yet, not of its own photo, and readable."""
        bank = read_bank(self.bank)
        order = np.random.Generator(np.random.PCG64(seed)).permutation(len(bank))
        for o in (bank[i] for i in order):
            if o.occluder_id not in used and o.image.photo != human.image.photo and renderer.usable(o):
                yield o.occluder_id, _packed(o.mask)

    def sample(self, human: Human, sample_id: str, seed: int, target: Target, placed: Placed, pasted: Pasted) -> Sample:
        """The frozen record of one occluded person: initial mask, crop and digest come from the pixels and the seed."""
        modal, amodal = encode(pasted.modal), encode(pasted.amodal)
        return Sample(
            sample_id=sample_id,
            split=self.split,
            human_id=human.human_id,
            image=human.image,
            placements=(placed.placement,),
            seed=seed,
            given=self._given(pasted, modal, seed),
            modal=modal,
            amodal=amodal,
            crop=protocol_crop(amodal.box, seed),
            occlusion_ratio=(amodal.area - modal.area) / amodal.area,
            bin=target.bin,
            digest=sample_digest(pasted.image, pasted.modal, pasted.amodal),
            provisional=human.provisional,
        )

    def _given(self, pasted: Pasted, modal: Mask, seed: int) -> Given:
        if self.initial.maker == SIMULATED:
            mask = simulate(pasted.modal, hashing.seed_of(seed, "given"), self.initial.iou)
            return Given(encode(mask), f"simulated@{self.initial.iou:g}")
        initial = self.initial
        net = built(initial.maker, initial.weights, initial.device, stamp=weights_stamp(initial.weights))
        prompt, crop = prompt_of(pasted.image, modal.box)
        found = net([prompt])[0]
        shape = (pasted.modal.shape[0], pasted.modal.shape[1])
        return Given(encode(kept_inside(found.mask, crop, modal.box, shape)), net.name)


def protocol_crop(box: Box, seed: int) -> Box:
    """The square crop of the protocol: around the whole person, jittered by seed, always holding all of it.

    The jitter keeps the frame from telling how far the hidden part reaches; side 1.15 to 1.5 times the longer one.
    """
    rng = np.random.Generator(np.random.PCG64(hashing.seed_of(seed, "crop")))
    factor = float(rng.uniform(*CROP_FACTOR))
    room = 0.9 * (1 - 1 / factor) / 2
    sx, sy = (float(v) for v in rng.uniform(-room, room, 2))
    return square_around(box, factor, (sx, sy))


@lru_cache(maxsize=4096)
def _packed(mask: Mask) -> Packed:
    return pack(mask)


@dataclass(frozen=True)
class Wanted:
    """A split that a build wants: ``each`` samples of at most ``most`` humans (None: all), at a density's ratios."""

    split: str
    density: str
    each: int
    most: int | None
    seed: int


def stage(out: Path, wanted: Wanted, settings: Settings, initial: Initial, roots: Mapping[str, str]) -> Stage:
    """One split of frozen samples, into ``out``/splits/SPLIT."""
    name, humans = wanted.split, [str(p) for p in parquet.parts(out / "review")]
    ids = chosen(humans, name, wanted.most)
    density = parse(wanted.density)
    targets = assign(density, len(ids) * wanted.each, hashing.seed_of(wanted.seed, "targets", name))
    fn = Synth(name, density, settings, initial, wanted.seed, str(out / "bank" / name), dict(roots))
    options = {k: v for k, v in asdict(fn).items() if k not in ("roots", "bank")}
    options |= {"each": wanted.each, "most": wanted.most, "initial": initial.key()}
    inputs = [digest_of(out / "review"), digest_of(out / "bank")]
    code = code_digest(__name__, *initial.modules())
    key = {"options": options, "inputs": inputs, "code": code, "density": str(density)}
    tables = {MAIN: Sample, "humans": Human, "occluders": Occluder}
    network = initial.maker != SIMULATED
    job = Job(name, out / "splits" / name, fn, tables, key, 16, True, "human", network, beside=BESIDE)
    return Stage(job, lambda: tasks(humans, ids, targets), ids.every)
