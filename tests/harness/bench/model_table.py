"""Parameters and FLOPs of every model at 256x256 against the published ones (`bench.model_table`).

GFLOP = 2 x multiply-adds / 1e9, as torch counts them in one forward pass in eval mode; makers only, without critics.
PGA's own count depends on how much is hidden (only those positions are computed), so its row shows the listing's form,
which has all pairs. The published counts of the partial-convolution networks hold a second full convolution for the
mask, as their code runs it: 38.1 = 2 x 19.05, and 70.7 is 19.1 more than ours; on one channel that cost is gone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from baselines.base import GENERATOR, MODELS, Baseline, build_model
from tests.baselines.models.world import batch, learning

AUTHORS: dict[str, Any] = {"pga_form": "listing", "pga_kernel": 3, "pga_skip": False}
BASE: dict[str, Any] = {"attention_b": False, "attention_t": False}
#: (model, task, settings, published M parameters, published GFLOP)
ROWS: list[tuple[str, str, dict[str, Any], float | None, float | None]] = [
    *((name, task, {}, None, None) for name in learning() for task in MODELS.get(name).TASKS),
    ("human_deocclusion", "content", BASE, 25.8, 38.1),
    ("human_deocclusion", "content", AUTHORS, 55.6, 70.7),
    ("human_deocclusion", "content", {"pga_form": "listing"}, None, None),
    ("pcnets", "mask", {}, 3.35, 15.5),
    ("pcnets", "content", {}, 25.8, 38.1),
    ("pix2pix", "content", {}, 54.4, None),
]


def measure(model: Baseline) -> tuple[float, float]:
    """(million parameters of the generator, GFLOP of one forward pass)."""
    data = batch(1, 256)
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(data)
    return sum(p.numel() for p in model.turns()[GENERATOR]) / 1e6, counter.get_total_flops() / 1e9


def main() -> None:
    """Print the table."""
    print(f"{'model':18} {'task':8} {'M par.':>8} {'published':>9} {'GFLOP':>8} {'published':>9}  settings")
    for name, task, settings, params, flops in ROWS:
        m, g = measure(build_model(name, task, vgg="random/8", **settings))
        said = [("" if v is None else str(v)) for v in (params, flops)]
        what = " ".join(f"{k}={v}" for k, v in settings.items())
        print(f"{name:18} {task:8} {m:8.2f} {said[0]:>9} {g:8.1f} {said[1]:>9}  {what}", flush=True)


if __name__ == "__main__":
    main()
