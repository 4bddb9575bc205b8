"""l1 of the recovered pictures over the true invisible pixels (spec §7)."""

from __future__ import annotations

import numpy as np

from benchmark.metric import GreyExample, PictureBatch, Ratio, Rows


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

    def rows_of(self, batch: PictureBatch) -> Rows:
        """(l1, 1) of each sample with invisible pixels, (0, 0) of the others."""
        images, truth = batch.floats
        count = batch.invisible.sum((1, 2))
        total = (np.abs(images - truth).mean(3, dtype=np.float64) * batch.invisible).sum((1, 2))
        return np.stack([total / np.maximum(count, 1), (count > 0).astype(np.float64)], axis=1)


METRIC = L1Invisible
EXAMPLES = (GreyExample([102, 7], [51, 7], 0.1),)
