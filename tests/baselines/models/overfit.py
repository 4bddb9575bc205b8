"""Can a model learn four fixed samples by heart? IoU over 0.95, or image l1 under 0.02, at 64 px and small width.

l1 is taken over the invisible pixels alone: over the whole crop, most of which is copied, it would be ten times less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from baselines.base import ADAM, Baseline, Batch, Result, build_model, composite, playing
from tests.baselines.models.world import batch, small

# rates for a handful of small steps; the papers' are for their batches and hundreds of thousands of iterations
RATES = {"sgd": 0.02, "adam": 2e-3}
#: Above it, random weights of mask_rcnn at full width diverge, and deepfillv2, which has no norm, jumps to where its
#: tanh is flat on two seeds of five (as it did with its former attention branch).
OWN = {"mask_rcnn": 1e-3, "deepfillv2": 1e-3}
IOU, L1 = 0.95, 0.02


@dataclass(frozen=True)
class Fit:
    """What was reached (mean IoU of the amodal mask, or mean |RGB| error in the hole) and after how many steps.

    ``before``: the same of the untrained model; ``crop``: for content, the error over the whole crop (l1_image).
    """

    value: float
    steps: int
    reached: bool
    before: float = 0.0
    crop: float = 0.0


def score(found: Result, truth: Batch) -> float:
    """Mean amodal IoU, or l1_invisible of spec §7 over all samples' invisible pixels."""
    if found.image is not None:
        return hole_score(found, truth)
    assert found.amodal is not None
    amodal = truth.need("amodal")
    both = (found.amodal * amodal).sum((1, 2, 3))
    return float((both / torch.maximum(found.amodal, amodal).sum((1, 2, 3))).mean())


def hole_score(found: Result, truth: Batch) -> float:
    """For content: mean |RGB| error in [0, 1] over the invisible pixels only."""
    assert found.image is not None
    wrong = (found.image - truth.need("target")).abs() * truth.invisible
    return float(wrong.sum() / (6 * truth.invisible.sum()))


def crop_score(found: Result, truth: Batch) -> float:
    """For content: l1_image of spec §7; 0 for masks."""
    if found.image is None:
        return 0.0
    shown = composite(truth.image, found.image, truth.invisible)
    return float((shown - truth.need("target")).abs().mean() / 2)


def overfit(
    name: str,
    task: str,
    most: int = 300,
    goal: float | None = None,
    every: int = 25,
    alike: bool = False,
    **settings: object,
) -> Fit:
    """Train on the four samples until the goal is met, looking every so many steps; the rates fall as a cosine.

    Args:
        most: steps, over which the rates fall to 0: at a constant rate Adam's own steps would keep an l1 above 0.02.
        goal: IoU or l1 in the hole to stop at; None: those of the module.
        alike: Adam for all players, as in the ``small`` and ``debug`` recipes, in place of the model's own.
    """
    torch.manual_seed(0)
    truth = batch()
    model = build_model(name, task, 0, **{**small(name, task), **settings})
    model.prepare(truth.need("amodal")[:, 0])
    optimizers = {}
    for turn, own in model.optimizers().items():
        hint = ADAM if alike else own
        rate = (RATES[hint.kind] if alike else OWN.get(name, RATES[hint.kind])) * (0.1 if turn == "critic" else 1)
        optimizers[turn] = hint.build(model.turns()[turn], rate)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda k: (1 + math.cos(math.pi * k / most)) / 2)
        for o in optimizers.values()
    ]
    goal = goal if goal is not None else IOU if task == "mask" else L1
    before, value, crop = _look(model, truth)[0], 0.0, 0.0
    for step in range(1, most + 1):
        train_step(model, truth, optimizers)
        for schedule in schedules:
            schedule.step()
        if step % every == 0 or step == most:
            value, crop = _look(model, truth)
            if value > goal if task == "mask" else value < goal:
                return Fit(value, step, True, before, crop)
    return Fit(value, most, False, before, crop)


@torch.no_grad()
def _look(model: Baseline, truth: Batch) -> tuple[float, float]:
    found = model.eval().predict(truth).cut()
    return score(found, truth), crop_score(found, truth)


def train_step(model: Baseline, truth: Batch, optimizers: dict[str, torch.optim.Optimizer]) -> None:
    """One turn of every player on one forward pass."""
    model.train()
    output = model(truth)
    for turn, optimizer in optimizers.items():
        with playing(model, turn):
            optimizer.zero_grad(set_to_none=True)
            total = model.total(model.losses(truth, output, turn))
            assert torch.isfinite(total), f"{turn}: the loss is {total.item()}"
            total.backward()
            optimizer.step()
