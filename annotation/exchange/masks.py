"""Masks to and from other tools: COCO JSON and PNG. A mask that comes in is a proposal, or a decision with ``--as``.

An annotation names its candidate in ``candidate_id`` or, as tools that keep attributes do, in
``attributes.candidate_id``; one that names none must be of a person, and belongs to the candidate of its photo that it
overlaps most.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ahp_toolkit.core import values
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask, encode, xywh_from_box
from ahp_toolkit.core.records import Decision, ImageRef, Segmented
from ahp_toolkit.core.text import file_stem
from ahp_toolkit.core.values import BadValue
from ahp_toolkit.decisions.log import check_name
from ahp_toolkit.decisions.merge import Merge, settle
from ahp_toolkit.decisions.proposals import propose, with_mask
from ahp_toolkit.decisions.state import Decisions
from ahp_toolkit.stages.segment import border_pixels
from ahp_toolkit.storage import files, images, parquet
from ahp_toolkit.storage.parquet import rows
from annotation.exchange.decisions import WRONG, Imported, log_rows

#: An unnamed mask belongs to a candidate that it overlaps by at least this IoU.
LEAST_IOU = 0.3
Use = Literal["proposal", "preserve", "refine"]


def chosen(root: Path, verdicts: Collection[str] = (), merge: Merge | None = None) -> Iterator[tuple[Segmented, str]]:
    """(candidate, verdict or "" for undecided) of those with one of the ``verdicts``; without any: of all.

    A preserved candidate has the mask that was decided on, any other its current mask.
    """
    state = Decisions(root).refresh()
    decided = settle(state.counted(), merge or Merge()).decided
    for s in parquet.read_records(root / "parse", Segmented):
        cid = s.candidate.candidate_id
        d, case = decided.get(cid), state.case(cid)
        verdict = d.verdict if d else ""
        if not verdicts or verdict in verdicts:
            mask = case.mask_of(d, s.mask) if d and verdict == "preserve" else case.current_mask(s.mask)
            yield with_mask(s, case.proposals, mask), verdict


def export_coco(root: Path, path: Path, verdicts: Collection[str] = (), merge: Merge | None = None) -> int:
    """Write masks as one COCO instances file (full-frame RLE, exact); returns how many."""
    photos: dict[str, dict[str, Any]] = {}
    notes: list[dict[str, Any]] = []
    for s, verdict in chosen(root, verdicts, merge):
        photo = photos.setdefault(s.candidate.image.image_id, _photo(len(photos) + 1, s.candidate.image, s.mask))
        notes.append(_annotation(len(notes) + 1, photo["id"], s, verdict))
    file = {
        "info": {"description": "candidates of a review; import the masks with ahp review import"},
        "images": list(photos.values()),
        "annotations": notes,
        "categories": [{"id": 1, "name": "person", "supercategory": "person"}],
    }
    files.forget_dead(path)
    with files.atomic(path, "w") as f:
        json.dump(file, f, ensure_ascii=False)
    return len(notes)


def _photo(number: int, image: ImageRef, mask: Mask) -> dict[str, Any]:
    return {
        "id": number,
        "file_name": image.path,
        "width": mask.width,
        "height": mask.height,
        "source": image.source,
        "image_id": image.image_id,
    }


def _annotation(number: int, photo: int, s: Segmented, verdict: str) -> dict[str, Any]:
    mask = s.mask
    return {
        "id": number,
        "image_id": photo,
        "category_id": 1,
        "iscrowd": 1,  # COCO's sign for RLE
        "area": mask.area,
        "bbox": list(xywh_from_box(mask.box)),
        "segmentation": mask.rle_json,
        "candidate_id": s.candidate.candidate_id,
        "attributes": {"candidate_id": s.candidate.candidate_id, "verdict": verdict},
        "score": s.score,
    }


def export_pngs(root: Path, folder: Path, verdicts: Collection[str] = (), merge: Merge | None = None) -> int:
    """Write masks as full-frame PNGs (0 and 255), one a candidate; returns how many."""
    made = []
    for s, _ in chosen(root, verdicts, merge):
        made.append(folder / f"{file_stem(s.candidate.candidate_id)}.png")
        images.write_png(made[-1], np.where(s.mask.decode(), 255, 0).astype(np.uint8))
    files.forget_dead(*made)
    return len(made)


@dataclass(frozen=True)
class _Owners:
    """The candidates to find the owners of masks among."""

    by_id: Mapping[str, Segmented]
    by_photo: Mapping[str, Sequence[Segmented]]

    @staticmethod
    def of(root: Path) -> _Owners:
        by_id: dict[str, Segmented] = {}
        by_photo: dict[str, list[Segmented]] = {}
        for s, _ in chosen(root):
            by_id[s.candidate.candidate_id] = s
            by_photo.setdefault(Path(s.candidate.image.path).name, []).append(s)
        return _Owners(by_id, by_photo)

    def owner(self, candidate_id: str, photo: str, mask: Mask) -> Segmented:
        """The candidate of a mask.

        Raises:
            ValueError: when there is none, or several fit.
        """
        if candidate_id:
            if candidate_id not in self.by_id:
                raise ValueError(f"{candidate_id}: no such candidate")
            return self.by_id[candidate_id]
        near = [s for s in self.by_photo.get(Path(photo).name, ()) if _frame(s.mask) == _frame(mask)]
        ious = sorted(((s.mask.iou(mask), s.candidate.candidate_id) for s in near), reverse=True)
        if not ious or ious[0][0] < LEAST_IOU or (len(ious) > 1 and ious[1][0] > ious[0][0] / 2):
            raise ValueError(f"names no candidate, and not one alone of photo {photo or '(none)'} lies where it does")
        return self.by_id[ious[0][1]]


def _frame(mask: Mask) -> tuple[int, int]:
    return mask.height, mask.width


def import_masks(root: Path, path: Path, reviewer: str, use: Use = "proposal") -> Imported:
    """Take in corrected masks.

    Args:
        path: a COCO JSON file, or a folder of full-frame PNGs named as `export_pngs` names them.
        reviewer: who corrected them.
        use: ``proposal``: the candidates come back into the queue with the new mask; ``preserve`` or ``refine``: the
            reviewer's decision: a preserve of the new mask, or a refine of the mask shown that carries the new one.

    Raises:
        UserError: when the file or the reviewer's name cannot be used at all.
    """
    check_name(reviewer)
    if not path.exists():
        raise UserError(f"{path}: expected a COCO JSON file or a folder of PNG masks, there is none")
    owners = _Owners.of(root)
    found: list[tuple[str, Segmented, Mask]] = []
    refused = Imported()
    owned: dict[str, str] = {}
    for where, read in _coco(path) if path.is_file() else _pngs(path, owners):
        try:
            owner, mask = _placed(owners, *read())
            cid = owner.candidate.candidate_id
            if cid in owned:
                raise ValueError(f"{cid}: a second mask, the first is {owned[cid]}")
        except WRONG as e:
            refused.refuse(where, e)
            continue
        owned[cid] = where
        found.append((where, owner, mask))
    made = _log(root, found, reviewer, use) if use != "proposal" else _propose(root, found, reviewer)
    made.bad[:0] = refused.bad
    return made


def _placed(owners: _Owners, candidate_id: str, photo: str, mask: Mask) -> tuple[Segmented, Mask]:
    owner = owners.owner(candidate_id, photo, mask)
    if _frame(mask) != _frame(owner.mask):
        want, got = (f"{w}x{h}" for h, w in (_frame(owner.mask), _frame(mask)))
        raise ValueError(f"{owner.candidate.candidate_id}: expected the photo's frame {want}, got {got}")
    if mask.area == 0:
        raise ValueError(f"{owner.candidate.candidate_id}: the mask is empty")
    return owner, mask


def _log(root: Path, found: Sequence[tuple[str, Segmented, Mask]], reviewer: str, use: str) -> Imported:
    decisions = [
        Decision(
            s.candidate.candidate_id, use, reviewer, (mask if use == "preserve" else s.mask).digest,
            corrected=mask, note="imported",
        )
        for _, s, mask in found
    ]  # fmt: skip
    return log_rows(root, zip((where for where, *_ in found), rows(decisions), strict=True), reviewer)


def _propose(root: Path, found: Sequence[tuple[str, Segmented, Mask]], reviewer: str) -> Imported:
    state = Decisions(root).refresh()
    new = [
        replace(s, mask=m, score=1.0, segmenter=f"{reviewer}@corrected", border_touch=border_pixels(m.decode()))
        for _, s, m in found
        if m.digest not in (s.mask.digest, state.case(s.candidate.candidate_id).current)  # as exported, or as shown
    ]
    propose(root, new)
    return Imported(len(new), len(found) - len(new))


def _coco(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        file = json.loads(values.decode_text(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as e:
        raise UserError(f"{path}: expected COCO JSON, cannot be read ({e})") from e
    if not isinstance(file, dict) or not all(isinstance(file.get(k), list) for k in ("images", "annotations")):
        raise UserError(f"{path}: expected COCO JSON with lists of images and annotations")
    photos = _by_id(file["images"])
    names = {key: str(c.get("name")) for key, c in _by_id(file.get("categories")).items()}
    for k, note in enumerate(file["annotations"], 1):
        yield f"annotation {k}", lambda note=note: _read_note(note, photos, names)


def _by_id(entries: Any) -> dict[int | str, Mapping[str, Any]]:
    """The entries of a COCO list by their id; those without one are left out."""
    out: dict[int | str, Mapping[str, Any]] = {}
    for entry in entries if isinstance(entries, list) else ():
        with suppress(BadValue, AttributeError):
            out[values.identifier(entry.get("id"))] = entry
    return out


def _read_note(
    note: Mapping[str, Any], photos: Mapping[int | str, Mapping[str, Any]], names: Mapping[int | str, str]
) -> tuple[str, str, Mask]:
    """(candidate id or '', photo's file name, mask) of an annotation."""
    image_id = values.identifier(note["image_id"])
    if image_id not in photos:
        raise ValueError(f"image_id {image_id!r}: no such image")
    photo = photos[image_id]
    sides = values.size(photo.get("width"), photo.get("height"))
    if sides is None:
        raise ValueError(f"image_id {image_id!r}: expected the image's width and height")
    mask = values.segmentation(note.get("segmentation"), sides[1], sides[0])
    if mask is None:
        raise ValueError("expected a segmentation, there is none")
    attributes = note.get("attributes")
    named = note.get("candidate_id") or (attributes.get("candidate_id") if isinstance(attributes, dict) else "") or ""
    kind = note.get("category_id")
    kind = values.identifier(kind) if kind is not None else None
    if not named and names and names.get(kind, "").strip().lower() != "person":  # type: ignore[arg-type]
        raise ValueError(f"names no candidate, and its category is no person: {names.get(kind, kind)!r}")  # type: ignore[arg-type]
    return str(named), str(photo.get("file_name", "")), mask


def _pngs(folder: Path, owners: _Owners) -> Iterator[tuple[str, Any]]:
    names: dict[str, list[str]] = {}
    for cid in owners.by_id:
        names.setdefault(f"{file_stem(cid)}.png", []).append(cid)
    for path in sorted(folder.glob("*.png")):
        yield path.name, lambda path=path: _read_png(path, names.get(path.name, []))


def _read_png(path: Path, ids: Sequence[str]) -> tuple[str, str, Mask]:
    if len(ids) != 1:
        raise ValueError("no candidate has a mask of this name" if not ids else f"may be of {' or '.join(ids)}")
    return ids[0], "", encode(images.read_labels(path) > 0)
