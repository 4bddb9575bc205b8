"""Global IoU of the modal masks (spec §7)."""

from __future__ import annotations

from benchmark.features.counts import Areas, Counts
from benchmark.metric import GlobalIou, MaskExample


class IouModalGlobal(GlobalIou):
    """Global IoU of the modal masks (spec §7)."""

    name = "iou_modal_global"
    needs_modal = True
    definition = (
        "Sum over samples of intersections divided by the sum of unions, of the predicted and the true modal masks, on "
        "the 256x256 crop. Only for methods that predict a modal mask; a sample without one scores as empty."
    )

    def sets(self, a: Areas) -> tuple[Counts, Counts]:
        """Intersection and union in px."""
        return a.pm_gm, a.pm + a.gm - a.pm_gm


METRIC = IouModalGlobal
EXAMPLES = (
    # (1 + 2) of (2 + 2) px
    MaskExample(["../..", "../.."], ["##/##", "##/##"], ["##/..", "##/.."], 0.75, modal=[".#/..", "##/.."]),
)
