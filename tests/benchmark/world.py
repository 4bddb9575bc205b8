"""A small split made of ellipses with boxes over them, and submissions to it: all a test of the judge needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ahp_toolkit.core import hashing
from ahp_toolkit.core.crops import square_around
from ahp_toolkit.core.masks import Box, Mask, encode
from ahp_toolkit.core.records import Given, ImageRef, Placement, Prediction, Sample
from ahp_toolkit.core.text import file_stem
from ahp_toolkit.storage import files, images, parquet
from benchmark.grading.pictures import pixels_digest
from benchmark.grading.truth import crop_of, picture_path, sample_pairs, split_digest

SIZE = 200


def person(seed: int) -> np.ndarray:
    """bool [200, 200]: an ellipse."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    a, b = rng.uniform(25, 40), rng.uniform(50, 75)
    return ((x - rng.uniform(90, 110)) / a) ** 2 + ((y - 100) / b) ** 2 < 1


def sample(k: int, human: int, ratio: float) -> Sample:
    """A sample whose person is hidden from below to about ``ratio``."""
    amodal = person(human)
    rows = np.cumsum(amodal.sum(1)[::-1])[::-1] / amodal.sum()
    hidden = np.zeros_like(amodal)
    hidden[rows <= ratio] = True
    modal = amodal & ~hidden
    given = modal.copy()
    given[:, ::17] = False
    source = ("coco", "voc_sbd", "lip")[human % 3]
    image = ImageRef(f"{source}/{human:04d}", source, f"{human}.jpg", SIZE, SIZE)
    got = float((amodal & hidden).sum() / amodal.sum())
    bin_ = int(min(3, got // 0.12))
    return Sample(
        f"val/{human:04d}#{k}", "val", f"{source}/{human:04d}#1", image, (Placement("o", 0, 0),), k,
        Given(encode(given), "test"), encode(modal), encode(amodal), square_around(encode(amodal).box, 1.2), got, bin_,
        hashing.digest_bytes(encode(modal).counts, encode(amodal).counts),
    )  # fmt: skip


def make_split(folder: Path, humans: int = 12, each: int = 3, pictures: bool = False) -> list[Sample]:
    """Write a split of humans x each samples; with ``pictures`` its crops too."""
    rng = np.random.default_rng(1)
    made = [sample(k, h, float(rng.uniform(0.03, 0.5))) for h in range(humans) for k in range(each)]
    parquet.write_records(folder / "part-00000.parquet", made, Sample)
    if pictures:
        for s in made:
            truth, occluded = paint(s)
            images.write_png(picture_path(folder, s.sample_id, "recovered"), truth)
            images.write_png(picture_path(folder, s.sample_id, "occluded"), occluded)
        digests = {f"{file_stem(s.sample_id)}.recovered.png": pixels_digest(paint(s)[0]) for s in made}
        files.write_json(folder / "crops" / "digests.json", digests)
    return made


def paint(s: Sample) -> tuple[np.ndarray, np.ndarray]:
    """The recovered and the occluded crop of a sample, uint8 [256, 256, 3]."""
    rng = np.random.default_rng(hashing.seed_of(s.human_id))
    y, x = np.mgrid[:256, :256]
    ground = np.stack([(x // 2), (y // 2), (x + y) // 4], -1).astype(np.uint8)
    amodal, modal = crop_of(s, "amodal"), crop_of(s, "modal")
    stripes = ((y // 12) % 2)[..., None] * rng.integers(60, 120, 3) + rng.integers(40, 120, 3)
    truth = np.where(amodal[..., None], stripes, ground).astype(np.uint8)
    occluded = np.where((amodal & ~modal)[..., None], np.array([200, 60, 40]), truth).astype(np.uint8)
    return truth, occluded


def encode256(mask: np.ndarray) -> Mask:
    """bool [256, 256] to a Mask."""
    return encode(mask)


def submit(folder: Path, predictions: list[Prediction], split: Path | None = None, **run: object) -> Path:
    """Write a submission folder."""
    parquet.write_records(folder / "predictions.parquet", predictions, Prediction)
    digest = {"dataset_digest": split_digest(sample_pairs(split))} if split else {}
    files.write_json(folder / "run.json", {"model": folder.name, **digest, **run})
    return folder


def by_rule(samples: list[Sample], rule: str) -> list[Prediction]:
    """Predictions of a simple rule: truth, given, empty, box or template (the mean of all true masks)."""
    mean = np.mean([crop_of(s, "amodal") for s in samples], axis=0) > 0.5
    out = []
    for s in samples:
        amodal = {
            "truth": lambda s=s: crop_of(s, "amodal"),
            "given": lambda s=s: crop_of(s, "given"),
            "empty": lambda: np.zeros((256, 256), bool),
            "box": lambda: np.ones((256, 256), bool),
            "template": lambda: mean,
        }[rule]()
        modal = encode(crop_of(s, "modal")) if rule == "truth" else None
        out.append(Prediction(s.sample_id, rule, encode(amodal), modal, None, 0.01))
    return out


def noisy(samples: list[Sample], grow: int, seed: int) -> list[Prediction]:
    """The truth, shifted and cut at random: a method of middling quality."""
    rng = np.random.default_rng(seed)
    out = []
    for s in samples:
        a, m = crop_of(s, "amodal"), crop_of(s, "modal")
        move = int(rng.integers(0, grow + 1))
        guess = m | (np.roll(a, -move * 3, axis=0) & (rng.random() < 0.9))
        out.append(Prediction(s.sample_id, f"noisy{grow}", encode(guess), encode(m), None, 0.02))
    return out


__all__ = ["Box", "by_rule", "make_split", "noisy", "paint", "sample", "submit"]
