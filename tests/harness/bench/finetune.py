"""Fine-tune the paper's method on a small set of real people, by folds over their photos, and show what it does unseen.

``python -m tests.harness.bench.finetune --source coco=/data/coco128 --mask-run RUN --content-run RUN --out
out/finetune``

Each fold is a build of its own (``ahp build --fold K/N``) whose val photographs the fine-tuned networks have not seen.
Both stages cascade: stage 2 is fed stage 1's own masks. Written: ``finetune.json`` (every sample's figures, before and
after), and ``finetune.png``. The people are those that the provisional rule preserves, unless ``--decisions`` brings a
reviewer's words.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pyarrow.parquet as pq

from ahp_toolkit.cli.bench import runs as bench_steps
from ahp_toolkit.core import crops, hashing
from ahp_toolkit.core.records import Prediction, Sample
from ahp_toolkit.stages.report import renderer_of
from ahp_toolkit.storage import files, images, parquet
from baselines.training.train import Training
from benchmark.features.context import Context

SIZE = 128
METRICS = ("iou_amodal", "iou_invisible", "iou_modal", "l1_invisible")
HEADS = ("occluded", "given", "truth", "before", "after", "before", "after", "truth")


@dataclass(frozen=True)
class Way:
    """One way of answering a fold: its name and its two prediction folders."""

    name: str
    masks: Path
    pictures: Path


def build_fold(sources: tuple[str, ...], decisions: tuple[str, ...], out: Path, fold: str) -> Path:
    """``ahp build`` of one fold; returns its val split with crops."""
    command = [sys.executable, "-m", "ahp_toolkit.cli.main", "build", "--out", str(out), "--review", "provisional"]
    command += [a for s in sources for a in ("--source", s)] + [a for d in decisions for a in ("--decisions", d)]
    subprocess.run([*command, "--fold", fold, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return bench_steps.write_crops(out, "val")


def answers(name: str, split: Path, mask_run: Path, content_run: Path) -> Way:
    """Predictions of both stages, the second fed by the first."""
    masks, _ = bench_steps.predict_once(mask_run, split)
    pictures, _ = bench_steps.predict_once(content_run, split, mask_run)
    return Way(name, masks, pictures)


def figures(way: Way, split: Path, boards: Path, context: Context) -> dict[str, dict[str, float]]:
    """sample id -> metric -> value."""
    out: dict[str, dict[str, float]] = {}
    for folder in (way.masks, way.pictures):
        scored, _ = bench_steps.score_once(folder, split, boards / way.name, context)
        table = pq.read_table(scored / "samples.parquet")
        for row in table.select([c for c in ("sample_id", *METRICS) if c in table.column_names]).to_pylist():
            found = {k: v for k, v in row.items() if k in METRICS}
            if folder == way.masks or "l1_invisible" in found:
                out.setdefault(row["sample_id"], {}).update(found)
    return out


def rows_of(root: Path, split: Path, ways: list[Way]) -> dict[str, images.Rgb]:
    """sample id -> a row of tiles, in the order of HEADS."""
    render, told = renderer_of(root), {}
    said = [{p.sample_id: p for p in parquet.read_records(w.masks, Prediction)} for w in ways]
    painted = [{p.sample_id: p for p in parquet.read_records(w.pictures, Prediction)} for w in ways]
    for sample in parquet.read_records(split, Sample):
        full = render(sample)
        occluded, recovered = (crops.crop_image(i, sample.crop, SIZE) for i in (full.image, full.recovered))
        given, *masks = (
            crops.crop_mask(m, sample.crop, SIZE) for m in (sample.given.mask, sample.modal, sample.amodal)
        )
        tiles = [occluded, _masks(given, given), _masks(*masks)]
        for found in said:
            p = found[sample.sample_id]
            pair = [None if m is None else _fit(m.decode()) for m in (p.modal, p.amodal)]
            tiles.append(_masks(given if pair[0] is None else pair[0], given if pair[1] is None else pair[1]))
        for way, found in zip(ways, painted, strict=True):
            path = found[sample.sample_id].image
            assert path is not None  # a content run paints every sample
            tiles.append(np.asarray(cv2.resize(images.read(way.pictures / path), (SIZE, SIZE)), np.uint8))
        told[sample.sample_id] = np.hstack([*tiles, recovered])
    return told


def _fit(mask: Any) -> Any:
    return cv2.resize(np.asarray(mask, np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_NEAREST) > 0


def _masks(modal: Any, amodal: Any) -> images.Rgb:
    """Visible in white, what is held to be hidden in red."""
    tile = np.full((SIZE, SIZE, 3), 24, np.uint8)
    tile[amodal & ~modal] = (230, 60, 50)
    tile[modal] = 255
    return tile


def _heads(columns: int) -> images.Rgb:
    bar = np.full((18, columns * SIZE, 3), 255, np.uint8)
    for i, name in enumerate(HEADS):
        cv2.putText(bar, name, (i * SIZE + 4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return bar


@click.command(help=__doc__)
@click.option("--source", "sources", multiple=True, required=True, metavar="NAME=PATH")
@click.option("--decisions", multiple=True, type=click.Path(exists=True))
@click.option("--mask-run", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--content-run", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--folds", default=4, show_default=True)
@click.option("--recipe", default="debug", show_default=True)
@click.option("--mask-steps", default=150, show_default=True)
@click.option("--content-steps", default=100, show_default=True)
@click.option("--shown", default=14, show_default=True, help="Rows of the picture, chosen by hash.")
def main(
    sources: tuple[str, ...], decisions: tuple[str, ...], mask_run: Path, content_run: Path, out: Path, folds: int,
    recipe: str, mask_steps: int, content_steps: int, shown: int,
) -> None:  # fmt: skip
    """See the module's docstring."""
    found: dict[str, dict[str, dict[str, float]]] = {"before": {}, "after": {}, "initial mask": {}}
    rows: dict[str, images.Rgb] = {}
    context = Context(cache=out / "cache")
    for k in range(1, folds + 1):
        root = out / f"fold-{k}"
        split = build_fold(sources, decisions, root, f"{k}/{folds}")
        tuned = [
            bench_steps.train_once(Training(root, "human_deocclusion", task, recipe, steps=steps, init=init))[0]
            for task, steps, init in (("mask", mask_steps, mask_run), ("content", content_steps, content_run))
        ]
        ways = [answers("before", split, *_copies(root, mask_run, content_run)), answers("after", split, *tuned)]
        for way in ways:
            found[way.name] |= figures(way, split, root / "boards", context)
        initial = bench_steps.train_once(Training(root, "initial", "mask", recipe))[0]
        given = bench_steps.predict_once(initial, split)[0]
        found["initial mask"] |= figures(Way("initial", given, given), split, root / "boards", context)
        rows |= rows_of(root, split, ways)
    _report(out, found, rows, shown)


def _copies(root: Path, *runs: Path) -> tuple[Path, ...]:
    """Links to the pretrained runs below a fold, so that its predictions lie there."""
    made = []
    for run in runs:
        to = root / "pretrained" / run.name
        to.mkdir(parents=True, exist_ok=True)
        for name in ("best.safetensors", "last.safetensors", "run.json", "trained_on.parquet"):
            link = to / name
            if (run / name).exists() and not link.exists():
                link.symlink_to((run / name).resolve())
        made.append(to)
    return tuple(made)


def _means(per: dict[str, dict[str, float]]) -> dict[str, float]:
    """The mean over samples of each metric that was scored."""
    values = {m: [v[m] for v in per.values() if m in v] for m in METRICS}
    return {m: float(np.mean(v)) for m, v in values.items() if v}


def _report(out: Path, found: dict[str, dict[str, dict[str, float]]], rows: dict[str, images.Rgb], shown: int) -> None:
    click.echo(f"{len(rows)} samples on photographs that were not trained on")
    means = {way: _means(per) for way, per in found.items()}
    for way, figures_ in means.items():
        click.echo(f"{way:14s} " + "  ".join(f"{m} {v:.4f}" for m, v in figures_.items()))
    files.write_json(out / "finetune.json", {"means": means, "samples": found})
    chosen = sorted(rows, key=lambda s: hashing.unit_hash("finetune", s))[:shown]
    sheet = np.vstack([_heads(len(HEADS)), *(rows[s] for s in chosen)])
    images.write_png(out / "finetune.png", sheet)
    click.echo(f"{out / 'finetune.png'}")


if __name__ == "__main__":
    main()
