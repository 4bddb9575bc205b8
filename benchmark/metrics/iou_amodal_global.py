"""Global IoU of the amodal masks (spec §7)."""

from __future__ import annotations

from benchmark.features.counts import Areas, Counts
from benchmark.metric import GlobalIou, MaskExample


class IouAmodalGlobal(GlobalIou):
    """Global IoU of the amodal masks (spec §7)."""

    name = "iou_amodal_global"
    definition = (
        "Sum over samples of intersections divided by the sum of unions, of the predicted and the true "
        "amodal masks, on "
        "the 256x256 crop."
    )

    def sets(self, a: Areas) -> tuple[Counts, Counts]:
        """Intersection and union in px."""
        return a.pa_ga, a.pa + a.ga - a.pa_ga


METRIC = IouAmodalGlobal
EXAMPLES = (
    # (1 + 1) of (3 + 1) px
    MaskExample(["##./...", "#../..."], [".##/...", "#../..."], [".#./...", "#../..."], 0.5),
)
