"""How each of the five datasets would annotate a scene: ids, class names, masks or boxes, flags."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ahp_toolkit.core import masks
from ahp_toolkit.core.hashing import seed_of
from ahp_toolkit.core.masks import Box
from ahp_toolkit.core.records import Flags, ImageRef, Instance, SourceImage
from ahp_toolkit.sample_world.scene import WorldObject, WorldPerson, WorldScene
from ahp_toolkit.sample_world.truth import Truth, truth_of
from ahp_toolkit.sample_world.writers.base import Scene
from ahp_toolkit.sources.base import PERSON
from ahp_toolkit.sources.openimages import instance_id

#: our names -> the dataset's; a name that is missing is not annotated there (an occluder nobody has marked)
COCO = {
    n: n for n in (
        "chair", "dining table", "potted plant", "car", "bicycle", "dog", "stop sign", "umbrella", "suitcase", "bench",
        "fire hydrant", "sports ball", "tv", "couch",
    )
}  # fmt: skip
VOC = {
    "chair": "chair", "dining table": "diningtable", "potted plant": "pottedplant", "car": "car", "bicycle": "bicycle",
    "dog": "dog", "tv": "tvmonitor", "couch": "sofa",
}  # fmt: skip
#: px around a person that LIP's crops show
LIP_MARGIN = 14
_MIDS = ("/m/01g317", "/m/04yx4", "/m/03bt1vf", "/m/01bl7v", "/m/05r655")


@dataclass(slots=True)
class Annotated:
    """A photo as its dataset says it is, with the truth of its people."""

    scene: Scene
    truths: list[Truth] = field(default_factory=list)


def split_of(index: int) -> str:
    """Every eighth photo is the source's own val."""
    return "val" if index % 8 == 5 else "train"


def coco_number(index: int) -> int:
    """The COCO id of scene ``index``."""
    return 100_000 + index


def flickr(seed: int, index: int) -> str:
    """The Flickr key of scene ``index``: the same in every dataset that shows it."""
    return f"flickr/{seed_of('flickr', seed, index) % 9_000_000_000 + 1_000_000_000}"


def _ref(scene: WorldScene, source: str, stem: str, photo: str = "") -> ImageRef:
    height, width = scene.pixels.shape[:2]
    return ImageRef(f"{source}/{stem}", source, "", width, height, photo=photo)


def _finish(scene: WorldScene, ref: ImageRef, found: list[tuple[Instance, int]], masked: bool) -> Annotated:
    """``found``: instances with the number of the person they show, or -1 for a thing."""
    image = SourceImage(ref, tuple(i for i, _ in found))
    out = Annotated(Scene(image, scene.pixels, split_of(scene.index)))
    for instance, n in found:
        if n >= 0:
            has = masked and instance.mask is not None
            out.truths.append(truth_of(scene, n, instance.instance_id, ref.image_id, has))
    return out


def _all(scene: WorldScene) -> Iterator[tuple[WorldPerson | WorldObject, int]]:
    yield from ((p, n) for n, p in enumerate(scene.people))
    yield from ((o, -1) for o in scene.objects)


def coco(scene: WorldScene) -> Annotated:
    """Masks for everything; crowds as ``iscrowd``; no other flags, pictures and reflections pass for people."""
    number = coco_number(scene.index)
    ref = _ref(scene, "coco", f"{number:012d}", flickr(scene.seed, scene.index))
    found = []
    for k, (thing, n) in enumerate(_all(scene), 1):
        if isinstance(thing, WorldObject) and thing.label not in COCO:
            continue
        crowd = isinstance(thing, WorldPerson) and thing.crowd
        tail = 900_100_000_000 + number if crowd else number * 100 + k
        label = COCO[thing.label] if isinstance(thing, WorldObject) else PERSON
        mask = masks.encode(thing.given if isinstance(thing, WorldPerson) else thing.modal)
        found.append((Instance(f"{ref.image_id}#{tail}", label, mask.box, mask, None, Flags(crowd=crowd)), n))
    return _finish(scene, ref, found, True)


def objects365(scene: WorldScene) -> Annotated:
    """Boxes only, with the flags crowd, fake and reflected."""
    ref = _ref(scene, "objects365", f"objects365_v2_{900_001 + scene.index:08d}")
    found = []
    for k, (thing, n) in enumerate(_all(scene), 1):
        flags = Flags(crowd=False, depiction=False, reflection=False)
        label = thing.label if isinstance(thing, WorldObject) else PERSON
        if isinstance(thing, WorldPerson):
            flags = Flags(crowd=thing.crowd, depiction=thing.depiction, reflection=thing.reflection)
        found.append((Instance(f"{ref.image_id}#{scene.index * 100 + k}", label, thing.box, flags=flags), n))
    return _finish(scene, ref, found, False)


def openimages(scene: WorldScene) -> Annotated:
    """Boxes with flags (at times unknown), the most specific human class, masks for two photos in three."""
    stem = f"{seed_of('openimages', scene.seed, scene.index):016x}"
    ref = _ref(scene, "openimages", stem, flickr(scene.seed, scene.index))
    known, masked = scene.index % 5 != 4, scene.index % 3 != 0
    found, seen = [], set()
    for k, (thing, n) in enumerate(_all(scene)):
        person = isinstance(thing, WorldPerson)
        mask = masks.encode(thing.given if isinstance(thing, WorldPerson) else thing.modal) if masked else None
        box = mask.box if mask is not None else thing.box
        sides = box.scaled(1 / ref.width, 1 / ref.height)
        label = PERSON if isinstance(thing, WorldPerson) else thing.label
        mid = _MIDS[(scene.index + k) % 5] if person else f"/m/0{seed_of('class', label) % 16**6:06x}"
        id_ = instance_id(ref.image_id, mid, (sides.x0, sides.x1, sides.y0, sides.y1))
        if id_ in seen or (isinstance(thing, WorldPerson) and thing.crowd and masked and not mask):
            continue
        seen.add(id_)
        found.append((Instance(id_, label, box, mask, None, _oi_flags(thing, known)), n))
    return _finish(scene, ref, found, masked)


def _oi_flags(thing: WorldPerson | WorldObject, known: bool) -> Flags:
    group = isinstance(thing, WorldPerson) and thing.crowd
    depiction = isinstance(thing, WorldPerson) and thing.depiction
    occluded = thing.occluded if known else None
    return Flags(group=group, depiction=depiction, inside=False, occluded=occluded, truncated=thing.cut)


def voc_sbd(scene: WorldScene) -> Annotated:
    """VOC with flags and masks, every other photo SBD (masks only); crowds are ``difficult``, in SBD left out."""
    ref = _ref(scene, "voc_sbd", f"2008_{scene.index + 1:06d}")
    sbd = scene.index % 2 == 0
    found: list[tuple[Instance, int]] = []
    for thing, n in _all(scene):
        crowd = isinstance(thing, WorldPerson) and thing.crowd
        if (isinstance(thing, WorldObject) and thing.label not in VOC) or (crowd and sbd):
            continue
        label = VOC[thing.label] if isinstance(thing, WorldObject) else PERSON
        mask = masks.encode(thing.modal)
        flags = Flags() if sbd else Flags(occluded=thing.occluded, truncated=thing.cut, difficult=crowd)
        found.append((Instance(f"{ref.image_id}#{len(found) + 1}", label, mask.box, mask, None, flags), n))
    return _finish(scene, ref, found, False)


def lip(scene: WorldScene) -> Iterator[Annotated]:
    """A crop around each person, with the body parts of what is visible."""
    number = coco_number(scene.index)
    for n, person in enumerate(scene.people):
        if person.crowd or person.depiction or person.reflection or person.reason == "too_small":
            continue
        image_id = f"lip/{number}_{number * 100 + n + 1}"
        window = _window(person.box, scene.pixels.shape[1], scene.pixels.shape[0])
        x0, y0, x1, y1 = window
        seen = (person.parsing * person.modal)[y0:y1, x0:x1]
        mask = masks.encode(seen > 0)
        ref = ImageRef(image_id, "lip", "", x1 - x0, y1 - y0)
        instance_id = f"{image_id}#{number * 100 + n + 1}"
        instance = Instance(instance_id, PERSON, mask.box, mask, masks.encode_labels(seen.copy()))
        image = SourceImage(ref, (instance,))
        truth = truth_of(scene, n, instance_id, image_id, False, window)
        yield Annotated(Scene(image, scene.pixels[y0:y1, x0:x1].copy(), split_of(scene.index)), [truth])


def _window(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    wide = Box(box.x0 - LIP_MARGIN, box.y0 - LIP_MARGIN, box.x1 + LIP_MARGIN, box.y1 + LIP_MARGIN)
    return wide.clip(width, height).pixels()
