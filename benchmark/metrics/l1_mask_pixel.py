"""l1 of the amodal masks as a mean over pixels (spec §7)."""

from __future__ import annotations

from benchmark.metric import MaskBatch, MaskExample, Ratio, Rows, mean_rows


class L1MaskPixel(Ratio):
    """l1 of the amodal masks as a mean over pixels (spec §7)."""

    name = "l1_mask_pixel"
    board = "mask"
    unit = "ratio"
    bounds = (0.0, 1.0)
    higher_is_better = False
    definition = (
        "Mean over samples of the share of all pixels of the 256x256 crop where the predicted and the true amodal mask "
        "differ."
    )

    def rows_of(self, batch: MaskBatch) -> Rows:
        """(l1, 1) of each sample."""
        a = batch.areas
        return mean_rows((a.pa + a.ga - 2 * a.pa_ga) / batch.amodal[0].size)


METRIC = L1MaskPixel
EXAMPLES = (
    # 2 and 5 wrong of 6 px
    MaskExample(["##./...", ".##/.##"], [".##/...", "#../..."], [".#./...", "#../..."], 7 / 12),
)
