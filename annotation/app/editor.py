"""The masks in the App's own editor: those the panel shows, until somebody paints.

Each sample keeps the digest of the mask that was put there (``pushed``). A mask that differs from it was painted: it is
never replaced, and it alone is taken for a reviewer's. Nothing here imports fiftyone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from ahp_toolkit.core import hashing
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.decisions.candidates import Candidates
from ahp_toolkit.decisions.state import Decisions
from ahp_toolkit.storage import parquet
from annotation.app.units import crop_of, mask_of, relative

_BATCH = 1000


def held(view: Any, candidates: Candidates) -> Iterator[tuple[str, str, Mask]]:
    """(candidate id, digest of the mask that was put there, mask that is there) of a view's samples of this build."""
    for cid, human, pushed in zip(*view.values(["candidate_id", "human", "pushed"]), strict=True):
        if cid in candidates and human is not None and human.has_mask:
            frame = candidates.record(cid).mask
            yield cid, pushed, mask_of(human.bounding_box, human.get_mask(), frame.height, frame.width)


def painted(view: Any, candidates: Candidates) -> Iterator[tuple[str, Mask]]:
    """(candidate id, mask) of every sample of a view whose mask was painted since it was put there."""
    return ((cid, mask) for cid, pushed, mask in held(view, candidates) if mask.digest != pushed)


def put(fo: Any, dataset: Any, candidates: Candidates, shown: Mapping[str, Mask]) -> None:
    """Bring the editor's masks of some candidates to those the panel shows, except what was painted."""
    from pymongo import UpdateOne

    wanted_of, field = {cid: mask.digest for cid, mask in shown.items()}, fo.ViewField("candidate_id")
    known = dataset.match(field.is_in(list(shown))).values(["candidate_id", "pushed"])
    other = [cid for cid, pushed in zip(*known, strict=True) if pushed != wanted_of[cid]]
    writes = []
    for cid, pushed, mask in held(dataset.match(field.is_in(other)), candidates) if other else ():
        there, wanted = mask.digest, wanted_of[cid]
        if there not in (pushed, wanted):
            continue
        new: dict[str, Any] = {"pushed": wanted}
        if there != wanted:
            crop = fo.core.fields.ArrayField().to_mongo(crop_of(shown[cid]))
            new |= {"human.bounding_box": relative(shown[cid]), "human.mask": crop}
        writes.append(UpdateOne({"candidate_id": cid}, {"$set": new}))
    if writes:
        dataset._sample_collection.bulk_write(writes, ordered=False)


def build_of(candidates: Candidates) -> str:
    """The identity of the parts of ROOT/parse: another one where the build was made again."""
    parts = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in parquet.parts(candidates.root / "parse")]
    return hashing.digest_value(parts)


def put_all(fo: Any, dataset: Any, state: Decisions) -> None:
    """`put` for all candidates; of a build that is in the database already only those with a new mask."""
    candidates = state.candidates
    build = build_of(candidates)
    same = dataset.info.get("parse") == build
    ids = iter([cid for cid, case in state.cases.items() if case.masks] if same else candidates)
    while some := list(islice(ids, _BATCH)):
        firsts = {cid: candidates.record(cid).mask for cid in some if cid in candidates}
        put(fo, dataset, candidates, {cid: state.case(cid).current_mask(first) for cid, first in firsts.items()})
    if not same:
        dataset.info["parse"] = build
        dataset.save()
