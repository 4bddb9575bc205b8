"""Devices and arithmetic: which device, which precision, which memory layout, one thread, one seed.

Importing this imports torch. Nothing here depends on the number of workers: a CPU runs inference on one thread (see
`steady`).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ahp_toolkit.core.errors import UserError

PRECISIONS = ("fp32", "bf16", "auto")
_MALLOC = ((-4, 0), (-1, 2**31 - 1), (-2, 64 * 2**20))  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD


def pick_device(device: str = "auto") -> torch.device:
    """``auto`` (CUDA where there is one, else the CPU) or torch's own name of a device.

    Raises:
        UserError: for a device that torch does not know or this machine does not have.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as e:
        line = str(e).splitlines()[0]
        raise UserError(f"device {device!r} cannot be used here ({line}); take --device cpu or auto") from e
    return found


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is fast on the device: read from the hardware, never assumed.

    On a CPU: AMX tiles or AVX-512's dot products of bfloat16; elsewhere torch emulates it, slower than float32. With
    them and channels last the paper's networks gain 1.4 to 2.3 times (performance §4); of networks as narrow as the
    ``debug`` recipe's the casts may cost more than that, so it says fp32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, check, bool)() for check in checks)


def compute_dtype(device: torch.device, precision: str = "fp32") -> torch.dtype:
    """float32 or bfloat16. ``auto`` takes bfloat16 only where the hardware has it.

    Raises:
        UserError: for an unknown precision.
    """
    if precision not in PRECISIONS:
        raise UserError(f"expected a precision of {', '.join(PRECISIONS)}, got {precision!r}")
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and has_bf16(device)) else torch.float32


def layout_of(device: torch.device, dtype: torch.dtype = torch.float32) -> torch.memory_format:
    """Channels last where convolutions are fastest so, on CUDA and in bfloat16; else contiguous."""
    last = device.type == "cuda" or dtype == torch.bfloat16
    return torch.channels_last if last else torch.contiguous_format


@contextmanager
def steady(device: torch.device, dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """Inference that gives the same bytes at any worker count: no gradients; on a CPU one thread, restored after."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        with torch.inference_mode(), precision_of(device, dtype):
            yield
    finally:
        torch.set_num_threads(threads)


def precision_of(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Autocast to ``dtype`` (float32: nothing is cast)."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's random numbers from ``seed`` inside; outside they go on as if nothing had been drawn."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def keep_memory() -> bool:
    """Tell glibc's malloc to keep freed tensors instead of giving them back to the kernel (performance §4).

    Without it a training step takes 150,000 page faults. Memory in use stays at its peak. Returns whether it was set:
    False on anything but glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(what, value) == 1 for what, value in _MALLOC)
