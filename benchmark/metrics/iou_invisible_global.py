"""Global IoU outside the true modal masks, the rule of SDAmodal (spec §7)."""

from __future__ import annotations

from benchmark.features.counts import Areas, Counts
from benchmark.metric import GlobalIou, MaskExample


class IouInvisibleGlobal(GlobalIou):
    """Global IoU outside the true modal masks, the rule of SDAmodal (spec §7)."""

    name = "iou_invisible_global"
    definition = (
        "Sum over samples of intersections divided by the sum of unions, of the predicted and the true "
        "amodal masks outside "
        "the true modal mask (the rule of SDAmodal)."
    )

    def sets(self, a: Areas) -> tuple[Counts, Counts]:
        """Intersection and union in px."""
        return a.pa_gi, a.pa_hidden + a.gi - a.pa_gi


METRIC = IouInvisibleGlobal
EXAMPLES = (
    # (1 + 0) of (2 + 1) px
    MaskExample(["###./....", "..../#..."], ["####/....", "##../...."], ["##../....", "##../...."], 1 / 3),
)
