"""Train the plug-ins that can be trained on the harvest itself: segmenters on masks, parsers on body parsings."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.hashing import digest_files, digest_value, seed_of
from ahp_toolkit.core.records import Candidate
from ahp_toolkit.core.registry import Registry
from ahp_toolkit.nets import checkpoints, devices
from ahp_toolkit.nets.fit import Run, Settings, fit
from ahp_toolkit.nets.recipe import Cut, Recipe, photo_of
from ahp_toolkit.parsers.base import Parser, body_of
from ahp_toolkit.runtime import timing
from ahp_toolkit.segmenters.base import Segmenter, prompt_of
from ahp_toolkit.sources.base import PARTS
from ahp_toolkit.storage import parquet
from ahp_toolkit.storage.files import forget_dead, write_json
from ahp_toolkit.storage.held_out import HeldOut, held_of
from ahp_toolkit.storage.images import ImageError
from ahp_toolkit.storage.photos import Photos

TRIES = 50  # photos in a row that may fail before training stops


@dataclass(frozen=True)
class Data:
    """What a network is trained on: candidates of the harvest ``parts``, their photos below ``roots`` (by source).

    Nobody in a photo of ``held`` is trained on or judged by: those are kept for val and test.
    """

    parts: Sequence[Path | str]
    roots: Mapping[str, str]
    held: HeldOut = field(default_factory=HeldOut)


@dataclass(frozen=True)
class How:
    """How a network is trained; ``settings`` is a preset's name or one's own."""

    settings: Settings | str = "debug"
    seed: int = 0
    device: str = "auto"
    quiet: bool = False


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
        line = f"{self.name}: {self.metric} {self.value:.3f} on {self.judged} held-out humans, trained on {self.humans}"
        return f"{line}; {self.left_out} left out, their photos are kept for val and test (hash in {self.held})"


def trainable(registry: Registry, name: str) -> Any:
    """The plug-in of that name.

    Raises:
        UserError: when it is unknown or cannot be trained here.
    """
    found = registry.get(name)
    if not getattr(found, "TRAINABLE", False):
        can = [n for n in registry.names() if getattr(registry.get(n), "TRAINABLE", False)]
        raise UserError(f"--name {name}: this {registry.kind} is not trained here; expected one of {', '.join(can)}")
    return found


def train(registry: Registry, name: str, data: Data, out: Path, how: How) -> Trained:
    """Train a plug-in on the harvest and write the checkpoint ``out``.

    A stopped training goes on, a finished one is left as it is. Segmenters are judged on held-out photos by the mean
    IoU inside the box, parsers by the mean IoU over the parts that occur inside the masks.

    Raises:
        UserError: when the plug-in cannot be trained, there are too few humans, photos cannot be read, or the loss is
            no number.
    """
    device = devices.pick_device(how.device)
    recipe, settings = _recipe(registry, name, how)
    every = humans_of(data.parts, recipe.parsed)
    humans = without(every, data.held)
    training, held = split(humans, settings.holdout)
    learnt, key = _key(recipe, settings, data, how)
    partial, took = out.with_name(f".{out.name}.partial"), out.with_suffix(".timing.json")
    forget_dead(out, partial, took)
    if out.exists() and (done := checkpoints.load_checkpoint(out, recipe.kind)).meta.get("key") == key:
        partial.unlink(missing_ok=True)  # killed between its end and this
        return _trained(out, name, done)
    run = Run(registry.kind, partial, key, how.seed, device, how.quiet)
    start, whole = time.monotonic(), not partial.exists()
    fit(recipe.net, Samples(training, data.roots, recipe.cut(training), how.seed), recipe.loss, settings, run)
    if whole:  # of a training that went on, the time of the earlier steps is not known
        timed = {"steps": settings.steps, "seconds": time.monotonic() - start, "settings": learnt}
        write_json(took, timed | {"device": device.type, "machine": timing.machine()})
    judge, metric = (_part_iou, "mean part IoU") if recipe.parsed else (_mean_iou, "mean IoU")
    value, judged = judge(recipe.ready(recipe.net, device), held[: settings.judge], data.roots)
    meta = {"key": key, "settings": learnt, "seed": how.seed, "imagenet": recipe.imagenet, "humans": len(training)}
    meta |= {"metric": metric, "value": value, "judged": judged, "torch": str(torch.__version__)}
    meta |= {"held_out": data.held.as_json(), "left_out": len(every) - len(humans)}
    made = checkpoints.Checkpoint(asdict(recipe.arch), recipe.net.state_dict(), meta)
    checkpoints.save_checkpoint(out, recipe.kind, made)
    partial.unlink(missing_ok=True)
    return _trained(out, name, made)


def is_trained(registry: Registry, name: str, data: Data, out: Path, how: How) -> bool:
    """Whether ``out`` holds the checkpoint that `train` would make."""
    recipe, settings = _recipe(registry, name, how)
    _, key = _key(recipe, settings, data, how)
    return out.exists() and checkpoints.load_checkpoint(out, recipe.kind).meta.get("key") == key


def _recipe(registry: Registry, name: str, how: How) -> tuple[Recipe, Settings]:
    plugin = trainable(registry, name)
    settings = plugin.PRESETS[how.settings] if isinstance(how.settings, str) else how.settings
    with devices.seeded(seed_of(how.seed, registry.kind)):
        return plugin.recipe(settings), settings


def _key(recipe: Recipe, settings: Settings, data: Data, how: How) -> tuple[dict[str, Any], str]:
    """The settings that change what is learnt, and the digest of all that does."""
    # loaders, saving and the device do not (beyond rounding)
    learnt = {k: v for k, v in asdict(settings).items() if k not in ("loaders", "save_every")}
    parts = digest_files([Path(p) for p in data.parts])
    return learnt, digest_value([recipe.kind, learnt, how.seed, parts, recipe.imagenet, data.held.as_json()])


def _trained(out: Path, name: str, made: checkpoints.Checkpoint) -> Trained:
    m = made.meta
    held = str(held_of(m["held_out"]))
    short = checkpoints.short_name(name, made.digest)
    return Trained(out, short, m["metric"], m["value"], m["judged"], m["humans"], m["left_out"], held)


def _mean_iou(ready: Segmenter, humans: Sequence[Candidate], roots: Mapping[str, str]) -> tuple[float, int]:
    """Mean IoU inside the original box at the photo's size, and how many humans it is over."""
    photos, scores = Photos(roots), []
    for h in humans:
        try:
            photo = photos.read(h.image)
        except ImageError:
            continue  # counted by the number judged
        prompt, crop = prompt_of(photo, h.box)
        x0, y0, x1, y1 = prompt.box.pixels()
        cx, cy, cx1, cy1 = crop.pixels()
        assert h.mask is not None
        truth = h.mask.decode()[cy:cy1, cx:cx1][y0:y1, x0:x1]
        found = ready([prompt])[0].mask[y0:y1, x0:x1]
        union = int(np.count_nonzero(truth | found))
        scores.append(np.count_nonzero(truth & found) / union if union else 1.0)
    return _judged(scores)


def _part_iou(ready: Parser, humans: Sequence[Candidate], roots: Mapping[str, str]) -> tuple[float, int]:
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
    """IoU of each body part (background left out) that occurs in the truth; table[truth, found] counts px."""
    hits = np.diag(table)[1:]
    truth, found = table.sum(1)[1:], table.sum(0)[1:]
    occurs = truth > 0
    return np.asarray(hits[occurs] / (truth + found - hits)[occurs], np.float64)


def _judged(scores: Sequence[float]) -> tuple[float, int]:
    if not scores:
        raise UserError("none of the held-out photos can be read; look at the data roots")
    return float(np.mean(scores)), len(scores)


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Endless reshuffled humans: item i depends on the seed and on i alone; unreadable photos are passed over."""

    def __init__(self, humans: Sequence[Candidate], roots: Mapping[str, str], cut: Cut, seed: int) -> None:
        self._humans, self._cut, self._seed = humans, cut, seed
        self._photos = Photos(roots)
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, np.int64))

    def _human(self, index: int) -> Candidate:
        epoch, place = divmod(index, len(self._humans))
        if self._order[0] != epoch:
            rng = np.random.default_rng(hashing.seed_of(self._seed, "order", epoch))
            self._order = epoch, rng.permutation(len(self._humans))
        return self._humans[int(self._order[1][place])]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """uint8 planes [C, S, S] and target [S, S].

        Raises:
            UserError: when fifty photos in a row cannot be read.
        """
        why = ""
        for i in range(index, index + TRIES):
            human = self._human(i)
            try:
                photo = self._photos.read(human.image)
            except ImageError as e:
                why = str(e)
                continue
            rng = np.random.default_rng(hashing.seed_of(self._seed, "sample", index))
            planes, target = self._cut(photo, human, rng)
            return torch.from_numpy(planes).permute(2, 0, 1), torch.from_numpy(np.ascontiguousarray(target))
        raise UserError(f"{TRIES} photos in a row cannot be read, the last: {why}; look at the data roots")


def humans_of(parts: Iterable[Path | str], parsed: bool) -> list[Candidate]:
    """All candidates with a mask (and, if ``parsed``, a parsing of the same frame) of harvest parts.

    A parsing without a mask makes its own: every labelled px.

    Raises:
        UserError: when there are fewer than two.
    """
    found = [
        h for p in parts for c in parquet.read_records(Path(p), Candidate) if (h := _usable(c, parsed)) is not None
    ]
    if len({photo_of(h) for h in found}) < 2:
        what = "body parsings (LIP has them)" if parsed else "masks"
        raise UserError(
            f"training needs humans with {what} on at least two photos, the harvest has {len(found)} of them"
        )
    return found


def without(humans: Sequence[Candidate], held: HeldOut) -> list[Candidate]:
    """The humans whose photos may be trained on.

    Raises:
        UserError: when they stand on fewer than two photos.
    """
    found = [h for h in humans if not held.has(photo_of(h))]
    if len({photo_of(h) for h in found}) < 2:
        raise UserError(
            f"training needs humans on at least two photos; {len(found)} of {len(humans)} are left once photos with a "
            f"hash in {held} are kept for val and test; harvest more"
        )
    return found


def _usable(c: Candidate, parsed: bool) -> Candidate | None:
    if c.mask is None or not c.mask.area:
        return None
    if not parsed:
        return c if c.parsing is None else replace(c, parsing=None)
    fits = c.parsing is not None and (c.parsing.height, c.parsing.width) == (c.mask.height, c.mask.width)
    return c if fits else None


def split(humans: Sequence[Candidate], share: float) -> tuple[list[Candidate], list[Candidate]]:
    """(training, held out) by hash of the photo, at least one photo on each side; the held-out ones in hash order."""
    place = {p: hashing.unit_hash("held out", p) for p in {photo_of(h) for h in humans}}
    ranked = sorted(place, key=lambda p: place[p])
    held = {p for p in ranked[:-1] if place[p] < share} or {ranked[0]}
    out = sorted((h for h in humans if photo_of(h) in held), key=lambda h: (place[photo_of(h)], h.candidate_id))
    return [h for h in humans if photo_of(h) not in held], out
