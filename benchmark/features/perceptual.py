"""LPIPS in its official form (Zhang et al., CVPR 2018, version 0.1): AlexNet and the published linear weights."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ahp_toolkit.core.errors import UserError
from benchmark.features.context import Context
from benchmark.features.inception import hub_checkpoints, needs
from benchmark.metric import Absent, Bytes

BACKBONE = "alexnet-owt-7be5be79.pth"  # torchvision's; the name holds the first digits of its SHA-256
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_TAPS = (1, 4, 7, 9, 11)  # the five ReLUs of AlexNet
_BATCH = 16


def linear_weights() -> list[Any]:
    """The five published linear layers, float32 [1, C, 1, 1] each, from a package that carries them.

    Raises:
        Absent: when neither torchmetrics nor lpips is installed.
    """
    from ahp_toolkit.nets.checkpoints import load_torch

    for package, inside in (
        ("torchmetrics", "functional/image/lpips_models/alex.pth"),
        ("lpips", "weights/v0.1/alex.pth"),
    ):
        spec = importlib.util.find_spec(package)
        folder = Path(spec.origin).parent if spec and spec.origin else None
        if folder is not None and (folder / inside).is_file():
            state = load_torch(folder / inside, "LPIPS' linear weights")
            return [state[f"lin{k}.model.1.weight"] for k in range(5)]
    raise Absent("weights not found: LPIPS' linear layers come with pip install torchmetrics")


def find_backbone(given: Path | None) -> Path:
    """torchvision's AlexNet weights: ``given``, else $AHP_LPIPS_WEIGHTS, else torch's hub cache.

    Raises:
        UserError: for a named file that does not exist or is not torchvision's.
        Absent: when none is found.
    """
    from ahp_toolkit.core import hashing

    named = given or (Path(p) if (p := os.environ.get("AHP_LPIPS_WEIGHTS")) else None)
    path = named or hub_checkpoints() / BACKBONE
    if not path.is_file():
        if named:
            raise UserError(f"{named}: no such file; expected torchvision's {BACKBONE}")
        raise Absent(
            f"weights not found: give --lpips FILE or set AHP_LPIPS_WEIGHTS ({BACKBONE}), or put it into torch's hub "
            "cache"
        )
    if not hashing.digest_file(path).startswith("7be5be79"):
        raise UserError(f"{path}: not torchvision's {BACKBONE}: its SHA-256 begins otherwise")
    return path


class Lpips:
    """The distance of pairs of pictures: uint8 RGB [n, H, W, 3] twice to float64 [n]."""

    def __init__(self, features: dict[str, Any], lins: list[Any], device: str = "cpu") -> None:
        import torch
        import torchvision

        self._net = torchvision.models.alexnet(weights=None).features
        self._net.load_state_dict(features)
        self._net.eval().requires_grad_(False).to(device)
        self._lins = [w.to(device) for w in lins]
        self._shift, self._scale = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (_SHIFT, _SCALE))
        self._device = device

    def __call__(self, a: Bytes, b: Bytes) -> np.ndarray:
        """Distances, in fixed batches."""
        import torch

        with torch.inference_mode():
            parts = [self._pairs(a[i : i + _BATCH], b[i : i + _BATCH]) for i in range(0, len(a), _BATCH)]
        return np.concatenate(parts)

    def _pairs(self, a: Bytes, b: Bytes) -> np.ndarray:
        total: Any = 0.0
        for lin, x, y in zip(self._lins, self._taps(a), self._taps(b), strict=True):
            total = total + (lin * (x - y) ** 2).sum(1).mean((1, 2))
        return np.asarray(total.cpu().numpy(), np.float64)

    def _taps(self, pictures: Bytes) -> list[Any]:
        import torch

        x = torch.from_numpy(pictures).to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1
        x, taps = (x - self._shift) / self._scale, []
        for k, layer in enumerate(self._net[: _TAPS[-1] + 1]):
            x = layer(x)
            if k in _TAPS:
                taps.append(x / (x**2).sum(1, keepdim=True).add(1e-8).sqrt())
        return taps


@cache
def open_lpips(context: Context) -> Lpips:
    """LPIPS with torchvision's AlexNet.

    Raises:
        Absent: when weights or packages are not found.
    """
    needs("torch", "torchvision")
    lins, path = linear_weights(), find_backbone(context.lpips)
    from ahp_toolkit.nets.checkpoints import load_torch

    state = load_torch(path, f"torchvision's {BACKBONE}")
    features = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
    return Lpips(features, lins, context.device)
