"""Train the paper's helpers on the harvest itself: DeepLab and CenterMask on masks, HRNet on body parsings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.hashing import digest_files, digest_value, seed_of
from ahp_toolkit.core.records import Candidate
from ahp_toolkit.nets import torch_io
from ahp_toolkit.nets.fit import Run, Settings, fit
from ahp_toolkit.parsers import hrnet
from ahp_toolkit.parsers.crop import body_of
from ahp_toolkit.runtime import dry, timing
from ahp_toolkit.segmenters import centermask, deeplab
from ahp_toolkit.segmenters.base import Segmenter
from ahp_toolkit.segmenters.crop import ask_of
from ahp_toolkit.sources.base import PARTS
from ahp_toolkit.stages.train_data import (
    CenterMaskCut,
    Cut,
    ParserCut,
    Samples,
    SegmenterCut,
    by_photo,
    humans_of,
    split,
    without,
)
from ahp_toolkit.storage.files import forget_dead, write_json
from ahp_toolkit.storage.held_out import HeldOut, held_of
from ahp_toolkit.storage.images import ImageError
from ahp_toolkit.storage.photos import Photos

NOBODY = HeldOut()
#: ``debug`` runs on two CPU cores in about a minute, ``full`` wants a GPU.
SEGMENTER = {
    "debug": Settings("resnet18", 96, 150, 8, lr=2e-3),
    "full": Settings(
        "resnet101", 512, 60_000, 16, lr=2e-4, precision="auto", loaders=8, save_every=1000, judge=2000, holdout=0.02
    ),
}
CENTERMASK = {
    "debug": Settings("ese_vovnet19b_slim_dw", 128, 200, 8, lr=1e-3, width=64),
    "full": Settings(
        "ese_vovnet39b",
        800,
        90_000,
        16,
        lr=2e-4,
        precision="auto",
        loaders=8,
        save_every=1000,
        judge=2000,
        holdout=0.02,
    ),
}
PARSER = {
    "debug": Settings("hrnet_w18_small", 96, 250, 8, lr=2e-3),
    "full": Settings(
        "hrnet_w48", 473, 110_000, 16, lr=3e-4, precision="auto", loaders=8, save_every=1000, judge=2000, holdout=0.02
    ),
}


@dataclass(frozen=True)
class Trained:
    """A finished checkpoint: its file, the name that records will carry, and what it reached on held-out photos."""

    path: Path
    name: str
    metric: str
    value: float
    judged: int
    humans: int
    left_out: int = 0
    held: str = ""

    def __str__(self) -> str:
        said = f"{self.name}: {self.metric} {self.value:.3f} on {self.judged} held-out humans, trained on {self.humans}"
        return f"{said}; {self.left_out} left out, their photos are kept for val and test (hash in {self.held})"


def train_segmenter(
    parts: Sequence[Path | str],
    roots: Mapping[str, str],
    out: Path,
    settings: Settings = SEGMENTER["debug"],
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
    held: HeldOut = NOBODY,
) -> Trained:
    """Train DeepLab on the candidates with masks in harvest ``parts``; write the checkpoint ``out``.

    Stopped, the same call goes on; finished, it does nothing. Judged by mean IoU inside the box on held-out photos.

    Args:
        held: photos kept for val and test; nobody in them is trained on or judged by.

    Raises:
        UserError: too few humans, unreadable photos, a loss that is no number.
    """
    arch = deeplab.Arch(settings.encoder, settings.size, settings.plane)
    task = _Task("segmenter", "deeplab", deeplab.KIND, asdict(arch), "mean IoU", False)
    where = torch_io.pick_device(device)

    def judge(net: nn.Module, humans: Sequence[Candidate]) -> tuple[float, int]:
        return _mean_iou(deeplab.DeepLab(net, arch, "", where, settings.batch, settings.precision), humans, roots)

    with torch_io.seeded(seed_of(seed, "segmenter")):
        net, imagenet = deeplab.net_of(arch, settings.pretrained)
    job = _Job(task, net, imagenet, lambda _: SegmenterCut(arch), segmenter_loss, judge)
    return _train(job, parts, roots, out, settings, seed, where, quiet, held)


def train_centermask(
    parts: Sequence[Path | str],
    roots: Mapping[str, str],
    out: Path,
    settings: Settings = CENTERMASK["debug"],
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
    held: HeldOut = NOBODY,
) -> Trained:
    """Train CenterMask on the candidates with masks in harvest ``parts``, as `train_segmenter` does DeepLab.

    Args:
        held: photos kept for val and test; nobody in them is trained on or judged by.

    Raises:
        UserError: too few humans, unreadable photos, a loss that is no number.
    """
    arch = centermask.Arch(settings.encoder, settings.size, settings.width)
    task = _Task("segmenter", "centermask", centermask.KIND, asdict(arch), "mean IoU", False)
    where = torch_io.pick_device(device)

    def judge(net: nn.Module, humans: Sequence[Candidate]) -> tuple[float, int]:
        return _mean_iou(centermask.ready(net, arch, "", where, settings.batch, settings.precision), humans, roots)

    with torch_io.seeded(seed_of(seed, "segmenter")):
        net, imagenet = centermask.net_of(arch, settings.pretrained)
    job = _Job(task, net, imagenet, lambda h: CenterMaskCut(arch, by_photo(h)), centermask_loss, judge)
    return _train(job, parts, roots, out, settings, seed, where, quiet, held)


#: The trainable segmenters: name to (presets, trainer), all called alike.
TRAINERS = {"deeplab": (SEGMENTER, train_segmenter), "centermask": (CENTERMASK, train_centermask)}


def train_parser(
    parts: Sequence[Path | str],
    roots: Mapping[str, str],
    out: Path,
    settings: Settings = PARSER["debug"],
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
    held: HeldOut = NOBODY,
) -> Trained:
    """Train HRNet on the candidates with parsings in harvest ``parts`` (LIP); write the checkpoint ``out``.

    Stopped, the same call goes on; finished, it does nothing. Judged by the mean over the parts that occur of their IoU
    inside the masks of held-out photos.

    Args:
        held: photos kept for val and test; nobody in them is trained on or judged by.

    Raises:
        UserError: too few humans, unreadable photos, a loss that is no number.
    """
    arch = hrnet.Arch(settings.encoder, settings.size, settings.plane)
    task = _Task("parser", "hrnet", hrnet.KIND, asdict(arch), "mean part IoU", True)
    where = torch_io.pick_device(device)

    def judge(net: nn.Module, humans: Sequence[Candidate]) -> tuple[float, int]:
        ready = hrnet.HrNet(net, arch, "", where, settings.batch, settings.precision, flip=False)
        return _part_iou(ready, humans, roots)

    with torch_io.seeded(seed_of(seed, "parser")):
        net, imagenet = hrnet.net_of(arch, settings.pretrained)
    job = _Job(task, net, imagenet, lambda _: ParserCut(arch), parser_loss, judge)
    return _train(job, parts, roots, out, settings, seed, where, quiet, held)


@dataclass(frozen=True)
class _Task:
    label: str
    plugin: str
    kind: str
    arch: dict[str, Any]
    metric: str
    parsed: bool


@dataclass(frozen=True)
class _Job:
    task: _Task
    net: nn.Module
    imagenet: bool
    cut: Callable[[Sequence[Candidate]], Cut]  # of the humans to train on
    loss: Any
    judge: Any


def _train(
    job: _Job,
    parts: Sequence[Path | str],
    roots: Mapping[str, str],
    out: Path,
    settings: Settings,
    seed: int,
    device: torch.device,
    quiet: bool,
    kept: HeldOut,
) -> Trained:
    task = job.task
    every = humans_of(parts, task.parsed)
    humans = without(every, kept)
    training, held = split(humans, settings.holdout)
    # loaders, saving and the device do not change what is learnt (beyond rounding)
    said = {k: v for k, v in asdict(settings).items() if k not in ("loaders", "save_every")}
    key = digest_value([task.kind, said, seed, digest_files([Path(p) for p in parts]), job.imagenet, kept.said()])
    partial, took = out.with_name(f".{out.name}.partial"), out.with_suffix(".timing.json")
    if not dry.running():
        forget_dead(out, partial, took)
    if out.exists() and (done := torch_io.load_checkpoint(out, task.kind)).meta.get("key") == key:
        if not dry.running():
            partial.unlink(missing_ok=True)  # killed between its end and this
        return _trained(out, task, done)
    run = Run(task.label, partial, key, seed, device, quiet)
    dry.stop(task.label, out, settings.steps)
    start, before = time.monotonic(), partial.exists()
    fit(job.net, Samples(training, roots, job.cut(training), seed), job.loss, settings, run)
    if not before:  # gone on with, the time of the steps made before is not known
        about = {"steps": settings.steps, "seconds": time.monotonic() - start, "settings": said}
        write_json(took, about | {"device": device.type, "machine": timing.machine()})
    value, judged = job.judge(job.net, held[: settings.judge])
    meta = {"key": key, "settings": said, "seed": seed, "imagenet": job.imagenet, "humans": len(training)}
    meta |= {"metric": task.metric, "value": value, "judged": judged, "torch": str(torch.__version__)}
    meta |= {"held_out": kept.said(), "left_out": len(every) - len(humans)}
    made = torch_io.Checkpoint(task.arch, job.net.state_dict(), meta)
    torch_io.save_checkpoint(out, task.kind, made)
    partial.unlink(missing_ok=True)
    return _trained(out, task, made)


def _trained(out: Path, task: _Task, made: torch_io.Checkpoint) -> Trained:
    name, meta = torch_io.short_name(task.plugin, made.digest), made.meta
    held = str(held_of(meta["held_out"]))
    return Trained(out, name, task.metric, meta["value"], meta["judged"], meta["humans"], meta["left_out"], held)


def segmenter_loss(net: nn.Module, planes: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice of the person's mask; planes uint8 [B, C, S, S], target 0 or 1 [B, S, S]."""
    logits, wanted = deeplab.logits_of(net, planes).float()[:, 0], target.float()
    p = logits.sigmoid()
    dice = 1 - (2 * (p * wanted).sum((1, 2)) + 1) / (p.sum((1, 2)) + wanted.sum((1, 2)) + 1)
    return functional.binary_cross_entropy_with_logits(logits, wanted) + dice.mean()


def centermask_loss(net: nn.Module, planes: Tensor, target: Tensor) -> Tensor:
    """The sum of FCOS's three losses, the mask's and its IoU's.

    Planes uint8 [B, 3, S, S]; target uint8 [B, S, S], the numbers of people (see `centermask.targets_of`).
    """
    shown = [p[:, :h, :w] for p, (h, w) in zip(planes.float() / 255, centermask.sizes_of(target), strict=True)]
    terms = net(shown, centermask.targets_of(target))
    return torch.stack([v.float() for v in terms.values()]).sum()


def parser_loss(net: nn.Module, planes: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy over the 20 classes; planes uint8 [B, C, S, S], target labels [B, S, S]."""
    return functional.cross_entropy(hrnet.logits_of(net, planes).float(), target.long())


def _mean_iou(ready: Segmenter, humans: Sequence[Candidate], roots: Mapping[str, str]) -> tuple[float, int]:
    """Mean IoU inside the original box at the photo's size, and how many humans it is over."""
    photos, scores = Photos(roots), []
    for h in humans:
        try:
            photo = photos.read(h.image)
        except ImageError:
            continue  # counted by the number judged
        ask, crop = ask_of(photo, h.box)
        x0, y0, x1, y1 = ask.box.pixels()
        cx, cy, cx1, cy1 = crop.pixels()
        assert h.mask is not None
        truth = h.mask.decode()[cy:cy1, cx:cx1][y0:y1, x0:x1]
        found = ready([ask])[0].mask[y0:y1, x0:x1]
        union = int(np.count_nonzero(truth | found))
        scores.append(np.count_nonzero(truth & found) / union if union else 1.0)
    return _judged(scores)


def _part_iou(ready: hrnet.HrNet, humans: Sequence[Candidate], roots: Mapping[str, str]) -> tuple[float, int]:
    photos, table, judged = Photos(roots), np.zeros((len(PARTS), len(PARTS)), np.int64), 0
    for h in humans:
        try:
            photo = photos.read(h.image)
        except ImageError:
            continue  # counted by the number judged
        assert h.mask is not None and h.parsing is not None
        body, crop = body_of(photo, h.mask.decode(), h.mask.box)
        x0, y0, x1, y1 = crop.pixels()
        truth = h.parsing.decode()[y0:y1, x0:x1][body.mask]
        pairs = truth.astype(np.int64) * len(PARTS) + ready([body])[0][body.mask]
        table += np.bincount(pairs, minlength=table.size).reshape(table.shape)
        judged += 1
    return _judged(list(part_ious(table)) if judged else [])[0], judged


def part_ious(table: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU of each body part (background left out) that occurs in the truth; table[truth, said] counts px."""
    hits = np.diag(table)[1:]
    truth, said = table.sum(1)[1:], table.sum(0)[1:]
    occurs = truth > 0
    return np.asarray(hits[occurs] / (truth + said - hits)[occurs], np.float64)


def _judged(scores: Sequence[float]) -> tuple[float, int]:
    if not scores:
        raise UserError("none of the held-out photos can be read; look at the data roots")
    return float(np.mean(scores)), len(scores)
