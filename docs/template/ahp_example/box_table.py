"""A source: ``people.csv`` with the columns file, x0, y0, x1, y1 (px), and the photos beside it."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from pathlib import Path

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box
from ahp_toolkit.core.records import ImageRef, Instance, SourceImage
from ahp_toolkit.core.values import BadValue
from ahp_toolkit.sources.base import PERSON, Entry, Loaded
from ahp_toolkit.sources.reading.shared import dropped_of, frame_size, inside, looked_for, usable_box

LICENCE = "the photographs' own"
HOMEPAGE = "https://example.org"
COLUMNS = ["file", "x0", "y0", "x1", "y1"]


def inputs(root: Path) -> list[Path]:
    """The table.

    Raises:
        UserError: where there is none.
    """
    path = root / "people.csv"
    if not path.is_file():
        raise UserError(f"{root}: expected people.csv with the columns {', '.join(COLUMNS)}, found none")
    return [path]


def scan(root: Path, name: str = "box_table", person_names: Collection[str] = ()) -> Iterator[Entry]:
    """One entry a photo, in the order of the table; the payload is (file, rows). All boxes are people."""
    photos: dict[str, list[dict[str, str]]] = {}
    with inputs(root)[0].open(newline="", encoding="utf-8") as f:
        for row in csv.DictReader(f):
            photos.setdefault(row["file"], []).append(row)
    for file, rows in photos.items():
        yield Entry(f"{name}/{file}", (file, rows))


def load(root: Path, entry: Entry) -> Loaded:
    """The photo with its people; a bad photo or box is dropped with its reason."""
    file, rows = entry.payload
    try:
        width, height = frame_size(inside(root, file))
    except BadValue as bad:
        return Loaded(None, (dropped_of(bad, entry.image_id, entry.source),), looked_for(bad, [file]))
    people, dropped = [], []
    for number, row in enumerate(rows, 1):
        instance_id = f"{entry.image_id}#{number}"
        try:
            box = usable_box(Box(*(float(row[c]) for c in COLUMNS[1:])), width, height)
            people.append(Instance(instance_id, PERSON, box))
        except BadValue as bad:
            dropped.append(dropped_of(bad, instance_id, entry.source))
    image = ImageRef(entry.image_id, entry.source, file, width, height, entry.image_id)
    return Loaded(SourceImage(image, tuple(people)), tuple(dropped))
