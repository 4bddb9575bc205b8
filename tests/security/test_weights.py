"""A hostile file given to any loader of weights or features runs nothing: one clear line comes, and no memory goes."""

from __future__ import annotations

import io
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.nets import checkpoints
from ahp_toolkit.parsers import PARSERS
from ahp_toolkit.segmenters import SEGMENTERS
from ahp_toolkit.stages import scenes
from baselines.base import MODELS, build_model
from baselines.layers import losses
from baselines.training import runs
from benchmark.features import inception, perceptual
from benchmark.features.context import Context
from benchmark.features.inception import Extractor


class Evil:
    """Unpickling this writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.mark, "ran")


def _legacy(evil: Evil) -> bytes:
    out = io.BytesIO()
    torch.save({"format": "x", "state": evil}, out, _use_new_zipfile_serialization=False)
    return out.getvalue()


def _zipped(evil: Evil) -> bytes:
    out = io.BytesIO()
    torch.save({"format": "x", "arch": {}, "state": {"a": evil}, "meta": {}}, out)
    return out.getvalue()


HOSTILE: dict[str, Callable[[Evil], bytes]] = {
    "plain pickle": lambda e: pickle.dumps(e),
    "old torch file": _legacy,
    "torch file": _zipped,
}


def _model(path: Path) -> Any:
    return runs.load_model(path)


def _init(path: Path) -> Any:
    return runs.take_weights(build_model("pix2pix", "mask", width=4, critic_width=4), path, "pix2pix", "mask")


LOADERS: dict[str, Callable[[Path], Any]] = {
    "predict RUN": _model,
    "train --init": _init,
    "unfinished training": lambda p: runs.load_run_state(p, "key", "pix2pix"),
    "deeplab": lambda p: SEGMENTERS.get("deeplab").build(str(p)),
    "centermask": lambda p: SEGMENTERS.get("centermask").build(str(p)),
    "mask_rcnn": lambda p: SEGMENTERS.get("mask_rcnn").build(str(p)),
    "hrnet": lambda p: PARSERS.get("hrnet").build(str(p)),
    "scenes": lambda p: scenes._state(p),
    "inception": lambda p: inception.open_inception(Context(inception=p)),
    "lpips": lambda p: perceptual.open_lpips(Context(lpips=p)),
    "vgg": lambda p: losses.vgg16(str(p)),
}


def _trust_digests(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """As if the attacker had the official digests too: the second wall must hold alone."""
    digest = checkpoints.hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(inception, "WEIGHTS_SHA256", digest)
    monkeypatch.setattr(losses, "VGG16_SHA256", digest)
    monkeypatch.setattr("ahp_toolkit.core.hashing.digest_file", lambda p: "7be5be79" if "lpips" in str(p) else digest)


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("loader", LOADERS)
def test_a_hostile_pickle_runs_nothing(loader: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "ran"
    path = tmp_path / f"{loader.split()[0]}.pt"
    path.write_bytes(HOSTILE[kind](Evil(mark)))
    _trust_digests(monkeypatch, path)
    with pytest.raises(UserError) as e:
        LOADERS[loader](path)
    assert not mark.exists()
    assert "\n" not in str(e.value) and len(str(e.value)) < 400


def test_sam_takes_safetensors_only_and_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers is stubbed (it takes long to import): what counts is what it is asked for."""
    asked: list[dict[str, Any]] = []

    def config(where: str, **options: Any) -> Any:
        asked.append(options)
        return SimpleNamespace(model_type="sam")

    def model(where: str, **options: Any) -> Any:
        asked.append(options)
        raise OSError("no file named model.safetensors found")

    kinds = {
        n: SimpleNamespace(from_pretrained=model) for n in ("Sam2Model", "Sam2Processor", "SamModel", "SamProcessor")
    }
    stub = SimpleNamespace(AutoConfig=SimpleNamespace(from_pretrained=config), **kinds)
    monkeypatch.setitem(sys.modules, "transformers", stub)
    monkeypatch.setitem(sys.modules, "transformers.utils", SimpleNamespace(logging=MagicMock()))
    with pytest.raises(UserError, match="safetensors"):
        SEGMENTERS.get("sam")._loaded(str(tmp_path))
    assert asked == [{"trust_remote_code": False}, {"use_safetensors": True, "trust_remote_code": False}]


def test_the_hostile_pickle_of_these_tests_would_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists()


def test_a_feature_cache_of_objects_is_made_again_not_loaded(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    objects = np.array([Evil(mark)], dtype=object)
    np.savez(tmp_path / "features-x.npz", digests=objects, features=objects)
    found = Extractor("x", lambda x: x.mean((2, 3)), tmp_path, "cpu")
    assert found._known == {} and not mark.exists()
    assert found.known(np.zeros((1, 8, 8, 3), np.uint8)).shape == (1, 3)


def _saved(path: Path, tensors: Any = None, **changed: Any) -> Path:
    """A model file whose header is ``changed``."""
    net = build_model("pix2pix", "mask", size=64, width=4, critic_width=4)
    state = net.state_dict() if tensors is None else tensors
    header = {"format": runs.MODEL_FORMAT, "arch": _arch(), "meta": {}, "digest": checkpoints.state_digest(state)}
    path.write_bytes(checkpoints.safetensors.torch.save(state, {checkpoints.HEADER: json.dumps(header | changed)}))
    return path


def test_a_good_checkpoint_loads(tmp_path: Path) -> None:
    assert runs.load_model(_saved(tmp_path / "a.safetensors")).name == "pix2pix"


def _arch(**settings: Any) -> dict[str, Any]:
    return {
        "model": "pix2pix",
        "model_version": MODELS.get("pix2pix").VERSION,
        "task": "mask",
        "settings": {"size": 64, "width": 4, "critic_width": 4} | settings,
    }


@pytest.mark.parametrize("changed", [
    {"arch": None}, {"meta": None}, {"arch": [2]}, {"format": None}, {"digest": "0"}, {"digest": None},
    {"arch": {"model": "pix2pix", "task": "mask"}},
    {"arch": {"model": "os", "task": "mask", "settings": {"size": 64}}},
    {"arch": {"model": "../../evil", "task": "mask", "settings": {"size": 64}}},
    {"arch": _arch(width=10**9)}, {"arch": _arch(width=4096)}, {"arch": _arch(size=2**40)}, {"arch": _arch(seen=1)},
    {"arch": _arch(vgg="hf-hub:evil/model")}, {"arch": _arch(size="64")},
    {"arch": _arch() | {"model_version": [3]}}, {"arch": _arch() | {"model_version": 99}},
    {"tensors": {"a": torch.zeros(3)}}, {"tensors": {}},
], ids=str)  # fmt: skip
def test_a_checkpoint_that_lies_about_itself_gets_one_line(changed: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError) as e:
        runs.load_model(_saved(tmp_path / "a.safetensors", **changed))
    assert "\n" not in str(e.value) and len(str(e.value)) < 400


def test_a_header_of_endless_lists_gets_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(checkpoints.safetensors.torch.save({}, {checkpoints.HEADER: "[" * 10**6}))
    with pytest.raises(UserError, match="damaged or of another kind"):
        runs.load_model(path)


def test_the_same_checkpoint_is_the_same_bytes(tmp_path: Path) -> None:
    made = checkpoints.Checkpoint({"b": 1, "a": 2}, {"y": torch.ones(2), "x": torch.zeros(3).bfloat16()}, {"n": None})
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for file in files:
        checkpoints.save_checkpoint(file, "k", made)
    assert files[0].read_bytes() == files[1].read_bytes()
    back = checkpoints.load_checkpoint(files[0], "k")
    assert (back.arch, back.meta, back.digest) == (made.arch, made.meta, made.digest)


@pytest.mark.parametrize("name", ["deeplab", "centermask", "hrnet"])
@pytest.mark.parametrize(
    "arch", [{"unknown": 1}, {"encoder": 3}, {"size": 2**40}, {"encoder": "hf-hub:evil/model"}], ids=str
)
def test_an_architecture_that_is_not_ours_gets_one_line(name: str, arch: dict[str, Any], tmp_path: Path) -> None:
    module = (PARSERS if name == "hrnet" else SEGMENTERS).get(name)
    checkpoints.save_checkpoint(tmp_path / "a.pt", module.KIND, checkpoints.Checkpoint(arch, {}, {}))
    with pytest.raises(UserError) as e:
        module.build(str(tmp_path / "a.pt"))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_what_state_dicts_hold_loads(legacy: bool, tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).bfloat16()
    torch.save({"state_dict": net.state_dict()}, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    loaded = checkpoints.load_torch(tmp_path / "a.pt", "weights")
    assert checkpoints.state_digest(loaded["state_dict"]) == checkpoints.state_digest(net.state_dict())
