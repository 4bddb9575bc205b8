"""Mean IoU of the modal masks (spec §7)."""

from __future__ import annotations

from benchmark.features.counts import Areas, Counts
from benchmark.metric import MaskExample, MeanIou


class IouModal(MeanIou):
    """Mean IoU of the modal masks (spec §7)."""

    name = "iou_modal"
    needs_modal = True
    definition = (
        "Mean over samples of area(P AND G) / area(P OR G), P the predicted and G the true modal mask, on the 256x256 "
        "crop; both empty: 1, one empty: 0. Only for methods that predict a modal mask; a sample without one scores as "
        "empty."
    )

    def sets(self, a: Areas) -> tuple[Counts, Counts]:
        """Intersection and union in px."""
        return a.pm_gm, a.pm + a.gm - a.pm_gm


METRIC = IouModal
EXAMPLES = (
    # 1 of 2 px; the amodal masks do not matter
    MaskExample([".../..."], ["###/###"], ["##./..."], 0.5, modal=[".#./..."]),
)
