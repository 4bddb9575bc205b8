"""A hostile file given to any loader of weights or features runs nothing: one clear line comes, and no memory goes."""

from __future__ import annotations

import copy
import io
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.nets import checkpoint_walk, torch_io
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
    "unfinished training": lambda p: runs.load_state(p, "key", "pix2pix"),
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
    digest = torch_io.hashlib.sha256(path.read_bytes()).hexdigest()
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


def _saved(path: Path, **changed: Any) -> Path:
    settings = {"size": 64, "width": 4, "critic_width": 4}
    net = build_model("pix2pix", "mask", **settings)
    said = {
        "format": runs.MODEL_FORMAT,
        "arch": _arch(),
        "state": net.state_dict(),
        "meta": {},
    }
    torch.save(said | changed, path)
    return path


def test_a_good_checkpoint_loads(tmp_path: Path) -> None:
    assert runs.load_model(_saved(tmp_path / "a.pt")).name == "pix2pix"


def _arch(**settings: Any) -> dict[str, Any]:
    return {
        "model": "pix2pix",
        "model_version": MODELS.get("pix2pix").VERSION,
        "task": "mask",
        "settings": {"size": 64, "width": 4, "critic_width": 4} | settings,
    }


@pytest.mark.parametrize("changed", [
    {"arch": None}, {"state": [1]}, {"meta": None}, {"arch": {1: 2}},
    {"arch": {"model": "pix2pix", "task": "mask"}},
    {"arch": {"model": "os", "task": "mask", "settings": {"size": 64}}},
    {"arch": {"model": "../../evil", "task": "mask", "settings": {"size": 64}}},
    {"arch": _arch(width=10**9)}, {"arch": _arch(width=4096)}, {"arch": _arch(size=2**40)}, {"arch": _arch(seen=1)},
    {"arch": _arch(vgg="hf-hub:evil/model")}, {"arch": _arch(size=torch.zeros(3))},
    {"arch": _arch() | {"model_version": torch.zeros(3)}}, {"arch": _arch() | {"model_version": 99}},
    {"state": {"a": torch.zeros(1).expand(10**6, 10**6)}}, {"state": {"a": torch.zeros(2).to_sparse()}},
    {"state": {"a": "text"}}, {"state": {}},
], ids=str)  # fmt: skip
def test_a_checkpoint_that_lies_about_itself_gets_one_line(changed: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError) as e:
        runs.load_model(_saved(tmp_path / "a.pt", **changed))
    assert "\n" not in str(e.value) and len(str(e.value)) < 400


@pytest.mark.parametrize("name", ["deeplab", "centermask", "hrnet"])
@pytest.mark.parametrize(
    "arch", [{"unknown": 1}, {"encoder": 3}, {"size": 2**40}, {"encoder": "hf-hub:evil/model"}], ids=str
)
def test_an_architecture_that_is_not_ours_gets_one_line(name: str, arch: dict[str, Any], tmp_path: Path) -> None:
    module = (PARSERS if name == "hrnet" else SEGMENTERS).get(name)
    torch_io.save_torch(tmp_path / "a.pt", {"format": module.KIND, "arch": arch, "state": {}, "meta": {}})
    with pytest.raises(UserError) as e:
        module.build(str(tmp_path / "a.pt"))
    assert "\n" not in str(e.value)


def test_a_compressed_checkpoint_is_refused_unread(tmp_path: Path) -> None:
    plain, packed = _saved(tmp_path / "a.pt", state={"a": torch.zeros(4_000_000)}), tmp_path / "b.pt"
    with zipfile.ZipFile(plain) as a, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as b:
        for name in a.namelist():
            b.writestr(name, a.read(name))
    assert packed.stat().st_size < plain.stat().st_size / 100
    with pytest.raises(UserError, match="compressed"):
        runs.load_model(packed)


def _pickled(path: Path, data: bytes, legacy: bool = False) -> Path:
    """A torch file whose pickle is ``data``."""
    out = io.BytesIO()
    torch.save({}, out, _use_new_zipfile_serialization=not legacy)
    if legacy:
        path.write_bytes(out.getvalue().replace(pickle.dumps({}, 2), data, 1))
        return path
    with zipfile.ZipFile(out) as a, zipfile.ZipFile(path, "w") as b:
        for name in a.namelist():
            b.writestr(name, data if name.endswith("data.pkl") else a.read(name))
    return path


#: Few bytes that ask for many; the number is small, so that a reader that obeys returns it instead of taking all.
GREEDY = {
    "bytearray": b"\x80\x02cbuiltins\nbytearray\nM\x00\x10\x85R.",
    "memoised": b"\x80\x02cbuiltins\nbytearray\nq\x000h\x00M\x00\x10\x85R.",
    "dotted": b"\x80\x02c\nbuiltins.bytearray\nM\x00\x10\x85R.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x08builtins\x94\x8c\tbytearray\x94\x93M\x00\x10\x85R.",
    "STACK_GLOBAL memoised": b"\x80\x04\x8c\x08builtinsq\x00\x8c\tbytearrayq\x01h\x00h\x01\x93M\x00\x10\x85R.",
    "INST": b"\x80\x02(M\x00\x10ibuiltins\nbytearray\n.",
    "storage": b"\x80\x02ctorch.storage\nUntypedStorage\nM\x00\x10\x85R.",
    "storage memoised": b"\x80\x02]ctorch.storage\nUntypedStorage\nq\x00ah\x00M\x00\x10\x85R.",
    "storage, new": b"\x80\x02ctorch.storage\nUntypedStorage\nM\x00\x10\x85\x81.",
    "tensor": b"\x80\x02ctorch\nFloatTensor\nM\x00\x10\x85R.",
    "set": b"\x80\x02cbuiltins\nset\n]\x85R.",
    "encode": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x06\x00\x00\x00latin1\x86R.",
    "dicts": b"\x80\x02(" + b"}" * checkpoint_walk.MAX_PICKLE + b"l.",
    "beyond the mark": b"\x80\x02ccollections\nOrderedDict\n(R.",
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", GREEDY)
def test_a_small_file_cannot_ask_for_memory(
    kind: str, legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _pickled(tmp_path / "a.pt", GREEDY[kind], legacy)
    monkeypatch.setattr(torch_io.torch, "load", lambda *_, **__: pytest.fail("it came to torch's reader"))
    with pytest.raises(UserError, match="damaged or of another kind") as e:
        torch_io.load_torch(path, "weights")
    assert "\n" not in str(e.value) and len(str(e.value)) < 400


def test_a_zip_whose_names_share_their_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(10_000)}, path)
    with zipfile.ZipFile(path, "a") as z:
        whole = next(i for i in z.infolist() if i.filename.endswith("data/0"))
        for k in range(1, 9):
            again = copy.copy(whole)
            again.filename = whole.filename[:-1] + str(k)
            z.filelist.append(again)
        z._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="damaged"):
        torch_io.load_torch(path, "weights")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_what_state_dicts_hold_loads(legacy: bool, tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).bfloat16()
    optimiser = torch.optim.AdamW(net.parameters())
    net(torch.zeros(2, 3, 8, 8, dtype=torch.bfloat16)).sum().backward()
    optimiser.step()
    said = {
        "state_dict": net.state_dict(),
        "parameters": dict(net.named_parameters()),
        "optimiser": optimiser.state_dict(),
        "more": [torch.zeros(2).int(), torch.float16, torch.Size([1, 2]), torch.device("cpu"), 2**40, 0.5, None, True],
    }
    torch.save(said, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    loaded = torch_io.load_torch(tmp_path / "a.pt", "weights")
    assert torch_io.state_digest(loaded["state_dict"]) == torch_io.state_digest(net.state_dict())
    assert loaded["more"][1:] == said["more"][1:]
