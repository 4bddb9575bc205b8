"""All record types, frozen; each checks its own values (design: Records).

Units: boxes and offsets in px of the full image frame, areas in px², ratios in [0, 1], durations in s, times ISO 8601
UTC, digests sha256 hex, paths POSIX and relative to the data root that ``source`` names. Ids sort and survive a
rebuild: ``coco/000000000785#442619``. The invisible mask is never stored: it is amodal AND NOT modal.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ahp_toolkit.core.hashing import digest_value
from ahp_toolkit.core.masks import Box, LabelMap, Mask, intersection_union
from ahp_toolkit.core.text import LONGEST_LINE, short_line

SPLITS = ("train", "val", "test")
VERDICTS = ("discard", "preserve", "refine")
_HEX = set("0123456789abcdef")
#: Why a human is discarded or refined; the review's keys 1 to 7 in this order.
REASONS = ("occluded", "truncated", "not_a_person", "group", "bad_mask", "too_small", "other")


def _check(ok: bool, record: object, field_name: str, expected: str, got: object) -> None:
    if not ok:
        raise ValueError(f"{type(record).__name__}.{field_name}: expected {expected}, got {got!r}")


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One photo: where it is, how large, and which photo it is across datasets.

    ``width`` and ``height`` are those of the frame the annotations live in (0: not known before the file is opened).
    ``photo`` is the same for one photograph in every dataset: it decides splits and duplicates.
    ``digest`` is the sha256 of the file, or empty before it has been read.
    """

    image_id: str
    source: str
    path: str
    width: int
    height: int
    photo: str = ""
    digest: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        _check(bool(self.image_id), self, "image_id", "a non-empty id", self.image_id)
        _check(self.width >= 0 and self.height >= 0, self, "width, height", "sizes >= 0 px", (self.width, self.height))


@dataclass(frozen=True, slots=True)
class Flags:
    """The marks of an instance in its source; None: the source has no such mark."""

    crowd: bool | None = None
    group: bool | None = None
    depiction: bool | None = None
    reflection: bool | None = None
    inside: bool | None = None
    occluded: bool | None = None
    truncated: bool | None = None
    difficult: bool | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """One annotated object. ``label`` is the source's class name, lower case; every human class is ``person``."""

    instance_id: str
    label: str
    box: Box
    mask: Mask | None = None
    parsing: LabelMap | None = None
    flags: Flags = field(default_factory=Flags)

    def __post_init__(self) -> None:
        _check(bool(self.instance_id), self, "instance_id", "a non-empty id", self.instance_id)


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One photo with all its instances, in the order of the source."""

    image: ImageRef
    instances: tuple[Instance, ...]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """How much other instances of the photo touch a human.

    ``count`` other instances whose box meets the human's; ``box_cover`` share of the human's box under the union of the
    others' boxes; ``max_box_iou`` with any one of them; ``mask_contact`` share of the human's outline within 2 px of
    another mask (None where no masks are known); ``crowd`` whether a crowd or group region meets the box.
    """

    count: int = 0
    box_cover: float = 0.0
    max_box_iou: float = 0.0
    mask_contact: float | None = None
    crowd: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A human for the reviewers (harvest)."""

    candidate_id: str
    image: ImageRef
    box: Box
    mask: Mask | None
    parsing: LabelMap | None
    flags: Flags
    neighbours: Neighbours


@dataclass(frozen=True, slots=True)
class Occluder:
    """Any non-crowd instance with a mask, human or not, to be cut out and pasted (harvest)."""

    occluder_id: str
    image: ImageRef
    label: str
    box: Box
    mask: Mask
    area: int


@dataclass(frozen=True, slots=True)
class Segmented:
    """A candidate with its mask, of a segmenter or of its source.

    ``score`` is the segmenter's own quality estimate in [0, 1]; ``segmenter`` is ``name@weights-digest``;
    ``border_touch`` counts mask px on the image border; ``parser`` names what made the parsing ('' where none).
    """

    candidate: Candidate
    mask: Mask
    score: float
    segmenter: str
    border_touch: int
    parsing: LabelMap | None = None
    parser: str = ""

    def __post_init__(self) -> None:
        _check(0.0 <= self.score <= 1.0, self, "score", "a number in [0, 1]", self.score)


@dataclass(frozen=True, slots=True)
class Decision:
    """One reviewer's decision on one mask of one candidate. ``at`` is ISO 8601 UTC, ``seconds`` the time it took.

    ``mask_digest`` names the mask shown to the reviewer (`Mask.digest`). ``corrected`` is a mask that the decision
    carries: the mask shown where the build has another, or, with a refine, the reviewer's own correction of it.
    ``id`` unites logs from two places; without one it is the digest of all other fields.
    """

    candidate_id: str
    verdict: str
    reviewer: str
    mask_digest: str
    reason: str = ""
    corrected: Mask | None = None
    seconds: float = 0.0
    at: str = ""
    note: str = ""
    provisional: bool = False
    id: str = ""

    def __post_init__(self) -> None:
        _check(self.verdict in VERDICTS, self, "verdict", f"one of {', '.join(VERDICTS)}", self.verdict)
        hexadecimal = len(self.mask_digest) == 16 and set(self.mask_digest) <= _HEX
        _check(hexadecimal, self, "mask_digest", "the 16 hex digits of the mask shown", self.mask_digest)
        if self.corrected is not None and self.verdict != "refine":
            same = self.corrected.digest == self.mask_digest
            _check(same, self, "mask_digest", f"that of the mask it carries, {self.corrected.digest}", self.mask_digest)
        if not self.id:
            mask = self.corrected.digest if self.corrected else ""
            content = (
                self.verdict,
                self.reviewer,
                self.mask_digest,
                self.reason,
                mask,
                self.seconds,
                self.at,
                self.note,
            )
            known = digest_value([self.candidate_id, *content, self.provisional])
            object.__setattr__(self, "id", known[:32])

    @property
    def correction(self) -> Mask | None:
        """The reviewer's own mask in the place of the one shown; None where there is none. It decides nothing."""
        own = self.verdict == "refine" and self.corrected is not None and self.corrected.digest != self.mask_digest
        return self.corrected if own else None


@dataclass(frozen=True, slots=True)
class Human:
    """A preserved (or corrected) person: ``mask`` is the whole person, the amodal truth."""

    human_id: str
    image: ImageRef
    box: Box
    mask: Mask
    parsing: LabelMap | None
    scene: str
    split: str
    reviewers: tuple[str, ...]
    verdict: str = "preserve"
    provisional: bool = False

    def __post_init__(self) -> None:
        _check(self.split in SPLITS, self, "split", f"one of {', '.join(SPLITS)}", self.split)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an occluder goes.

    Its mask's tight crop, mirrored if ``flip``, resized by ``scale``, with its top left corner at (dx, dy) px of the
    human's photo.
    """

    occluder_id: str
    dx: int
    dy: int
    scale: float = 1.0
    flip: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """The one frozen initial mask that every model gets, and the name of what made it."""

    mask: Mask
    maker: str


@dataclass(frozen=True, slots=True)
class Sample:
    """The recipe of one occluded person: with the source photos it regenerates the same bytes.

    ``crop`` is the square crop of the protocol (spec §7), int px, may reach outside the photo (black there).
    ``kind`` is ``synthetic`` or ``composite``; ``bin`` is the index into the split's density; ``digest`` is the sha256
    of the occluded image, the modal and the amodal mask.
    """

    sample_id: str
    split: str
    human_id: str
    image: ImageRef
    placements: tuple[Placement, ...]
    seed: int
    given: Given
    modal: Mask
    amodal: Mask
    crop: Box
    occlusion_ratio: float
    bin: int
    digest: str
    kind: str = "synthetic"
    provisional: bool = False

    def __post_init__(self) -> None:
        _check(0.0 <= self.occlusion_ratio <= 1.0, self, "occlusion_ratio", "a ratio in [0, 1]", self.occlusion_ratio)
        inter, _ = intersection_union(self.modal, self.amodal)
        _check(inter == self.modal.area, self, "modal", "a subset of amodal", f"{self.modal.area - inter} px outside")


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's (or an outsider's) result on one sample: masks on the 256x256 crop, picture as a path in its folder."""

    sample_id: str
    model: str
    amodal: Mask | None = None
    modal: Mask | None = None
    image: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """One figure of a leaderboard with its 95 % interval [low, high] and its n of N."""

    board: str
    model: str
    metric: str
    slice: str
    value: float
    unit: str
    higher_is_better: bool
    low: float
    high: float
    n: int
    n_missing: int
    run_id: str
    dataset_digest: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """A record that a stage rejected, with the reason; ``detail`` says what was expected and what was found."""

    id: str
    stage: str
    reason: str
    detail: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        # both come from data: text that UTF-8 cannot hold, or without an end, would stop the table
        for name in ("id", "detail"):
            text = getattr(self, name)
            if len(text) > LONGEST_LINE or not text.isprintable():
                object.__setattr__(self, name, short_line(text))
