"""Whether a folder is a build that can be reviewed: checked before a command touches anything."""

from __future__ import annotations

from pathlib import Path

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.runtime.options import Local

#: A build folder with a review in it. One at an address is reviewed where it is worked on, and uploaded from there.
REVIEWED = Local(
    file_okay=False,
    way="give its ahp build command --work DIR, review DIR, and run that command again: it uploads the decisions",
)


def check_build(root: Path) -> None:
    """Raises `UserError` when the folder is no build with people to review."""
    for needed in ("build.json", "parse"):
        if not (root / needed).exists():
            raise UserError(
                f"{root}: expected a build folder with {needed}, found none; make one with ahp build --out {root}"
            )
