"""Speed and memory of the models' parts against their plain forms. `python -m tests.harness.bench.bench_models`.

PGA's attention at a 64x64 map (stride 4 of 256x256), forward and backward, each way in a process of its own, so that
its peak memory is its own; the partial convolution against the published two-convolution form; forward passes at
256x256, batch 1 and 16, float32 and bfloat16, and their ratio to the floor: their FLOPs over the rate of a large matrix
product of the same precision in the same run.
"""

from __future__ import annotations

import itertools
import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ahp_toolkit.nets.devices import has_bf16, keep_memory, layout_of, precision_of
from baselines.base import build_model
from baselines.layers.attention import pairwise
from baselines.layers.networks import PartialConv2d
from tests.baselines.models.world import batch

N, D, C = 64 * 64, 16, 128


def best(fn: Callable[[], object], times: int = 5) -> float:
    """Shortest of several runs, ms of this thread's own time (neighbours do not count), after one to warm up."""
    fn()
    spans = []
    for _ in range(times):
        start = time.thread_time()
        fn()
        spans.append(time.thread_time() - start)
    return 1e3 * min(spans)


def plain(q: Tensor, k: Tensor, v: Tensor, masks: tuple[Tensor, Tensor], form: str) -> list[Tensor]:
    """The formula with the whole matrix."""
    visible, invisible = masks
    r = q @ k.transpose(1, 2)
    if form == "listing":
        return [r.transpose(1, 2).softmax(2) @ v, r.softmax(2) @ v]
    r = r.masked_fill(~visible[:, :, None], float("-inf")).softmax(1)
    return [r.transpose(1, 2) @ v * invisible[:, :, None]]


def _attention(way: str, form: str, out: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, N, d, requires_grad=True) for d in (D, D, C))
    visible = torch.rand(1, N) < 0.25
    invisible = (torch.rand(1, N) < 0.1) & ~visible
    fn = plain if way == "plain" else pairwise
    torch.randn(1, 64, D) @ torch.randn(1, D, 64)  # the library's own buffers do not count
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def forward() -> Tensor:
        return torch.stack([f.square().sum() for f in fn(q, k, v, (visible, invisible), form)]).sum()  # type: ignore[operator]

    forward().backward()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    out.put((best(lambda: forward().detach()), best(lambda: forward().backward()), peak / 1024))


def bench_attention() -> None:
    """PGA's attention, plain and ours."""
    context = multiprocessing.get_context("spawn")
    print(f"PGA attention, {N} positions, d {D}, c {C}, batch 1, float32: forward, with backward, peak memory")
    for form, what in (("listing", "two-way, no masks"), ("eq6", "eq. 6, 25 % visible, 10 % invisible")):
        found = {}
        for way in ("plain", "ours"):
            queue: multiprocessing.Queue = context.Queue()  # type: ignore[type-arg]
            process = context.Process(target=_attention, args=(way, form, queue))
            process.start()
            found[way] = queue.get()
            process.join()
            forward, both, peak = found[way]
            print(f"  {what:36} {way:6} {forward:8.1f} ms {both:8.1f} ms {peak:8.1f} MiB")
        ratios = [a / max(b, 1e-3) for a, b in zip(found["plain"], found["ours"], strict=True)]
        print(f"  {'':36} ratio  {ratios[0]:8.1f}    {ratios[1]:8.1f}    {ratios[2]:8.1f}   (targets: 1.5, 1.5, 4)")


def two_convolutions(layer: PartialConv2d, ones: Tensor, x: Tensor, masks: Tensor) -> Tensor:
    """The published form: a full convolution of ones over the mask in all channels."""
    with torch.no_grad():
        seen = F.conv2d(masks, ones, stride=layer.conv.stride, padding=layer.conv.padding)
        holes = seen == 0
        seen = seen.masked_fill_(holes, 1.0)
    return (layer.conv(x * masks) / seen).masked_fill_(holes, 0.0)


def bench_partial() -> None:
    """Partial convolution at the sizes of the U-Net's second and third level."""
    print("partial convolution, forward, one channel for the mask against two full convolutions (target 1.3)")
    for inputs, outputs, kernel, size in ((64, 128, 5, 128), (128, 256, 5, 64), (512, 512, 3, 16)):
        layer = PartialConv2d(inputs, outputs, kernel, 2)
        x, mask = torch.randn(1, inputs, size, size), (torch.rand(1, 1, size, size) > 0.3).float()
        masks, ones = mask.repeat(1, inputs, 1, 1), torch.ones_like(layer.conv.weight)
        with torch.no_grad():
            ours = best(lambda layer=layer, x=x, mask=mask: layer((x, mask)))  # type: ignore[misc]
            theirs = best(lambda a=(layer, ones, x, masks): two_convolutions(*a))  # type: ignore[misc]
        print(
            f"  {inputs:4} to {outputs:4}, {kernel}x{kernel}, {size:4} px: "
            f"{ours:7.2f} ms, {theirs:7.2f} ms, x {theirs / ours:.2f}"
        )


def bench_forward(dtype: torch.dtype) -> None:
    """Both stages of the paper and the two PCNets, batch 1 and 16, in float32 or under autocast to ``dtype``."""
    cpu = torch.device("cpu")
    a, b = torch.randn(2, 2048, 2048).to(dtype)
    rate = 2 * 2048**3 / best(lambda: a @ b) / 1e6  # GFLOP/s
    print(f"forward at 256x256, {str(dtype).removeprefix('torch.')}; floor at {rate:.0f} GFLOP/s")
    layout = layout_of(cpu, dtype)
    for name, task in itertools.product(("human_deocclusion", "pcnets"), ("mask", "content")):
        model = build_model(name, task, vgg="random/8").eval().to(memory_format=layout)  # type: ignore[call-overload]
        for count in (1, 16):
            data = batch(count, 256)
            data = replace(data, image=data.image.contiguous(memory_format=layout))
            with torch.inference_mode(), precision_of(cpu, dtype):
                with FlopCounterMode(display=False) as counter:
                    model(data)
                took = best(partial(model, data), 5 if count == 1 else 1)
            flops = counter.get_total_flops() / 1e9
            print(
                f"  {name:18} {task:8} batch {count:2} {took:9.1f} ms, {flops:7.1f} GFLOP, "
                f"{took / (1e3 * flops / rate):5.2f} x the floor"
            )


def main() -> None:
    """Print all three; bfloat16 where the processor has it."""
    torch.set_num_threads(1)
    keep_memory()  # as training and prediction do
    bench_attention()
    bench_partial()
    for dtype in [torch.float32, *[torch.bfloat16] * has_bf16(torch.device("cpu"))]:
        bench_forward(dtype)


if __name__ == "__main__":
    main()
