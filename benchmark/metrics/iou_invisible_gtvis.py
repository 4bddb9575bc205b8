"""Mean IoU of the invisible masks by the rule of C2F-Seg (spec §7)."""

from __future__ import annotations

from benchmark.features.counts import Areas, Counts
from benchmark.metric import MaskExample, MeanIou


class IouInvisibleGtvis(MeanIou):
    """Mean IoU of the invisible masks by the rule of C2F-Seg (spec §7)."""

    name = "iou_invisible_gtvis"
    definition = (
        "Mean over samples of the IoU of the invisible masks, the true modal mask subtracted from the "
        "prediction as well "
        "as from the truth (the rule of C2F-Seg); both empty: 1, one empty: 0."
    )

    def sets(self, a: Areas) -> tuple[Counts, Counts]:
        """Intersection and union in px."""
        return a.pa_gi, a.pa_hidden + a.gi - a.pa_gi


METRIC = IouInvisibleGtvis
EXAMPLES = (
    # the predicted modal mask does not matter: 1 of 2 px
    MaskExample(["###./...."], ["####/...."], ["##../...."], 0.5, modal=["#.../...."]),
)
