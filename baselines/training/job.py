"""The options of one training run, checked before anything is read or built."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.nets.devices import PRECISIONS
from baselines.training.recipes import Recipe, recipe_of
from baselines.training.settings import Between, Natural, OneOf, Steps, check_fields

LONGEST_NAME = 200  # bytes; file systems take 255
CACHED = 1.75  # a cached person's largest side in sizes of the crop, so that none is enlarged (`Recipe.cache_px`)


def _check_name(name: str) -> None:
    """It is the name of one folder below ``runs/``, on any system.

    Raises:
        UserError: when it leads elsewhere, is hidden, or no folder can have it.
    """
    plain = name.isprintable() and not set(name) & set('/\\:*?"<>|') and len(name.encode()) <= LONGEST_NAME
    if not plain or name != name.strip() or name.startswith("."):
        raise UserError(
            f"--name {name!r:.80}: expected the name of one folder, such as my-run, without / and dots first"
        )


@dataclass(frozen=True)
class Training:
    """One training run.

    Attributes:
        root: a build folder with finished splits. out: where ``runs/`` is; None: ``root``.
        settings: of the model, over the recipe's.
        iou: mean IoU of the simulated initial masks; None: that of the build's frozen ones (`initial.initial_iou`).
        steps, batch, precision: in place of the recipe's; None: the recipe's.
        ema: decay of the averaged weights that are judged and kept; 0: none.
        accumulate: micro-batches a step; losses are means over the whole step, but batch norms, spectral norms and
            random draws go by micro-batch. compile: torch.compile the model.
        init: a run folder or model file to start from. name: of the run folder; empty: made from what it is.
        stop_at: end after this step as if killed (the run goes on from its last saved state); None: never.

    Raises:
        UserError: for a value of the wrong type or out of its range.
    """

    root: Path
    model: str
    task: str
    recipe: str = "debug"
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    out: Path | None = None
    device: str = "auto"
    devices: Steps = 1
    workers: Natural = 0
    steps: Steps | None = None
    batch: Steps | None = None
    precision: Annotated[str, OneOf(PRECISIONS)] | None = None
    iou: Annotated[float, Between(0, 1, open_low=True)] | None = None
    ema: Annotated[float, Between(0, 1, open_high=True)] = 0.0
    accumulate: Steps = 1
    compile: bool = False
    init: Path | None = None
    name: str = ""
    quiet: bool = False
    save_every: Steps | None = None
    stop_at: Steps | None = None

    def __post_init__(self) -> None:
        check_fields(self, "train.")
        if self.name:
            _check_name(self.name)

    def resolved(self) -> Recipe:
        """The recipe with this run's own size (and people cached for it), steps, batch and precision in it."""
        r = recipe_of(self.recipe)
        size = self.settings.get("size", r.size)
        suffices = math.ceil(CACHED * size) if isinstance(size, int) else 0  # what is no size is refused by the model
        changed: dict[str, Any] = {
            "size": size,
            "cache_px": max(r.cache_px, suffices),
            "steps": {self.task: self.steps or r.steps.get(self.task, 0)},
            "batch": {self.task: self.batch or r.batch.get(self.task, 0)},
            "precision": self.precision or r.precision,
            "save_every": self.save_every or r.save_every,
        }
        return replace(r, **changed)
