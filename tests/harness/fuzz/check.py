"""What every hostile input must end in: records that are sound, Dropped records with a reason, or one clear line."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from ahp_toolkit.core.masks import Box, LabelMap, Mask
from ahp_toolkit.core.records import Dropped, Instance
from ahp_toolkit.sources.base import Loaded

_REASON = re.compile(r"[a-z][a-z0-9_]{1,40}")
LONGEST = 4000


class Broken(AssertionError):
    """A parser gave what it must never give."""


def need(ok: bool, what: object) -> None:
    """Raise Broken unless ``ok``."""
    if not ok:
        raise Broken(str(what)[:400])


@dataclass
class Outcome:
    """How one input ended: ``accepted``, ``dropped`` (some records, with reasons), or ``refused``."""

    kind: str = "accepted"
    reasons: set[str] = field(default_factory=set)

    def drop(self, reason: str) -> None:
        """Note a record that was dropped."""
        self.kind = "dropped"
        self.reasons.add(reason)


class Target:
    """One parser under test. ``step`` makes one hostile input and feeds it in; what it raises is a defect."""

    name = ""
    share = 1.0  # of the inputs asked for: less where one input takes long

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def step(self, rng: Random, huge: bool) -> Outcome:
        """One input."""
        raise RuntimeError("a target defines its step")


def one_line(error: Exception) -> str:
    """The message, which must be one printable line."""
    text = str(error)
    need(bool(text.strip()), f"an empty message: {error!r}")
    need("\n" not in text and "\r" not in text, f"more than one line: {text!r}")
    need(len(text) <= LONGEST, f"a message of {len(text)} characters: {text[:200]!r}")
    printable(text)
    return text


def printable(text: str) -> None:
    """UTF-8 can write it."""
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise Broken(f"text that UTF-8 cannot write: {text[:200]!r}") from e


def loaded(found: Loaded, out: Outcome) -> None:
    """A photo as a source gives it."""
    for d in found.dropped:
        dropped(d)
        out.drop(d.reason)
    if found.image is None:
        need(bool(found.dropped), "neither a photo nor a reason")
        return
    image = found.image.image
    for text in (image.image_id, image.source, image.path, image.photo, image.licence):
        printable(text)
    need(image.width < 2**31 and image.height < 2**31, image)
    for i in found.image.instances:
        instance(i, image.width, image.height)


def dropped(d: Dropped) -> None:
    """A dropped record says why, in what a table can hold."""
    need(_REASON.fullmatch(d.reason) is not None, d)
    for text in (d.id, d.detail, d.source):
        printable(text)
    need(bool(d.id) and len(d.id) + len(d.detail) < 2 * 2**20, f"{len(d.id)} and {len(d.detail)} characters")


def instance(i: Instance, width: int, height: int) -> None:
    """An instance inside its photo."""
    printable(i.instance_id)
    printable(i.label)
    need(bool(i.label) and i.label == i.label.strip().lower(), i.label)
    box(i.box, width, height)
    if i.mask is not None:
        need((i.mask.height, i.mask.width) == (height, width), "a mask of another frame")
        mask(i.mask)
    if i.parsing is not None:
        label_map(i.parsing, height, width)


def box(b: Box, width: float, height: float) -> None:
    """Finite, not empty, inside."""
    need(all(map(math.isfinite, b)), b)
    need(b.area > 0 and b.x0 >= 0 and b.y0 >= 0 and b.x1 <= width and b.y1 <= height, (b, width, height))


def mask(m: Mask) -> None:
    """RLE, pixels, area and box of a mask agree."""
    need(0 <= m.area <= m.height * m.width, m.area)
    if m.height * m.width <= 40_000:
        pixels = m.decode()
        need(pixels.shape == (m.height, m.width) and int(pixels.sum()) == m.area, "area")
        b = m.box
        need(m.area == 0 or (b.x0 >= 0 and b.y0 >= 0 and b.x1 <= m.width and b.y1 <= m.height), b)


def label_map(m: LabelMap, height: int, width: int) -> None:
    """A label map of the frame."""
    need((m.height, m.width) == (height, width), "a label map of another frame")
    if height * width <= 40_000:
        need(m.decode().shape == (height, width), "labels")
