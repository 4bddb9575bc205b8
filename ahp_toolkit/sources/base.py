"""What every source file offers, and what they share.

A source module is a format. It has: ``LICENCE`` and ``HOMEPAGE`` (str); ``inputs(root)``, the annotation files it
reads; ``scan(root, name)``, a light, streaming index in a fixed order; ``load(root, entry)``, the photo with its
instances, run in workers; ``read(root, name)``, both in one; and ``write(root, scenes)``, the inverse of ``read``, for
examples and tests. Where the number of entries is known without a pass over the annotations, ``total(root)`` gives it
(for progress). A build may have several roots of one format: ``name`` is the user's name of one root, which begins
every id and is ``ImageRef.source``. Photo keys (``ImageRef.photo``) do not depend on it where the dataset has its own
ids.

Facts about a format, each optional: ``RANK`` (int), of two sources that annotate a photo equally well the lower one
wins; ``IS_CROP``, its photos are crops, over which a whole photo wins; ``HAS_PARSINGS``, a parser can learn from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ahp_toolkit.core.records import Dropped, SourceImage
from ahp_toolkit.storage.images import Rgb

PERSON = "person"
#: Begins the detail of a Dropped that was no person; its label follows.
LABEL = "label="
#: LIP's 20 part labels; the index is the label value (formats §3).
PARTS = (
    "background", "hat", "hair", "glove", "sunglasses", "upper-clothes", "dress", "coat", "socks", "pants", "jumpsuits",
    "scarf", "skirt", "face", "left-arm", "right-arm", "left-leg", "right-leg", "left-shoe", "right-shoe",
)  # fmt: skip
#: The pairs that swap when a picture is mirrored: left and right are the person's own (formats §3).
PART_PAIRS = ((14, 15), (16, 17), (18, 19))


@dataclass(frozen=True, slots=True)
class Entry:
    """One photo of a source's index: picklable, as small as it can be. ``payload`` is the source's own affair."""

    image_id: str
    payload: Any

    @property
    def source(self) -> str:
        """The name of the source, with which the id begins."""
        return self.image_id.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A photo with its usable instances; bad records with their reasons (``Dropped.id``: instance or image id).

    An instance's id has a ``#``; what is wrong with a file that an instance can do without is ``<image id>/mask``.
    ``looked``: where a photo that is not there was looked for, below the data root; with an image, which may be made
    without a look at its photo, where that may lie.
    """

    image: SourceImage | None
    dropped: tuple[Dropped, ...] = ()
    looked: tuple[str, ...] = ()


def was_human(dropped: Dropped) -> bool:
    """Whether a Dropped stands for one human: an instance of no other label."""
    return "#" in dropped.id and not dropped.detail.startswith(LABEL)


@dataclass(frozen=True, slots=True)
class Scene:
    """What ``write`` takes: a photo's annotations and its pixels (RGB uint8 [H, W, 3]).

    ``split`` is the source's own split the photo goes to (``train`` or ``val``).
    """

    image: SourceImage
    pixels: Rgb
    split: str = "train"


class Source(Protocol):
    """The shape of a source module."""

    LICENCE: str
    HOMEPAGE: str

    def inputs(self, root: Path) -> list[Path]:
        """The annotation files read; UserError (one line, naming the path) when ``root`` is no such dataset."""

    def scan(self, root: Path, name: str) -> Iterator[Entry]:
        """Every photo with at least one instance, in a fixed order, streaming; UserError on a cut file."""

    def load(self, root: Path, entry: Entry) -> Loaded:
        """The whole photo; bad instances are in ``dropped``, nothing raises for bad data."""

    def read(self, root: Path, name: str) -> Iterator[SourceImage]:
        """``scan`` and ``load`` in one."""

    def write(self, root: Path, scenes: Iterable[Scene]) -> None:
        """The inverse of ``read``: the dataset's own folder layout and formats."""


def read_all(
    root: Path, name: str, scan: Callable[[Path, str], Iterator[Entry]], load: Callable[[Path, Entry], Loaded]
) -> Iterator[SourceImage]:
    """Every loadable photo of a source, in order."""
    for entry in scan(root, name):
        loaded = load(root, entry)
        if loaded.image is not None:
            yield loaded.image
