"""How helper networks (segmenters, parsers) are trained by the one loop: settings, one loss, one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.nets.devices import compute_dtype, keep_memory
from ahp_toolkit.nets.loop import Loop, Player, Schedule, Terms, load_state, restore_state, save_state
from ahp_toolkit.nets.runlog import RunLog


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
Samples: TypeAlias = Dataset[tuple[Tensor, Tensor]]


def fit(net: nn.Module, samples: Samples, loss: Loss, settings: Settings, run: Run) -> None:
    """Train ``net`` in place: AdamW, cosine with a warm start, gradients clipped at norm 5.

    Args:
        samples: item k * batch + j is sample j of step k: uint8 planes [C, S, S] and their target.
        loss: of the network, a batch of planes and of targets, all on the device.

    Raises:
        UserError: when the loss stops being a number.
    """
    keep_memory()
    net.train().to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loop = _Fit(net, samples, loss, settings, run)
    state = load_state(run.partial)
    start = 0
    if state is not None and state.meta.get("key") == run.key:
        restore_state(state, run.partial, net, loop.players)
        start = int(state.meta["step"])
    loop.play(start, run.quiet)
    net.eval()


class _Fit(Loop):
    def __init__(self, net: nn.Module, samples: Samples, loss: Loss, settings: Settings, run: Run) -> None:
        often = 1 if run.device.type == "cpu" else 10  # each look at the loss waits for a GPU
        schedule = Schedule(settings.steps, settings.save_every, check_every=often)
        dtype = compute_dtype(run.device, settings.precision)
        super().__init__(run.label, schedule, run.seed, run.device, dtype)
        self.net, self.samples, self.loss, self.settings, self.run = net, samples, loss, settings, run
        own = [p for p in net.parameters() if p.requires_grad]
        adam = torch.optim.AdamW(own, lr=settings.lr, weight_decay=settings.weight_decay)
        self.players = [Player("network", own, adam, settings.lr, clip=5.0)]
        self.log = RunLog(run.label, run.partial.parent)

    def batches(self, start: int) -> Iterator[list[Any]]:
        s = self.settings
        loader = DataLoader(
            self.samples,
            batch_size=s.batch,
            sampler=range(start * s.batch, s.steps * s.batch),
            num_workers=s.loaders,
            multiprocessing_context="forkserver" if s.loaders else None,
            pin_memory=torch.cuda.is_available(),
        )
        for parts in loader:
            yield [[p.to(self.device, non_blocking=True) for p in parts]]

    def terms(self, batch: Any, output: Any, player: str) -> tuple[Terms, Tensor]:
        value = self.loss(self.net, *batch)
        return {"loss": value}, value

    def save(self, done: int) -> None:
        save_state(self.run.partial, {"key": self.run.key, "step": done}, self.net, self.players)
