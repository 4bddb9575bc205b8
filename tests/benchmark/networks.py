"""Small seeded networks in place of Inception and AlexNet's weights, which no test may download."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn

from benchmark.features.inception import Extractor
from benchmark.features.perceptual import Lpips, linear_weights
from benchmark.metric import METRICS, Metric


def extractor() -> Extractor:
    """256 features of a small convolutional network, the same in every version of torch."""
    rng = np.random.default_rng(2021)
    layers: list[Any] = [nn.AvgPool2d(2)]
    for a, b in pairwise((3, 32, 64, 128)):
        conv = nn.Conv2d(a, b, 4, stride=2, padding=1)
        conv.weight.data = torch.from_numpy(rng.normal(0, np.sqrt(2 / (16 * a)), (b, a, 4, 4)).astype(np.float32))
        conv.bias.data.zero_()
        layers += [conv, nn.ReLU()]
    net = nn.Sequential(*layers).eval().requires_grad_(False)

    def forward(x: Any) -> Any:
        maps = net(2 * x - 1)
        return torch.cat([maps.mean((2, 3)), maps.std((2, 3))], 1)

    return Extractor("seeded", forward, None, "cpu")


def backbone() -> dict[str, Any]:
    """A random state dict of AlexNet's features."""
    rng = np.random.default_rng(2018)
    state = torchvision.models.alexnet(weights=None).features.state_dict()
    for name, value in state.items():
        fan = float(np.prod(value.shape[1:])) or 1.0
        drawn = rng.normal(0, np.sqrt(2 / fan), tuple(value.shape)) if value.ndim > 1 else np.zeros(tuple(value.shape))
        state[name] = torch.from_numpy(np.asarray(drawn, np.float32))
    return dict(state)


def ready(name: str) -> Metric:
    """A metric; a learned one on a seeded network."""
    cls: Any = METRICS.get(name)
    if name == "lpips":
        return cls(Lpips(backbone(), linear_weights()))
    return cls(extractor()) if name in ("fid", "kid") else cls()
