"""Another segmenter's masks for humans to refine: they come back into the queue as proposals, never as decisions."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ahp_toolkit.core.crops import kept_inside
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Bool2D, Box, encode
from ahp_toolkit.core.records import Dropped, Segmented
from ahp_toolkit.decisions.merge import Merge
from ahp_toolkit.decisions.proposals import propose
from ahp_toolkit.decisions.state import Decisions
from ahp_toolkit.nets.weights import weights_stamp
from ahp_toolkit.segmenters import SEGMENTERS
from ahp_toolkit.segmenters.base import ENLARGE, Prompt, built, prompt_of
from ahp_toolkit.stages.segment import border_pixels
from ahp_toolkit.storage import files, parquet
from ahp_toolkit.storage.images import ImageError
from ahp_toolkit.storage.photos import Photos
from annotation.exchange.masks import chosen

STAGE = "resegment"


@dataclass(frozen=True)
class Tool:
    """Which segmenter, as `stages.segment.Segment` takes it."""

    segmenter: str = "sam"
    weights: str | None = None
    device: str = "auto"
    batch_size: int = 8


@dataclass
class Resegmented:
    """The result: ``proposed`` masks, ``unchanged`` ones, and everybody dropped with the reason."""

    proposed: int = 0
    unchanged: int = 0
    dropped: list[Dropped] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """One line for people."""
        why = ", ".join(f"{n} {r}" for r, n in sorted(Counter(d.reason for d in self.dropped).items()))
        return f"{self.proposed} proposed, {self.unchanged} unchanged, {len(self.dropped)} dropped" + (
            f" ({why})" if why else ""
        )


def to_refine(root: Path, merge: Merge | None = None) -> Iterator[Segmented]:
    """The candidates whose current mask people want refined, with that mask."""
    state = Decisions(root).refresh()
    for s, verdict in chosen(root, ["refine"], merge):
        if verdict and any(d.mask_digest == s.mask.digest for d in state.finals(s.candidate.candidate_id)):
            yield s


def resegment(root: Path, tool: Tool, roots: Mapping[str, str], merge: Merge | None = None) -> Resegmented:
    """Segment the candidates to refine again and propose what comes out (ROOT/refine).

    Args:
        roots: data root by source name.

    Raises:
        UserError: when the segmenter is unknown, cannot see photos, or lacks its weights.
    """
    if not SEGMENTERS.get(tool.segmenter).NEEDS_PIXELS:
        others = [n for n in SEGMENTERS.names() if SEGMENTERS.get(n).NEEDS_PIXELS]
        raise UserError(f"--segmenter {tool.segmenter} sees no photo; choose one of {', '.join(others)}")
    out = Resegmented()
    new: list[Segmented] = []
    for old, found in _segmented(to_refine(root, merge), tool, roots, out):
        if found.mask == old.mask:
            out.unchanged += 1
        else:
            new.append(found)
    propose(root, new)
    out.proposed = len(new)
    if out.dropped:
        path = root / "refine" / "dropped.parquet"
        files.forget_dead(path)
        parquet.write_records(path, out.dropped, Dropped)
    return out


def _segmented(
    people: Iterable[Segmented], tool: Tool, roots: Mapping[str, str], out: Resegmented
) -> Iterator[tuple[Segmented, Segmented]]:
    """(as it was, as the tool sees it), batch by batch; who cannot be read or is not found is dropped."""
    prompts = _prompts(people, roots, out)
    while batch := list(itertools.islice(prompts, tool.batch_size)):
        net = built(tool.segmenter, tool.weights, tool.device, tool.batch_size, (), weights_stamp(tool.weights))
        for (s, _, crop), found in zip(batch, net([ask for _, ask, _ in batch]), strict=True):
            mask = kept_inside(found.mask, crop, _whole(s), (s.mask.height, s.mask.width))
            if mask.any():
                yield s, _as(s, mask, found.score, net.name)
            else:
                _drop(out, s, "empty_mask", f"{net.name} found nobody in the box")


def _as(s: Segmented, mask: Bool2D, score: float, name: str) -> Segmented:
    return replace(s, mask=encode(mask), score=score, segmenter=name, border_touch=border_pixels(mask))


def _whole(s: Segmented) -> Box:
    """The box that may be kept: the annotated one and the old mask's, for either may be too tight."""
    a, b = s.candidate.box, s.mask.box
    return Box(min(a.x0, b.x0), min(a.y0, b.y0), max(a.x1, b.x1), max(a.y1, b.y1))


def _prompts(
    people: Iterable[Segmented], roots: Mapping[str, str], out: Resegmented
) -> Iterator[tuple[Segmented, Prompt, Box]]:
    photos = Photos(roots)
    for s in people:
        try:
            photo = photos.read(s.candidate.image)
        except ImageError as e:
            _drop(out, s, e.reason, str(e))
            continue
        yield s, *prompt_of(photo, _whole(s), ENLARGE)


def _drop(out: Resegmented, s: Segmented, reason: str, detail: str) -> None:
    out.dropped.append(Dropped(s.candidate.candidate_id, STAGE, reason, detail, s.candidate.image.source))
