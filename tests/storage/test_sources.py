"""All five sources read from a store, and from archives there, as from local files."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from ahp_toolkit.core import hashing
from ahp_toolkit.sample_world import write_world
from ahp_toolkit.storage import locations
from tests.build.steps import config, made

SOURCES = ("coco", "lip", "objects365", "openimages", "voc_sbd")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("world")
    write_world(root, scenes=13, size=(160, 160))
    return root


def harvest(out: Path, roots: dict[str, Path]) -> tuple[dict[str, str], dict[str, int]]:
    result = made(config(out, roots), "harvest")["harvest"]
    tables = {p.relative_to(out).as_posix(): hashing.digest_file(p) for p in out.rglob("*.parquet")}
    return tables, result.counts


@pytest.fixture(scope="module")
def local(world, tmp_path_factory) -> tuple[dict[str, str], dict[str, int]]:
    return harvest(tmp_path_factory.mktemp("local"), {name: world / name for name in SOURCES})


def test_five_sources_in_a_store_give_the_same_tables(s3, world, local, tmp_path):
    front, bucket, root = s3
    for name in SOURCES:
        bucket.put_tree(f"{root.removeprefix('s3://ahp/')}/{name}", world / name)
    front.forget()
    front.fault = lambda method, key, n: 503 if n % 10 == 0 else 0
    assert harvest(tmp_path / "out", {name: locations.place(f"{root}/{name}") for name in SOURCES}) == local
    jpegs = [k for m, k in front.done if m == "GET" and k.endswith(".jpg")]
    # header and pixels are one request; the first photo of a source is looked at before the harvest
    assert len(jpegs) - len(set(jpegs)) <= len(SOURCES)


def test_their_photos_in_archives_give_the_same_tables(world, local, tmp_path, monkeypatch):
    monkeypatch.setenv("AHP_CACHE", str(tmp_path / "cache"))
    shutil.copytree(world, tmp_path / "world")
    folders = ["coco/train2017", "lip/train_images", "lip/train_segmentations"]
    folders += [p.relative_to(world).as_posix() for p in sorted((world / "objects365/train").glob("patch*"))]
    for folder in folders:
        path = tmp_path / "world" / folder
        with zipfile.ZipFile(path.with_name(f"{path.name}.zip"), "w") as z:
            for p in sorted(path.iterdir()):
                z.write(p, f"{path.name}/{p.name}")
        shutil.rmtree(path)
    assert harvest(tmp_path / "out", {name: tmp_path / "world" / name for name in SOURCES}) == local
