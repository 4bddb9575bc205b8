"""How training judges itself: val at the recipe's size, sample pictures, averaged weights.

These figures choose the best checkpoint and show progress; results for a leaderboard come from `benchmark` alone.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.storage.images import ImageError
from baselines.base import Baseline, Batch, Result, composite
from baselines.data.samples import EvalData, collate, to_batch
from baselines.training.recipes import Recipe

SHOWN = 6  # samples in a picture
BY = {"mask": "iou_invisible", "content": "l1_invisible"}


class Ema:
    """An exponential moving average of a model's weights; its buffers are those of the model itself."""

    def __init__(self, net: Baseline, decay: float) -> None:
        self.net, self.decay = copy.deepcopy(net).eval().requires_grad_(False), decay

    @torch.no_grad()
    def update(self, net: Baseline) -> None:
        """One step towards the model."""
        mine, theirs = list(self.net.parameters()), [p.detach() for p in net.parameters()]
        torch._foreach_lerp_(mine, theirs, 1 - self.decay)
        for a, b in zip(self.net.buffers(), net.buffers(), strict=True):
            a.copy_(b)


@dataclass(frozen=True)
class Judged:
    """Figures of a look at val; ``value``: what to maximise (None without val); a picture uint8 [H, W, 3]."""

    values: dict[str, float]
    value: float | None
    by: str
    picture: NDArray[np.uint8] | None


class Judge:
    """Val samples, rendered once, and the figures of a model on them; ``missing``: how many cannot be rendered.

    Prediction names those; the choice of a checkpoint does without them.

    Raises:
        UserError: when there are samples and none of them can be rendered.
    """

    def __init__(self, root: Path, task: str, recipe: Recipe, fabric: Fabric) -> None:
        self.task, self.fabric, self.batch = task, fabric, recipe.batch[task]
        self.items, self.missing, why = list[tuple[Tensor, bool]](), 0, ""
        val = root / "splits" / "val"
        if any(val.glob("part-*.parquet")):
            data = EvalData(root, "val", recipe.size, recipe.val_samples)
            for sample in data.samples:
                try:
                    planes, parsed = data.planes(sample)
                except ImageError as e:
                    self.missing, why = self.missing + 1, why or str(e)
                    continue
                self.items.append((torch.from_numpy(planes), parsed))
            if self.missing:
                problem = f"{val}: {self.missing} of {len(data.samples)} samples cannot be rendered (the first: {why})"
                if not self.items:
                    raise UserError(f"{problem}; look at the data roots, or build the split again")
                logging.getLogger(__name__).warning("%s; the best checkpoint is chosen without them", problem)

    @torch.no_grad()
    def __call__(self, net: Baseline) -> Judged:
        """Judge in eval mode."""
        if not self.items:
            return Judged({}, None, "", None)
        net.eval()
        sums: dict[str, list[Tensor]] = {}
        picture = None
        for at in range(0, len(self.items), self.batch):
            planes, parsed = collate(self.items[at : at + self.batch])
            batch = to_batch(planes, parsed, self.fabric.device)
            with self.fabric.autocast():
                result = net.predict(batch).cut()
            if result.image is not None:
                result = replace(result, image=composite(batch.image, result.image.float(), batch.invisible))
            for name, value in _figures(batch, result, self.task).items():
                sums.setdefault(name, []).append(value.float().cpu())
            picture = picture if picture is not None else _picture(batch, result, self.task)
        values = {name: float(torch.cat(v).mean()) for name, v in sums.items()}
        by = BY[self.task]
        return Judged(values, values[by] if self.task == "mask" else -values[by], by, picture)


def _iou(a: Tensor, b: Tensor) -> Tensor:
    inter, union = (a * b).sum((1, 2, 3)), torch.maximum(a, b).sum((1, 2, 3))
    return torch.where(union > 0, inter / union.clamp(min=1), torch.ones_like(union))


def _figures(batch: Batch, result: Result, task: str) -> dict[str, Tensor]:
    """Per-sample figures [B]."""
    if task == "mask":
        amodal, modal = result.amodal, result.modal
        assert amodal is not None and modal is not None  # every mask model gives both
        return {
            "iou_invisible": _iou(amodal * (1 - modal), batch.invisible),
            "iou_amodal": _iou(amodal, batch.need("amodal")),
            "iou_modal": _iou(modal, batch.need("modal")),
        }
    assert result.image is not None
    error = (result.image.float() - batch.need("target")).abs().mean(1, keepdim=True) / 2
    hole = batch.invisible
    inside = (error * hole).sum((1, 2, 3)) / hole.sum((1, 2, 3)).clamp(min=1)
    return {"l1_invisible": inside, "l1_image": error.mean((1, 2, 3))}


def _picture(batch: Batch, result: Result, task: str) -> NDArray[np.uint8]:
    """Rows of samples: image, what was given, what came, the truth."""

    def grey(mask: Tensor) -> Tensor:
        return mask.float().expand(-1, 3, -1, -1) * 2 - 1

    if task == "mask":
        assert result.amodal is not None and result.modal is not None
        columns = [batch.image, grey(batch.given)]
        columns += [grey(a) * 0.5 + grey(m) * 0.5 for a, m in ((result.amodal, result.modal),)]
        columns.append(grey(batch.need("amodal")) * 0.5 + grey(batch.need("modal")) * 0.5)
    else:
        assert result.image is not None
        columns = [batch.image, grey(batch.invisible), result.image, batch.need("target")]
    rows = torch.cat([c[:SHOWN].float().cpu() for c in columns], 3)
    pixels = ((rows + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).reshape(-1, rows.shape[3], 3).numpy())
