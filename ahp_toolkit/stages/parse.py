"""STAGE parse: every segmented human gets body-part labels (paper §3.2), its source's or a network's pseudo labels.

Labels are full frame, the 20 of LIP, 0 outside the mask.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ahp_toolkit.core import hashing
from ahp_toolkit.core.masks import Box, Label2D, LabelMap, Mask, encode_labels
from ahp_toolkit.core.records import Dropped, Segmented
from ahp_toolkit.nets.weights import weights_key, weights_stamp
from ahp_toolkit.parsers import PARSERS
from ahp_toolkit.parsers.base import ENLARGE, Body, Parser, body_of
from ahp_toolkit.parsers.source_parsing import NAME as SOURCE
from ahp_toolkit.runtime import stage as pipeline
from ahp_toolkit.runtime.code import code_digest
from ahp_toolkit.storage import parquet
from ahp_toolkit.storage.images import ImageError
from ahp_toolkit.storage.photos import Photos

STAGE = "parse"
Options = tuple[tuple[str, Any], ...]


class _Item(NamedTuple):
    """One human for the network: its place in the shard, its body, and the crop's box."""

    place: int
    human: Segmented
    body: Body
    crop: Box


@dataclass(frozen=True)
class Parse:
    """The stage function over paths of ``Segmented`` parts; picklable, the network is built once a process.

    Args:
        parser: a name of PARSERS; ``source_parsing`` leaves humans without a parsing as they are.
        weights: of its ``build``.
        roots: data root by source name.
        enlarge: the crop is so many times as high and wide as the mask's box.
        options: further keyword arguments of its ``build`` (precision, flip, ...), as pairs.
    """

    parser: str
    weights: str | None = None
    device: str = "auto"
    roots: Mapping[str, str] = field(default_factory=dict)
    batch_size: int = 8
    enlarge: float = ENLARGE
    options: Options = ()

    def __call__(self, items: Sequence[str]) -> pipeline.Output:
        """Parse all humans of the parts, in their order."""
        out = pipeline.Output()
        humans = [s for path in items for s in parquet.read_records(Path(path), Segmented)]
        done = {i: keep(s, s.candidate.parsing) for i, s in enumerate(humans) if _usable(s)}
        out.counts.update(source_parsing=len(done), without=len(humans) - len(done))
        rest = [(i, s) for i, s in enumerate(humans) if i not in done]
        if PARSERS.get(self.parser).NEEDS_PIXELS:
            done.update(self._parsed(rest, out))
        else:
            done.update((i, replace(s, parsing=None, parser="")) for i, s in rest)
        out.tables[pipeline.MAIN] = [done[i] for i in sorted(done)]
        return out

    def _parsed(self, humans: Sequence[tuple[int, Segmented]], out: pipeline.Output) -> Iterator[tuple[int, Segmented]]:
        items = self._items(humans, out)
        while batch := list(itertools.islice(items, self.batch_size)):
            net = _built(
                self.parser, self.weights, self.device, self.batch_size, self.options, weights_stamp(self.weights)
            )
            for item, labels in zip(batch, net([i.body for i in batch]), strict=True):
                full = encode_labels(paste(labels, item.crop, item.human.mask))
                yield item.place, replace(item.human, parsing=full, parser=net.name)

    def _items(self, humans: Iterable[tuple[int, Segmented]], out: pipeline.Output) -> Iterator[_Item]:
        photos = Photos(self.roots)
        for index, s in humans:
            image = s.candidate.image
            try:
                photo = photos.read(image)
                if photo.shape[:2] != (s.mask.height, s.mask.width):
                    raise ImageError("size_mismatch", f"mask {s.mask.width}x{s.mask.height}, photo of another size")
            except ImageError as e:
                out.dropped.append(Dropped(s.candidate.candidate_id, STAGE, e.reason, str(e), image.source))
                continue
            body, crop = body_of(photo, s.mask.decode(), s.mask.box, self.enlarge)
            yield _Item(index, s, body, crop)

    def key(self) -> dict[str, Any]:
        """All that the result depends on beside the parts: options, weights by content, code (for `pipeline.Job`)."""
        return {
            "parser": self.parser,
            "batch_size": self.batch_size,
            "enlarge": self.enlarge,
            "options": dict(self.options),
            "weights": weights_key(self.weights),
            "code": code_digest(__name__, PARSERS.module(self.parser)),
        }


def _usable(human: Segmented) -> bool:
    """Whether the source has a parsing of this human in the frame of its mask."""
    own = human.candidate.parsing
    return own is not None and (own.height, own.width) == (human.mask.height, human.mask.width)


def keep(human: Segmented, parsing: LabelMap | None) -> Segmented:
    """A human with its source's own parsing, 0 outside the mask."""
    assert parsing is not None  # `_usable`
    labels = np.where(human.mask.decode(), parsing.decode(), np.uint8(0))
    return replace(human, parsing=encode_labels(labels), parser=SOURCE)


def paste(labels: Label2D, crop: Box, mask: Mask) -> Label2D:
    """A crop's labels in the mask's frame; 0 outside the mask."""
    x0, y0, x1, y1 = crop.pixels()
    full = np.zeros((mask.height, mask.width), np.uint8)
    full[y0:y1, x0:x1] = labels
    return full * mask.decode().view(np.uint8)


@functools.cache
def _built(name: str, weights: str | None, device: str, batch_size: int, options: Options, _stamp: str) -> Parser:
    """The parser of this process, built once; ``_stamp`` tells weights of the same name apart."""
    return PARSERS.get(name).build(weights, device=device, batch_size=batch_size, **dict(options))  # type: ignore[no-any-return]


def job(folder: Path, segment: Path, stage: Parse) -> tuple[pipeline.Job, list[str]]:
    """The stage as a `pipeline.Job`, one shard a part, and its items.

    Raises:
        UserError: when there is no table of segmented humans.
    """
    parts = parquet.parts(segment)
    key = stage.key() | {"parts": hashing.digest_files(parts)}
    tables = {pipeline.MAIN: Segmented}
    network = PARSERS.get(stage.parser).NEEDS_PIXELS
    made = pipeline.Job(STAGE, folder, stage, tables, key, shard_size=1, unit="part", network=network)
    return made, [str(p) for p in parts]
