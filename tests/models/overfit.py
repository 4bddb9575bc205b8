"""Can a model learn four fixed samples by heart? IoU over 0.95, or image l1 under 0.02, at 64 px and small width."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from baselines.base import Baseline, Batch, Result, build_model, playing

from .world import batch, small

# rates for a handful of small steps; the papers' are for their batches and hundreds of thousands of iterations
RATES = {"sgd": 0.02, "adam": 2e-3}
IOU, L1 = 0.95, 0.02


@dataclass(frozen=True)
class Fit:
    """What was reached (mean IoU of the amodal mask, or mean |RGB| error in [0, 1]) and after how many steps."""

    value: float
    steps: int
    reached: bool


def score(found: Result, truth: Batch) -> float:
    """Mean amodal IoU, or l1_image of spec §7."""
    if found.image is not None:
        return float((found.image - truth.need("target")).abs().mean() / 2)
    assert found.amodal is not None
    amodal = truth.need("amodal")
    both = (found.amodal * amodal).sum((1, 2, 3))
    return float((both / torch.maximum(found.amodal, amodal).sum((1, 2, 3))).mean())


def hole_score(found: Result, truth: Batch) -> float:
    """For content: mean |RGB| error in [0, 1] over the invisible pixels only, which the crop's mean would hide."""
    assert found.image is not None
    wrong = (found.image - truth.need("target")).abs() * truth.invisible
    return float(wrong.sum() / (6 * truth.invisible.sum()))


def overfit(name: str, task: str, most: int = 300, l1: float = L1, every: int = 25, **settings: object) -> Fit:
    """Train on the four samples until the goal is met, looking every so many steps."""
    torch.manual_seed(0)
    truth = batch()
    model = build_model(name, task, 0, **{**small(name, task), **settings})
    model.prepare(truth.need("amodal")[:, 0])
    optimizers = {}
    for turn, hint in model.optimizers().items():
        rate = RATES[hint.kind] * (0.1 if turn == "critic" else 1)
        optimizers[turn] = hint.build(model.turns()[turn], rate)
    value = 0.0
    for step in range(1, most + 1):
        train_step(model, truth, optimizers)
        if step % every == 0:
            model.eval()
            with torch.no_grad():
                found = model.predict(truth)
            value = score(found, truth) if task == "mask" else hole_score(found, truth)
            if value > IOU if task == "mask" else value < l1:
                return Fit(value, step, True)
    return Fit(value, most, False)


def train_step(model: Baseline, truth: Batch, optimizers: dict[str, torch.optim.Optimizer]) -> None:
    """One turn of every player on one forward pass."""
    model.train()
    output = model(truth)
    for turn, optimizer in optimizers.items():
        with playing(model, turn):
            optimizer.zero_grad(set_to_none=True)
            model.total(model.losses(truth, output, turn)).backward()
            optimizer.step()
