"""What every source module offers, and what the modules share.

A source module is a format. It has ``LICENCE`` and ``HOMEPAGE`` (str), and the functions of `Source`. A build may have
several roots of one format: ``name`` is the user's name of one root, which begins every id and is ``ImageRef.source``.
Photo keys (``ImageRef.photo``) do not depend on it where the dataset has its own ids.

Facts about a format, each optional: ``CARRIES``, what its files can hold; ``RANK`` (int), of two sources that annotate
a photo equally well the lower one wins; ``IS_CROP``, its photos are crops, over which a whole photo wins;
``HAS_PARSINGS``, a parser can learn from it; ``total(root)``, the number of entries where it is known cheaply.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.records import Dropped, SourceImage

PERSON = "person"
#: Begins the detail of a Dropped that is no person; its label follows.
LABEL = "label="
#: LIP's 20 part labels; the index is the label value (formats §3).
PARTS = (
    "background", "hat", "hair", "glove", "sunglasses", "upper-clothes", "dress", "coat", "socks", "pants", "jumpsuits",
    "scarf", "skirt", "face", "left-arm", "right-arm", "left-leg", "right-leg", "left-shoe", "right-shoe",
)  # fmt: skip
#: The pairs that swap when a picture is mirrored: left and right are the person's own (formats §3).
PART_PAIRS = ((14, 15), (16, 17), (18, 19))
#: Categories that a message names.
MOST_NAMED = 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_HUMANS = re.compile(
    r"\b(?:persons?|people|pedestrians?|humans?|m[ae]n|wom[ae]n|boys?|girls?|child(?:ren)?|kids?|bab(?:y|ies)|adults?"
    r"|riders?|players?|workers?|b?i?cyclists?|bikers?|motorcyclists?|drivers?|passengers?|athletes?|runners?|skiers?"
    r"|swimmers?|dancers?|goalkeepers?|referees?|spectators?|guys?|lady|ladies|gentlem[ae]n|customers?|employees?"
    r"|firefighters?)\b"
)
_PARTS_OF_HUMANS = re.compile(
    r"\b(?:faces?|heads?|hands?|arms?|legs?|f[oe][oe]t|hair|eyes?|ears?|nose|mouth|beard|body|parts?|helmet|vest|clothing)\b"
)


@dataclass(frozen=True)
class SourceRoot:
    """A source as the command line names it: ``NAME:FORMAT=PATH``, or ``FORMAT=PATH``, whose name is its format."""

    name: str
    format: str
    path: str

    @classmethod
    def parse(cls, text: str) -> SourceRoot:
        """Read ``[NAME:]FORMAT=PATH``.

        Raises:
            UserError: for another form, or a name of other characters than letters, digits, ``_``, ``-`` and ``.``.
        """
        head, equals, path = text.partition("=")
        name, colon, fmt = head.partition(":")
        if not equals or not path or not head or (colon and not fmt):
            raise UserError(f"expected [NAME:]FORMAT=PATH, such as coco=/data/coco or my:coco=/data/my, got {text!r}")
        if not _NAME.fullmatch(name):
            raise UserError(f"a source's name has letters, digits, '_', '-' and '.', at most 64, got {name!r}")
        return cls(name, fmt or name, path)


@dataclass(frozen=True, slots=True)
class Entry:
    """One photo of a source's index: picklable, as small as it can be. Only its source reads ``payload``."""

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
    ``looked``: where a photo may lie, below the data root.
    ``is_photo`` is False for records that belong to no photo; ``passed_over``: category -> number of instances of
    photos that are not read, where the category may be a kind of person. ``amodal``: instance id -> the whole object's
    mask, where the file has it.
    """

    image: SourceImage | None
    dropped: tuple[Dropped, ...] = ()
    looked: tuple[str, ...] = ()
    is_photo: bool = True
    amodal: Mapping[str, Mask] = field(default_factory=dict)
    passed_over: Mapping[str, int] = field(default_factory=dict)


class PassedOver(NamedTuple):
    """Payload of the last entry of a source that leaves photos out: how many instances of which category they have."""

    labels: dict[str, int]


def passed_over(labels: Sequence[str], counts: Sequence[int]) -> PassedOver | None:
    """The categories to name: those that may be kinds of people, all where no label is ``person``; None for none.

    Args:
        labels: label of each category, ``person`` for people.
        counts: instances of each in photos that are left out.
    """
    every = PERSON not in labels
    found = Counter({x: int(n) for x, n in zip(labels, counts, strict=True) if n and (every or may_be_human(x))})
    return PassedOver(dict(found.most_common(MOST_NAMED))) if found else None


def was_human(dropped: Dropped) -> bool:
    """Whether a Dropped stands for one human: an instance of no other label."""
    return "#" in dropped.id and not dropped.detail.startswith(LABEL)


def may_be_human(label: str) -> bool:
    """Whether a category's name means a kind of person: 'pedestrian', 'construction worker', but not 'human face'."""
    plain = re.sub(r"[^a-z]+", " ", label.lower())
    return _HUMANS.search(plain) is not None and _PARTS_OF_HUMANS.search(plain) is None


def label_of(category: str, person_names: Collection[str]) -> str:
    """The label of a category: lower case; ``person`` for those of ``person_names`` (lower case) too."""
    plain = category.strip().lower()
    return PERSON if plain in person_names else plain


class Source(Protocol):
    """The shape of a source module."""

    LICENCE: str
    HOMEPAGE: str

    def inputs(self, root: Path) -> list[Path]:
        """The annotation files read; UserError (one line, naming the path) when ``root`` is no such dataset."""

    def scan(self, root: Path, name: str, person_names: Collection[str] = ()) -> Iterator[Entry]:
        """Every photo with at least one instance, in a fixed order, streaming; UserError on a cut file.

        ``person_names`` (lower case) are categories that are people beside ``person``.
        """

    def load(self, root: Path, entry: Entry) -> Loaded:
        """The whole photo; bad instances are in ``dropped``, nothing raises for bad data."""


def read_all(module: Any, root: Path, name: str, person_names: Collection[str] = ()) -> Iterator[SourceImage]:
    """Every loadable photo of a source, in order."""
    for entry in module.scan(root, name, person_names):
        loaded = module.load(root, entry)
        if loaded.image is not None:
            yield loaded.image
