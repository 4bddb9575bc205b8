"""Mean IoU of the invisible masks, the strictest rule (spec §7)."""

from __future__ import annotations

from benchmark.features.counts import Areas, Counts
from benchmark.metric import MaskExample, MeanIou


class IouInvisible(MeanIou):
    """Mean IoU of the invisible masks, the strictest rule (spec §7)."""

    name = "iou_invisible"
    definition = (
        "Mean over samples of the IoU of the invisible masks: predicted amodal minus predicted modal (a "
        "method without a "
        "modal output: minus the initial mask it was given) against true amodal minus true modal; both empty: 1, one "
        "empty: 0. The strictest rule in use."
    )

    def sets(self, a: Areas) -> tuple[Counts, Counts]:
        """Intersection and union in px."""
        return a.pi_gi, a.pi + a.gi - a.pi_gi


METRIC = IouInvisible
EXAMPLES = (
    # P = columns 2 to 3 of row 1, G = columns 3 to 4: 1 of 3 px
    MaskExample(["###./...."], ["####/...."], ["##../...."], 1 / 3, modal=["#.../...."]),
    # without a modal output the given mask is subtracted: here the true one
    MaskExample(["###./...."], ["####/...."], ["##../...."], 0.5),
)
