"""The frozen samples of a split as a torch ``Dataset``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ahp_toolkit.core.crops import crop_image, crop_mask
from ahp_toolkit.core.records import Sample
from ahp_toolkit.occlusion.paste import Pasted


class SplitData(Dataset[dict[str, Tensor]]):
    """Square crops of a split's samples, on the crop that the protocol scores.

    An item is a dict: ``image`` (occluded) and ``recovered`` float32 [3, size, size] in [-1, 1]; ``initial``,
    ``modal``, ``amodal`` float32 [1, size, size], 0 or 1. ``samples[index]`` is the record of item ``index``.

    Args:
        samples: records of one build.
        render: makes the pixels of a record.
        size: side of the crops, px.
    """

    def __init__(self, samples: Sequence[Sample], render: Callable[[Sample], Pasted], size: int = 256) -> None:
        self.samples, self.size, self._render = samples, size, render

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        sample = self.samples[index]
        pasted, box = self._render(sample), sample.crop
        pictures = {"image": pasted.image, "recovered": pasted.recovered}
        masks = {"initial": sample.given.mask, "modal": sample.modal, "amodal": sample.amodal}
        item = {}
        for name, pixels in pictures.items():
            crop = np.ascontiguousarray(crop_image(pixels, box, self.size).transpose(2, 0, 1))
            item[name] = torch.from_numpy(crop).float() / 127.5 - 1
        for name, mask in masks.items():
            item[name] = torch.from_numpy(crop_mask(mask, box, self.size)[None]).float()
        return item
