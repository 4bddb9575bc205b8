"""Batch normalisation over the global batch of several processes, so that their number does not change the training.

CUDA has torch's own; torch has none for the CPU, where several processes are for tests and small machines.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce  # the differentiable one


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
