"""How models are trained: one frozen table. Models change, recipes do not.

``paper``: the paper's size, batches, rates and iterations (§5.1; spec §3, §4), each model with its own paper's
optimiser. ``small`` and ``debug`` train every model alike: narrower by one factor, Adam, a cosine with a warm start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.hashing import digest_value
from baselines.base import CRITIC, Baseline, Optimizer, build_model


@dataclass(frozen=True)
class Recipe:
    """One way of training.

    Attributes:
        size: crop, px. cache_px: largest side of a cached person (twice their longer side, so 1.75 sizes suffice).
        batch, steps: of each task; the batch is the global one, over all devices.
        width: factor of the models' widths; settings: further settings, given to the models that have them.
        maker, critic: optimisers in place of the models' own; None: the models' own.
        cosine: whether the rate falls as a cosine after a warm start over ``warm`` of the steps; else it is constant.
        density: of the occlusion ratios.
        precision: fp32, bf16, auto (bf16 where the hardware has it).
        val_samples: of the val split that a check looks at; None: all.
        eval_every, save_every, log_every: steps.
    """

    name: str
    size: int
    cache_px: int
    batch: Mapping[str, int]
    steps: Mapping[str, int]
    width: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    maker: Optimizer | None = None
    critic: Optimizer | None = None
    cosine: bool = False
    warm: float = 0.05
    density: str = "train"
    precision: str = "auto"
    val_samples: int | None = None
    eval_every: int = 2000
    save_every: int = 1000
    log_every: int = 50

    @property
    def digest(self) -> str:
        """sha256 hex of the whole recipe."""
        return digest_value(asdict(self))


RECIPES = {
    "paper": Recipe(
        "paper", 256, 448, {"mask": 32, "content": 16}, {"mask": 48_000, "content": 230_000}, precision="fp32"
    ),
    "small": Recipe(
        "small", 128, 224, {"mask": 32, "content": 16}, {"mask": 10_000, "content": 12_000}, width=0.5,
        maker=Optimizer("adam", 1e-3, betas=(0.9, 0.99)), critic=Optimizer("adam", 2e-4, betas=(0.5, 0.99)),
        cosine=True, val_samples=256, eval_every=1000, save_every=500,
    ),
    "debug": Recipe(
        "debug", 64, 112, {"mask": 8, "content": 8}, {"mask": 600, "content": 200}, width=0.5,
        settings={"vgg": "random/8", "encoder": "resnet18", "backbone": "resnet18", "min_size": 128, "proposals": 32},
        maker=Optimizer("adam", 2e-3, betas=(0.9, 0.99)), critic=Optimizer("adam", 5e-4, betas=(0.5, 0.99)),
        cosine=True, precision="fp32", val_samples=48, eval_every=200, save_every=50, log_every=10,
    ),
}  # fmt: skip


def recipe_of(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        UserError: for an unknown one.
    """
    if name not in RECIPES:
        raise UserError(f"no recipe is named {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name]


def own_model(model: str, task: str) -> Baseline:
    """A model with the settings it has by itself, without memory of its own (on the meta device).

    Raises:
        UserError: for an unknown model or task.
    """
    with torch.device("meta"):  # shapes only: nothing is allocated
        return build_model(model, task)


def model_settings(model: str, task: str, recipe: Recipe, given: Mapping[str, Any]) -> dict[str, Any]:
    """All settings a model is built with: its own, scaled by the recipe, then what the user has ``given``.

    Defaults are among them: a run says what it was trained with, also where a later version's default differs.

    Raises:
        UserError: for an unknown model, task or setting.
    """
    own = own_model(model, task).settings
    out = {"size": recipe.size} | {k: v for k, v in recipe.settings.items() if hasattr(own, k)}
    for name in ("width", "critic_width"):
        if hasattr(own, name):
            out[name] = max(4, round(getattr(own, name) * recipe.width))
    out |= given
    with torch.device("meta"):  # refuses what does not fit before anything else is done
        return asdict(build_model(model, task, **out).settings)


def optimizer_of(model: Baseline, player: str, recipe: Recipe) -> Optimizer:
    """The optimiser of a player: the recipe's where it has one, else the model's own."""
    ours = recipe.critic if player.startswith(CRITIC) else recipe.maker
    return ours or model.optimizers()[player]
