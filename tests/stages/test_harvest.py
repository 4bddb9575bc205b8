"""The paper's harvest rules, known answers, and one photograph in two sources."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ahp_toolkit.build.config import Harvesting
from ahp_toolkit.core import hashing, neighbours
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box, encode
from ahp_toolkit.core.records import Candidate, Dropped, Flags, ImageRef, Instance, Occluder, SourceImage
from ahp_toolkit.report import statistics
from ahp_toolkit.runtime.stage import Result
from ahp_toolkit.sample_world import write_world
from ahp_toolkit.sample_world.writers import objects365 as objects365_writer
from ahp_toolkit.sample_world.writers.base import Scene
from ahp_toolkit.sources import SOURCES
from ahp_toolkit.stages import deduplicate, segment
from ahp_toolkit.stages import near as _near
from ahp_toolkit.stages.harvest import Photo, fingerprint
from ahp_toolkit.storage import images, parquet
from ahp_toolkit.storage.build_folder import Build
from tests.build.steps import config, made
from tests.sources import test_objects365 as o365
from tests.sources import test_openimages as oi


def photo(seed: int, size: tuple[int, int] = (120, 160)) -> images.Rgb:
    import cv2

    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


def rectangle(x0: int, y0: int, x1: int, y1: int) -> list[list[int]]:
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def coco(root: Path, people: dict[int, list[dict]], pixels: dict[int, images.Rgb] | None = None) -> Path:
    """A COCO folder: image id -> annotations (``poly`` or any raw key)."""
    annotations, pictures = [], []
    for image_id, items in people.items():
        name = f"{image_id:012d}.jpg"
        pictures.append({"id": image_id, "file_name": name, "width": 160, "height": 120, "license": 1})
        images.write_jpeg(root / "train2017" / name, (pixels or {}).get(image_id, photo(image_id)))
        for item in items:
            number = len(annotations) + 1
            x0, y0, x1, y1 = item.pop("box")
            base = {"id": number, "image_id": image_id, "category_id": 1, "iscrowd": 0, "area": 1.0}
            base |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": rectangle(x0, y0, x1, y1)}
            annotations.append(base | item)
    categories = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    said = {"images": pictures, "annotations": annotations, "categories": categories, "licenses": []}
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(said))
    return root


def harvest(tmp: Path, roots: dict[str, Path], **rules) -> tuple[Result, list[Candidate], dict[str, str]]:
    result = made(config(tmp / "out", roots, harvest=Harvesting(**rules)), "harvest")["harvest"]
    dropped = {d.id: d.reason for d in parquet.read_records(result.folder / "dropped.parquet", Dropped)}
    return result, list(parquet.read_records(result.folder, Candidate)), dropped


def test_the_papers_rules_in_their_order(tmp_path):
    people = [
        {"box": (20, 20, 60, 100)},
        {"box": (70, 20, 90, 34)},  # 280 px
        {"box": (4, 20, 40, 100)},  # in the gutter
        {"box": (100, 20, 140, 115)},  # ends 5 px before the border
        {"box": (100, 20, 140, 116)},
        {"box": (0, 0, 160, 120), "iscrowd": 1, "segmentation": {"size": [120, 160], "counts": [0, 19200]}},
        {"box": (30, 30, 40, 40), "category_id": 18},
    ]
    root = coco(tmp_path / "coco", {7: people})
    result, kept, dropped = harvest(tmp_path, {"coco": root})
    prefix = "coco/000000000007#"
    assert [c.candidate_id for c in kept] == [f"{prefix}1", f"{prefix}4"]
    assert dropped == {f"{prefix}2": "small", f"{prefix}3": "gutter", f"{prefix}5": "gutter", f"{prefix}6": "crowd"}
    assert result.counts["persons/coco"] == 6 == len(kept) + len(dropped)
    assert result.counts["occluders_other/coco"] == 1 and result.counts["occluders_person/coco"] == 5
    occluders = {o.occluder_id: o for o in parquet.read_records(result.folder / "occluders", Occluder)}
    assert occluders[f"{prefix}7"].label == "dog" and occluders[f"{prefix}7"].area == 100


def test_each_rule_is_a_setting(tmp_path):
    root = coco(tmp_path / "coco", {7: [{"box": (70, 20, 90, 34)}, {"box": (1, 20, 40, 100)}]})
    assert len(harvest(tmp_path, {"coco": root}, min_area=280, gutter=1)[1]) == 2


def test_a_photo_that_cannot_be_decoded_costs_its_people_only(tmp_path):
    root = coco(tmp_path / "coco", {i: [{"box": (20, 20, 60, 100)}] for i in (1, 2, 3)})
    broken = root / "train2017" / "000000000002.jpg"
    broken.write_bytes(broken.read_bytes()[:-300])
    (root / "train2017" / "000000000003.jpg").unlink()
    _, kept, dropped = harvest(tmp_path, {"coco": root})
    assert [c.candidate_id for c in kept] == ["coco/000000000001#1"]
    assert dropped == {"coco/000000000002#2": "image_truncated", "coco/000000000003#3": "image_missing"}


def test_the_last_split_alone_is_harvested_and_a_disk_that_is_not_mounted_is_not(
    tmp_path,
):
    root = coco(tmp_path / "coco", {i: [{"box": (20, 20, 60, 100)}] for i in range(1, 99)})
    for photo in sorted((root / "train2017").iterdir())[:50]:
        photo.unlink()
    assert len(harvest(tmp_path, {"coco": root})[1]) == 48
    (root / "train2017").rename(tmp_path / "away")
    with pytest.raises(UserError, match=r"coco: none of \d+ photos .*mount or fetch.*--rebuild harvest"):
        harvest(tmp_path / "new", {"coco": root})
    assert not list((tmp_path / "new/out").rglob("shard-*"))


def test_annotations_that_grow_before_their_photos_are_harvested(tmp_path):
    people = {i: [{"box": (20, 20, 60, 100)}] for i in (1, 2)}
    harvest(tmp_path, {"coco": coco(tmp_path / "a", people)})
    root = coco(tmp_path / "b", {i: [{"box": (20, 20, 60, 100)}] for i in (1, 2, 3)})
    (root / "train2017" / "000000000003.jpg").unlink()
    r, kept, dropped = harvest(tmp_path, {"coco": root})
    assert r.fresh and len(kept) == 2 and list(dropped.values()) == ["image_missing"]


@pytest.mark.parametrize("name", ["lip", "objects365"])
def test_a_new_source_that_is_partly_there_is_harvested(tmp_path, name):
    write_world(tmp_path / "w", seed=0, scenes=10)
    root = coco(tmp_path / "coco", {1: [{"box": (20, 20, 60, 100)}]})
    harvest(tmp_path, {"coco": root})
    new = tmp_path / "w" / name
    pictures = sorted(new.rglob("*.jpg"))
    pictures[0].unlink()
    r, kept, _ = harvest(tmp_path, {"coco": root, name: new})
    assert r.fresh and {c.image.source for c in kept} == {"coco", name}
    for p in pictures[1:]:
        p.unlink()
    before = {p.name: p.read_bytes() for p in r.folder.rglob("*.parquet")}
    for _ in range(2):  # one source of two is away
        with pytest.raises(UserError, match=rf"{name}: none of \d+ photos .*{name}.*data root"):
            harvest(tmp_path, {"coco": root, name: new}, min_area=200)
        assert before == {p.name: p.read_bytes() for p in r.folder.rglob("*.parquet")}


@pytest.mark.parametrize("about", [{"iscrowd": 1}, {"box": (20, 20, 21, 21)}, {"bbox": [1, 2]}])
def test_a_photo_whose_people_are_all_dropped_is_there(tmp_path, about):
    root = coco(
        tmp_path / "coco",
        {1: [{"box": (20, 20, 60, 100)} | about], 2: [{"box": (20, 20, 60, 100)}], 3: [{"box": (20, 20, 60, 100)}]},
    )
    (root / "train2017" / "000000000002.jpg").unlink()
    _, kept, dropped = harvest(tmp_path, {"coco": root})
    assert len(kept) == 1 and len(dropped) == 2 and "image_missing" in dropped.values()


def test_a_source_without_any_photo_is_refused(tmp_path):
    root = coco(tmp_path / "coco", {i: [{"box": (20, 20, 60, 100)}] for i in (1, 2)})
    (root / "train2017").rename(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(UserError, match=r"none of 2 photos.*/coco/train2017/0000.*data root"):
            harvest(tmp_path, {"coco": root})
    (tmp_path / "elsewhere").rename(root / "train2017")
    assert len(harvest(tmp_path, {"coco": root})[1]) == 2


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("world")
    write_world(root, seed=0, scenes=10)
    return root


def test_a_candidate_carries_its_photos_digest(tmp_path):
    root = coco(tmp_path / "coco", {1: [{"box": (20, 20, 60, 100)}]})
    data = (root / "train2017" / "000000000001.jpg").read_bytes()
    assert harvest(tmp_path, {"coco": root})[1][0].image.digest == hashing.digest_bytes(data)


def test_only_humans_are_counted_as_persons(tmp_path):
    things = [o365.box(2, (40, 5, 9, 9), category=9), o365.box(3, (40, 5, 9, 9), category=9)]
    things += [o365.box(4, (1, 1, 0.5, 9), category=9), o365.box(5, (3, 3, 5, 5), category=77)]
    car = oi.row(label="/m/0k4j", sides="0.6,0.9,0.2,0.6")
    (tmp_path / "openimages").mkdir()
    images.write_jpeg(tmp_path / "objects365" / "train" / "patch8" / f"{o365.STEM}.jpg", photo(1, (40, 60)))
    o365.put(tmp_path / "objects365", [o365.box(1, (10, 8, 20, 20)), o365.box(6, (0, 0, 60, 0.5)), *things])
    oi.put(tmp_path / "openimages", [oi.row(), car, car, oi.row(label="/m/02w3_ws", sides="0.6,0.6,0.2,0.6")])
    (tmp_path / "openimages" / "class-descriptions-boxable.csv").write_text("/m/02w3_ws,Personal care\n")
    masks_csv = [f"a#1.png,{oi.A},{oi.PERSON},1,0.1,0.5,0.2,0.8,,", f"b.png,{oi.A},/m/0k4j,2,0.6,0.9,0.2,0.6,,"]
    masks_csv += [f"c#2.png,{oi.A},/m/0k4j,3,0.1,0.2,0.2,0.3,,", f"../d.png,{oi.A},/m/02w3_ws,4,0.6,0.6,0.2,0.6,,"]
    text = "\n".join([oi.MASK_HEAD, *masks_csv, ""])
    (tmp_path / "openimages" / "validation-annotations-object-segmentation.csv").write_text(text)
    result, kept, dropped = harvest(tmp_path, {n: tmp_path / n for n in ("objects365", "openimages")})
    assert (result.counts["persons/objects365"], result.counts["persons/openimages"]) == (2, 1) and len(kept) == 2
    assert {"duplicate", "zero_area", "unknown_category", "mask_missing", "mask_without_box"} >= set(dropped.values())
    row = statistics.funnel(Build(tmp_path / "out")).iloc[0]
    assert row[["came_in", "went_on", "dropped", "unaccounted"]].tolist() == [3, 2, 1, 0]


def test_a_candidate_keeps_its_annotated_box_and_the_rules_go_by_its_mask(tmp_path):
    outline = {"segmentation": rectangle(20, 20, 40, 40)}
    people = [{"box": (20, 20, 40, 100), **outline}, {"box": (2, 20, 40, 40), **outline}]
    _, kept, _ = harvest(tmp_path, {"coco": coco(tmp_path / "coco", {7: people})})
    assert [tuple(c.box) for c in kept] == [(20, 20, 40, 100), (2, 20, 40, 40)]
    assert all(c.mask is not None and c.mask.box == Box(20, 20, 40, 40) for c in kept)
    assert [segment.keep(c, c.mask).score for c in kept] == pytest.approx([0.25, 20 / 38])


def lip(root: Path, stem: str, pixels: images.Rgb) -> Path:
    labels = np.zeros(pixels.shape[:2], np.uint8)
    labels[20:100, 30:70] = 5
    images.write_jpeg(root / "train_images" / f"{stem}.jpg", pixels)
    images.write_png(root / "train_segmentations" / f"{stem}.png", labels)
    (root / "train_id.txt").write_text(f"{stem}\n")
    return root


def test_one_photograph_in_two_sources_is_kept_once(tmp_path):
    a = coco(tmp_path / "coco", {5: [{"box": (20, 20, 60, 100)}], 9: [{"box": (20, 20, 60, 100)}]})
    b = lip(tmp_path / "lip", "5_1", photo(77))  # LIP's stem names COCO image 5
    result, kept, dropped = harvest(tmp_path, {"coco": a, "lip": b})
    assert {c.image.image_id for c in kept} == {"coco/000000000005", "coco/000000000009"}
    assert list(dropped.values()) == ["duplicate_photo"]
    aside = list(parquet.read_records(result.folder / "duplicates", Candidate))
    assert len(aside) == 1 and aside[0].parsing is not None


def objects365(root: Path, seeds: list[int]) -> Path:
    """An Objects365 folder with one person a photo, of the pixels ``photo(seed)``."""
    scenes = []
    for seed in seeds:
        ref = ImageRef(f"objects365/objects365_v2_{seed:08d}", "objects365", "", 160, 120)
        person = Instance(f"{ref.image_id}#{seed}", "person", Box(20, 20, 60, 100))
        scenes.append(Scene(SourceImage(ref, (person,)), photo(seed)))
    objects365_writer.write(root, scenes)
    return root


def test_photos_without_a_key_are_photos_of_their_own(tmp_path):
    a = coco(tmp_path / "coco", {5: [{"box": (20, 20, 60, 100)}]})
    b = objects365(tmp_path / "objects365", [5, 6, 7, 8])  # the first is COCO's
    _, kept, dropped = harvest(tmp_path, {"coco": a, "objects365": b})
    assert dropped == {"objects365/objects365_v2_00000005#5": "duplicate_photo"}
    own = [f"objects365/objects365_v2_{n:08d}" for n in (6, 7, 8)]
    assert [c.image.photo for c in kept] == ["coco/000000000005", *own] == [c.image.image_id for c in kept]


def test_a_whole_photo_wins_over_a_crop_of_it_and_occluders_that_leave_are_counted(tmp_path):
    people = [{"box": (3, 20, 60, 100)}, {"box": (100, 30, 140, 70), "category_id": 18}]  # the person in the gutter
    roots = {"coco": coco(tmp_path / "coco", {5: people}), "lip": lip(tmp_path / "lip", "5_1", photo(77))}
    result, kept, dropped = harvest(tmp_path, roots)
    assert not kept and sorted(dropped.values()) == ["duplicate_photo", "gutter"]
    occluders = [o.occluder_id for o in parquet.read_records(result.folder / "occluders", Occluder)]
    assert occluders == ["coco/000000000005#1", "coco/000000000005#2"]
    assert result.counts["occluders_duplicate/lip"] == 1 and "occluders_duplicate/coco" not in result.counts


def test_a_second_harvest_into_a_folder_forgets_the_first_ones_duplicates(tmp_path):
    a = coco(tmp_path / "coco", {5: [{"box": (20, 20, 60, 100)}]})
    b = lip(tmp_path / "lip", "5_1", photo(77))
    assert len(harvest(tmp_path, {"coco": a})[1]) == 1
    assert [c.image.source for c in harvest(tmp_path, {"coco": a, "lip": b})[1]] == ["coco"]


def test_content_finds_what_keys_do_not(tmp_path):
    same = photo(3)
    a = coco(tmp_path / "coco", {5: [{"box": (20, 20, 60, 100)}]}, {5: same})
    b = lip(tmp_path / "lip", "99_1", np.maximum(same, 1))
    _, kept, dropped = harvest(tmp_path, {"coco": a, "lip": b})
    assert len(kept) == 1 and list(dropped.values()) == ["duplicate_photo"]


def test_two_files_of_one_photograph_in_one_source_share_a_key(tmp_path):
    people = {i: [{"box": (20, 20, 60, 100)}] for i in (5, 6, 7)}
    _, kept, _ = harvest(tmp_path, {"coco": coco(tmp_path / "coco", people, {5: photo(3), 7: photo(3)})})
    keys = [c.image.photo for c in kept]
    assert keys[0] == keys[2] != keys[1]


@pytest.mark.parametrize("bands", [5, 6, 7])
def test_near_pairs_find_every_pair_within_four_bits(bands):
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, 60, dtype=np.int64).astype(np.uint64)
    values = list(base)
    for v in base[:30]:
        bits = rng.choice(64, rng.integers(0, 7), replace=False)
        values.append(np.uint64(int(v) ^ sum(1 << int(b) for b in bits)))
    brute = {
        (i, j)
        for i in range(len(values))
        for j in range(i + 1, len(values))
        if (int(values[i]) ^ int(values[j])).bit_count() <= _near.HAMMING
    }
    a, b = _near.near_pairs(np.array(values, np.uint64), bands)
    assert list(zip(a.tolist(), b.tolist(), strict=True)) == sorted(brute) and len(brute) > 10


def test_grouping_of_photos_is_that_of_comparing_all_pairs(tmp_path):
    rng = np.random.default_rng(1)
    made = []
    for i in range(300):
        base = np.random.default_rng([2, i % 60])  # sixty pictures, some changed by bits and by grey levels
        phash, thumb = base.integers(0, 256, 8, np.uint8), base.integers(0, 245, 256, np.uint8)
        phash[0] ^= np.uint8((1 << int(rng.integers(0, 7))) - 1)
        thumb += np.uint8(rng.integers(0, 3) * 4)
        key = f"coco/{i // 34} q/{i}" if i % 17 == 0 else ("", f"p/{i} ", " ", f"p/{i}")[i % 4]
        source = ("coco", "openimages", "objects365")[i % 7 % 3]
        said = b"" if i % 11 == 0 else phash.tobytes()
        made.append(Photo(f"{source}/{i}", source, key, said, thumb.tobytes(), 1, i % 2))
    for part, first in enumerate(range(0, 300, 100)):
        parquet.write_records(tmp_path / f"part-{part:05d}.parquet", made[first : first + 100], Photo)
    found = deduplicate.find_duplicates(tmp_path, {})
    assert (found.group, found.lost) == _all_pairs(made)
    assert len(found.lost) > 20


def _all_pairs(photos):
    """What `find_duplicates` must find, the slow way."""
    group_of = list(range(len(photos)))
    for i, a in enumerate(photos):
        for j, b in enumerate(photos[:i]):
            bits = (int.from_bytes(a.phash, "big") ^ int.from_bytes(b.phash, "big")).bit_count()
            near = np.abs(np.frombuffer(a.thumb, np.uint8).astype(int) - np.frombuffer(b.thumb, np.uint8)).mean() <= 8
            same_key = bool(set(a.keys.split()) & set(b.keys.split())) and not (a.phash and b.phash and bits > 20)
            if same_key or (a.phash and b.phash and bits <= 4 and near):
                low, high = sorted((group_of[i], group_of[j]))
                group_of = [low if g == high else g for g in group_of]
    group, lost = {}, {}
    for g in set(group_of):
        ids = [i for i in range(len(photos)) if group_of[i] == g]
        key = lambda i: (photos[i].masks < 1, SOURCES.get(photos[i].source).RANK, photos[i].image_id)  # noqa: E731
        best = photos[min(ids, key=key)]
        group |= {photos[i].image_id: best.image_id for i in ids if photos[i] is not best}
        lost |= {photos[i].image_id: best.image_id for i in ids if photos[i].source != best.source}
    return _one_key_a_scene(photos, group_of, group), lost


def _one_key_a_scene(photos, group_of, group):
    scene = list(group_of)
    for i, a in enumerate(photos):
        for j, b in enumerate(photos[:i]):
            bits = (int.from_bytes(a.phash, "big") ^ int.from_bytes(b.phash, "big")).bit_count()
            if a.phash and b.phash and bits <= 12 and _correlation(a.thumb, b.thumb) >= 0.8:
                low, high = sorted((scene[i], scene[j]))
                scene = [low if g == high else g for g in scene]
    for g in set(scene):
        ids = [p.image_id for p, own in zip(photos, scene, strict=True) if own == g]
        key = min(group.get(i, i) for i in ids)
        group = {k: v for k, v in group.items() if k not in ids} | {i: key for i in ids if i != key}
    return group


def _correlation(a, b):
    return np.corrcoef(np.frombuffer(a, np.uint8), np.frombuffer(b, np.uint8))[0, 1]


def test_fingerprint_survives_jpeg_and_tells_photos_apart():
    pixels = photo(1)
    again = images.decode(images.encode_jpeg(pixels, 60))
    near = [int.from_bytes(fingerprint(p)[0], "big") for p in (pixels, again, photo(2))]
    assert (near[0] ^ near[1]).bit_count() <= 4 < (near[0] ^ near[2]).bit_count()


def test_neighbours():
    def person(i, x0, y0, x1, y1, **flags):
        m = np.zeros((100, 100), bool)
        m[y0:y1, x0:x1] = True
        return Instance(f"p#{i}", "person", Box(x0, y0, x1, y1), encode(m), flags=Flags(**flags))

    a, b = person(1, 10, 10, 50, 50), person(2, 50, 10, 90, 50)  # side by side: outlines touch, boxes only meet
    near = neighbours.neighbours_of([a], [a, b], 100, 100)[0]
    assert near.count == 0 and near.mask_contact == 0.0
    c = person(3, 48, 10, 90, 50, crowd=True)
    near = neighbours.neighbours_of([a], [a, b, c], 100, 100)[0]
    assert near.count == 1 and near.crowd and near.max_box_iou == 0.0
    assert near.box_cover == pytest.approx(2 * 40 / 1600)
    assert near.mask_contact is not None and 0.2 < near.mask_contact < 0.35  # one side of four


def test_union_area_counts_overlap_once():
    frame = Box(0, 0, 10, 10)
    assert neighbours.union_area([Box(0, 0, 6, 10), Box(4, 0, 12, 10), Box(20, 20, 30, 30)], frame) == 100
    assert neighbours.union_area([], frame) == 0


def test_photos_of_one_scene_share_a_key_and_are_all_kept(tmp_path):
    scene = photo(3)
    moved = np.clip(scene.astype(int) // 2 + 90, 0, 255).astype(np.uint8)  # another light: no copy of the file
    people = {i: [{"box": (20, 20, 60, 100)}] for i in (5, 6, 7)}
    _, kept, dropped = harvest(tmp_path, {"coco": coco(tmp_path / "coco", people, {5: scene, 7: moved})})
    keys = [c.image.photo for c in kept]
    assert len(kept) == 3 and not dropped and keys[0] == keys[2] != keys[1]


def test_embeddings_find_scenes_too():
    vectors = np.array([[1, 0], [0, 1], [1, 0.1], [0, 0]], np.float32)
    a, b = _near.like_pairs(vectors, 0.95)
    assert list(zip(a.tolist(), b.tolist(), strict=True)) == [(0, 2)]


@pytest.mark.parametrize(("other", "lost"), [(2, {}), (1, {"b/5": "a/5"})])
def test_one_key_in_two_sources_counts_where_the_pictures_do_not_contradict_it(tmp_path, other, lost):
    found = [(name, *fingerprint(photo(seed))) for name, seed in (("a", 1), ("b", other))]
    photos = [Photo(f"{name}/5", name, "coco/000000000005", phash, thumb, 1, 1) for name, phash, thumb in found]
    parquet.write_records(tmp_path / "part-00000.parquet", photos, Photo)
    assert deduplicate.find_duplicates(tmp_path, {"a": "coco", "b": "coco"}).lost == lost
