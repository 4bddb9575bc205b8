"""Which weights a plug-in was asked for, without importing torch: for cache keys of stages and of processes."""

from __future__ import annotations

from pathlib import Path

from ahp_toolkit.core import hashing


def weights_key(weights: str | None) -> str:
    """Weights by content where they are a file or a folder, else by name (None: the published ones)."""
    path = Path(weights or "")
    if weights and path.is_file():
        return hashing.digest_file(path)
    if weights and path.is_dir():
        return hashing.digest_files(sorted(p for p in path.iterdir() if p.is_file()))
    return weights or "published"


def weights_stamp(weights: str | None) -> str:
    """Changes when a file of weights is replaced, so that a process does not go on with the old ones."""
    path = Path(weights or "")
    return str(hashing.stamp([path])) if weights and path.is_file() else ""
