"""Features of FID and KID: pytorch-fid's Inception with the official weights, checked by their SHA-256."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.storage import files
from benchmark.features.context import Context
from benchmark.metric import Absent, Bytes, PictureBatch, Rows

#: The port of the 2015 TensorFlow network that pytorch-fid publishes; the file name holds the digest's first digits.
WEIGHTS_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
WEIGHTS_NAMES = ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth")
_BATCH = 16  # pictures a forward pass: fixed, so that results do not depend on how they come


class Extractor:
    """Features of pictures: uint8 RGB [n, H, W, 3] to float32 [n, d]; ``name`` identifies network and weights.

    Features of true pictures are cached by the sha256 of their pixels, in memory and in ``cache_folder``.
    """

    def __init__(self, name: str, network: Callable[[Any], Any], cache_folder: Path | None, device: str) -> None:
        self.name, self._network, self._device = name, network, device
        self._file = cache_folder / f"features-{name}.npz" if cache_folder else None
        self._known: dict[str, Rows] = self._load()

    def _load(self) -> dict[str, Rows]:
        if self._file is None or not self._file.exists():
            return {}
        try:
            with np.load(self._file, allow_pickle=False) as found:
                return dict(zip(found["digests"].tolist(), found["features"], strict=True))
        except (OSError, ValueError, KeyError):
            return {}  # a damaged cache is made again

    def __call__(self, pictures: Bytes) -> Rows:
        """Features, computed in fixed batches."""
        import torch

        done = []
        with torch.inference_mode():
            for start in range(0, len(pictures), _BATCH):
                part = torch.from_numpy(pictures[start : start + _BATCH]).to(self._device)
                done.append(self._network(part.permute(0, 3, 1, 2).float() / 255).float().cpu().numpy())
        return np.concatenate(done)

    def known(self, pictures: Bytes) -> Rows:
        """Features from the cache, computed and cached where it has none."""
        digests = [hashlib.sha256(p.tobytes()).hexdigest() for p in pictures]
        fresh = {d: i for i, d in enumerate(digests) if d not in self._known}
        if fresh:
            found = self(pictures[list(fresh.values())])
            self._known.update(zip(fresh, found, strict=True))
            self._save()
        return np.stack([self._known[d] for d in digests])

    def _save(self) -> None:
        if self._file is not None:
            names = sorted(self._known)
            with files.atomic(self._file) as f:
                np.savez(f, digests=np.array(names), features=np.stack([self._known[n] for n in names]))

    def of(self, batch: PictureBatch) -> Rows:
        """Features of a batch, float32 [n, 2 d]: predicted, then true; computed once for all metrics."""
        if self.name not in batch.features:
            batch.features[self.name] = np.concatenate([self(batch.images), self.known(batch.truth)], axis=1)
        return batch.features[self.name]


def needs(*packages: str) -> None:
    """Check that the packages of learned metrics are installed.

    Raises:
        Absent: when one is not.
    """
    if not all(importlib.util.find_spec(p) for p in packages):
        raise Absent("needs ahp-toolkit[train]: pip install 'ahp-toolkit[train]'")


def find_weights(given: Path | None) -> Path:
    """The official weights: ``given``, else $AHP_INCEPTION_WEIGHTS, else torch's hub cache; checked by SHA-256.

    Raises:
        UserError: for a named file that does not exist or is not the official one.
        Absent: when none is found.
    """
    named = given or (Path(p) if (p := os.environ.get("AHP_INCEPTION_WEIGHTS")) else None)
    if named is not None:
        if not named.is_file():
            raise UserError(f"{named}: no such file; expected pytorch-fid's {WEIGHTS_NAMES[0]}")
        if (got := hashing.digest_file(named)) != WEIGHTS_SHA256:
            raise UserError(
                f"{named}: SHA-256 is {got[:12]}…, pytorch-fid's official weights have {WEIGHTS_SHA256[:12]}…"
            )
        return named
    for name in WEIGHTS_NAMES:
        path = hub_checkpoints() / name
        if path.is_file() and hashing.digest_file(path) == WEIGHTS_SHA256:
            return path
    raise Absent(
        f"weights not found: give --inception FILE or set AHP_INCEPTION_WEIGHTS ({WEIGHTS_NAMES[0]}), or put it into "
        "torch's hub cache"
    )


def hub_checkpoints() -> Path:
    """Torch's folder of downloaded weights."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "torch"
    return Path(home) / "hub" / "checkpoints"


def inception_network(state: Mapping[str, Any]) -> Any:
    """pytorch-fid's network with a state dict: pool3; batch norm folded, channels last (CPU: twice as fast)."""
    import torch
    from pytorch_fid import inception as theirs
    from torch import nn

    net = theirs._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    for name, width in (("Mixed_5b", (192, 32)), ("Mixed_5c", (256, 64)), ("Mixed_5d", (288, 64))):
        setattr(net, name, theirs.FIDInceptionA(width[0], pool_features=width[1]))
    for name, channels in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        setattr(net, name, theirs.FIDInceptionC(768, channels_7x7=channels))
    net.Mixed_7b, net.Mixed_7c = theirs.FIDInceptionE_1(1280), theirs.FIDInceptionE_2(2048)
    net.load_state_dict(state)
    net.fc, net.dropout, net.transform_input = nn.Identity(), nn.Identity(), False
    net.eval().requires_grad_(False)
    for module in net.modules():
        if hasattr(module, "conv") and hasattr(module, "bn"):
            module.conv, module.bn = nn.utils.fusion.fuse_conv_bn_eval(module.conv, module.bn), nn.Identity()
    net = net.to(memory_format=torch.channels_last)

    def forward(x: Any) -> Any:
        x = nn.functional.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
        return net((2 * x - 1).contiguous(memory_format=torch.channels_last))

    forward.network = net  # type: ignore[attr-defined]
    return forward


@cache
def open_inception(context: Context) -> Extractor:
    """The official extractor.

    Raises:
        Absent: when its weights or its packages are not found.
        UserError: for a named file that is not the official one.
    """
    needs("torch", "torchvision", "pytorch_fid")
    path = find_weights(context.inception)
    from ahp_toolkit.nets.checkpoints import load_torch

    forward = inception_network(load_torch(path, "pytorch-fid's official weights"))
    forward.network.to(context.device)
    return Extractor(f"inception-{WEIGHTS_SHA256[:8]}", forward, context.cache, context.device)
