"""Peak signal-to-noise ratio of the recovered pictures (spec §7)."""

from __future__ import annotations

import numpy as np

from benchmark.metric import GreyExample, PictureBatch, Ratio, Rows, mean_rows

CAP = 100.0  # dB: an exact copy has no finite ratio


class Psnr(Ratio):
    """Peak signal-to-noise ratio of the recovered pictures."""

    name = "psnr"
    board = "content"
    unit = "dB"
    bounds = (0.0, CAP)
    higher_is_better = True
    digits = 2
    definition = (
        "Mean over samples of 10 log10(1 / MSE), MSE the mean squared RGB difference between the recovered and the "
        "true picture, values in [0, 1], over the 256x256 crop; at most 100 dB, the figure of an exact copy."
    )
    # a difference of 51 levels: MSE 0.04
    examples = (GreyExample([102], [51], -10 * np.log10(0.04)), GreyExample([9], [9], CAP))

    def rows_of(self, batch: PictureBatch) -> Rows:
        """(PSNR, 1) of each sample."""
        images, truth = batch.floats
        mse = ((images - truth) ** 2).mean((1, 2, 3), dtype=np.float64)
        return mean_rows(-10 * np.log10(np.maximum(mse, 10 ** (-CAP / 10))))


METRICS = (Psnr,)
