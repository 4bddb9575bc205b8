"""What a trained model costs at inference: parameters, FLOPs, time at batch 1, people a second, memory.

Measured on one noise picture of the model's own size with a person-sized box for its mask, by the model's own
inference rule (`Baseline.predict`): decoding, cropping and writing are not in it, the feeder's own network is.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ahp_toolkit.core.crops import SIDE
from baselines.base import GENERATOR, Batch
from baselines.inference.cascade import answer, complete_masks, fed_by, resized_image, resized_mask
from baselines.training.runs import Loaded

BATCH = 16  # people at once, for people a second
SECONDS = 0.5  # of repeating, each; at least REPEATS
REPEATS = 3


def noise(count: int, size: int, device: torch.device) -> Batch:
    """A batch of noise pictures: the person is a box whose lower half is hidden, all of one body part."""
    draw = torch.Generator().manual_seed(0)
    image = (torch.rand(count, 3, size, size, generator=draw) * 2 - 1).to(device)
    amodal = torch.zeros(count, 1, size, size, device=device)
    amodal[..., size // 4 : size - size // 4, size // 3 : size - size // 3] = 1
    modal = amodal.clone()
    modal[..., size // 2 :, :] = 0
    return Batch(image, modal, modal, amodal, amodal[:, 0].long())


def call_of(
    model: Loaded, feeder: Loaded | None, count: int, device: torch.device, precision: str
) -> Callable[[], Any]:
    """One pass over ``count`` people, both stages where there is a feeder."""
    batch = noise(count, model.size, device)
    if model.task == "mask":
        own = Batch(batch.image, batch.given)
        return lambda: answer(model, own, precision)
    if feeder is None:
        return lambda: answer(model, batch, precision)
    first = Batch(resized_image(batch.image, feeder.size), resized_mask(batch.given, feeder.size))
    given = resized_mask(batch.given, SIDE)
    return lambda: answer(model, fed_by(batch, complete_masks(feeder, first, given, precision)), precision)


def measure(model: Loaded, feeder: Loaded | None, device: torch.device, precision: str) -> dict[str, float]:
    """The speed board's figures.

    Returns:
        ``parameters`` (what inference uses: no critics), ``flops`` (2 x multiply-adds of one person, as torch counts
        them), ``ms_per_person`` (median, batch 1), ``people_per_second`` (median, batch `BATCH`),
        ``peak_memory_mb`` (batch 1: on a GPU the allocator's peak, else tensors alive at once; weights included).
    """
    one = call_of(model, feeder, 1, device, precision)
    nets = [m.net for m in (model, feeder) if m is not None]
    own = {id(p): p.numel() for net in nets for p in net.turns().get(GENERATOR, [])}
    with FlopCounterMode(display=False) as counter:
        one()
    peak = _peak(one, nets, device)
    return {
        "parameters": sum(own.values()),
        "flops": counter.get_total_flops(),
        "ms_per_person": 1e3 * _median(one, device),
        "people_per_second": BATCH / _median(call_of(model, feeder, BATCH, device, precision), device),
        "peak_memory_mb": peak / 1e6,
    }


def _median(call: Callable[[], Any], device: torch.device) -> float:
    """Seconds of a call: the first (compilation, graphs, caches) is not counted."""
    call()
    times: list[float] = []
    while len(times) < REPEATS or sum(times) < SECONDS:
        begun = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begun)
    return sorted(times)[len(times) // 2]


def _peak(call: Callable[[], Any], nets: list[Any], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return float(torch.cuda.max_memory_allocated(device))
    with Alive() as alive:
        call()
    return alive.most + sum(t.nbytes for net in nets for t in net.state_dict().values())


class Alive(TorchDispatchMode):
    """Counts the bytes of tensors made inside that are alive at once; ``most``: the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, Tensor):
                self._take(t.untyped_storage(), before)
        return out

    def _take(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        key = storage._cdata
        if key in before or key in self._seen:  # a view, or in place
            return
        size = storage.nbytes()
        self._seen[key] = weakref.finalize(storage, self._free, key, size)
        self.now += size
        self.most = max(self.most, self.now)

    def _free(self, key: int, size: int) -> None:
        self._seen.pop(key, None)
        self.now -= size
