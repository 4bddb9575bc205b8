"""The written world's truth: one record a person, by the id that the source's reader yields."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ahp_toolkit.core import masks
from ahp_toolkit.core.masks import LabelMap, Mask
from ahp_toolkit.sample_world.scene import WorldScene
from ahp_toolkit.storage import files, parquet

FOLDER = "truth"
PLANTED = "planted.json"


@dataclass(frozen=True, slots=True)
class Truth:
    """What is true of one annotated person, in its photo's frame.

    ``modal`` is the visible, ``amodal`` the whole person, ``parsing`` the body parts of the whole; the visible ones are
    ``parsing`` where ``modal``. ``hidden`` is the hidden share of the amodal mask. ``scene`` and ``person`` say which
    person of which scene of `generate` it is.
    """

    candidate_id: str
    image_id: str
    source: str
    verdict: str
    reason: str
    amodal: Mask
    modal: Mask
    parsing: LabelMap
    scene: int
    person: int
    pose: str
    yaw: float
    hidden: float


def truth_of(
    scene: WorldScene,
    number: int,
    instance_id: str,
    image_id: str,
    masked: bool,
    window: tuple[int, int, int, int] | None = None,
) -> Truth:
    """The record of person ``number`` of a scene; a poor mask counts only where the source gives it (``masked``).

    ``window`` (x0, y0, x1, y1) px is the part of the scene that the photo shows; None: all of it.
    """
    person = scene.people[number]
    poor = person.poor and not masked
    x0, y0, x1, y1 = window or (0, 0, person.modal.shape[1], person.modal.shape[0])
    tile = (slice(y0, y1), slice(x0, x1))
    return Truth(
        candidate_id=instance_id,
        image_id=image_id,
        source=image_id.partition("/")[0],
        verdict="preserve" if poor else person.verdict,
        reason="" if poor else person.reason,
        amodal=masks.encode(person.amodal[tile]),
        modal=masks.encode(person.modal[tile]),
        parsing=masks.encode_labels(person.parsing[tile].copy()),
        scene=scene.index,
        person=number,
        pose=person.pose,
        yaw=person.yaw,
        hidden=round(person.hidden, 6),
    )


def read_truth(root: Path) -> dict[str, Truth]:
    """The truth of a written world by candidate id.

    Raises:
        UserError: when there is none under ``root``.
    """
    return {t.candidate_id: t for t in parquet.read_records(root / FOLDER, Truth)}


def planted(root: Path) -> dict[str, Any]:
    """The hard cases of a written world: counts by name, and the ids they stand at.

    Raises:
        UserError: when there is no world under ``root``.
    """
    found: dict[str, Any] = files.read_json(root / PLANTED)
    return found
