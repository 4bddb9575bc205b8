"""How good the initial masks of training are: as good as the frozen ones of the build's train split."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Sample
from ahp_toolkit.storage import parquet
from ahp_toolkit.storage.build_folder import Build

SIMULATED = "simulated"  # how `stages.synth` names masks that no network made
PARTS, EACH = 16, 256  # so many of the train split's parts, evenly spread, and of each so many samples, are measured


def initial_iou(root: Path) -> tuple[float, str]:
    """The mean IoU with the modal masks that a build's initial masks have, and whence it is known.

    Simulated ones have what the build was asked for (``build``). A network's are ``measured`` on the train split's
    frozen samples, to 4 digits.

    Raises:
        UserError: when a network's masks meet nobody.
    """
    parts = parquet.parts(root / "splits" / "train")
    chosen = parts[:: max(1, -(-len(parts) // PARTS))]
    samples = (s for p in chosen for s in itertools.islice(parquet.read_records(p, Sample), EACH))
    found = [s.given.mask.iou(s.modal) for s in samples if not s.given.maker.startswith(SIMULATED) and s.modal.area]
    if not found:
        return float(Build(root).options.get("initial_iou", 0.775)), "build"
    mean = round(float(np.mean(found)), 4)
    if mean <= 0:
        raise UserError(f"{root}: the initial masks of train meet nobody; build the splits with another --initial")
    return mean, "measured"
