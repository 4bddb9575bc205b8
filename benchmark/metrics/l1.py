"""l1 distances of amodal masks and of recovered pictures (spec §7)."""

from __future__ import annotations

import numpy as np

from benchmark.metric import GreyExample, MaskBatch, MaskExample, PictureBatch, Ratio, Rows, mean_rows


class L1Mask(Ratio):
    """l1 of the amodal masks relative to the true area."""

    name = "l1_mask"
    board = "mask"
    unit = "ratio"
    bounds = (0.0, float("inf"))
    higher_is_better = False
    definition = (
        "Mean over samples of the number of pixels where the predicted and the true amodal mask differ, divided by the "
        "area of the true amodal mask, on the 256x256 crop."
    )
    # 2 wrong of 2 px, 5 wrong of 1 px
    examples = (
        MaskExample(["##./...", ".##/.##"], [".##/...", "#../..."], [".#./...", "#../..."], (2 / 2 + 5 / 1) / 2),
    )

    def rows_of(self, batch: MaskBatch) -> Rows:
        """(l1, 1) of each sample."""
        a = batch.areas
        return mean_rows((a.pa + a.ga - 2 * a.pa_ga) / np.maximum(a.ga, 1))


class L1MaskPixel(Ratio):
    """l1 of the amodal masks as a mean over pixels."""

    name = "l1_mask_pixel"
    board = "mask"
    unit = "ratio"
    bounds = (0.0, 1.0)
    higher_is_better = False
    definition = (
        "Mean over samples of the share of all pixels of the 256x256 crop where the predicted and the true amodal mask "
        "differ."
    )
    # 2 and 5 wrong of 6 px
    examples = (MaskExample(["##./...", ".##/.##"], [".##/...", "#../..."], [".#./...", "#../..."], 7 / 12),)

    def rows_of(self, batch: MaskBatch) -> Rows:
        """(l1, 1) of each sample."""
        a = batch.areas
        return mean_rows((a.pa + a.ga - 2 * a.pa_ga) / batch.amodal[0].size)


class L1Image(Ratio):
    """l1 of the recovered pictures over the crop."""

    name = "l1_image"
    board = "content"
    unit = "ratio"
    bounds = (0.0, 1.0)
    higher_is_better = False
    definition = (
        "Mean over samples of the mean absolute RGB difference between the recovered and the true picture, values in "
        "[0, 1], over all pixels of the 256x256 crop."
    )
    # |102 - 51| / 255 = 0.2, and 0
    examples = (GreyExample([102, 7], [51, 7], 0.1), GreyExample([0], [255], 1.0))

    def rows_of(self, batch: PictureBatch) -> Rows:
        """(l1, 1) of each sample."""
        images, truth = batch.floats
        return mean_rows(np.abs(images - truth).mean((1, 2, 3), dtype=np.float64))


class L1Invisible(Ratio):
    """l1 of the recovered pictures over the true invisible pixels."""

    name = "l1_invisible"
    board = "content"
    unit = "ratio"
    bounds = (0.0, 1.0)
    higher_is_better = False
    definition = (
        "Mean over samples of the mean absolute RGB difference between the recovered and the true picture, values in "
        "[0, 1], over the true invisible pixels (amodal minus modal) of the 256x256 crop; samples without any are left "
        "out."
    )
    examples = (GreyExample([102, 7], [51, 7], 0.1),)

    def rows_of(self, batch: PictureBatch) -> Rows:
        """(l1, 1) of each sample with invisible pixels, (0, 0) of the others."""
        images, truth = batch.floats
        count = batch.invisible.sum((1, 2))
        total = (np.abs(images - truth).mean(3, dtype=np.float64) * batch.invisible).sum((1, 2))
        return np.stack([total / np.maximum(count, 1), (count > 0).astype(np.float64)], axis=1)


METRICS = (L1Mask, L1MaskPixel, L1Image, L1Invisible)
