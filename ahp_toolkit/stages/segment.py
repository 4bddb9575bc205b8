"""STAGE segment: every candidate gets a mask (paper §4.1, spec §1).

A mask of the source stays. A human with a box only goes to the segmenter: the crop is the box enlarged 3 times in
height and in width, and only what lies inside the original box is kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ahp_toolkit.core import hashing
from ahp_toolkit.core.crops import kept_inside
from ahp_toolkit.core.masks import Bool2D, Box, Mask, encode
from ahp_toolkit.core.records import Candidate, Dropped, Segmented
from ahp_toolkit.nets.weights import weights_key, weights_stamp
from ahp_toolkit.runtime import stage as pipeline
from ahp_toolkit.runtime.code import code_digest
from ahp_toolkit.segmenters import SEGMENTERS
from ahp_toolkit.segmenters.base import ENLARGE, Options, Prompt, built, prompt_of
from ahp_toolkit.segmenters.source_mask import NAME as SOURCE
from ahp_toolkit.segmenters.source_mask import quality
from ahp_toolkit.storage import parquet
from ahp_toolkit.storage.images import ImageError
from ahp_toolkit.storage.photos import Photos

STAGE = "segment"


class _Item(NamedTuple):
    """One human for the network: its place in the shard, its prompt, the crop's box, and the photo's (H, W)."""

    place: int
    candidate: Candidate
    prompt: Prompt
    crop: Box
    shape: tuple[int, int]


@dataclass(frozen=True)
class Segment:
    """The stage function over paths of ``Candidate`` parts; picklable, the network is built once a process.

    Args:
        segmenter: a name of SEGMENTERS.
        weights: of its ``build`` (None: the published ones).
        roots: data root by source name.
        enlarge: the crop is so many times as high and wide as the box.
        options: further keyword arguments of its ``build`` (precision, size, ...), as pairs.
    """

    segmenter: str
    weights: str | None = None
    device: str = "auto"
    roots: Mapping[str, str] = field(default_factory=dict)
    batch_size: int = 8
    enlarge: float = ENLARGE
    options: Options = ()

    def __call__(self, items: Sequence[str]) -> pipeline.Output:
        """Segment all candidates of the parts, in their order."""
        out = pipeline.Output()
        candidates = [c for path in items for c in parquet.read_records(Path(path), Candidate)]
        done = {i: keep(c, c.mask) for i, c in enumerate(candidates) if c.mask is not None and c.mask.area}
        out.counts.update(source_mask=len(done), box_only=len(candidates) - len(done))
        boxes = [(i, c) for i, c in enumerate(candidates) if i not in done]
        if SEGMENTERS.get(self.segmenter).NEEDS_PIXELS:
            done.update(self._found(boxes, out))
        else:
            out.dropped += [drop(c, "no_mask", "expected a mask, the source gives a box only") for _, c in boxes]
        out.tables[pipeline.MAIN] = [done[i] for i in sorted(done)]
        return out

    def _found(self, boxes: Sequence[tuple[int, Candidate]], out: pipeline.Output) -> Iterator[tuple[int, Segmented]]:
        """The network's masks, batch by batch; a human whose photo or mask cannot be had is dropped."""
        items = self._items(boxes, out)
        while batch := list(itertools.islice(items, self.batch_size)):
            net = built(
                self.segmenter, self.weights, self.device, self.batch_size, self.options, weights_stamp(self.weights)
            )
            for item, found in zip(batch, net([i.prompt for i in batch]), strict=True):
                c = item.candidate
                mask = kept_inside(found.mask, item.crop, c.box, item.shape)
                if mask.any():
                    yield item.place, Segmented(c, encode(mask), found.score, net.name, border_pixels(mask))
                else:
                    out.dropped.append(drop(c, "empty_mask", f"{net.name} found nobody in the box"))

    def _items(self, boxes: Iterable[tuple[int, Candidate]], out: pipeline.Output) -> Iterator[_Item]:
        photos = Photos(self.roots)
        for index, c in boxes:
            try:
                photo = photos.read(c.image)
            except ImageError as e:
                out.dropped.append(drop(c, e.reason, str(e)))
                continue
            prompt, crop = prompt_of(photo, c.box, self.enlarge)
            yield _Item(index, c, prompt, crop, (photo.shape[0], photo.shape[1]))

    def key(self) -> dict[str, Any]:
        """All that the result depends on beside the parts: options, weights by content, code (for `pipeline.Job`)."""
        return {
            "segmenter": self.segmenter,
            "batch_size": self.batch_size,
            "enlarge": self.enlarge,
            "options": dict(self.options),
            "weights": weights_key(self.weights),
            "code": code_digest(__name__, SEGMENTERS.module(self.segmenter)),
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


def job(folder: Path, harvest: Path, stage: Segment) -> tuple[pipeline.Job, list[str]]:
    """The stage as a `pipeline.Job`, one shard a harvest part, and its items.

    Raises:
        UserError: when there is no harvest table.
    """
    parts = parquet.parts(harvest)
    key = stage.key() | {"parts": hashing.digest_files(parts)}
    tables = {pipeline.MAIN: Segmented}
    network = SEGMENTERS.get(stage.segmenter).NEEDS_PIXELS
    made = pipeline.Job(STAGE, folder, stage, tables, key, shard_size=1, unit="part", network=network)
    return made, [str(p) for p in parts]
