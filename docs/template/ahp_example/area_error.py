"""A metric: how wrong the area of the whole person is."""

from __future__ import annotations

import numpy as np

from benchmark.metric import MaskBatch, MaskExample, Ratio, Rows, mean_rows


class AreaError(Ratio):
    """A mean over samples: rows are (value, 1)."""

    name = "area_error"
    board = "mask"
    unit = "ratio"
    bounds = (0.0, float("inf"))
    higher_is_better = False
    definition = "Mean over samples of |predicted area - true area| / true area of the amodal masks, on 256x256 crops."

    examples = (MaskExample(["##/.."], ["#./.."], ["#./.."], 1.0),)

    def rows_of(self, batch: MaskBatch) -> Rows:
        """(error, 1) of each sample."""
        a = batch.areas
        return mean_rows(np.abs(a.pa - a.ga) / np.maximum(a.ga, 1))


METRICS = (AreaError,)
