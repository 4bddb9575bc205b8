"""The one training loop, of helper networks and baselines alike: seeded, resumable, logged.

Every random number of step k depends on the seed and on k alone, so a stopped training goes on to the weights of one
that was not stopped. A network has players, which take turns in every step while the others are frozen: most networks
have one, a generator and its discriminator are two.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.hashing import seed_of
from ahp_toolkit.nets.checkpoints import Checkpoint, fill, load_checkpoint, save_checkpoint
from ahp_toolkit.nets.devices import precision_of
from ahp_toolkit.nets.runlog import RunLog
from ahp_toolkit.runtime.progress import Progress

STATE_FORMAT = "ahp-training-2"
Terms = dict[str, Tensor]


@dataclass
class Player:
    """Parameters, the optimizer that moves them, its peak rate, the norm at which gradients are clipped (0: never)."""

    name: str
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    rate: float
    clip: float = 0.0


@dataclass(frozen=True)
class Schedule:
    """How many steps, and what happens every so many of them (0: never).

    The rate is constant, or with ``cosine`` rises over the share ``warm`` of the steps and then falls as a cosine.
    ``check_every``: how often the loss terms are fetched from the device and looked at.
    """

    steps: int
    save_every: int
    log_every: int = 10
    check_every: int = 1
    look_every: int = 0
    cosine: bool = True
    warm: float = 0.05

    def factor(self, step: int) -> float:
        """The share of the peak rate at a step (from 0)."""
        if not self.cosine:
            return 1.0
        warm = max(1, round(self.warm * self.steps))
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))


class Loop:
    """Trains ``net`` in place; a subclass says where batches and losses come from, and what to look at and save.

    Set ``net``, ``players`` and ``log`` before `play`.
    """

    net: nn.Module
    players: list[Player]
    log: RunLog

    def __init__(self, name: str, schedule: Schedule, seed: int, device: torch.device, dtype: torch.dtype) -> None:
        self.name, self.schedule, self.seed, self.device, self.dtype = name, schedule, seed, device, dtype
        self.seconds: list[float] = []

    def batches(self, start: int) -> Iterator[list[Any]]:
        """The micro-batches of every step from ``start`` on, on the device."""
        raise NotImplementedError

    def forward(self, batch: Any) -> Any:
        """One forward pass, which serves the turns of all players."""

    def terms(self, batch: Any, output: Any, player: str) -> tuple[Terms, Tensor]:
        """The named loss terms of a player's turn and their weighted sum."""
        raise NotImplementedError

    def gather(self, player: Player, micro: int) -> None:
        """Turn the summed gradients of ``micro`` micro-batches into their mean."""
        grads = [p.grad for p in player.parameters if p.grad is not None]
        if micro > 1 and grads:
            torch._foreach_div_(grads, float(micro))

    def stepped(self) -> None:
        """After every step."""

    def look(self, done: int) -> None:
        """Validate after ``done`` steps."""

    def save(self, done: int) -> None:
        """Save the state after ``done`` steps."""

    def play(self, start: int, quiet: bool = False, stop_at: int | None = None) -> None:
        """Train from step ``start`` to the last, or end after step ``stop_at`` as if killed.

        Raises:
            UserError: when a loss term stops being a number.
        """
        s = self.schedule
        with Progress(self.name, s.steps, "step", quiet) as bar, torch.random.fork_rng():
            bar.skip(start)
            batches = self.batches(start)
            for step in range(start, s.steps):
                begun = time.perf_counter()
                self.log.add(step, self._step(step, next(batches)))
                done = step + 1
                saving = done % s.save_every == 0 or done == s.steps
                looking = bool(s.look_every) and (done % s.look_every == 0 or done == s.steps)
                if done % s.check_every == 0 or saving or looking:
                    self.log.check()
                self.seconds.append(time.perf_counter() - begun)
                if done % s.log_every == 0:
                    self.log.write(done, {p.name: p.rate * s.factor(step) for p in self.players})
                if looking:
                    self.look(done)
                if saving:
                    self.save(done)
                bar.update(1, self.log.note)
                if done == stop_at:
                    return

    def _step(self, step: int, micro: list[Any]) -> Terms:
        """One turn of every player; with one micro-batch its forward pass serves all turns."""
        self.net.train()
        torch.manual_seed(seed_of(self.seed, "step", step))
        factor, found = self.schedule.factor(step), Terms()
        shared = None
        if len(micro) == 1:
            with precision_of(self.device, self.dtype):
                shared = self.forward(micro[0])
        for player in self.players:
            with alone(self.net, player.parameters):
                player.optimizer.zero_grad(set_to_none=True)
                for batch in micro:
                    with precision_of(self.device, self.dtype):
                        output = shared if len(micro) == 1 else self.forward(batch)
                        terms, total = self.terms(batch, output, player.name)
                    total.backward()
                    for name, value in terms.items():
                        found[name] = found.get(name, 0) + value.detach().float() / len(micro)
                self.gather(player, len(micro))
                if player.clip:
                    nn.utils.clip_grad_norm_(player.parameters, player.clip)
                for group in player.optimizer.param_groups:
                    group["lr"] = player.rate * factor
                player.optimizer.step()
        self.stepped()
        return found

    def pace(self) -> float | None:
        """The median seconds of a step, without the first tenth; None before any."""
        steady = sorted(self.seconds[len(self.seconds) // 10 :])
        return steady[len(steady) // 2] if steady else None


@contextmanager
def alone(net: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Only these parameters of the network need gradients inside; the others are frozen, and as before afterwards."""
    before = [(p, p.requires_grad) for p in net.parameters()]
    ids = {id(p) for p in parameters}
    for p, _ in before:
        p.requires_grad_(id(p) in ids)
    try:
        yield
    finally:
        for p, flag in before:
            p.requires_grad_(flag)


# --- unfinished trainings -----------------------------------------------------------------------------------------


def save_state(
    path: Path, meta: Mapping[str, Any], net: nn.Module, players: Iterable[Player], average: nn.Module | None = None
) -> None:
    """Write what a training needs to go on; ``meta``: its ``key``, ``step`` and other plain values."""
    tensors = {f"net/{k}": v for k, v in net.state_dict().items()}
    if average is not None:
        tensors |= {f"average/{k}": v for k, v in average.state_dict().items()}
    for player in players:
        for index, values in player.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{player.name}/{index}/{k}": v for k, v in values.items() if isinstance(v, Tensor)}
    save_checkpoint(path, STATE_FORMAT, Checkpoint({}, tensors, dict(meta)))


def load_state(path: Path) -> Checkpoint | None:
    """What `save_state` wrote, or None when there is no file.

    Raises:
        UserError: when the file is damaged.
    """
    if not path.exists():
        return None
    try:
        return load_checkpoint(path, STATE_FORMAT)
    except UserError as e:
        raise UserError(f"{e}; delete it to start the training again") from e


def part_of(state: Checkpoint, name: str) -> dict[str, Tensor]:
    """The tensors below ``name``/, by the rest of their names."""
    return {k[len(name) + 1 :]: v for k, v in state.state.items() if k.startswith(f"{name}/")}


def restore_state(
    state: Checkpoint, where: Path, net: nn.Module, players: Iterable[Player], average: nn.Module | None = None
) -> None:
    """Put a state back into the network, the players' optimizers and the averaged network.

    Raises:
        UserError: when it does not fit.
    """
    fill(net, part_of(state, "net"), where)
    if average is not None:
        fill(average, part_of(state, "average"), where)
    for player in players:
        found: dict[int, dict[str, Tensor]] = {}
        for key, value in part_of(state, f"optimizer/{player.name}").items():
            index, _, name = key.partition("/")
            found.setdefault(int(index), {})[name] = value
        groups = player.optimizer.state_dict()["param_groups"]
        player.optimizer.load_state_dict({"state": found, "param_groups": groups})
