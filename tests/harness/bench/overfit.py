"""Every model learns four samples by heart, the suite's overfit test in full (`bench.overfit`)."""

from __future__ import annotations

import argparse
import time
from typing import Any

from baselines.base import MODELS
from tests.baselines.models.overfit import overfit
from tests.baselines.models.world import learning

#: With SGD at the rate that random weights bear it is at .93 after 500 steps: Adam, as in the ``small`` and ``debug``
#: recipes. The smallest anchors are 32 px, as large as half of its people at 64 px.
OTHERWISE: dict[str, dict[str, Any]] = {"mask_rcnn": {"alike": True, "min_size": 128, "width": 64}}


def main() -> None:
    """Print, for all models and tasks or those named, what was reached and how soon."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="models; all when none is named")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--task", choices=["mask", "content"], help="only this one")
    args = parser.parse_args()
    for name in args.names or learning():
        for task in (t for t in MODELS.get(name).TASKS if args.task in (None, t)):
            start = time.process_time()
            fit = overfit(name, task, args.steps, **OTHERWISE.get(name, {}))
            what = "IoU" if task == "mask" else f"l1 over the crop {fit.crop:.4f}, in the hole"
            took = time.process_time() - start
            mark = "ok" if fit.reached else "NOT REACHED"
            print(
                f"{name:18} {task:8} {what} {fit.value:.4f} (untrained {fit.before:.4f}) after {fit.steps} steps, "
                f"{took:.0f} s  {mark}",
                flush=True,
            )


if __name__ == "__main__":
    main()
