"""AHP toolkit: build, review and benchmark amodal human perception (Zhou et al., CVPR 2021).

``configure`` and ``build_dataset`` run a build; ``Build`` opens one: its people, its samples with their pixels, a split
as a torch ``Dataset``. Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ahp_toolkit.build.opened import Build as Build
    from ahp_toolkit.build.opened import build_dataset as build_dataset
    from ahp_toolkit.build.opened import configure as configure
    from ahp_toolkit.core.errors import UserError as UserError

# OpenMP threads that wait by spinning make torch ten times slower wherever other work shares the cores (measured);
# the variable counts only when it is set before torch is loaded
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_PUBLIC = {
    **dict.fromkeys(("Build", "build_dataset", "configure"), "ahp_toolkit.build.opened"),
    "UserError": "ahp_toolkit.core.errors",
}
__all__ = ["Build", "UserError", "build_dataset", "configure"]


def __getattr__(name: str) -> Any:
    """A public name, or ``__version__`` as the installed package states it."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ahp-toolkit")
    except PackageNotFoundError:
        return "0 (not installed)"
