"""Small seeded scenes that every source can write: the world of the source contract.

Masks are disjoint, boxes tight, ids of the source's own form; flags are set only where the source carries them. A
source may say more of what it needs: ``SINGLE`` (one person with a parsing a photo), ``STEMS`` (its file names).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import numpy as np

from ahp_toolkit.core import masks
from ahp_toolkit.core.records import Flags, ImageRef, Instance, SourceImage
from ahp_toolkit.sample_world.writers.base import Scene
from ahp_toolkit.storage import files, images

#: The names and photo keys of photo n, as each source gives them. Others: see `stem`.
STEMS = {
    "coco": "{n:012d}",
    "voc_sbd": "2008_{n:06d}",
    "lip": "{n}_{n}7",
    "ahp": "COCO_train2014_{n:012d}",
    "objects365": "objects365_v2_{n:08d}",
    "openimages": "{n:016x}",
}
SINGLE = frozenset({"lip", "ahp"})
FLAGS = tuple(f.name for f in fields(Flags))
LABELS = ("person", "car", "dog", "person", "chair")


def carries(module: ModuleType) -> frozenset[str]:
    return getattr(module, "CARRIES", frozenset())


def instance_number(name: str, image: int, k: int) -> str:
    """The annotation id of instance k (from 1) of photo ``image``; a COCO crowd's is larger than 2**31."""
    if name == "lip":
        return f"{image}7"
    return str(900_100_000_000 + image * 10 + k) if name == "coco" else str(k)


def _ellipse(h: int, w: int, cy: float, cx: float, ry: float, rx: float) -> masks.Bool2D:
    y, x = np.mgrid[:h, :w]
    return ((y + 0.5 - cy) / ry) ** 2 + ((x + 0.5 - cx) / rx) ** 2 <= 1


def _instance(name: str, module: ModuleType, image_id: str, n: int, k: int, shape: masks.Bool2D, seed: int) -> Instance:
    rng = np.random.default_rng([seed, n, k])
    label = LABELS[(k - 1) % len(LABELS)] if name not in SINGLE else "person"
    parsing = np.where(shape, 1 + rng.integers(0, 19, shape.shape), 0).astype(np.uint8)
    said = {f: bool(rng.integers(2)) for f in FLAGS if f in carries(module) and n % 3}
    if name == "coco":
        said = {"crowd": bool(said.get("crowd", False))}
    mask = masks.encode(shape)
    has = carries(module)
    return Instance(
        f"{image_id}#{instance_number(name, n, k)}",
        label,
        mask.box,
        mask if "mask" in has else None,
        masks.encode_labels(parsing) if "parsing" in has else None,
        Flags(**said),
    )


def scene(name: str, module: ModuleType, n: int, seed: int = 0) -> Scene:
    """Photo n: up to four ellipses side by side, one with a hole, on noise."""
    rng = np.random.default_rng([seed, n])
    h, w = int(rng.integers(40, 70)), int(rng.integers(80, 120))
    count = 1 if name in SINGLE else int(rng.integers(1, 5))
    image_id = f"{name}/{STEMS.get(name, '{n:012d}').format(n=n)}"
    instances = []
    for k in range(1, count + 1):
        cell = w / count
        radii = (float(rng.uniform(h / 4, h / 2 - 2)), float(rng.uniform(cell / 4, cell / 2 - 2)))
        shape = _ellipse(h, w, h / 2, (k - 0.5) * cell, *radii)
        if k == 2:
            shape &= ~_ellipse(h, w, h / 2, (k - 0.5) * cell, radii[0] / 3, radii[1] / 3)
        instances.append(_instance(name, module, image_id, n, k, shape, seed))
    pixels = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
    image = ImageRef(image_id, name, "", w, h)
    return Scene(SourceImage(image, tuple(instances)), pixels, ("train", "val")[n % 2])


def scenes(name: str, module: ModuleType, count: int = 6, seed: int = 0) -> list[Scene]:
    return [scene(name, module, n, seed) for n in range(1, count + 1)]


def carried(module: ModuleType, instance: Instance) -> Instance:
    """The instance with what the source cannot hold left out."""
    has = carries(module)
    flags = Flags(**{f: getattr(instance.flags, f) for f in FLAGS if f in has})
    return replace(
        instance,
        mask=instance.mask if "mask" in has else None,
        parsing=instance.parsing if "parsing" in has else None,
        flags=flags,
    )


def write(name: str, module: ModuleType, root: Path, count: int = 6, seed: int = 0) -> list[Scene]:
    """Write the world's scenes of a source below ``root``, which is made."""
    made = scenes(name, module, count, seed)
    root.mkdir(parents=True, exist_ok=True)
    write_scenes(name, root, made)
    return made


def write_scenes(name: str, root: Path, made: Iterable[Scene]) -> None:
    """Write scenes in a source's own layout and formats."""
    if name == "ahp":
        _write_ahp(root, made)
    else:
        importlib.import_module(f"ahp_toolkit.sample_world.writers.{name}").write(root, made)


def _write_ahp(root: Path, made: Iterable[Scene]) -> None:
    """The layout of the authors' release: one person with a mask a photo."""
    lists: dict[str, list[str]] = {}
    for scene in made:
        stem = scene.image.image.image_id.partition("/")[2]
        (person,) = scene.image.instances
        assert person.mask is not None
        folder = root / "AHP" / scene.split
        images.write_jpeg(folder / "JPEGImages" / f"{stem}.jpg", scene.pixels)
        images.write_png(folder / "Annotations" / f"{stem}.png", person.mask.decode().astype(np.uint8) * 255)
        if person.parsing is not None:
            images.write_png(folder / "PseudoParsingAnnotations" / f"{stem}.png", person.parsing.decode())
        lists.setdefault(scene.split, []).append(stem)
    for split, stems in lists.items():
        with files.atomic(root / "AHP" / split / "ImageSets" / f"{split}.txt", "w") as f:
            f.write("".join(f"{s}\n" for s in stems))
