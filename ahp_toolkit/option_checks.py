"""What can be told wrong of a build's options before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .core.errors import UserError
from .core.places import Remote


def check_place(folder: Path, roots: Mapping[str, Path], option: str = "--out") -> None:
    """A build may lie above its sources (the sample world's do), never among their files.

    Raises:
        UserError: when ``folder`` is a local data root or lies inside one.
    """
    if isinstance(folder, Remote):
        return
    place = folder.resolve()
    for name, root in sorted(roots.items()):
        if not isinstance(root, Remote) and place.is_relative_to(root.resolve()):
            raise UserError(
                f"{option} {folder}: expected a folder outside the data of --source {name}={root}, which a build "
                f"never writes to; give another {option}"
            )
