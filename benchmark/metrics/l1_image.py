"""l1 of the recovered pictures over the crop (spec §7)."""

from __future__ import annotations

import numpy as np

from benchmark.metric import GreyExample, PictureBatch, Ratio, Rows, mean_rows


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

    def rows_of(self, batch: PictureBatch) -> Rows:
        """(l1, 1) of each sample."""
        images, truth = batch.floats
        return mean_rows(np.abs(images - truth).mean((1, 2, 3), dtype=np.float64))


METRIC = L1Image
# |102 - 51| / 255 = 0.2, and 0
EXAMPLES = (GreyExample([102, 7], [51, 7], 0.1), GreyExample([0], [255], 1.0))
