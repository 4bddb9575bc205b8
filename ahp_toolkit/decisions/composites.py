"""The record of a real composite (paper §5.1), and where those of a build lie."""

from __future__ import annotations

from dataclasses import dataclass

from ahp_toolkit.core.records import Human, Occluder, Placement

STAGE = "compose"
FOLDER = "compose"


@dataclass(frozen=True, slots=True)
class Composite:
    """A proposed (or edited) real composite: ``occluder`` at ``placement`` before ``human``.

    ``ratio`` of the human it hides; ``same_photo``: the object is of the human's own photo; ``ground`` is the y, px, of
    the line it stands on; ``light`` is how much its photo's mean luminance differs, in [0, 1].
    """

    proposal_id: str
    human: Human
    occluder: Occluder
    placement: Placement
    ratio: float
    same_photo: bool
    ground: float
    light: float
