"""Pixels to tensors and back, and batches cut by position: the same on any number of workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

T = TypeVar("T")
#: ImageNet's mean and standard deviation, RGB in [0, 1]: what the encoders' published weights were trained with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive slices of at most ``size`` items."""
    return (items[i : i + size] for i in range(0, len(items), size))


def normalise(planes: Tensor) -> Tensor:
    """uint8 [B, C, H, W], C >= 3, to float32: RGB by ImageNet's mean and deviation, other planes to 0..1."""
    x = planes.float().div_(255.0)
    mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    x[:, :3] = (x[:, :3] - mean) / std
    return x


def stack(planes: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """uint8 arrays [H, W, C] of one size to a uint8 tensor [B, C, H, W] (channels last in memory) on the device."""
    return torch.from_numpy(np.stack(planes)).to(device).permute(0, 3, 1, 2)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Zero-pad [B, C, H, W] below and to the right to a height and width that ``multiple`` divides."""
    h, w = x.shape[-2:]
    below, right = -h % multiple, -w % multiple
    return functional.pad(x, (0, right, 0, below)) if below or right else x


def resize_map(values: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """float32 [h, w] (or [h, w, C]) to [height, width], linear, pixel centres as in core/crops."""
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
