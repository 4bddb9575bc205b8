"""Scenes to LIP's folders and lists."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.sample_world.writers.base import Scene
from ahp_toolkit.storage import files, images


def write(root: Path, scenes: Iterable[Scene]) -> None:
    """Write LIP's folders and lists. A scene is one person with a parsing; flags are lost, so is a box not tight.

    Raises:
        UserError: for a scene of none or several instances, or without a parsing.
    """
    lists: dict[str, list[str]] = {}
    for scene in scenes:
        stem = scene.image.image.image_id.partition("/")[2]
        parsings = [i.parsing for i in scene.image.instances]
        if len(parsings) != 1 or parsings[0] is None:
            raise UserError(f"LIP holds one person with a parsing a photo, {stem} has {len(parsings)} instances")
        images.write_jpeg(root / f"{scene.split}_images" / f"{stem}.jpg", scene.pixels)
        images.write_png(root / f"{scene.split}_segmentations" / f"{stem}.png", parsings[0].decode())
        lists.setdefault(scene.split, []).append(stem)
    for split, stems in lists.items():
        with files.atomic(root / f"{split}_id.txt", "w") as f:
            f.write("".join(f"{s}\n" for s in stems))
