"""Segment: every candidate gets a mask (paper §4.1, spec §1).

A mask from the source stays. A human that comes with a box only goes to the segmenter: the crop is the box enlarged 3
times in height and in width, and only what lies inside the original box is kept.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ahp_toolkit.core import hashing
from ahp_toolkit.core.masks import Bool2D, Box, Mask, encode
from ahp_toolkit.core.records import Candidate, Dropped, Segmented
from ahp_toolkit.nets.weights import weights_key, weights_stamp
from ahp_toolkit.runtime import stage as pipeline
from ahp_toolkit.runtime.code import code_digest
from ahp_toolkit.runtime.context import kept_inside
from ahp_toolkit.segmenters import SEGMENTERS
from ahp_toolkit.segmenters.base import Ask, Segmenter
from ahp_toolkit.segmenters.crop import ENLARGE, ask_of
from ahp_toolkit.segmenters.source_mask import NAME as SOURCE
from ahp_toolkit.segmenters.source_mask import quality
from ahp_toolkit.storage import parquet
from ahp_toolkit.storage.images import ImageError
from ahp_toolkit.storage.photos import Photos

STAGE = "segment"


class _Asked(NamedTuple):
    """One human on the way to the network: its place in the shard, the ask, where the crop lies, the photo's (H, W)."""

    place: int
    candidate: Candidate
    ask: Ask
    crop: Box
    shape: tuple[int, int]


@dataclass(frozen=True)
class Segment:
    """The stage function over paths of ``Candidate`` parts; picklable, the network is built once a process.

    Args:
        segmenter: a name of SEGMENTERS.
        weights: what its ``build`` takes (None: the published ones).
        roots: data root by source name.
        enlarge: how much larger than the box the crop is, each way.
        options: further keyword arguments of its ``build`` (precision, size, ...), as pairs.
    """

    segmenter: str
    weights: str | None = None
    device: str = "auto"
    roots: Mapping[str, str] = field(default_factory=dict)
    batch_size: int = 8
    enlarge: float = ENLARGE
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, items: Sequence[str]) -> pipeline.Output:
        """Segment all candidates of the parts, in their order."""
        out = pipeline.Output()
        candidates = [c for path in items for c in parquet.read_records(Path(path), Candidate)]
        done = {i: keep(c, c.mask) for i, c in enumerate(candidates) if c.mask is not None and c.mask.area}
        out.counts.update(source_mask=len(done), box_only=len(candidates) - len(done))
        boxes = [(i, c) for i, c in enumerate(candidates) if i not in done]
        if getattr(SEGMENTERS.get(self.segmenter), "NEEDS_PIXELS", True):
            done.update(self._found(boxes, out))
        else:
            out.dropped += [drop(c, "no_mask", "expected a mask, the source gives a box only") for _, c in boxes]
        out.tables[pipeline.MAIN] = [done[i] for i in sorted(done)]
        return out

    def _found(self, boxes: Sequence[tuple[int, Candidate]], out: pipeline.Output) -> Iterator[tuple[int, Segmented]]:
        """The network's masks, batch by batch; who cannot be read or is not found is dropped."""
        asks = self._asks(boxes, out)
        while batch := list(itertools.islice(asks, self.batch_size)):
            net = built(
                self.segmenter, self.weights, self.device, self.batch_size, self.options, weights_stamp(self.weights)
            )
            for job, found in zip(batch, net([j.ask for j in batch]), strict=True):
                mask = kept_inside(found.mask, job.crop, job.candidate.box, job.shape)
                if mask.any():
                    yield job.place, Segmented(job.candidate, encode(mask), found.score, net.name, border_pixels(mask))
                else:
                    out.dropped.append(drop(job.candidate, "empty_mask", f"{net.name} found nobody in the box"))

    def _asks(self, boxes: Iterable[tuple[int, Candidate]], out: pipeline.Output) -> Iterator[_Asked]:
        photos = Photos(self.roots)
        for index, c in boxes:
            try:
                photo = photos.read(c.image)
            except ImageError as e:
                out.dropped.append(drop(c, e.reason, str(e)))
                continue
            ask, crop = ask_of(photo, c.box, self.enlarge)
            yield _Asked(index, c, ask, crop, (photo.shape[0], photo.shape[1]))

    def key(self) -> dict[str, Any]:
        """All that the result depends on beside the parts: options, weights by content, code (for `pipeline.Job`)."""
        said = {"segmenter": self.segmenter, "batch_size": self.batch_size, "enlarge": self.enlarge}
        module = f"{SEGMENTERS.package}.{self.segmenter}"
        return said | {
            "options": dict(self.options),
            "weights": weights_key(self.weights),
            "code": code_digest(__name__, module),
        }


def keep(candidate: Candidate, mask: Mask) -> Segmented:
    """A candidate with its source's own mask, scored by `quality`."""
    touch = border_pixels(mask.decode()) if mask.touches_border(1) else 0
    return Segmented(candidate, mask, quality(mask, candidate.box), SOURCE, touch)


def border_pixels(mask: Bool2D) -> int:
    """How many px of a mask lie on the image border itself."""
    inner = mask[1:-1, 1:-1]
    return int(np.count_nonzero(mask) - np.count_nonzero(inner))


def drop(candidate: Candidate, reason: str, detail: str) -> Dropped:
    """The candidate as a reject of this stage."""
    return Dropped(candidate.candidate_id, STAGE, reason, detail, candidate.image.source)


@functools.cache
def built(
    name: str, weights: str | None, device: str, batch_size: int, options: tuple[tuple[str, Any], ...], _stamp: str
) -> Segmenter:
    """The segmenter of this process, built once."""
    return SEGMENTERS.get(name).build(weights, device=device, batch_size=batch_size, **dict(options))  # type: ignore[no-any-return]


def job(folder: Path, harvest: Path, stage: Segment) -> tuple[pipeline.Job, list[str]]:
    """The stage as a `pipeline.Job`, one shard a harvest part, and its items.

    Raises:
        UserError: when there is no harvest table.
    """
    parts = parquet.parts(harvest)
    key = stage.key() | {"parts": hashing.digest_files(parts)}
    tables = {pipeline.MAIN: Segmented}
    network = getattr(SEGMENTERS.get(stage.segmenter), "NEEDS_PIXELS", True)
    made = pipeline.Job(STAGE, folder, stage, tables, key, shard_size=1, unit="part", network=network)
    return made, [str(p) for p in parts]
