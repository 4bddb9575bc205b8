"""One reader of a build folder for the stages that only look at it: statistics, sheets, report and export.

What a build that stopped early has not made is empty here, never an error; a damaged file is a `UserError`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import SPLITS, Dropped, Human, ImageRef, Sample
from ahp_toolkit.storage import files, images, locations, parquet
from ahp_toolkit.storage.parquet import from_table

R = TypeVar("R")
#: The stages that leave ``dropped.parquet`` and ``stage.json``, in the order of the build.
STAGES = ("harvest", "segment", "parse", "review", *(f"splits/{s}" for s in SPLITS))


class Pasted(Protocol):
    """The pixels of one sample, full photo frame: RGB uint8 [H, W, 3] and bool [H, W]."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """The occluded image, RGB uint8 [H, W, 3]."""

    @property
    def modal(self) -> NDArray[np.bool_]:
        """The person's visible pixels, bool [H, W]."""

    @property
    def amodal(self) -> NDArray[np.bool_]:
        """All of the person's pixels, bool [H, W]."""

    @property
    def recovered(self) -> NDArray[np.uint8]:
        """The occluded image with the person's hidden pixels restored, RGB uint8 [H, W, 3]."""


#: Makes a sample's pixels; raises `images.ImageError` where a photo of it cannot be read.
Render = Callable[[Sample], Pasted]


@dataclass(frozen=True)
class StageRecord:
    """Counts, drops and key of a stage's ``stage.json``; all empty where there is none."""

    counts: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    key: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Build:
    """A build folder on disk (see the module's first lines for what is missing)."""

    root: Path

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise UserError(f"{self.root}: expected a build folder, there is none; run `ahp build` first")

    @cached_property
    def record(self) -> dict[str, Any]:
        """``build.json``: roots, formats, options, versions; empty where there is none.

        Raises:
            UserError: when it is damaged.
        """
        path = self.root / "build.json"
        value = files.read_json(path) if path.exists() else {}
        if not isinstance(value, dict):
            raise UserError(f"{path}: expected a JSON object, got {type(value).__name__}; run the build again")
        return value

    @cached_property
    def data_roots(self) -> dict[str, str]:
        """Data root by source as text, as stage functions take it.

        Raises:
            UserError: when the folder is no build, or its ``build.json`` names no data roots.
        """
        path = self.root / "build.json"
        if not path.exists():
            raise UserError(
                f"{self.root}: expected a build folder (build.json), found none; make one with ahp build --out "
                f"{self.root}"
            )
        roots = self.record.get("roots")
        if not isinstance(roots, dict) or not all(isinstance(at, str) for at in roots.values()):
            raise UserError(
                f"{path}: expected a JSON object with the data roots of a build; run the ahp build of it again"
            )
        return roots

    @cached_property
    def roots(self) -> dict[str, Path]:
        """Data root by source; empty where there is no ``build.json``."""
        return {name: locations.place(at) for name, at in dict(self.record.get("roots", {})).items()}

    @cached_property
    def formats(self) -> dict[str, str]:
        """Format by source, where it is not the source's name."""
        return dict(self.record.get("formats", {}))

    @cached_property
    def options(self) -> dict[str, Any]:
        """The options of the build by name."""
        return dict(self.record.get("options", {}))

    @cached_property
    def seed(self) -> int:
        """The seed of the build."""
        return int(self.options.get("seed", 0))

    @property
    def logs(self) -> list[Path]:
        """The decision logs in the build folder, by name."""
        return sorted((self.root / "decisions").glob("*.jsonl"))

    def has(self, table: str) -> bool:
        """Whether the table's folder holds at least one part."""
        return any((self.root / table).glob("part-*.parquet"))

    def first_of(self, *tables: str) -> str:
        """The first table that exists, else the last name."""
        return next((t for t in tables if self.has(t)), tables[-1])

    def count(self, table: str) -> int:
        """Number of records, 0 where there is no such table."""
        return parquet.count_records(self.root / table) if self.has(table) else 0

    def records(self, table: str, cls: type[R]) -> Iterator[R]:
        """All records of a table, in order."""
        if self.has(table):
            yield from parquet.read_records(self.root / table, cls)

    def columns(self, table: str, *names: str) -> pa.Table:
        """Only some columns of a table (dotted names reach into structs), flattened to their dotted names."""
        found = [columns_of(p, names) for p in parquet.parts(self.root / table)] if self.has(table) else []
        return pa.concat_tables(found) if found else pa.table({n: pa.array([], pa.string()) for n in names})

    def pick(self, table: str, cls: type[R], id_column: str, ids: Collection[str]) -> list[R]:
        """The records of the given ids (``id_column`` may be dotted), in the table's order."""
        wanted = pa.array(sorted(ids), pa.string())
        out: list[R] = []
        for part in parquet.parts(self.root / table) if self.has(table) and len(wanted) else []:
            hits = pc.is_in(columns_of(part, (id_column,))[id_column], value_set=wanted)
            if pc.any(hits).as_py():
                out.extend(from_table(parquet.read_table(part).filter(hits), cls))
        return out

    def stage_record(self, stage: str) -> StageRecord:
        """Counts, drops and key of a stage."""
        path = self.root / stage / "stage.json"
        if not path.exists():
            return StageRecord()
        record = files.read_json(path)
        return StageRecord(record.get("counts", {}), record.get("dropped", {}), record.get("key", {}))

    def dropped(self, stage: str) -> Iterator[Dropped]:
        """The rejects of a stage, in order."""
        path = self.root / stage / "dropped.parquet"
        if path.exists():
            yield from parquet.read_records(path, Dropped)

    def drop_counts(self, stage: str) -> Counter[tuple[str, str]]:
        """How many of each (source, reason): from ``stage.json``, else counted."""
        counted = self.stage_record(stage).dropped
        if counted:
            keys = {k: (k.split("/", 1) if "/" in k else ["", k]) for k in counted}
            return Counter({(keys[k][0], keys[k][1]): n for k, n in counted.items()})
        return Counter((d.source or source_of(d.id), d.reason) for d in self.dropped(stage))

    def splits(self) -> list[str]:
        """The splits with samples or humans."""
        return [s for s in SPLITS if self.has(f"splits/{s}") or self.has(f"splits/{s}/humans")]

    def humans(self, split: str | None = None) -> list[Human]:
        """The humans of one split or all, ordered by id: from ``review``, else from the splits."""
        tables = ["review"] if self.has("review") else [f"splits/{s}/humans" for s in SPLITS]
        every = {h.human_id: h for t in tables for h in self.records(t, Human)}
        return [every[k] for k in sorted(every) if split is None or every[k].split == split]

    def samples(self, split: str) -> Iterator[Sample]:
        """The samples of a split."""
        yield from self.records(f"splits/{split}", Sample)

    @cached_property
    def provisional(self) -> bool:
        """Whether any decision, human or sample was made by rule and not by a person."""
        tables = ["review/decisions", "review", *(f"splits/{s}{t}" for s in SPLITS for t in ("", "/humans"))]
        return any(pc.any(self.columns(t, "provisional")["provisional"]).as_py() for t in tables if self.has(t))

    def path_of(self, image: ImageRef) -> Path:
        """Where a photo lies.

        Raises:
            ImageError: ``no_root`` or ``unsafe_path``.
        """
        root = self.roots.get(image.source)
        if root is None:
            raise images.ImageError("no_root", f"build.json names no data root for source {image.source!r}")
        try:
            return locations.find(root, image.path)
        except ValueError as e:
            raise images.ImageError("unsafe_path", str(e)) from e

    def pixels(self, image: ImageRef) -> images.Rgb:
        """A photo in the frame of its annotations, RGB uint8 [H, W, 3].

        Raises:
            ImageError: with the reason in one word.
        """
        return images.read(self.path_of(image), frame_of(image))


def frame_of(image: ImageRef) -> tuple[int, int] | None:
    """(width, height) px of the annotations' frame, None where it is not known."""
    return (image.width, image.height) if image.width and image.height else None


def source_of(record_id: str) -> str:
    """The source in front of an id such as ``coco/000000000785#442619``; '' where there is none."""
    return record_id.split("/", 1)[0] if "/" in record_id else ""


def columns_of(path: Path, names: Sequence[str]) -> pa.Table:
    """Some columns of one part, flattened to their dotted names."""
    table = parquet.read_table(path, names)
    while any(pa.types.is_struct(f.type) for f in table.schema):
        table = table.flatten()
    return table.select([n for n in names if n in table.column_names])
