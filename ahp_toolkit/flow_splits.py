"""The build, from the people to the splits: occluder banks, frozen samples, and their pixels where they are wanted."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from annotation.review import Thresholds

from .core import store
from .core.engines import Engine
from .core.lock import lock
from .core.pipeline import MAIN, Job, Result, code_digest, finished, run
from .core.records import SPLITS, Human, Occluder, Sample
from .flow import GROUND, Options, digest_of, parts_of
from .occlusion.densities import assign, parse
from .occlusion.place import Settings
from .stages.bank import Bank
from .stages.materialize import Materialize, WrittenSample, files_digest

OCCLUSION = tuple(f"ahp_toolkit.occlusion.{m}" for m in ("bits", "search", "place", "paste", "densities", "degrade"))


@dataclass(frozen=True)
class Synthesis:
    """How splits are made: densities and samples a human by split, placement, initial masks, occluder banks."""

    seed: int = 0
    densities: dict[str, str] = field(default_factory=dict)
    per_human: int = 3
    mode: str = "stratified"
    scale: tuple[float, float] | None = None
    flip: bool = True
    initial: str = "simulated"
    initial_weights: str | None = None
    initial_iou: float = 0.775
    bank_size: int = 20_000
    min_occluder: int = 300

    def settings(self) -> Settings:
        """Placement settings; the scale's default is `place.Settings`'s."""
        given: dict[str, Any] = {"scale": self.scale} if self.scale else {}
        return Settings(mode=self.mode, flip=self.flip, **given)  # type: ignore[arg-type]

    def density_of(self, split: str) -> str:
        """The density of a split; test takes val's, since the real composites come later (spec §2)."""
        return self.densities.get(split, "train" if split == "train" else "val")


def bank(o: Options, cut: Thresholds, s: Synthesis) -> Result:
    """The occluders of each split: random instances (paper §5.1), never from a photo of another split."""
    stage = finished(o.out / "harvest")
    total = sum(
        n for k, n in (stage.counts if stage else {}).items() if k.startswith(("occluders_other/", "occluders_p"))
    )
    share = min(1.0, len(SPLITS) * s.bank_size / max(total, 1))
    code = code_digest("ahp_toolkit.stages.bank", "annotation.review", *GROUND)
    key = {
        "cut": asdict(cut),
        "share": share,
        "min": s.min_occluder,
        "input": digest_of(o.out / "harvest"),
        "code": code,
    }
    fn = Bank(partial(_split_of, cut), share, s.min_occluder)
    job = Job("bank", o.out / "bank", fn, dict.fromkeys(SPLITS, Occluder), key, shard_size=1, unit="part")
    return o.run(job, parts_of(o.out / "harvest" / "occluders"))


def _split_of(cut: Thresholds, photo: str) -> str:
    return cut.split(photo)


def split(o: Options, s: Synthesis, name: str) -> Result:
    """Synthesis of one split (paper §4.1, §5.1): frozen samples at the wanted occlusion ratios."""
    from .stages import synth

    humans = parts_of(o.out / "review")
    most = {"train": None, "val": o.sizes.val, "test": o.sizes.test}[name]
    ids = synth.chosen(humans, name, most)
    density = parse(s.density_of(name))
    each = 1 if name == "train" else s.per_human
    targets = assign(density, len(ids) * each, store.seed_of(s.seed, "targets", name))
    initial = synth.Initial(s.initial, s.initial_weights, s.initial_iou, o.device)
    fn = synth.Synth(name, density, s.settings(), initial, s.seed, str(o.out / "bank" / name), o.names)
    code = code_digest(*(f"ahp_toolkit.stages.{m}" for m in ("synth", "_shuffle", "render")), *OCCLUSION, *GROUND)
    options = {k: v for k, v in asdict(fn).items() if k not in ("roots", "bank")} | {"each": each, "most": most}
    inputs = [digest_of(o.out / "review"), digest_of(o.out / "bank")]
    key = {"options": options, "inputs": inputs, "code": code, "density": str(density)}
    tables = {MAIN: Sample, "humans": Human, "occluders": Occluder}
    job = Job(name, o.out / "splits" / name, fn, tables, key, 16, True, "human", s.initial != "simulated")
    items = lambda: synth.tasks(humans, ids, targets)  # noqa: E731
    return o.stream(job, items, len(ids))


def _written(marks: Path, to: Path, what: str) -> bool:
    """Whether every picture that was written is still what was written."""
    return all(files_digest(to, w.name, what) == w.files for w in store.read_records(marks, WrittenSample))


def pictures_of(root: Path, out: Path, name: str, what: str) -> Path:
    """Where `materialize` writes a split's pictures: ``out``/SPLIT, or for crops beside the split's tables."""
    return out / name if what == "full" else root / "splits" / name / "crops"


def materialize(
    root: Path, roots: dict[str, str], out: Path, splits: Sequence[str], what: str, engine: Engine
) -> list[Result]:
    """Write the pixels of splits: whole photos, or crops; see `pictures_of`."""
    results = []
    for name in splits:
        folder = root / "splits" / name
        to = pictures_of(root, out, name, what)
        fn = Materialize(str(folder), str(to), what, roots)
        key = {
            "what": what,
            "input": digest_of(folder),
            "to": to.name,
            "code": code_digest("ahp_toolkit.stages.render", "ahp_toolkit.stages.materialize", *OCCLUSION),
        }
        marks = to.parent / f".{to.name}.written"
        job = Job(f"write {name}", marks, fn, {MAIN: WrittenSample}, key, shard_size=1, unit="part")
        items = [p.name for p in store.parts(folder)]
        with lock(marks.parent):
            result = run(job, lambda items=items: items, engine=engine, total=len(items))  # type: ignore[misc]
            if not _written(marks, to, what):  # a picture was lost or damaged since
                shutil.rmtree(marks)
                result = run(job, lambda items=items: items, engine=engine, total=len(items))  # type: ignore[misc]
            store.forget_unfinished(to, deep=True)  # whole photos lie in a folder a sample
        results.append(result)
    return results
