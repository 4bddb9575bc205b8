"""A trained run's answers to a split's frozen samples, as a folder that anybody's judge can grade."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ahp_toolkit.core import hashing
from ahp_toolkit.core.crops import SIDE
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.records import Dropped, Prediction, Sample
from ahp_toolkit.core.text import file_stem
from ahp_toolkit.nets.devices import compute_dtype, keep_memory, pick_device, steady
from ahp_toolkit.nets.tensors import batches
from ahp_toolkit.runtime.engines import Engine, Task, Work, using
from ahp_toolkit.runtime.progress import Progress
from ahp_toolkit.storage import files, images, parquet
from ahp_toolkit.storage.lock import lock
from baselines.data.samples import Bytes, EvalData, collate, to_batch
from baselines.inference.cascade import Masks, complete_masks, fed_by, paint
from baselines.inference.speed import BATCH, measure
from baselines.training.runs import Loaded, device_name, load_model, split_digest, weights_file
from baselines.training.trained import check_unseen

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


@dataclass(frozen=True)
class Made:
    """What came of one part of a split; ``device`` in words; ``speed``: `speed.measure`, of the first part alone."""

    number: int
    samples: int
    predictions: list[Prediction]
    dropped: list[Dropped]
    device: str
    speed: dict[str, float]


@dataclass(frozen=True)
class Options:
    """How a split is predicted.

    Attributes:
        batch: samples a batch.
        precision: ``fp32``, ``bf16``, or ``auto`` (bf16 where the hardware has it).
        which: weights, ``best`` by val, or ``last``.
        quiet: no progress bar.
    """

    device: str = "auto"
    batch: int = 8
    precision: str = "fp32"
    which: str = "best"
    quiet: bool = False


@dataclass(frozen=True)
class Predict:
    """The work on one part of a split, picklable: its fields are those of `predict_run`, paths absolute.

    ``stamp`` changes with the weights' files, so that a process does not go on with old ones.
    """

    run: Path
    mask_run: Path | None
    split_dir: Path
    out: Path
    options: Options
    stamp: str

    def __call__(self, task: Task) -> Made:
        """Predict one part; batches are cut by position, and a CPU runs them on one thread."""
        job, (number, part) = _loaded(self), task
        root = self.split_dir.parent.parent
        data = EvalData(root, self.split_dir.name, SIDE, part=part)
        made, dropped = list[Prediction](), list[Dropped]()
        with steady(job.device):
            for group in batches(data.samples, self.options.batch):
                chunk = _chunk(data, group, job.sizes, dropped)
                made += _predicted(job, chunk, self.out) if chunk.samples else []
            cost = measure(job.model, job.feeder, job.device, job.precision) if number == 0 else {}
            return Made(number, len(data), made, dropped, device_name(job.device), cost)


@lru_cache(maxsize=2)
def _loaded(p: Predict) -> Job:
    """The networks of this process, loaded once."""
    keep_memory()
    on = pick_device(p.options.device)
    model = load_model(p.run, None, on, p.options.which)
    if p.mask_run is not None and model.task == "mask":
        raise UserError(f"{p.run}: it is a mask run, so nothing feeds it; --mask-run goes with a content run")
    feeder = load_model(p.mask_run, "mask", on, p.options.which) if p.mask_run is not None else None
    return Job(model, feeder, on, p.options.batch, p.options.precision)


def predict_run(
    run: Path,
    split_dir: Path,
    out: Path,
    mask_run: Path | None = None,
    options: Options | None = None,
    engine: Engine | None = None,
) -> Path:
    """Write a prediction folder: ``part-*.parquet`` (records.Prediction), ``images/``, ``run.json``.

    Args:
        run: a run folder (or model file) of either task.
        split_dir: a split of a build, such as ROOT/splits/val.
        mask_run: for a content run: feed it this mask run's own outputs (the cascade); None: the true masks.
        options: None: the defaults.
        engine: where the parts of the split are worked on; None: in this process.

    Samples whose pixels cannot be regenerated are in ``dropped.parquet``, with the reason. ``training_people`` in
    ``run.json`` has a line where a run was trained on people of the split, or does not say on whom.

    Raises:
        UserError: when a run, the split or the combination is not usable; when a run was trained on people of the
            split and that is not the train split.
    """
    root, split = split_dir.resolve().parent.parent, split_dir.name
    if not (root / "build.json").exists():
        raise UserError(f"{split_dir}: expected a split of a build, such as ROOT/splits/val, with ROOT/build.json")
    o = options or Options()
    used = [r for r in (run, mask_run) if r is not None]
    weights = [weights_file(r, o.which).absolute() for r in used]
    notes = check_unseen(used, split_dir)
    where = (run.absolute(), mask_run.absolute() if mask_run else None, root / "splits" / split, out.absolute())
    fn = Predict(*where, o, str(hashing.stamp(weights)))
    # on another engine this process may lack the device: the facts are the same on any
    job = _loaded(fn if engine is None else replace(fn, options=replace(o, device="cpu")))
    compute_dtype(job.device, o.precision)  # a wrong one is told before what stands there is touched
    with lock(out):
        files.write_json(out / "run.json", {"model": job.model.name, "unfinished": True})  # until all is there
        files.forget_unfinished(out, deep=True)
        parts = [p.name for p in parquet.parts(split_dir)]
        total = parquet.count_records(split_dir)
        done: list[Made] = []
        work: Work[Made, Made] = Work(
            "predict", fn, network=True, folder=str(out), sees=(str(root), *map(str, weights))
        )
        with Progress(f"predict {job.model.name}", total, "sample", o.quiet) as bar, using(engine, 1) as own:
            for shard in own.imap(work, enumerate(parts)):
                done.append(shard)
                bar.update(shard.samples)
        done.sort(key=lambda m: m.number)
        metadata = _metadata(job, run, mask_run, split_dir, done) | {"training_people": notes}
        _write(out, done, metadata, weights)
    return out


def _write(out: Path, done: Sequence[Made], metadata: dict[str, Any], weights: Sequence[Path]) -> None:
    made, dropped = [p for m in done for p in m.predictions], [d for m in done for d in m.dropped]
    for old in out.glob("part-*.parquet"):
        old.unlink()
    for number, part in enumerate(batches(made, PART) if made else [[]]):
        parquet.write_records(out / f"part-{number:05d}.parquet", list(part), Prediction)
    parquet.write_records(out / "dropped.parquet", dropped, Dropped)
    written = {
        "weights_files": [hashing.digest_file(w) for w in weights],
        "parts": hashing.digest_files(parquet.parts(out)),
    }
    files.write_json(out / "run.json", metadata | written)


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
    names = [f"images/{file_stem(s.sample_id)}.png" for s in chunk.samples]
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


def _metadata(job: Job, run: Path, mask_run: Path | None, split_dir: Path, done: Sequence[Made]) -> dict[str, Any]:
    """run.json: the run's own, and what was predicted with it."""
    made, missed = sum(len(m.predictions) for m in done), sum(len(m.dropped) for m in done)
    speed = {**done[0].speed, "batch": BATCH, "device": done[0].device, "precision": job.precision}
    fed = "nothing" if job.model.task == "mask" else "truth" if job.feeder is None else job.feeder.label
    return job.model.run | {
        "model": job.model.name, "task": job.model.task, "weights": job.model.label, "fed_by": fed,
        "mask_run": "" if mask_run is None else mask_run.name, "made_by": run.name, "split": split_dir.name,
        "dataset_digest": split_digest(split_dir), "predictions": made, "missed": missed, "speed": speed,
    }  # fmt: skip
