"""AHP toolkit: build, review and benchmark amodal human perception (Zhou et al., CVPR 2021)."""

import os

# OpenMP threads that wait by spinning make torch ten times slower wherever other work shares the cores (measured);
# it counts only when it is set before torch is loaded
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> str:
    """``__version__``, as the installed package says it: pyproject.toml is where it is written."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ahp-toolkit")
    except PackageNotFoundError:
        return "0 (not installed)"
