"""The form of LPIPS on a random network: stands in where AlexNet's weights are not found, and is not LPIPS."""

from __future__ import annotations

from typing import Self

from benchmark.features.context import Context
from benchmark.features.perceptual import open_random_lpips
from benchmark.metric import GreyExample
from benchmark.metrics.lpips import FORM, LpipsAlex


class LpipsRandom(LpipsAlex):
    """The form of LPIPS on a random network."""

    name = "lpips_random"
    stands_for = "lpips"
    definition = f"{FORM} in form only: AlexNet with seeded random weights. Not LPIPS, not comparable with it."

    @classmethod
    def open(cls, context: Context) -> Self:
        """With the seeded network."""
        return cls(open_random_lpips(context))


METRIC = LpipsRandom
EXAMPLES = (GreyExample([80, 10], [80, 10], 0.0),)
