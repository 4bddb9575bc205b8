"""What several processes must do together, so that their number does not change the training of a global batch.

Batch norm over the global batch (CUDA has torch's own; torch has none for the CPU, where several processes are for
tests and small machines), one count for data-dependent means, one draw of random numbers. All processes have one seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce  # the differentiable one

from baselines.base import Batch


def processes() -> tuple[int, int]:
    """(how many there are, which of them this is); (1, 0) without torch.distributed."""
    if not (dist.is_available() and dist.is_initialized()):
        return 1, 0
    return dist.get_world_size(), dist.get_rank()


def drawn(count: int, draw: Callable[[int], Tensor]) -> Tensor:
    """Random values [count, ...] of this process's samples, as one process would draw them for the global batch.

    ``draw(n)`` gives [n, ...]; every process draws for all, which keeps their generators alike, and takes its own.
    """
    world, rank = processes()
    return draw(world * count)[rank * count : (rank + 1) * count]


def counted(batches: Sequence[Batch]) -> list[Batch]:
    """A step's micro-batches, each with the mean ``counts`` of all of them in all processes (a collective call)."""
    total = torch.stack([b.own_counts() for b in batches]).sum(0)
    world, _ = processes()
    if world > 1:
        dist.all_reduce(total)
    mean = total.clamp(min=1) / (world * len(batches))
    return [replace(b, counts=mean) for b in batches]


class SharedDropout(nn.Dropout):
    """`nn.Dropout` that drops of each sample what one process on the global batch would."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, ...] to the same shape; sample i of the process's share is sample i of the batch."""
        if not self.training or self.p in (0.0, 1.0):
            return super().forward(input)
        keep = drawn(len(input), lambda n: input.new_empty(n, *input.shape[1:]).bernoulli_(1 - self.p))
        return input * keep.div_(1 - self.p)


def share_dropout(net: nn.Module) -> None:
    """Make all dropouts of the network `SharedDropout`."""
    for module in net.modules():
        if type(module) is nn.Dropout:
            module.__class__ = SharedDropout


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose training statistics are those of all processes' samples (two passes, exact)."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return super().forward(input)
        x = input if input.dtype == torch.float64 else input.float()
        count = torch.tensor(float(x.numel() // x.shape[1]), dtype=x.dtype)
        dist.all_reduce(count)
        mean = all_reduce(x.sum((0, 2, 3))) / count
        centred = x - mean[:, None, None]
        variance = all_reduce(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            share = self.momentum or 0.1
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance * (count / (count - 1).clamp(min=1)), share)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        y = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            y = y * self.weight[:, None, None] + self.bias[:, None, None]
        return y.to(input.dtype)


def sync_batch_norm(net: nn.Module, device: torch.device) -> nn.Module:
    """The network with all its 2-d batch norms synchronised; names and tensors of its state stay."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(net)
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm2d
    return net
