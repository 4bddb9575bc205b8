"""The one training loop of the segmenter and the parser: plain, seeded, resumable.

Every sample and every random number of step k depends on the seed and on k alone, so a run that was stopped and goes on
gives the weights of one that was not, and the number of loader processes changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.hashing import seed_of
from ahp_toolkit.nets import torch_io
from ahp_toolkit.runtime.progress import Progress

WARM = 0.05  # share of the steps in which the learning rate rises
PARTIAL = "ahp-training-1"


@dataclass(frozen=True)
class Settings:
    """How a network is trained.

    ``size`` px of the square input; ``lr`` the peak of AdamW's cosine; ``plane`` whether the box (or mask) is a fourth
    input plane; ``pretrained`` auto (ImageNet weights if they lie in the local cache), yes (fetch), no; ``precision``
    fp32, bf16, auto; ``loaders`` processes that read photos; ``save_every`` steps; ``holdout`` share of the photos kept
    for judging, ``judge`` at most so many humans of them; ``width`` channels of the feature pyramid (centermask).
    """

    encoder: str
    size: int
    steps: int
    batch: int
    lr: float = 1e-3
    weight_decay: float = 1e-2
    plane: bool = True
    pretrained: str = "auto"
    precision: str = "fp32"
    loaders: int = 0
    save_every: int = 25  # of minutes on a laptop, a kill costs seconds
    holdout: float = 0.1
    judge: int = 200
    width: int = 256

    def __post_init__(self) -> None:
        if min(self.steps, self.save_every, self.judge) < 1 or self.batch < 2 or self.size < 32:
            raise UserError(f"expected a size of 32 px or more, a batch of 2 or more, positive counts, got {self}")


@dataclass(frozen=True)
class Run:
    """One training run: where unfinished work lies, what it depends on (``key``), and how it is shown."""

    label: str
    partial: Path
    key: str
    seed: int
    device: torch.device
    quiet: bool


Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def fit(net: nn.Module, samples: Dataset[tuple[Tensor, Tensor]], loss: Loss, settings: Settings, run: Run) -> None:
    """Train ``net`` in place: AdamW, cosine with a warm start, gradients clipped at norm 5.

    Args:
        samples: item k * batch + j is sample j of step k: uint8 planes [C, S, S] and their target.
        loss: of the network, a batch of planes and of targets, all on the device.

    Raises:
        UserError: when the loss stops being a number.
    """
    torch_io.keep_memory()
    net.train().to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(net.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    start = _resume(net, optimiser, run)
    dtype = torch_io.compute_dtype(run.device, settings.precision)
    with Progress(run.label, settings.steps, "step", run.quiet) as bar:
        bar.skip(start)
        for step, (planes, target) in enumerate(_loader(samples, settings, start), start):
            _set_rate(optimiser, settings, step)
            with torch_io.seeded(seed_of(run.seed, run.label, step)), torch_io.precision_of(run.device, dtype):
                value = loss(net, planes.to(run.device, non_blocking=True), target.to(run.device, non_blocking=True))
            _step(net, optimiser, value)
            if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
                _check(value, step, settings)
                _save(net, optimiser, step + 1, run)
            bar.update(1, f"loss {float(value.detach()):.3f}" if step % 10 == 0 else "")
    net.eval()


def _step(net: nn.Module, optimiser: torch.optim.Optimizer, value: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    value.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 5.0)
    optimiser.step()


def _check(value: Tensor, step: int, settings: Settings) -> None:
    if not math.isfinite(float(value.detach())):
        raise UserError(f"the loss became {float(value)} at step {step}; lower the learning rate ({settings.lr})")


def _set_rate(optimiser: torch.optim.Optimizer, settings: Settings, step: int) -> None:
    warm = max(1, round(WARM * settings.steps))
    done = (step - warm) / max(1, settings.steps - warm)
    share = (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * done))
    for group in optimiser.param_groups:
        group["lr"] = settings.lr * share


def _loader(samples: Dataset[tuple[Tensor, Tensor]], settings: Settings, start: int) -> Iterator[Any]:
    order = range(start * settings.batch, settings.steps * settings.batch)
    context = "forkserver" if settings.loaders else None
    return iter(
        DataLoader(
            samples,
            batch_size=settings.batch,
            sampler=order,
            num_workers=settings.loaders,
            multiprocessing_context=context,
            pin_memory=torch.cuda.is_available(),
        )
    )


def _save(net: nn.Module, optimiser: torch.optim.Optimizer, step: int, run: Run) -> None:
    said = {
        "format": PARTIAL,
        "key": run.key,
        "step": step,
        "net": net.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    torch_io.save_torch(run.partial, said)


def _resume(net: nn.Module, optimiser: torch.optim.Optimizer, run: Run) -> int:
    """Go on from the unfinished run of the same key, if there is one; the step to begin with."""
    if not run.partial.exists():
        return 0
    said = torch_io.load_torch(run.partial, "an unfinished training run (delete it to begin anew)")
    if not isinstance(said, dict) or said.get("format") != PARTIAL or said["key"] != run.key:
        return 0
    net.load_state_dict(said["net"])
    optimiser.load_state_dict(said["optimiser"])
    return int(said["step"])
