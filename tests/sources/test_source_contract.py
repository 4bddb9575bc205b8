"""What every source promises, run over all that are there."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from types import ModuleType

import pytest

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Dropped, SourceImage
from ahp_toolkit.sources import SOURCES
from ahp_toolkit.sources.base import Loaded, read_all
from ahp_toolkit.storage import images
from tests import source_scenes as world

pytestmark = pytest.mark.parametrize("name", SOURCES.names())


@pytest.fixture
def module(name: str) -> ModuleType:
    return SOURCES.get(name)


def everything(module: ModuleType, root: Path) -> list[Loaded]:
    return [module.load(root, e) for e in module.scan(root)]


def found(module: ModuleType, root: Path) -> list[SourceImage]:
    return [x.image for x in everything(module, root) if x.image is not None]


def dropped(module: ModuleType, root: Path) -> list[Dropped]:
    return [d for x in everything(module, root) for d in x.dropped]


def test_it_says_whose_data_it_is(module: ModuleType) -> None:
    assert module.LICENCE.strip() and module.HOMEPAGE.startswith("http")
    assert world.carries(module) <= {"mask", "parsing", "label", *world.FLAGS}


@pytest.mark.parametrize("seed", range(4))
def test_read_is_the_inverse_of_write(name: str, module: ModuleType, tmp_path: Path, seed: int) -> None:
    made = {s.image.image.image_id: s for s in world.write(name, module, tmp_path, 6, seed)}
    back = {s.image.image_id: s for s in read_all(module, tmp_path, name)}
    assert sorted(back) == sorted(made)
    for image_id, scene in made.items():
        got, wanted = back[image_id], scene.image
        assert (got.image.width, got.image.height) in ((wanted.image.width, wanted.image.height), (0, 0))
        want = {i.instance_id: world.carried(module, i) for i in wanted.instances}
        have = {i.instance_id: world.carried(module, i) for i in got.instances}
        if set(have) != set(want):  # a source whose format has no ids numbers anew
            have = dict(zip(want, have.values(), strict=True))
        for instance_id, instance in want.items():
            same = have[instance_id]
            assert tuple(same.box) == pytest.approx(tuple(instance.box), abs=1e-3)
            assert dataclasses.replace(same, instance_id=instance_id, box=instance.box) == instance


def test_flags_and_boxes_are_pythons_own(name: str, module: ModuleType, tmp_path: Path) -> None:
    world.write(name, module, tmp_path)
    for image in found(module, tmp_path):
        for instance in image.instances:  # no numpy truth is True
            assert {type(getattr(instance.flags, f)) for f in world.FLAGS} <= {bool, type(None)}
            assert {type(v) for v in instance.box} <= {int, float}


def test_photos_are_the_written_ones(name: str, module: ModuleType, tmp_path: Path) -> None:
    made = {s.image.image.image_id: s for s in world.write(name, module, tmp_path)}
    for image in read_all(module, tmp_path, name):
        pixels = images.read(tmp_path / image.image.path)
        assert pixels.shape == made[image.image.image_id].pixels.shape
        assert not Path(image.image.path).is_absolute() and image.image.source == name


def test_scanning_has_one_order_and_its_entries_travel(name: str, module: ModuleType, tmp_path: Path) -> None:
    world.write(name, module, tmp_path)
    entries = list(module.scan(tmp_path))
    again = list(module.scan(tmp_path))
    assert [e.image_id for e in entries] == [e.image_id for e in again]
    assert len({e.image_id for e in entries}) == len(entries)
    travelled = pickle.loads(pickle.dumps(entries))
    assert [module.load(tmp_path, e) for e in travelled] == [module.load(tmp_path, e) for e in again]
    assert all(p.is_file() for p in module.inputs(tmp_path))


def test_ids_begin_with_the_name_that_the_user_gave(name: str, module: ModuleType, tmp_path: Path) -> None:
    world.write(name, module, tmp_path)
    plain = list(read_all(module, tmp_path, name))
    named = list(read_all(module, tmp_path, "my-own_1"))
    assert len(named) == len(plain) > 0
    for mine, usual in zip(named, plain, strict=True):
        assert mine.image.source == "my-own_1"
        assert mine.image.image_id == usual.image.image_id.replace(name, "my-own_1", 1)
        assert [i.instance_id.partition("#")[2] for i in mine.instances] == [
            i.instance_id.partition("#")[2] for i in usual.instances
        ]
        assert all(i.instance_id.startswith(f"{mine.image.image_id}#") for i in mine.instances)


def test_a_total_is_the_number_of_entries(name: str, module: ModuleType, tmp_path: Path) -> None:
    total = getattr(module, "total", None)
    if total is None:
        pytest.skip(f"{name} tells no total")
    world.write(name, module, tmp_path)
    assert total(tmp_path) == len(list(module.scan(tmp_path)))


def test_a_clean_world_drops_nothing(name: str, module: ModuleType, tmp_path: Path) -> None:
    world.write(name, module, tmp_path)
    assert dropped(module, tmp_path) == []


def test_a_photo_outside_the_root_is_refused(name: str, module: ModuleType, tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside.jpg"
    world.write(name, module, root)
    victim = found(module, root)[0].image
    outside.write_bytes((root / victim.path).read_bytes())
    (root / victim.path).unlink()
    (root / victim.path).symlink_to(outside)
    assert victim.image_id not in {i.image.image_id for i in found(module, root)}
    assert "unsafe_path" in {d.reason for d in dropped(module, root)}


def test_missing_photos_stop_nothing(name: str, module: ModuleType, tmp_path: Path) -> None:
    world.write(name, module, tmp_path)
    for image in found(module, tmp_path):
        (tmp_path / image.image.path).unlink()
    for loaded in everything(module, tmp_path):
        assert loaded.image is not None or loaded.dropped


def test_another_folder_is_a_user_error_of_one_line(module: ModuleType, tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "nowhere"):
        for call in (module.inputs, lambda r: list(module.scan(r))):
            with pytest.raises(UserError) as error:
                call(root)
            assert str(root) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("share", (0.0, 0.3, 0.6, 0.95))
def test_a_cut_annotation_file_is_named(name: str, module: ModuleType, tmp_path: Path, share: float) -> None:
    world.write(name, module, tmp_path)
    for path in module.inputs(tmp_path):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        try:
            everything(module, tmp_path)
            cut = None
        except UserError as e:
            cut = str(e)
        if path.suffix == ".json":  # a cut list or table is a shorter one; a cut JSON file is none
            assert cut is not None
        if cut is not None:
            assert path.name in cut and "\n" not in cut
        path.write_bytes(whole)


@pytest.mark.parametrize("seed", range(3))
def test_bytes_turned_at_random_stop_nothing(name: str, module: ModuleType, tmp_path: Path, seed: int) -> None:
    """Whatever stands in the files: a photo, a Dropped, or a UserError of one line."""
    rng = world.np.random.default_rng(seed)
    world.write(name, module, tmp_path, 3, seed)
    for path in sorted(p for p in tmp_path.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        turned = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            turned[place] = rng.integers(256)
        path.write_bytes(bytes(turned))
        try:
            everything(module, tmp_path)
        except UserError as e:
            assert "\n" not in str(e)
            assert path.suffix in (".json", ".csv", ".txt")
        path.write_bytes(whole)
