"""LPIPS of the recovered pictures (spec §7)."""

from __future__ import annotations

from typing import Self

from benchmark.features.context import Context
from benchmark.features.perceptual import Lpips, open_lpips
from benchmark.metric import GreyExample, PictureBatch, Ratio, Rows, mean_rows


class LpipsAlex(Ratio):
    """LPIPS with AlexNet."""

    name = "lpips"
    board = "content"
    unit = "ratio"
    bounds = (0.0, float("inf"))
    higher_is_better = False
    definition = (
        "Mean over samples of the LPIPS distance (Zhang et al., CVPR 2018, version 0.1) between the recovered and the "
        "true 256x256 crop, torchvision's AlexNet and the published linear weights."
    )
    examples = (GreyExample([80, 10], [80, 10], 0.0),)

    def __init__(self, network: Lpips) -> None:
        super().__init__()
        self._network = network

    @classmethod
    def open(cls, context: Context) -> Self:
        """With the weights that ``context`` finds."""
        return cls(open_lpips(context))

    def rows_of(self, batch: PictureBatch) -> Rows:
        """(LPIPS, 1) of each sample."""
        return mean_rows(self._network(batch.images, batch.truth))


METRICS = (LpipsAlex,)
