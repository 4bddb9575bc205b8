"""The five sources and the importer of AHP: small valid datasets of each, one or two of their files made hostile."""

from __future__ import annotations

import io
import json
import os
import zlib
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.sources import SOURCES
from tests import source_scenes as world
from tests.harness.fuzz import check, mutate
from tests.harness.fuzz.check import Outcome, Target

TREES = 3


class Source(Target):
    """``scan`` and ``load`` of one source over a dataset with a hostile file in it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.module = SOURCES.get(self.name)
        self.roots = [folder / f"{self.name}{n}" for n in range(TREES)]
        for n, root in enumerate(self.roots):
            root.mkdir(parents=True, exist_ok=True)
            made = world.scenes(self.name, self.module, (1, 2, 1)[n], n)
            world.write_scenes(self.name, root, [replace(s, split="train") for s in made])
            ENRICH.get(self.name, lambda root: None)(root)
        self.files = [sorted(p for p in root.rglob("*") if p.is_file()) for root in self.roots]
        self.whole = {p: p.read_bytes() for files in self.files for p in files}

    def step(self, rng: Random, huge: bool) -> Outcome:
        which = rng.randrange(TREES)
        files = self.files[which]
        texts = [p for p in files if p.suffix in (".json", ".csv", ".txt", ".xml", ".mat")]
        victims = {rng.choice(texts if texts and rng.random() < 0.7 else files)}
        if rng.random() < 0.1:
            victims.add(rng.choice(files))
        try:
            for path in victims:
                write(path, hostile(path, self.whole[path], rng, huge))
            return self.read(self.roots[which])
        finally:
            for path in victims:
                write(path, self.whole[path])

    def read(self, root: Path) -> Outcome:
        """Everything that a build does with a data root before its own rules."""
        out = Outcome()
        try:
            for entry in self.module.scan(root):
                check.printable(entry.image_id)
                check.loaded(self.module.load(root, entry), out)
        except UserError as e:
            check.one_line(e)
            return Outcome("refused", {"user_error"})
        return out


def write(path: Path, data: bytes) -> None:
    """Write a file, quickly."""
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CREAT, 0o644)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def hostile(path: Path, data: bytes, rng: Random, huge: bool) -> bytes:
    """A hostile variant of a file of a dataset."""
    return mat(data, rng) if path.suffix == ".mat" else mutate.of_kind(path.suffix)(data, rng, huge)


def mat(data: bytes, rng: Random) -> bytes:
    """A hostile variant of a MATLAB file: the unpacked elements changed, packed again or not."""
    if rng.random() < 0.2:
        return mutate.flip(data, rng)
    element = zlib.decompress(data[136:])
    # headers stand at the front: most changes go there
    cut = rng.choice((64, 200, 400, len(element)))
    element = mutate.flip(element[:cut], rng) + element[cut:]
    if rng.random() < 0.5:
        return data[:128] + element
    packed = zlib.compress(element, 1)
    return data[:128] + (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed


# --- what the written worlds lack -----------------------------------------------------------------------------------


def _coco(root: Path) -> None:
    """All forms of outlines, a crowd, keys that real files have."""
    for path in root.glob("annotations/*.json"):
        said = json.loads(path.read_bytes())
        image = said["images"][0]
        h, w = image["height"], image["width"]
        image |= {"flickr_url": "http://farm1.staticflickr.com/1/123_abc_z.jpg", "license": 1, "date_captured": "x"}
        shapes = ([[1.5, 1, 30, 2, 20, 30.25]], {"size": [h, w], "counts": [5, 20, h * w - 25]}, None)
        for k, shape in enumerate(shapes):
            box = [1, 1, 30, 30]
            said["annotations"].append(
                {"id": 900_100_000_257 + k, "image_id": image["id"], "category_id": said["categories"][0]["id"],
                 "bbox": box, "area": 12.5, "iscrowd": int(k == 1), "segmentation": shape}
            )  # fmt: skip
        said["licenses"] = [{"id": 1, "name": "BY", "url": ""}]
        path.write_text(json.dumps(said))


def _openimages(root: Path) -> None:
    """Classes, hierarchy and image info beside boxes and masks."""
    tree = {"LabelName": "/m/0bl9f", "Subcategory": [{"LabelName": "/m/01g317", "Subcategory": [
        {"LabelName": "/m/04yx4", "Part": [{"LabelName": "/m/0dzct"}]}, {"LabelName": "/m/03bt1vf"}]}]}  # fmt: skip
    (root / "bbox_labels_600_hierarchy.json").write_text(json.dumps(tree))
    (root / "class-descriptions-boxable.csv").write_text("/m/01g317,Person\n/m/04yx4,Man\n/m/0k4j,Car\n")
    names = "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,OriginalSize,Rotation"
    for split in ("train",):
        rows = [
            f'{n:016x},{split},https://farm1.staticflickr.com/1/{n}77_ab_o.jpg,x,https://x/,x,"A, ""b""","a\nb",5,0.0'
            for n in range(1, 4)
        ]
        (root / f"{split}-images-with-rotation.csv").write_text("\n".join([names, *rows, ""]))


def _voc(root: Path) -> None:
    """Parts and decimals, as the real XML has them."""
    for path in root.rglob("*.xml"):
        part = (
            "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9.5</xmax><ymax>9</ymax></bndbox></part>"
        )
        path.write_text(path.read_text().replace("</object>", part + "</object>", 1))
    photo = next(root.rglob("*.jpg"))
    if not any(root.rglob("*.mat")):  # a tree without SBD gets one photo of it
        from scipy.io import savemat

        from ahp_toolkit.storage import images

        h, w = images.read(photo).shape[:2]
        labels = np.zeros((h, w), np.uint8)
        labels[5:30, 5:30], labels[5:30, 40:60] = 1, 2
        edges = np.empty((2, 1), object)
        edges[:, 0] = [np.eye(3)] * 2
        buffer = io.BytesIO()
        record = {"Segmentation": labels, "Boundaries": edges, "Categories": np.array([[15], [7]], np.uint8)}
        savemat(buffer, {"GTinst": record}, do_compression=True)
        folder = root / "benchmark_RELEASE" / "dataset"
        for place, data in (("inst/2009_000001.mat", buffer.getvalue()), ("img/2009_000001.jpg", photo.read_bytes())):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_bytes(data)


ENRICH = {"coco": _coco, "openimages": _openimages, "voc_sbd": _voc}


class Coco(Source):
    name = "coco"
    share = 1.1


class Objects365(Source):
    name = "objects365"
    share = 1.1


class OpenImages(Source):
    name = "openimages"
    share = 0.2


class VocSbd(Source):
    name = "voc_sbd"
    share = 0.6


class Lip(Source):
    name = "lip"
    share = 0.85


class Ahp(Source):
    name = "ahp"
    share = 0.85


class Harvest(Target):
    """The harvest stage over all sources in turn, tables and all."""

    name = "harvest"
    share = 0.05

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.sources = [kind(folder) for kind in SOURCE_TARGETS]

    def step(self, rng: Random, huge: bool) -> Outcome:
        source = rng.choice(self.sources)
        out = Outcome()

        def read(root: Path) -> Outcome:
            from ahp_toolkit.core.records import Candidate, Dropped, Occluder
            from ahp_toolkit.stages.harvest import Harvest as Stage
            from ahp_toolkit.stages.harvest import Rules
            from ahp_toolkit.storage.parquet import to_table

            try:
                items = [(source.name, e) for e in source.module.scan(root)]
            except UserError as e:
                check.one_line(e)
                return Outcome("refused", {"user_error"})
            made = Stage({source.name: str(root)}, Rules(min_area=20, gutter=1))(items)
            to_table(made.tables[""], Candidate)
            to_table(made.tables["occluders"], Occluder)
            to_table(made.dropped, Dropped)
            for d in made.dropped:
                check.dropped(d)
                out.drop(d.reason)
            return out

        plain, source.read = source.read, read  # type: ignore[method-assign]
        try:
            return source.step(rng, huge)
        finally:
            source.read = plain  # type: ignore[method-assign]


SOURCE_TARGETS: tuple[type[Source], ...] = (Coco, Objects365, OpenImages, VocSbd, Lip, Ahp)
