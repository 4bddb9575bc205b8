"""l1 of the amodal masks relative to the true area (spec §7)."""

from __future__ import annotations

import numpy as np

from benchmark.metric import MaskBatch, MaskExample, Ratio, Rows, mean_rows


class L1Mask(Ratio):
    """l1 of the amodal masks relative to the true area (spec §7)."""

    name = "l1_mask"
    board = "mask"
    unit = "ratio"
    bounds = (0.0, float("inf"))
    higher_is_better = False
    definition = (
        "Mean over samples of the number of pixels where the predicted and the true amodal mask differ, divided by the "
        "area of the true amodal mask, on the 256x256 crop."
    )

    def rows_of(self, batch: MaskBatch) -> Rows:
        """(l1, 1) of each sample."""
        a = batch.areas
        return mean_rows((a.pa + a.ga - 2 * a.pa_ga) / np.maximum(a.ga, 1))


METRIC = L1Mask
EXAMPLES = (
    # 2 wrong of 2 px, 5 wrong of 1 px
    MaskExample(["##./...", ".##/.##"], [".##/...", "#../..."], [".#./...", "#../..."], (2 / 2 + 5 / 1) / 2),
)
