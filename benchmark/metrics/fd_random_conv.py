"""Fréchet distance on a small random network: stands in where Inception's weights are not found, and is not FID."""

from __future__ import annotations

from typing import Self

from benchmark.features.context import Context
from benchmark.features.inception import open_random_conv
from benchmark.metric import GreyExample
from benchmark.metrics.fid import Fid


class FdRandomConv(Fid):
    """Fréchet distance on features of a seeded random network."""

    name = "fd_random_conv"
    stands_for = "fid"
    digits = 4  # its distances are small
    definition = (
        "Fréchet distance as `fid` computes it, on the 256 features of a seeded random convolutional "
        "network. Not FID, not "
        "comparable with it or with any other paper."
    )

    @classmethod
    def open(cls, context: Context) -> Self:
        """With the seeded network."""
        return cls(open_random_conv(context))


METRIC = FdRandomConv
EXAMPLES = (GreyExample([80, 10, 33], [80, 10, 33], 0.0),)
