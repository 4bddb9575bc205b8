"""A trained run's answers to a split's frozen samples, as a folder that anybody's judge can grade."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ahp_toolkit.core import images, store
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.progress import Progress
from ahp_toolkit.core.records import Dropped, Prediction, Sample
from ahp_toolkit.core.torch_io import batches, keep_memory, pick_device
from ahp_toolkit.stages.materialize import file_name

from .cascade import SIDE, Masks, complete_masks, fed_by, paint
from .data import Bytes, EvalData, collate, to_batch
from .runs import Loaded, device_name, load_model, split_digest

PART = 256  # predictions a Parquet file


@dataclass(frozen=True)
class Job:
    """What is predicted and how: the model, the mask model that feeds it (None: the truth), batch and precision."""

    model: Loaded
    feeder: Loaded | None
    device: torch.device
    batch: int
    precision: str

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Crop sizes that are needed: the protocol's, the feeder's, the model's."""
        return SIDE, (self.feeder or self.model).size, self.model.size


@dataclass
class _Chunk:
    """Samples that could be rendered, with their planes at the three sizes."""

    samples: list[Sample]
    planes: list[list[Bytes]]
    parsed: list[bool]

    def at(self, which: int) -> tuple[Tensor, Tensor]:
        """(planes, parsed) of one size."""
        return collate([(torch.from_numpy(p[which]), b) for p, b in zip(self.planes, self.parsed, strict=True)])


def predict_run(
    run: Path,
    split_dir: Path,
    out: Path,
    mask_run: Path | None = None,
    device: str = "auto",
    batch: int = 8,
    precision: str = "fp32",
    which: str = "best",
    quiet: bool = False,
) -> Path:
    """Write a prediction folder: ``part-*.parquet`` (records.Prediction), ``images/``, ``run.json``.

    Args:
        run: a run folder (or model file) of either task.
        split_dir: a split of a build, such as ROOT/splits/val.
        mask_run: for a content run: feed it this mask run's own outputs (the cascade); None: the true masks.
        which: ``best`` by val, or ``last``.

    Samples whose pixels cannot be regenerated are in ``dropped.parquet``, with the reason.

    Raises:
        UserError: when a run, the split or the combination is not usable.
    """
    keep_memory()
    on = pick_device(device)
    model = load_model(run, None, on, which)
    if mask_run is not None and model.task == "mask":
        raise UserError(f"{run}: it is a mask run, so nothing feeds it; --mask-run goes with a content run")
    feeder = load_model(mask_run, "mask", on, which) if mask_run is not None else None
    root, split = split_dir.resolve().parent.parent, split_dir.name
    if not (root / "build.json").exists():
        raise UserError(f"{split_dir}: expected a split of a build, such as ROOT/splits/val, with ROOT/build.json")
    job = Job(model, feeder, on, batch, precision)
    data = EvalData(root, split, SIDE)
    made, dropped = list[Prediction](), list[Dropped]()
    with Progress(f"predict {model.name}", len(data), "sample", quiet) as bar:
        for group in batches(data.samples, batch):
            chunk = _chunk(data, group, job.sizes, dropped)
            made += _predicted(job, chunk, out) if chunk.samples else []
            bar.update(len(group))
    for old in out.glob("part-*.parquet"):
        old.unlink()
    for number, part in enumerate(batches(made, PART) if made else [[]]):
        store.write_records(out / f"part-{number:05d}.parquet", list(part), Prediction)
    store.write_records(out / "dropped.parquet", dropped, Dropped)
    store.write_json(out / "run.json", _about(job, run, mask_run, split_dir, made, len(dropped)))
    return out


def _chunk(data: EvalData, group: Any, sizes: tuple[int, int, int], dropped: list[Dropped]) -> _Chunk:
    chunk = _Chunk([], [], [])
    for sample in group:
        try:
            planes, parsed = data.crops(sample, sizes)
        except images.ImageError as e:
            dropped.append(Dropped(sample.sample_id, "predict", f"image_{e.reason}", str(e), sample.image.source))
            continue
        chunk.samples.append(sample)
        chunk.planes.append(planes)
        chunk.parsed.append(parsed)
    return chunk


def _predicted(job: Job, chunk: _Chunk, out: Path) -> Iterator[Prediction]:
    full = to_batch(*chunk.at(0), job.device)
    if job.model.task == "mask":
        masks = complete_masks(job.model, to_batch(*chunk.at(2), job.device), full.given, job.precision)
        yield from _records(job.model, chunk, masks, [None] * len(chunk.samples), masks.seconds)
        return
    batch, fed, masks_of = to_batch(*chunk.at(2), job.device), None, None
    seconds, invisible = 0.0, full.invisible
    if job.feeder is not None:
        masks_of = complete_masks(job.feeder, to_batch(*chunk.at(1), job.device), full.given, job.precision)
        fed, invisible, seconds = fed_by(batch, masks_of), masks_of.invisible, masks_of.seconds
    crops = torch.from_numpy(np.stack([p[0][:3] for p in chunk.planes])).to(job.device)
    pictures, took = paint(job.model, fed or replace(batch, target=None), crops, invisible, job.precision)
    names = [f"images/{file_name(s.sample_id)}.png" for s in chunk.samples]
    for name, pixels in zip(names, pictures.cpu().numpy(), strict=True):
        images.write_png(out / name, pixels)
    yield from _records(job.model, chunk, masks_of, names, seconds + took)


def _records(
    model: Loaded, chunk: _Chunk, masks: Masks | None, names: Sequence[str | None], seconds: float
) -> Iterator[Prediction]:
    """Masks are left out where the truth was fed; a modal mask where the method has none (spec §7)."""
    for i, (sample, name) in enumerate(zip(chunk.samples, names, strict=True)):
        amodal = modal = None
        if masks is not None:
            amodal = encode(masks.amodal[i, 0].cpu().numpy() > 0)
            modal = encode(masks.modal[i, 0].cpu().numpy() > 0) if masks.own_modal else None
        yield Prediction(sample.sample_id, model.name, amodal, modal, name, seconds / len(chunk.samples))


def _about(
    job: Job, run: Path, mask_run: Path | None, split_dir: Path, made: list[Prediction], missed: int
) -> dict[str, Any]:
    """run.json: the run's own, and what was predicted with it."""
    steady = sorted(p.seconds or 0.0 for p in made)
    speed = {
        "ms_per_person": 1000 * steady[len(steady) // 2] if steady else None,
        "batch": job.batch, "device": device_name(job.device), "precision": job.precision,
    }  # fmt: skip
    fed = "nothing" if job.model.task == "mask" else "truth" if job.feeder is None else job.feeder.label
    return job.model.run | {
        "model": job.model.name, "task": job.model.task, "weights": job.model.label, "fed_by": fed,
        "mask_run": "" if mask_run is None else mask_run.name, "made_by": run.name, "split": split_dir.name,
        "dataset_digest": split_digest(split_dir), "predictions": len(made), "missed": missed, "speed": speed,
    }  # fmt: skip
