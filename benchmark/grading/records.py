"""One record of a submission: what is usable of it, and its faults, each named and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ahp_toolkit.core.crops import SIDE
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.text import one_line
from ahp_toolkit.core.values import BadValue, rle
from ahp_toolkit.storage import files

Row = Mapping[str, Any]
FIELDS = ("sample_id", "amodal", "modal", "image", "seconds")
LONGEST_ID = LONGEST_PATH = 1024
_LONGEST_COUNTS = SIDE * SIDE + 1  # runs of a mask; as text at most 4 characters each
_LONGEST_DETAIL, _KEPT = 300, 1000
_SLOWEST = 1e5  # s for one person


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault: ``kind`` is one word to count by, ``where`` the file and record, ``detail`` expected and got."""

    kind: str
    where: str
    sample_id: str
    detail: str

    def __str__(self) -> str:
        return one_line(f"{self.where}: {self.kind}: {self.sample_id}: {self.detail}")


class Problems:
    """Faults in order, counted by kind; of each kind the first 1,000 are kept."""

    def __init__(self, problems: Iterable[Problem] = ()) -> None:
        self._kept: list[Problem] = []
        self._counts: Counter[str] = Counter()
        self.extend(problems)

    def add(self, kind: str, where: str, sample_id: object, detail: object) -> None:
        """Count a fault, its texts cut to a readable length."""
        self._counts[kind] += 1
        if self._counts[kind] <= _KEPT:
            self._kept.append(Problem(kind, where, _short(sample_id, 120), _short(detail, _LONGEST_DETAIL)))

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add the faults of a record or of another part of the submission."""
        for p in problems:
            self.add(p.kind, p.where, p.sample_id, p.detail)

    def __iter__(self) -> Any:
        return iter(self._kept)

    def __len__(self) -> int:
        return self._counts.total()

    @property
    def counts(self) -> dict[str, int]:
        """Number of faults of each kind, sorted by kind."""
        return dict(sorted(self._counts.items()))


def _short(value: object, most: int) -> str:
    shown = str(value)
    return shown if len(shown) <= most else f"{shown[: most - 2]} …"


@dataclass(slots=True)
class Parsed:
    """What is usable of one record; ``faults`` are the fields that are given and at fault: None is not absent there."""

    amodal: Mask | None = None
    modal: Mask | None = None
    image: str | None = None
    seconds: float | None = None
    problems: list[Problem] = field(default_factory=list)
    faults: set[str] = field(default_factory=set)

    @property
    def masks(self) -> tuple[Mask, Mask | None] | None:
        """(amodal, modal or None where the record has none); None: missing, or one of the two is at fault."""
        return None if self.amodal is None or "modal" in self.faults else (self.amodal, self.modal)


def parse(where: str, row: Row, root: Path | None) -> Parsed:
    """Check one record; a field at fault is left out and named. Pictures are checked when they are read.

    ``root`` is the submission's folder; None: a single file, which has no pictures.
    """
    out = Parsed()
    name = _short(row.get("sample_id"), 120)

    def fault(key: str, kind: str, detail: object) -> None:
        out.faults.add(key)
        out.problems.append(Problem(kind, where, name, _short(f"{key}: {detail}", _LONGEST_DETAIL)))

    for key in ("amodal", "modal"):
        try:
            setattr(out, key, mask_of(row.get(key)))
        except (ValueError, TypeError, OverflowError) as e:
            kind = "wrong_size" if "wrong size" in str(e) else "bad_mask"
            fault(key, kind, f"{e}; masks are COCO RLE on the {SIDE}x{SIDE} crop")
    image = row.get("image")
    if image is not None and image == image:  # pandas writes NaN for "no picture"
        try:
            out.image = picture_path(image, root)
        except ValueError as e:
            fault("image", "bad_path", e)
    seconds = row.get("seconds")
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 <= seconds < _SLOWEST:
        out.seconds = float(seconds)
    return out


def mask_of(value: object) -> Mask | None:
    """A record's mask; None for null and NaN.

    Raises:
        ValueError: when it is no RLE of whole numbers that fills the crop.
    """
    if value is None or value != value:
        return None
    if isinstance(value, BadValue):  # found while the file was read
        raise value
    if not isinstance(value, Mapping):
        raise BadValue("bad_rle", f"expected an object with size and counts, got {type(value).__name__}")
    size = value.get("size")
    size = [value.get("height"), value.get("width")] if size is None else size
    counts = value.get("counts")
    for what, given, most in (("size", size, 2), ("counts", counts, 4 * _LONGEST_COUNTS)):
        if isinstance(given, (str, bytes, list, tuple)) and len(given) > most:
            raise BadValue("bad_rle", f"expected {what} of at most {most}, got {len(given)}")
    return rle({"size": list(size) if isinstance(size, tuple) else size, "counts": counts}, SIDE, SIDE)


def picture_path(image: object, root: Path | None) -> str:
    """The path of a picture, checked to lie inside the submission's folder.

    Raises:
        ValueError: when it does not.
    """
    if not isinstance(image, str):
        raise ValueError(f"expected a path, got {type(image).__name__}")
    if root is None:
        raise ValueError("a single file has no pictures; put it into a folder of its own as predictions.json")
    if len(image) > LONGEST_PATH:
        raise ValueError(f"expected a path of at most {LONGEST_PATH} characters, got {len(image)}")
    try:
        files.safe_join(root, image)
    except (ValueError, OSError) as e:
        raise ValueError(f"{e}; give a path inside the submission's folder") from e
    return image
