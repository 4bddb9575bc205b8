"""Mean IoU of the amodal masks (spec §7)."""

from __future__ import annotations

from benchmark.features.counts import Areas, Counts
from benchmark.metric import MaskExample, MeanIou


class IouAmodal(MeanIou):
    """Mean IoU of the amodal masks (spec §7)."""

    name = "iou_amodal"
    definition = (
        "Mean over samples of area(P AND G) / area(P OR G), P the predicted and G the true amodal mask, on the 256x256 "
        "crop; both empty: 1, one empty: 0."
    )

    def sets(self, a: Areas) -> tuple[Counts, Counts]:
        """Intersection and union in px."""
        return a.pa_ga, a.pa + a.ga - a.pa_ga


METRIC = IouAmodal
EXAMPLES = (
    # 1 of 3 px, both empty, one empty
    MaskExample(
        ["##./...", ".../...", "#../..."], [".##/...", ".../...", ".../..."], [".#./...", ".../...", ".../..."], 4 / 9
    ),
    MaskExample(["##/##"], ["##/##"], ["#./#."], 1.0),
)
