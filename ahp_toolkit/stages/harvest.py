"""STAGE harvest: SourceImage -> Candidate (people worth asking about) and Occluder (paper §4.1 (1); spec §1).

Dropped, in this order: bad records (by the source), crowd / group / depiction / reflection marks, area under 300 px
(mask area where there is a mask, else box area), any pixel of the mask (else of the box) within a 5 px gutter along
the image borders, and people of photos that cannot be decoded. Each rule is a setting.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import imagehash
import numpy as np
from PIL import Image

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.neighbours import neighbours_of
from ahp_toolkit.core.records import Candidate, Dropped, ImageRef, Instance, Occluder
from ahp_toolkit.runtime.stage import MAIN, Output
from ahp_toolkit.sources import SOURCES
from ahp_toolkit.sources.base import LABEL, MOST_NAMED, PERSON, Entry, Source, may_be_human, was_human
from ahp_toolkit.storage import images, locations, missing, parquet

STAGE = "harvest"
#: Counts: instances of categories that may be people and are not read as such; photos whose EXIF turn is not applied.
PASSED_OVER, AS_STORED = "passed_over", "as_stored"
#: Reasons of the harvest's own rules.
RULES = ("crowd", "group", "depiction", "reflection", "small", "gutter")


@dataclass(frozen=True)
class Rules:
    """What makes a human a candidate.

    ``min_area`` px²; ``gutter`` px along the four borders; ``drop_flags`` marks that end a human's way; ``verify``
    decodes every photo that gives anything (a broken one is found here and not in the middle of a training);
    ``person_names`` are categories that are people beside ``person``, in any case.
    """

    min_area: int = 300
    gutter: int = 5
    drop_flags: tuple[str, ...] = ("crowd", "group", "depiction", "reflection")
    verify: bool = True
    person_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Photo:
    """What tells two files of one photograph: exact keys, a 64-bit pHash, and a 16x16 grey thumbnail to verify it.

    ``people`` and ``masks`` count the usable humans and those with masks: the better annotated source wins.
    """

    image_id: str
    source: str
    keys: str
    phash: bytes
    thumb: bytes
    people: int
    masks: int


@dataclass(frozen=True)
class Harvest:
    """The stage function over (source, Entry); ``roots`` and ``formats`` give each source's data root and format."""

    roots: dict[str, str]
    rules: Rules
    formats: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, items: Sequence[tuple[str, Entry]]) -> Output:
        """One shard of photos."""
        out = Output({MAIN: [], "occluders": [], "photos": []})
        for source, entry in items:
            self._photo(source, entry, out)
        return out

    def _photo(self, source: str, entry: Entry, out: Output) -> None:
        root = locations.place(self.roots[source])
        loaded = SOURCES.get(self.formats.get(source, source)).load(root, entry)
        out.dropped.extend(replace(d, stage=STAGE, source=source) for d in loaded.dropped)
        out.counts[f"images/{source}"] += loaded.is_photo
        out.counts[f"persons/{source}"] += sum(map(was_human, loaded.dropped))
        for label, count in loaded.passed_over.items():
            out.counts[f"{PASSED_OVER}/{source}/{label}"] += count
        if loaded.image is None:
            return
        image, instances = loaded.image.image, loaded.image.instances
        people = [i for i in instances if i.label == PERSON]
        out.counts[f"persons/{source}"] += len(people)
        for instance in instances:
            if instance.label != PERSON and may_be_human(instance.label):
                out.counts[f"{PASSED_OVER}/{source}/{instance.label}"] += 1
        kept, dropped = self._sift(source, people, image)
        out.dropped.extend(dropped)
        sources_of_occlusion = [i for i in instances if i.mask is not None and not (i.flags.crowd or i.flags.group)]
        if not kept and not sources_of_occlusion:
            return
        try:
            image, phash, thumb = self._verify(root, image, out)
        except (images.ImageError, ValueError) as e:
            reason = f"image_{e.reason}" if isinstance(e, images.ImageError) else "unsafe_path"
            out.dropped.extend(Dropped(i.instance_id, STAGE, reason, str(e), source) for i in kept)
            out.counts[f"occluders_lost/{source}"] += len(sources_of_occlusion)
            return
        _emit(out, image, instances, kept, sources_of_occlusion)
        masks = sum(i.mask is not None for i in kept)
        out.tables["photos"].append(Photo(image.image_id, source, image.photo, phash, thumb, len(kept), masks))

    def _sift(self, source: str, people: list[Instance], image: ImageRef) -> tuple[list[Instance], list[Dropped]]:
        kept, dropped = [], []
        for person in people:
            why = self.reason(person, image)
            if why is None:
                kept.append(person)
            else:
                dropped.append(Dropped(person.instance_id, STAGE, why[0], why[1], source))
        return kept, dropped

    def reason(self, person: Instance, image: ImageRef) -> tuple[str, str] | None:
        """(reason, detail) for which the rules drop a human, or None."""
        for flag in self.rules.drop_flags:
            if getattr(person.flags, flag):
                return flag, f"marked {flag} by its source"
        area = person.mask.area if person.mask is not None else person.box.area
        if area < self.rules.min_area:
            return "small", f"{area:.0f} px, at least {self.rules.min_area} are asked for"
        box = person.mask.box if person.mask is not None else person.box
        if box.touches_border(image.width, image.height, self.rules.gutter):
            return "gutter", f"within {self.rules.gutter} px of the image border"
        return None

    def _verify(self, root: Path, image: ImageRef, out: Output) -> tuple[ImageRef, bytes, bytes]:
        path = locations.find(root, image.path)
        if not self.rules.verify:
            images.header(path).frame((image.width, image.height))
            return image, b"", b""
        data = images.read_bytes(path)
        try:
            pixels = images.decode(data, (image.width, image.height))
        except images.ImageError as e:
            raise images.ImageError(e.reason, f"{image.path}: {e}") from e
        head = images.header(data)
        if head.orientation > 1 and not head.frame((image.width, image.height))[1]:
            out.counts[f"{AS_STORED}/{image.source}"] += 1
        return replace(image, digest=hashing.digest_bytes(data)), *fingerprint(pixels)


def entries_of(reader: Source, root: Path, name: str, person_names: Collection[str] = ()) -> Iterator[Entry]:
    """The photos of a source, after a look at its first ones: a disk that is not mounted is not harvested.

    Where none of the first `missing.CHECKED` photos is there (a user may have fetched the last split alone), photos
    all over the source are looked for, in a scan of their own.

    Raises:
        UserError: when not one photo that was looked for is there.
        StorageError: when a store does not answer.
    """
    entries = reader.scan(root, name, person_names)
    first = list(itertools.islice(entries, missing.CHECKED))
    looked = itertools.chain(first, _spread(reader, root, name))
    missing.check(name, str(root), _places(reader, root, looked))
    yield from first
    yield from entries


def _spread(reader: Source, root: Path, name: str) -> Iterator[Entry]:
    """A few hundred photos of a source, ever further apart."""
    following = missing.CHECKED
    for n, entry in enumerate(reader.scan(root, name)):
        if n == following:
            following += max(1, n // 50)
            yield entry


def _places(reader: Source, root: Path, entries: Iterable[Entry]) -> Iterator[Sequence[str]]:
    """Where each photo lies or may lie below the root; nothing for entries without a photo."""
    for entry in entries:
        loaded = reader.load(root, entry)
        if loaded.image is not None:
            yield (loaded.image.image.path,)
        elif loaded.looked:
            yield loaded.looked


def fingerprint(pixels: images.Rgb) -> tuple[bytes, bytes]:
    """(64-bit pHash, 16x16 grey thumbnail) of RGB uint8 [H, W, 3]."""
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    small = np.asarray(cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA), np.uint8)
    phash = np.packbits(imagehash.phash(Image.fromarray(small)).hash.ravel()).tobytes()
    thumb = np.asarray(cv2.resize(small, (16, 16), interpolation=cv2.INTER_AREA), np.uint8)
    return phash, thumb.tobytes()


def _emit(
    out: Output,
    image: ImageRef,
    instances: Sequence[Instance],
    kept: Sequence[Instance],
    occluders: Sequence[Instance],
) -> None:
    around = neighbours_of(kept, instances, image.height, image.width)
    for person, near in zip(kept, around, strict=True):
        # the source's own box: how well a mask fills it tells the mask's quality
        out.tables[MAIN].append(
            Candidate(person.instance_id, image, person.box, person.mask, person.parsing, person.flags, near)
        )
    for o in occluders:
        assert o.mask is not None
        area = o.mask.area
        if area == 0:
            continue
        out.tables["occluders"].append(Occluder(o.instance_id, image, o.label, o.mask.box, o.mask, area))


def remarks(counts: Mapping[str, int]) -> list[str]:
    """What a user should know of a harvest, one line each: people passed over, EXIF turns not applied."""
    found: dict[str, list[tuple[int, str]]] = {}
    for key, count in counts.items():
        kind, _, rest = key.partition("/")
        source, _, label = rest.partition("/")
        if kind == PASSED_OVER and may_be_human(label):
            found.setdefault(source, []).append((-count, label))
    lines = []
    for source, labels in sorted(found.items()):
        named = ", ".join(f"{-n} {label}" for n, label in sorted(labels)[:MOST_NAMED])
        lines.append(f"{source}: not read as people: {named}; to read them add --person-name {min(labels)[1]!r}")
    for key in sorted(counts):
        kind, _, source = key.partition("/")
        if kind == AS_STORED:
            lines.append(
                f"{source}: {counts[key]} photos have an EXIF turn that their annotations do not follow; "
                "their pixels are used as stored"
            )
    return lines


#: What a user can do where all of a source falls for a reason.
_WAYS_OUT = {
    "missing": "look at the data root (--source), mount or fetch the photos",
    "unsafe_path": "photos must lie below the data root: copy or mount them there, links out of it are not followed",
    "ambiguous_photo": "give each photo a path below the data root in its record",
    "malformed": "write the fields that the detail names, or leave the source out",
}


def refuse_unusable(folder: Path, counts: Mapping[str, int], sources: Collection[str]) -> None:
    """Refuse a source that gives no candidate where one cause explains it.

    A source without people whose other instances can occlude is used for these.

    Args:
        folder: of the raw harvest (tables ``photos`` and ``dropped``).
        counts: of the raw harvest.

    Raises:
        UserError: with the reason, the count and one example.
    """
    people, photos = Counter[str](), Counter[str]()
    for part in parquet.parts(folder / "photos"):
        for row in parquet.read_table(part, ["source", "people"]).to_pylist():
            people[row["source"]] += row["people"]
            photos[row["source"]] += 1
    for source in sorted(s for s in sources if not people[s]):
        lost = Counter[str]()
        example: dict[str, tuple[str, str]] = {}
        for d in parquet.read_records(folder / "dropped.parquet", Dropped):
            if d.source == source and not d.detail.startswith(LABEL):
                lost[d.reason] += 1
                example.setdefault(d.reason, (d.id, d.detail))
        persons = counts.get(f"persons/{source}", 0)
        if lost and not any(reason in RULES for reason in lost) and (len(lost) == 1 or not photos[source]):
            reason, n = lost.most_common(1)[0]
            way = _WAYS_OUT.get(reason.removeprefix("image_"), "mend the annotations, or leave the source out")
            whole = f"{persons} persons" if persons else f"{counts.get(f'images/{source}', 0)} photos"
            such = ": ".join(example[reason])
            raise UserError(f"{source}: not one of its {whole} can be used: {n} {reason}, such as {such}; {way}")
        passed = {k.split("/", 2)[2]: n for k, n in counts.items() if k.startswith(f"{PASSED_OVER}/{source}/")}
        if not persons and not lost and (passed or not photos[source]):
            named = ", ".join(f"{n} {label}" for label, n in sorted(passed.items(), key=lambda p: -p[1])[:MOST_NAMED])
            raise UserError(
                f"{source}: no category is a person{f', it has {named}' if named else ''}; name those that are, "
                f"such as --person-name {next(iter(passed), 'NAME')!r}, or leave the source out"
            )
