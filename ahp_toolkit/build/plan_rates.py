"""How long a stage takes and how large it gets: from timings that builds left behind, else built in, and said so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import SPLITS
from ahp_toolkit.runtime import timing
from ahp_toolkit.runtime.stage import Result, finished
from ahp_toolkit.storage import files

#: Where `SECONDS` were measured.
HARDWARE = "built in: a core of a 2-core AMD EPYC (Zen 3), small photos, no GPU"
#: Seconds an item on one core; on the sample world with 1000 scenes, the full networks by forward passes.
SECONDS = {
    "harvest": 0.008,
    "segment source_mask": 0.001,
    "segment deeplab debug": 0.03,
    "segment deeplab full": 1.8,
    "parse source_parsing": 0.001,
    "parse hrnet debug": 0.014,
    "parse hrnet full": 4.6,
    "decide": 0.002,
    "review": 0.002,
    "bank": 0.001,
    "train": 0.012,
    "val": 0.009,
    "test": 0.009,
    "report": 15.0,
    "train segmenter deeplab full": 84.0,  # three forward passes for each of 16 examples
    "train parser hrnet full": 108.0,
    "train segmenter deeplab debug": 0.54,
    "train parser hrnet debug": 0.35,
}
#: What a stage's time goes by where that is not its items: persons without a mask; occluders read, of which few stay.
BUSY = {"segment": "box_only", "bank": "read"}
#: Bytes an item, of the same build; of a checkpoint and of the page as a whole.
BYTES = {
    "harvest": 1100,  # a photo: candidates and occluders
    "segment": 520,
    "parse": 1060,
    "decide": 90,
    "review": 690,
    "bank": 360,
    "train": 2400,
    "val": 2400,
    "test": 2400,
    "report": 6.6e6,
    "train segmenter deeplab debug": 50e6,
    "train segmenter deeplab full": 185e6,
    "train parser hrnet debug": 6e6,
    "train parser hrnet full": 265e6,
}


@dataclass(frozen=True)
class Rate:
    """Seconds and bytes an item, None where nobody knows; whence the seconds are known."""

    seconds: float | None
    bytes: float | None
    known_by: str


def folder_of(root: Path, name: str) -> Path:
    """Where a stage lies in a build folder."""
    return root / "splits" / name if name in SPLITS else root / name


def rate(name: str, variant: str, folders: Sequence[Path], gpu: bool) -> Rate:
    """The rate of a stage: of the first folder that has a timing of the same variant, else the built-in one.

    Args:
        variant: the stage with what decides its pace, such as ``segment deeplab full``.
        gpu: whether it would run on one: the built-in rates are of none.
    """
    for root in folders:
        found = _trained(root, variant) if name.startswith("train ") else _measured(root, name, variant)
        if found is not None:
            return found
    size = BYTES.get(variant, BYTES.get(name))
    seconds = None if gpu else SECONDS.get(variant, SECONDS.get(name))
    return Rate(seconds, size, HARDWARE if seconds is not None else "not known before a first build with it")


def _measured(root: Path, name: str, variant: str) -> Rate | None:
    folder = folder_of(root, name)
    done, said = finished(folder), timing.read(folder)
    items = items_of(name, done) if done else 0
    if done is None or not items or not said.get("worker_seconds") or not variant.startswith(_made_by(folder, name)):
        return None
    busy = done.counts.get(BUSY.get(name, ""), 0) or items
    size = size_of(folder) / items
    return Rate(said["worker_seconds"] / busy, size, f"measured in {root} ({said.get('machine', 'unknown')})")


def _made_by(folder: Path, name: str) -> str:
    """The variant of a finished stage, as far as its key tells it."""
    key = files.read_json(folder / "stage.json")["key"]
    plug_in = key.get("segmenter") if name == "segment" else key.get("parser") if name == "parse" else None
    return f"{name} {plug_in}" if plug_in else name


def items_of(name: str, done: Result) -> int:
    """What a finished stage is measured by: photos, persons, occluders or samples."""
    c = done.counts
    if name == "harvest":
        return sum(n for k, n in c.items() if k.startswith("images/"))
    if name == "bank":
        return sum(n for k, n in c.items() if k.startswith("out/"))
    if name == "review":
        return c.get("out/decisions", 0)
    return c["out"] + (c["dropped"] if name == "segment" else 0)


def _trained(root: Path, variant: str) -> Rate | None:
    """Seconds a step of the same network, where it was trained there by the same settings."""
    *_, network, preset = variant.split(" ")
    path = root / "weights" / f"{network}.timing.json"
    try:
        said: dict[str, Any] = files.read_json(path)
        steps, seconds, size = said["steps"], said["seconds"], said["settings"]["size"]
    except (UserError, KeyError, TypeError):
        return None
    if (size <= 128) != (preset == "debug"):
        return None
    weights = path.with_name(f"{network}.pt")
    each = weights.stat().st_size if weights.exists() else BYTES.get(variant)
    return Rate(seconds / steps, each, f"measured in {root} ({said.get('machine')}, {said.get('device')})")


def has_gpu(device: str) -> bool:
    """Whether networks would run on a GPU; torch is not asked, since that takes seconds."""
    return device.startswith("cuda") or (device == "auto" and Path("/proc/driver/nvidia/version").exists())


def size_of(folder: Path) -> int:
    """Bytes below a folder (or of a file)."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else 0
