"""How long stages took: ``timing.json`` beside ``stage.json``, read by ``ahp build --dry-run``, part of no digest."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.storage import files

NAME = "timing.json"


@cache
def machine() -> str:
    """The processor's name and the number of cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def write(folder: Path, items: int, shards: Iterable[float], wall: float, workers: int, inner: Path | None) -> None:
    """Write how long a stage took.

    Args:
        shards: seconds of each shard, in whatever process and at whatever start of the command.
        wall: s of this call; less than the whole where the stage was gone on with.
        inner: the folder of a stage whose time belongs to this one's.
    """
    before = read(inner).get("worker_seconds", 0.0) if inner else 0.0
    timed = {
        "items": items,
        "worker_seconds": round(sum(shards) + before, 3),
        "seconds": round(wall, 3),
        "workers": workers,
        "machine": machine(),
        "at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    files.write_json(folder / NAME, timed)


def read(folder: Path) -> dict[str, Any]:
    """What `write` wrote; empty where there is none (or a damaged one: nothing but an estimate depends on it)."""
    try:
        timed = files.read_json(folder / NAME)
    except UserError:
        return {}
    return timed if isinstance(timed, dict) else {}
