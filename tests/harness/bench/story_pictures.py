"""The README's tutorial: one person of the sample world through all stages, seven pictures; for ``make pictures``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq

from ahp_toolkit.build import config
from ahp_toolkit.core import crops
from ahp_toolkit.core.crops import around
from ahp_toolkit.core.masks import Bool2D, Box
from ahp_toolkit.core.records import Candidate, Decision, Human, Occluder, Prediction, Sample, Segmented
from ahp_toolkit.occlusion.paste import Pasted
from ahp_toolkit.sources.base import PARTS
from ahp_toolkit.stages.report import renderer_of
from ahp_toolkit.storage import files, images, parquet
from ahp_toolkit.storage.images import Rgb
from ahp_toolkit.storage.photos import Photos

SIZE, BAR = 230, 20
RED, GREEN, WHITE, GREY = (230, 60, 50), (90, 220, 90), (255, 255, 255), (150, 150, 150)
Told = tuple[str, Rgb]


class Story:
    """All that is known of one person of a finished demo: chosen by size among those that a network segmented."""

    def __init__(self, root: Path) -> None:
        self.root, self.photos = root, Photos(config.read(root).roots)
        segmented = {s.candidate.candidate_id: s for s in parquet.read_records(root / "parse", Segmented)}
        self.sample = self._chosen(segmented)
        self.person = segmented[self.sample.human_id]
        self.candidate: Candidate = self.person.candidate
        humans = parquet.read_records(root / "splits" / "val" / "humans", Human)
        self.human = next(h for h in humans if h.human_id == self.sample.human_id)
        self.photo = self.photos.read(self.candidate.image)
        self.pasted: Pasted = renderer_of(root)(self.sample)
        occluders = parquet.read_records(root / "splits" / "val" / "occluders", Occluder)
        self.occluder = next(o for o in occluders if o.occluder_id == self.sample.placements[0].occluder_id)

    def _chosen(self, segmented: dict[str, Segmented]) -> Sample:
        """The val sample of the third bin whose person came as a box only and fills the most of its photo."""

        def fits(s: Sample) -> bool:
            return s.bin == 2 and len(s.placements) == 1 and not segmented[s.human_id].segmenter.startswith("source")

        found = [s for s in parquet.read_records(self.root / "splits" / "val", Sample) if fits(s)]
        return max(found, key=lambda s: (s.amodal.area / s.image.width / s.image.height, s.sample_id))

    # --- what the stages made, as labelled tiles ----------------------------------------------------------------------

    def harvested(self) -> list[Told]:
        """The photo with every candidate's box, ours in red."""
        shown = self.photo.copy()
        for c in parquet.read_records(self.root / "harvest", Candidate):
            if c.image.image_id == self.candidate.image.image_id:
                _box(shown, c.box, RED if c.candidate_id == self.candidate.candidate_id else GREY)
        scale = 330 / shown.shape[0]
        shown = np.asarray(cv2.resize(shown, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        return [(f"{self.candidate.image.source}: boxes, no masks", shown)]

    def segmented(self) -> list[Told]:
        """What the segmenter sees, what it finds, and the body parts."""
        h, w = self.photo.shape[:2]
        crop = crops.square_around(around(self.candidate.box, w, h, 3.0))
        seen = crops.crop_image(self.photo, crop, SIZE)
        k = SIZE / crop.width
        x0, y0, x1, y1 = self.candidate.box
        _box(seen, Box(*(v * k for v in (x0 - crop.x0, y0 - crop.y0, x1 - crop.x0, y1 - crop.y0))), RED)
        near = self._near()
        plain = crops.crop_image(self.photo, near, SIZE)
        mask = crops.crop_mask(self.person.mask, near, SIZE)
        assert self.person.parsing is not None
        labels = crops.crop_labels(self.person.parsing.decode(), near, SIZE)
        name = self.person.segmenter.partition("@")[0]
        return [
            ("the crop, 3 times the box", seen),
            (f"mask: {name}, score {self.person.score:.2f}", _lit(plain, mask)),
            (f"body parts: {self.person.parser.partition('@')[0]}", _parts(plain, labels, mask)),
        ]

    def reviewed(self) -> list[Told]:
        """Views of the review panel, the verdict, and the person as they went on."""
        near = self._near()
        plain = crops.crop_image(self.photo, near, SIZE)
        mask = crops.crop_mask(self.person.mask, near, SIZE)
        d = next(d for d in self._decisions() if d.candidate_id == self.candidate.candidate_id)
        human = crops.crop_mask(self.human.mask, near, SIZE)
        return [
            ("plain", plain),
            ("outline", _outlined(plain, mask, RED)),
            ("cutout", np.where(mask[:, :, None], plain, np.uint8(40))),
            (f"{d.verdict}{', mask corrected' if d.corrected else ''}", _outlined(plain, human, GREEN)),
        ]

    def _decisions(self) -> Iterator[Decision]:
        return parquet.read_records(self.root / "review" / "decisions", Decision)

    def placed(self) -> list[Told]:
        """The occluder on its own photo, and pasted, with the ratio that was asked for and reached."""
        there = self.photos.read(self.occluder.image)
        around_it = crops.square_around(self.occluder.box, 1.6)
        own = _outlined(
            crops.crop_image(there, around_it, SIZE), crops.crop_mask(self.occluder.mask, around_it, SIZE), GREEN
        )
        return [
            (f"occluder: {self.occluder.label}", own),
            (f"occluded, ratio {self.sample.occlusion_ratio:.3f}", self._cut(self.pasted.image)),
            ("recovered: them in front", self._cut(self.pasted.recovered)),
        ]

    def frozen(self) -> list[Told]:
        """The sample: modal, amodal and invisible mask, and the initial mask that every model is given."""
        p, s = self.pasted, self.sample
        named = [("modal", p.modal), ("amodal", p.amodal), ("invisible", p.invisible)]
        return [(n, self._flat(m)) for n, m in named] + [("given to every model", self._flat(s.given.mask.decode()))]

    def completed(self) -> list[Told]:
        """Each mask model's amodal mask (red) over the true one (green), with its IoU on this sample."""
        occluded, truth = self._cut(self.pasted.image), self._crop(self.pasted.amodal)
        out = [("what the models see", occluded)]
        for model, folder, run in self._runs("mask"):
            said = next(p for p in _predictions(run) if p.sample_id == self.sample.sample_id)
            assert said.amodal is not None
            found = cv2.resize(said.amodal.decode().astype(np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_NEAREST) > 0
            iou = self._figure(folder, "iou_amodal")
            out.append((f"{model}: IoU {iou:.2f}", _outlined(_outlined(occluded, truth, GREEN), found, RED)))
        return out

    def painted(self) -> list[Told]:
        """Each content model's picture, with its error in the invisible region, beside the truth."""
        out = [("recovered, the truth", self._cut(self.pasted.recovered))]
        for model, folder, run in self._runs("content"):
            said = next(p for p in _predictions(run) if p.sample_id == self.sample.sample_id)
            assert said.image is not None
            picture = crops.crop_image(images.read(run / said.image), Box(0, 0, 256, 256), SIZE)
            out.append((f"{model}: l1 {self._figure(folder, 'l1_invisible'):.2f}", picture))
        return out

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _near(self) -> Box:
        return crops.square_around(self.person.mask.box, 1.4)

    def _cut(self, pixels: Rgb) -> Rgb:
        return crops.crop_image(pixels, self.sample.crop, SIZE)

    def _crop(self, mask: Bool2D) -> Bool2D:
        return crops.crop_labels(mask, self.sample.crop, SIZE) > 0

    def _flat(self, mask: Bool2D) -> Rgb:
        return np.repeat(np.where(self._crop(mask), 255, 24).astype(np.uint8)[:, :, None], 3, axis=2)

    def _runs(self, board: str) -> Iterator[tuple[str, Path, Path]]:
        """(model, scored folder, prediction folder) of the demo's models on a board."""
        for scored in sorted((self.root / "boards").glob("*/score.json")):
            said = files.read_json(scored)
            for run in sorted(self.root.glob(f"runs/{said['model']}-{board}-*/predictions/val")):
                if board in said["boards"]:
                    yield said["model"], scored.parent, run

    def _figure(self, scored: Path, metric: str) -> float:
        rows = pq.read_table(scored / "samples.parquet", columns=["sample_id", metric]).to_pylist()
        return float(next(r[metric] for r in rows if r["sample_id"] == self.sample.sample_id))


def _predictions(run: Path) -> Iterator[Prediction]:
    return parquet.read_records(run, Prediction)


def _box(pixels: Rgb, box: Box, colour: tuple[int, int, int]) -> None:
    x0, y0, x1, y1 = (round(v) for v in box)
    cv2.rectangle(pixels, (x0, y0), (x1, y1), colour, 2)


def _outlined(pixels: Rgb, mask: Bool2D, colour: tuple[int, int, int]) -> Rgb:
    lines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(pixels.copy(), lines, -1, colour, 2), np.uint8)


def _lit(pixels: Rgb, mask: Bool2D) -> Rgb:
    return _outlined(np.where(mask[:, :, None], pixels, pixels // 3), mask, WHITE)


def _parts(pixels: Rgb, labels: np.ndarray, mask: Bool2D) -> Rgb:
    hues = np.array([[[k * 180 // len(PARTS), 190, 240]] for k in range(len(PARTS))], np.uint8)
    colours = cv2.cvtColor(hues, cv2.COLOR_HSV2RGB)[:, 0]
    shown = np.where((mask & (labels > 0))[:, :, None], colours[labels], pixels // 3)
    return np.asarray(shown, np.uint8)


def strip(told: Sequence[Told]) -> Rgb:
    """Tiles side by side, each below its label."""
    columns = []
    for text, tile in told:
        bar = np.full((BAR, tile.shape[1], 3), 255, np.uint8)
        cv2.putText(bar, text, (2, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (30, 30, 30), 1, cv2.LINE_AA)
        columns += [np.vstack([bar, np.asarray(cv2.medianBlur(tile, 3) & 0xFC, np.uint8)])]
        columns += [np.full((columns[-1].shape[0], 6, 3), 255, np.uint8)]
    return np.hstack(columns[:-1])


def story_pictures(root: Path, out: Path) -> list[Path]:
    """Write ``out``/story_*.png of a finished demo."""
    story = Story(root)
    made: dict[str, Callable[[], list[Told]]] = {
        "1_harvest": story.harvested,
        "2_segment": story.segmented,
        "3_review": story.reviewed,
        "4_place": story.placed,
        "5_sample": story.frozen,
        "6_masks": story.completed,
        "7_content": story.painted,
    }
    paths = []
    for name, tiles in made.items():
        path = out / f"story_{name}.png"
        with files.atomic(path) as f:
            f.write(images.encode(strip(tiles()), ".png", [16, 9]))
        paths.append(path)
    return paths
