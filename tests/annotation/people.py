"""A population for the triage: feature rows with a known truth, several humans to a photo, most of them discards."""

from __future__ import annotations

import math

import numpy as np

from ahp_toolkit.decisions.triage.features import NAMES, Row


def population(n: int, seed: int, preserved: float = 0.05, blur: float = 1.0) -> tuple[list[Row], dict[str, str]]:
    """(rows, candidate id -> true verdict). ``blur`` is the noise of what is measured, in units of its spread."""
    rng = np.random.default_rng(seed)
    photo = np.sort(rng.integers(0, max(1, n // 3), n))
    crowd = rng.normal(size=photo.max() + 1)[photo]  # humans of one photo fare alike
    badness = 0.5 * crowd + rng.normal(size=n)
    keep = badness < np.quantile(badness, preserved)
    refine = ~keep & (rng.random(n) < 0.03)

    def seen(weight: float = 1.0) -> np.ndarray:
        return weight * badness + blur * rng.normal(size=n) * 0.5

    x = np.full((n, len(NAMES)), np.nan)

    def put(name: str, values: np.ndarray) -> None:
        x[:, NAMES.index(name)] = values

    put("neighbours", np.maximum(0, np.round(2 + 1.5 * seen())))
    put("box_cover", 1 / (1 + np.exp(-1.5 - 2 * seen())))
    put("max_box_iou", 1 / (1 + np.exp(1 - seen())))
    contact = 1 / (1 + np.exp(-2 * seen()))
    put("mask_contact", np.where(rng.random(n) < 0.3, math.nan, contact))
    put("near_crowd", (seen() > 1.5).astype(float))
    put("flag_occluded", np.where(rng.random(n) < 0.5, math.nan, (seen() > -0.5).astype(float)))
    put("score", 1 / (1 + np.exp(-1 + seen())))
    put("border_touch", np.where(seen() > 2, 3.0, 0.0))
    put("aspect", np.exp(0.6 - 0.1 * seen() + 0.3 * rng.normal(size=n)))
    put("log_area", rng.normal(8, 1.5, n))
    put("stray", np.clip(0.02 * seen(), 0, 1))
    put("feet", (seen() < 0).astype(float))
    put("rule", np.where(contact > 0.25, 0.0, 1.0))
    ids = [f"x/{p:06d}#{i}" for i, p in enumerate(photo)]
    rows = [Row(ids[i], f"x/{photo[i]:06d}", "x", tuple(map(float, x[i]))) for i in range(n)]
    verdicts = np.where(keep, "preserve", np.where(refine, "refine", "discard"))
    return rows, dict(zip(ids, map(str, verdicts), strict=True))
