"""Whether a folder is a build that can be reviewed: asked before a command touches anything."""

from __future__ import annotations

from pathlib import Path

from ahp_toolkit.core.errors import UserError


def check_build(root: Path) -> None:
    """Raises `UserError` when the folder is no build with people to review."""
    for needed in ("build.json", "parse"):
        if not (root / needed).exists():
            raise UserError(
                f"{root}: expected a build folder with {needed}, found none; make one with ahp build --out {root}"
            )
