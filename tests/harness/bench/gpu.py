"""The paper's networks on one GPU: `make bench-gpu`, or `python -m tests.harness.bench.gpu [--quick] [--device cpu]`.

Needs this repository's files, torch, torchvision, numpy, pyarrow, opencv; what a model needs beside them is left out
where it is missing. Times are medians over CUDA events; the floor is a pass's FLOPs over the rate of a large matrix
product of the same precision in the same run. Each part stands alone: one that fails, or for which no time is left,
says so in the results, which are written after every part.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from baselines.base import MODELS, Baseline, Batch, Output, Result, build_model, playing
from baselines.inference.graphs import capture, cast_once
from baselines.layers.attention import pairwise
from baselines.layers.networks import PartialConv2d
from baselines.training.recipes import model_settings, optimizer_of, recipe_of
from tests.baselines.models.world import batch as world
from tests.baselines.models.world import learning
from tests.harness.bench.bench_models import plain, two_convolutions

FAST, BEST = "reduce-overhead", "max-autotune"  # of torch.compile
PRECISIONS = ("fp32", "tf32", "bf16")
#: How far ||a - b|| / ||b|| of a replayed or compiled pass may be from the eager one of the same precision.
TOLERANCE = {"graph": {"fp32": 1e-5, "tf32": 1e-3, "bf16": 1e-2}, "compile": {"fp32": 1e-4, "tf32": 5e-3, "bf16": 5e-2}}
RATES = "matrix product, TFLOP/s"  # the floor that all else is compared with: always measured
PAPER_MS = 29.67  # both stages, batch 1, V100


@dataclass
class Run:
    """What is measured where, and what came of it."""

    device: torch.device
    quick: bool
    until: float
    out: Path
    rates: dict[str, float] = field(default_factory=dict)  # TFLOP/s of a large matrix product
    found: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def cuda(self) -> bool:
        """Whether there are graphs, events and a memory count."""
        return self.device.type == "cuda"

    @property
    def tiny(self) -> bool:
        """Sizes of a trial on a CPU."""
        return self.quick and not self.cuda

    @property
    def precisions(self) -> tuple[str, ...]:
        """What is measured."""
        return ("fp32", "bf16") if self.tiny else PRECISIONS

    @property
    def size(self) -> int:
        """Crops, px."""
        return 64 if self.tiny else 256

    @property
    def left(self) -> float:
        """Seconds of the budget."""
        return self.until - time.monotonic()


@contextmanager
def precision(name: str, device: torch.device) -> Iterator[None]:
    """fp32: float32 throughout; tf32: products in it; bf16: autocast."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=name == "bf16"):
            yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def timed(run: Run, fn: Callable[[], object], seconds: float = 1.0, most: int = 100) -> float:
    """Median ms, after three passes to warm up; of a trial on a CPU the only pass."""
    for _ in range(0 if run.tiny else 3):
        fn()
    spans: list[float] = []
    stop = time.monotonic() + (0.0 if run.tiny else seconds)
    while len(spans) < (1 if run.tiny else 3) or (len(spans) < most and time.monotonic() < stop):
        if run.cuda:
            begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            begun.record()  # type: ignore[no-untyped-call]
            fn()
            ended.record()  # type: ignore[no-untyped-call]
            ended.synchronize()
            spans.append(begun.elapsed_time(ended))
        else:
            start = time.perf_counter()
            fn()
            spans.append(1e3 * (time.perf_counter() - start))
    return median(spans)


def peak(run: Run, fn: Callable[[], object]) -> float | None:
    """MiB that a call takes at its peak over what is held before; None on a CPU."""
    if not run.cuda:
        return None
    fn()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    fn()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def away(found: list[Tensor], truth: list[Tensor]) -> float:
    """The largest ||a - b|| / ||b||; NaN where there is one."""
    errors = [
        ((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-12))
        for a, b in zip(found, truth, strict=True)
    ]
    return float(torch.stack(errors).detach().max())


def pictures(made: Output | Result) -> list[Tensor]:
    """All that a pass gave, copied: graphs write over it."""
    values = (made.modal, made.amodal, made.modal_parsing, made.parsing, made.image)
    return [v.detach().float().clone() for v in values if v is not None]


def network(run: Run, task: str) -> Baseline:
    """A stage of the paper with random weights and templates, channels last, in eval mode."""
    width = {"width": 8} if run.tiny else {}
    net = build_model("human_deocclusion", task, vgg="random/8", size=run.size, **width)
    if task == "mask":
        net.net.templates.templates.uniform_()  # type: ignore[union-attr, operator]
    return net.eval().to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def shown(run: Run, count: int) -> Batch:
    """People for a forward pass, images channels last."""
    b = world(count, run.size).to(run.device)
    image = b.image.contiguous(memory_format=torch.channels_last)
    return Batch(image, b.given, b.modal, b.amodal, b.parsing)


def rates(run: Run) -> Any:
    """TFLOP/s of a large matrix product, by precision."""
    n = 256 if run.tiny else 8192
    for name in PRECISIONS:
        with precision(name, run.device):
            dtype = torch.bfloat16 if name == "bf16" else torch.float32
            a, b = (torch.randn(n, n, device=run.device, dtype=dtype) for _ in range(2))
            run.rates[name] = 2 * n**3 / timed(run, partial(torch.mm, a, b), most=20) / 1e9
    return run.rates


# --- forward passes ---------------------------------------------------------------------------------------------------


def replayed(fn: Callable[[], Any], kept: list[Any]) -> Callable[[], Any]:
    """``fn`` as a captured graph; ``kept`` holds its buffers."""
    replay, made = capture(fn)
    kept.append(made)

    def again() -> Any:
        replay()
        return made

    return again


def compiled(fn: Callable[[Batch], Any], given: Batch, mode: str) -> Callable[[], Any]:
    """``fn`` compiled for this batch's shapes."""
    made = torch.compile(fn, mode=mode, dynamic=False)

    def call() -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return made(given)

    return call


def row(run: Run, what: dict[str, Any], fn: Callable[[], Any], eager: list[Tensor], flops: float) -> dict[str, Any]:
    """One line of the table: time, ratio to the floor, people a second, distance from the eager pass."""
    way, prec, count = what["way"], what["precision"], what["batch"]
    error = away(pictures(fn()), eager)
    allowed = TOLERANCE["graph" if way == "graph" else "compile"][prec]
    ms = timed(run, fn)
    return what | {
        "ms": ms, "gflop": flops / 1e9, "floor_ratio": ms / (flops / run.rates[prec] / 1e9),
        "people_a_second": 1e3 * count / ms, "error": error, "tolerance": allowed, "equal": error <= allowed,
        "peak_mib": peak(run, fn) if way == "eager" else None,
    }  # fmt: skip


@torch.no_grad()
def forward(run: Run, task: str, modes: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """One stage, or ``both`` as a cascade: eager and replayed; with ``modes`` compiled instead."""
    rows: list[dict[str, Any]] = []
    counts = (1,) if run.tiny else (1, 64) if modes else (1, 16, 64)
    for prec in ("bf16",) if modes else run.precisions:
        dtype = torch.bfloat16 if prec == "bf16" else torch.float32
        nets = {t: cast_once(network(run, t), dtype) for t in ("mask", "content") if task in (t, "both")}
        for count in counts:
            if run.left < 20:
                break
            given = shown(run, count)
            fn = both(nets) if task == "both" else nets[task]
            with precision(prec, run.device):
                with FlopCounterMode(display=False) as counter:
                    eager = pictures(fn(given))
                what = {"stage": task, "batch": count, "precision": prec}
                ways = {m: compiled(fn, given, m) for m in modes} or {"eager": partial(fn, given)}
                if run.cuda and not modes:
                    ways["graph"] = replayed(partial(fn, given), [])
                for way, call in ways.items():
                    rows.append(row(run, what | {"way": way}, call, eager, counter.get_total_flops()))
    return rows


def both(nets: dict[str, Baseline]) -> Callable[[Batch], Any]:
    """The cascade: stage 2 is fed stage 1's own masks and parsings."""

    def cascade(given: Batch) -> Result:
        first = nets["mask"].predict(Batch(given.image, given.given)).cut()
        fed = Batch(given.image, given.given, first.modal, first.amodal, first.parsing, first.modal_parsing)
        return nets["content"].predict(fed)

    return cascade


# --- the parts of stage 2 ---------------------------------------------------------------------------------------------


def attention(run: Run) -> list[dict[str, Any]]:
    """PGA's attention at stride 4 of 256 px, forward and backward, against the whole matrix."""
    n, d, c = (256, 8, 16) if run.tiny else (64 * 64, 16, 128)
    rows: list[dict[str, Any]] = []
    torch.manual_seed(0)
    for count in (1,) if run.quick else (1, 16):
        visible = torch.rand(count, n, device=run.device) < 0.25
        invisible = (torch.rand(count, n, device=run.device) < 0.1) & ~visible
        for dtype in (torch.float32, torch.bfloat16):
            qkv = [torch.randn(count, n, s, device=run.device, dtype=dtype, requires_grad=True) for s in (d, d, c)]
            for form in ("eq6", "listing"):
                calls = {
                    w: partial(back, f, qkv, visible, invisible, form)
                    for w, f in (("plain", plain), ("ours", pairwise))
                }
                with precision("fp32", run.device):
                    what = {"batch": count, "precision": str(dtype).removeprefix("torch."), "form": form}
                    if count == 1:
                        exact = [t.detach().double().requires_grad_() for t in qkv]
                        truth = back(plain, exact, visible, invisible, form)
                        what |= {"error": away(calls["ours"](), truth), "plain_error": away(calls["plain"](), truth)}
                    for way, call in calls.items():
                        what |= {f"{way}_ms": timed(run, call, most=20), f"{way}_mib": peak(run, call)}
                rows.append(what | ratios(what))
    return rows


def back(fn: Callable[..., list[Tensor]], qkv: list[Tensor], seen: Tensor, hidden: Tensor, form: str) -> list[Tensor]:
    """Outputs and gradients."""
    found = fn(*qkv, (seen, hidden), form)
    return [*found, *torch.autograd.grad([f.float().square().sum() for f in found], qkv)]


def ratios(what: dict[str, Any]) -> dict[str, Any]:
    """How much faster and smaller ours is."""
    mib = what["plain_mib"] / max(what["ours_mib"], 1e-3) if what["plain_mib"] is not None else None
    return {"times_faster": what["plain_ms"] / what["ours_ms"], "times_smaller": mib}


@torch.no_grad()
def partial_convolution(run: Run) -> list[dict[str, Any]]:
    """One channel for the mask against a second full convolution, at sizes of the U-Net."""
    rows: list[dict[str, Any]] = []
    sizes = ((8, 16, 3, 32),) if run.tiny else ((64, 128, 5, 128), (128, 256, 5, 64), (512, 512, 3, 16))
    for prec in run.precisions:
        for inputs, outputs, kernel, side in sizes:
            layer = PartialConv2d(inputs, outputs, kernel, 2).to(run.device)
            x = torch.randn(1 if run.tiny else 16, inputs, side, side, device=run.device)
            mask = (torch.rand(len(x), 1, side, side, device=run.device) > 0.3).float()
            masks, ones = mask.repeat(1, inputs, 1, 1), torch.ones_like(layer.conv.weight)
            with precision(prec, run.device):
                ours, theirs = (
                    timed(run, partial(layer, (x, mask))),
                    timed(run, partial(two_convolutions, layer, ones, x, masks)),
                )
            what = {"inputs": inputs, "outputs": outputs, "kernel": kernel, "side": side, "batch": len(x)}
            rows.append(what | {"precision": prec, "ours_ms": ours, "two_ms": theirs, "times_faster": theirs / ours})
    return rows


# --- training ---------------------------------------------------------------------------------------------------------


def training(run: Run, name: str) -> list[dict[str, Any]]:
    """The step of every model and task at a recipe's size and batch, on synthetic people."""
    recipe = recipe_of("debug" if run.tiny else name)
    models = ("human_deocclusion", "pix2pix") if run.quick else learning()
    rows: list[dict[str, Any]] = []
    for model, task in ((m, t) for m in models for t in recipe.batch):
        what: dict[str, Any] = {"model": model, "task": task, "recipe": recipe.name, "size": recipe.size}
        if run.left < 15:
            rows.append(what | {"failed": "no time left"})
            continue
        try:
            if task in MODELS.get(model).TASKS:
                rows.append(what | step(run, model, task, recipe))
        except Exception as e:  # noqa: BLE001 - a model whose library is missing here must not take the others along
            rows.append(what | {"failed": first_line(e)})
        if run.cuda:
            torch.cuda.empty_cache()
    return rows


def step(run: Run, name: str, task: str, recipe: Any) -> dict[str, Any]:
    """One model's step, as the training loop takes it: ms, samples a second, memory, hours for the recipe."""
    count = 2 if run.tiny else recipe.batch[task]
    tiny = {"width": 8} if run.tiny and name != "mask_rcnn" else {}
    net = build_model(name, task, **model_settings(name, task, recipe, tiny))
    truth = world(count, recipe.size)
    net.prepare(truth.need("amodal")[:, 0])
    net.train().to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    truth = truth.to(run.device)
    hints = {t: optimizer_of(net, t, recipe) for t in net.turns()}
    players = {t: hints[t].build(list(p)) for t, p in net.turns().items()}
    bf16 = run.cuda and recipe.precision != "fp32"

    def once() -> None:
        with torch.autocast(run.device.type, torch.bfloat16, enabled=bf16):
            shared = net(truth)
        for turn, optimizer in players.items():
            with playing(net, turn):
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast(run.device.type, torch.bfloat16, enabled=bf16):
                    total = net.total(net.losses(truth, shared, turn))
                total.backward()
                optimizer.step()

    ms = timed(run, once, 1.5, 20)
    return {
        "batch": count, "precision": "bf16" if bf16 else "fp32 (torch's default)", "ms": ms,
        "samples_a_second": 1e3 * count / ms, "hours": recipe.steps[task] * ms / 3.6e6, "peak_mib": peak(run, once),
    }  # fmt: skip


# --- the whole --------------------------------------------------------------------------------------------------------


def targets(run: Run) -> dict[str, Any]:
    """The figures that were asked for, from what was measured; of a CPU's trial none."""
    if not run.cuda:
        return {}
    rows = [r for part, rs in run.found.items() if part.startswith(("both", "compile both")) for r in rs if r["equal"]]
    one = min((r["ms"] for r in rows if r["batch"] == 1), default=None)
    many = max((r["people_a_second"] for r in rows if r["batch"] == 64 and r["precision"] == "bf16"), default=None)
    return {"both_batch_1_ms (target 6)": one, "times_the_paper's_V100": PAPER_MS / one if one else None,
            "people_a_second_bf16_batch_64 (target 1000)": many}  # fmt: skip


def about(run: Run) -> dict[str, Any]:
    """Device and versions."""
    name = torch.cuda.get_device_name(run.device) if run.cuda else f"cpu ({platform.machine()})"
    return {
        "device": name, "torch": torch.__version__, "torchvision": torchvision.__version__, "numpy": np.__version__,
        "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "python": platform.python_version(),
        "size": run.size, "quick": run.quick,
    }  # fmt: skip


def written(run: Run) -> None:
    """``gpu.json`` and ``gpu.md``."""
    run.out.mkdir(parents=True, exist_ok=True)
    whole = {"about": about(run), "targets": targets(run), "parts": run.found, "failed": run.failed}
    (run.out / "gpu.json").write_text(json.dumps(whole, indent=1))
    lines = ["# The paper's networks on one GPU", ""]
    lines += [f"- {k}: {cell(v)}" for k, v in (about(run) | targets(run)).items()]
    for part, found in run.found.items():
        rows = found if isinstance(found, list) else [found]
        heads = list(dict.fromkeys(k for r in rows for k in r))
        lines += ["", f"## {part}", "| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
        lines += ["| " + " | ".join(cell(r.get(h)) for h in heads) + " |" for r in rows]
    lines += ["", *(f"- {part} failed: {why}" for part, why in run.failed.items())]
    (run.out / "gpu.md").write_text("\n".join(lines) + "\n")


def cell(value: Any) -> str:
    """A figure in three digits, or the word."""
    if isinstance(value, float):
        return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    return "" if value is None else str(value)


def first_line(e: BaseException) -> str:
    """What an error says, in one line."""
    return f"{type(e).__name__}: {next(iter(str(e).splitlines()), '')}"[:200]


def parts() -> dict[str, Callable[[Run], Any]]:
    """What is measured, the dearest last: compilation takes minutes."""
    found: dict[str, Callable[[Run], Any]] = {RATES: rates}
    found |= {t: partial(forward, task=t) for t in ("both", "mask", "content")}
    found |= {"PGA attention": attention, "partial convolution": partial_convolution}
    found |= {f"training, {name}": partial(training, name=name) for name in ("small", "paper")}
    for task, mode in (("both", FAST), ("both", BEST), ("mask", FAST), ("content", FAST)):
        found[f"compile {task}, {mode}"] = partial(forward, task=task, modes=(mode,))
    return found


def needed(part: str) -> float:
    """Seconds without which a part is not begun."""
    return 20 if not part.startswith("compile") else 180 if BEST in part else 90


def main(args: Sequence[str] | None = None) -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="fewer models and nothing compiled; tiny sizes on a CPU")
    parser.add_argument("--budget", type=float, default=460.0, help="seconds after which no part is begun")
    parser.add_argument("--only", default="", help="a regular expression: the parts whose name it is found in")
    parser.add_argument("--out", type=Path, default=Path("out/gpu"))
    given = parser.parse_args(args)
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        parser.exit(0, "no CUDA device here: nothing to measure (--device cpu --quick tries the script)\n")
    run = Run(torch.device(given.device), given.quick, time.monotonic() + given.budget, given.out)
    torch.manual_seed(0)
    chosen = {name: part for name, part in parts().items() if name == RATES or re.search(given.only, name)}
    for name, part in chosen.items():
        if run.left < needed(name) or (run.quick and name.startswith("compile")):
            run.failed[name] = "left out" if run.quick else "no time left"
            continue
        try:
            run.found[name] = part(run)
        except Exception as e:  # noqa: BLE001 - one part must not take the others along
            run.failed[name] = first_line(e)
        written(run)
        print(f"{name}: {run.failed.get(name, 'done')}, {run.left:.0f} s left", flush=True)
    written(run)
    print((run.out / "gpu.md").read_text())


if __name__ == "__main__":
    main()
