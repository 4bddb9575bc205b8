"""Predictions of several runs beside the truth, as a FiftyOne dataset: sortable by score and by disagreement.

Reads what the benchmark leaves on disk: prediction tables, the split's crops, each scored run's ``samples.parquet``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core import hashing
from ahp_toolkit.core.crops import SIDE, crop_mask
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask, intersection_union
from ahp_toolkit.core.records import Prediction, Sample
from ahp_toolkit.core.text import file_stem
from ahp_toolkit.storage import files as disk
from ahp_toolkit.storage import parquet
from annotation.app import server
from annotation.app.server import Say

BATCH = 64  # samples a write
VISIBLE, INVISIBLE = 1, 2
TARGETS = {VISIBLE: "visible", INVISIBLE: "invisible"}
#: Figures that become fields where a run has been scored.
FIGURES = ("iou_amodal", "iou_modal", "iou_invisible", "l1_mask", "l1_image", "l1_invisible", "psnr", "ssim")
#: Names that a run's field may not take.
TAKEN = (
    "truth",
    "sample_id",
    "human_id",
    "source",
    "occlusion_ratio",
    "bin",
    "spread",
    "missing",
    "disagreement",
    "group",
)
SPREAD = ("iou_invisible", "iou_amodal", "l1_invisible")  # the first that two runs share gives their spread


@dataclass
class Shown:
    """One run's predictions of the split: its field name, its folder, its records and its figures by sample."""

    name: str
    folder: Path
    predictions: dict[str, Prediction]
    figures: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def paints(self) -> bool:
        """Whether it has pictures."""
        return any(p.image is not None for p in self.predictions.values())


def predictions_of(run: Path, split: str) -> Path:
    """A run's prediction folder: the run folder's newest for the split, or the folder itself.

    Raises:
        UserError: when there is none, with the command that makes it.
    """
    if any(run.glob("part-*.parquet")) or (run / "predictions.parquet").exists():
        return run
    found = [p for p in run.glob(f"predictions/{split}*") if any(p.glob("part-*.parquet"))]
    if not found:
        raise UserError(
            f"{run}: expected predictions of {split}; make them with ahp bench predict {run} --split {split}"
        )
    return max(found, key=lambda p: p.stat().st_mtime_ns)


def load(run: Path, split: str, boards: Sequence[Path], taken: Sequence[str] = ()) -> Shown:
    """A run's predictions, with its figures where one of the ``boards`` folders holds its scores."""
    folder = predictions_of(run, split)
    facts = disk.read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    name = "".join(c if c.isalnum() else "_" for c in str(facts.get("model") or folder.name)).strip("_") or "run"
    if not name[0].isalpha():
        name = f"run_{name}"
    while name in (*TAKEN, *taken):
        stem, _, number = name.rpartition("__")
        name = f"{stem}__{int(number) + 1}" if stem and number.isdigit() else f"{name}__2"
    files = sorted(folder.glob("part-*.parquet")) or [folder / "predictions.parquet"]
    rows = (p for f in files for p in parquet.read_records(f, Prediction))
    return Shown(name, folder, {p.sample_id: p for p in rows}, _figures(folder, boards))


def _figures(folder: Path, boards: Sequence[Path]) -> dict[str, dict[str, float]]:
    for mark in sorted(m for b in boards for m in b.glob("*/score.json")):
        if (mark.parent / disk.read_json(mark)["paths"]["predictions"]).resolve() != folder.resolve():
            continue
        table = parquet.read_table(mark.parent / "samples.parquet")
        names = [n for n in FIGURES if n in table.column_names]
        rows = table.select(["sample_id", *names]).to_pylist()
        return {r["sample_id"]: {n: float(r[n]) for n in names if r[n] is not None and r[n] == r[n]} for r in rows}
    return {}


def labels(amodal: NDArray[np.bool_], modal: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Masks bool [256, 256] as uint8 labels: 1 visible, 2 invisible, 0 neither."""
    return np.where(modal, VISIBLE, np.where(amodal, INVISIBLE, 0)).astype(np.uint8)


def predicted_labels(sample: Sample, p: Prediction | None) -> NDArray[np.uint8] | None:
    """A prediction's labels; the initial mask is its modal one where it has none of its own."""
    if p is None or p.amodal is None or (p.amodal.height, p.amodal.width) != (SIDE, SIDE):
        return None
    modal = p.modal.decode() if p.modal is not None else crop_mask(sample.given.mask, sample.crop, SIDE)
    return labels(p.amodal.decode(), modal & p.amodal.decode())


def disagreement(masks: Sequence[Mask]) -> float | None:
    """1 minus the mean IoU of all pairs of amodal masks; None for fewer than two."""
    pairs = [intersection_union(a, b) for a, b in combinations(masks, 2)]
    return 1 - float(np.mean([i / u if u else 1.0 for i, u in pairs])) if pairs else None


def spread(runs: Sequence[Shown], sample_id: str) -> float | None:
    """Greatest minus smallest figure among the runs, of the first of SPREAD that two of them have."""
    for metric in SPREAD:
        values = [r.figures[sample_id][metric] for r in runs if metric in r.figures.get(sample_id, {})]
        if len(values) > 1:
            return max(values) - min(values)
    return None


def fields_of(sample: Sample, runs: Sequence[Shown]) -> dict[str, Any]:
    """The plain fields of a sample: facts, each run's figures as ``RUN_METRIC``, disagreement and spread."""
    sid = sample.sample_id
    out: dict[str, Any] = {
        "sample_id": sid,
        "human_id": sample.human_id,
        "source": sample.image.source,
        "occlusion_ratio": sample.occlusion_ratio,
        "bin": sample.bin,
        "spread": spread(runs, sid),
        "missing": [r.name for r in runs if sid not in r.predictions],
    }
    masks = [p.amodal for r in runs for p in [r.predictions.get(sid)] if p is not None and p.amodal is not None]
    out["disagreement"] = disagreement(masks)
    for r in runs:
        out |= {f"{r.name}_{metric}": value for metric, value in r.figures.get(sid, {}).items()}
    return out


def build(root: Path, runs: Sequence[Shown], split: str, say: Say = lambda text: None) -> Any:
    """The dataset, made again: ``truth`` and one segmentation a run; pictures are slices of one group a sample.

    Raises:
        UserError: when the split's crops are not on disk.
    """
    folder = root / "splits" / split
    crops = folder / "crops"
    if not crops.is_dir():
        raise UserError(f"{crops}: expected the split's crops; ahp build materialize --root {root} --what crops")
    fo = server.connect(root)
    which = hashing.digest_value([str(r.folder.resolve()) for r in runs])[:8]  # an open App keeps its own runs' dataset
    name = f"{server.dataset_name(root)}-{split}-predictions-{which}"
    with server.one_at_a_time(root / ".review" / "open.lock"):
        if fo.dataset_exists(name):
            fo.delete_dataset(name)
        dataset = _filled(fo, fo.Dataset(name, persistent=True), runs, folder)
    say(f"{name}: {len(dataset)} samples, {len(runs)} runs")
    return dataset


def _filled(fo: Any, dataset: Any, runs: Sequence[Shown], folder: Path) -> Any:
    """All samples of the split folder, with their fields declared."""
    painters = [r for r in runs if r.paints]
    if painters:
        dataset.add_group_field("group", default="occluded")
    masks = ["truth", *(r.name for r in runs)]
    for mask in masks:
        dataset.add_sample_field(mask, fo.EmbeddedDocumentField, embedded_doc_type=fo.Segmentation)
    dataset.mask_targets = dict.fromkeys(masks, TARGETS)
    dataset.app_config.active_fields = fo.ActiveFields(paths=masks)  # of itself the App shows no segmentations
    dataset.save()
    records = parquet.read_records(folder, Sample)
    while some := list(islice(records, BATCH)):
        dataset.add_samples(
            [x for s in some for x in _samples(fo, s, runs, painters, folder / "crops")], progress=False
        )
    return dataset


def _samples(fo: Any, s: Sample, runs: Sequence[Shown], painters: Sequence[Shown], crops: Path) -> Iterator[Any]:
    """The sample, or with painters the group of its pictures."""
    facts, masks = fields_of(s, runs), _masks(s, runs)
    pictures: dict[str, Path] = {"occluded": crops / f"{file_stem(s.sample_id)}.occluded.png"}
    if painters:
        pictures["recovered"] = crops / f"{file_stem(s.sample_id)}.recovered.png"
        for r in painters:
            p = r.predictions.get(s.sample_id)
            if p is not None and p.image is not None:
                pictures[r.name] = disk.safe_join(r.folder, p.image)
    group = fo.Group() if painters else None
    for slice_name, path in pictures.items():
        if not path.exists():
            continue
        shown = {n: fo.Segmentation(mask=m) for n, m in masks.items()}
        own = {} if group is None else {"group": group.element(slice_name)}
        yield fo.Sample(
            filepath=str(path.resolve()), **own, **shown, **{k: v for k, v in facts.items() if v is not None}
        )


def _masks(s: Sample, runs: Sequence[Shown]) -> Mapping[str, NDArray[np.uint8]]:
    truth = labels(crop_mask(s.amodal, s.crop, SIDE), crop_mask(s.modal, s.crop, SIDE))
    found = {r.name: predicted_labels(s, r.predictions.get(s.sample_id)) for r in runs}
    return {"truth": truth} | {n: m for n, m in found.items() if m is not None}


def views(dataset: Any, runs: Sequence[Shown]) -> list[str]:
    """Save the sorted views; returns their names."""
    schema = dataset.get_field_schema()
    wanted = {"most disagreed": ("disagreement", True), "widest spread of scores": ("spread", True)}
    for r in runs:
        metric = next((m for m in SPREAD if f"{r.name}_{m}" in schema), None)
        if metric:
            wanted[f"worst of {r.name}"] = (f"{r.name}_{metric}", metric.startswith("l1"))
    made = []
    for name, (key, reverse) in wanted.items():
        if key in schema:
            dataset.save_view(name, dataset.exists(key).sort_by(key, reverse=reverse))
            made.append(name)
    return made


def launch(root: Path, dataset: Any, port: int | None, address: str = "127.0.0.1") -> Any:
    """Start the App on a free port of the loopback; returns FiftyOne's session."""
    fo = server.connect(root)
    free = server.free_port(address, port)
    server.wait_for(server.start_server(free, address), address, free)
    return fo.launch_app(dataset, remote=True, port=free, address=address)
