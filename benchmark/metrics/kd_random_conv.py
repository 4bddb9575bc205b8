"""Kernel distance on a small random network: stands in where Inception's weights are not found, and is not KID."""

from __future__ import annotations

from typing import Self

from benchmark.features.context import Context
from benchmark.features.inception import open_random_conv
from benchmark.metric import GreyExample
from benchmark.metrics.kid import Kid


class KdRandomConv(Kid):
    """Kernel distance on features of a seeded random network."""

    name = "kd_random_conv"
    stands_for = "kid"
    definition = (
        "Kernel distance as `kid` computes it, on the 256 features of a seeded random convolutional network. "
        "Not KID, not "
        "comparable with it or with any other paper."
    )

    @classmethod
    def open(cls, context: Context) -> Self:
        """With the seeded network."""
        return cls(open_random_conv(context))


METRIC = KdRandomConv
EXAMPLES = (GreyExample([80, 80], [80, 80], 0.0),)
