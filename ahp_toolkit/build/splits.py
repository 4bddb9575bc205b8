"""The build, from the people to the splits: occluder banks, frozen samples, and their pixels where they are wanted."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ahp_toolkit.build.flow import Options, digest_of, parts_of
from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import SPLITS, Human, Occluder, Sample
from ahp_toolkit.core.text import file_stem
from ahp_toolkit.occlusion.densities import assign, parse
from ahp_toolkit.occlusion.place import Settings
from ahp_toolkit.runtime import logging
from ahp_toolkit.runtime.code import code_digest
from ahp_toolkit.runtime.engines import Engine
from ahp_toolkit.runtime.stage import MAIN, Job, Result, finished, run
from ahp_toolkit.stages.bank import Bank, shares
from ahp_toolkit.stages.materialize import (
    BESIDE,
    Materialize,
    WrittenSample,
    files_digest,
    forget,
    write_digests,
)
from ahp_toolkit.stages.review import Thresholds
from ahp_toolkit.storage import files, missing, parquet
from ahp_toolkit.storage.lock import lock

#: The source of the paper's occluders (spec §2), and the word for all of a build's.
OCCLUDERS, EVERY = "coco", "all"


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
    occluder_sources: tuple[str, ...] = ()

    def settings(self) -> Settings:
        """Placement settings; the scale's default is `place.Settings`'s."""
        given: dict[str, Any] = {"scale": self.scale} if self.scale else {}
        return Settings(mode=self.mode, flip=self.flip, **given)  # type: ignore[arg-type]

    def density_of(self, split: str) -> str:
        """The density of a split; test takes val's, since the real composites come later (spec §2)."""
        return self.densities.get(split, "train" if split == "train" else "val")

    def sources_of(self, formats: Mapping[str, str], occluders: Mapping[str, float] | None = None) -> tuple[str, ...]:
        """The sources whose instances occlude: those that the user named, else those of COCO's format (spec §2).

        All where these have no masks.

        Args:
            formats: the format of each source of the build.
            occluders: how many occluders each source has, where that is known.
        """
        every, known = tuple(sorted(formats)), occluders or {}
        if not self.occluder_sources:
            usual = tuple(name for name in every if formats[name] == OCCLUDERS)
            none = any(known.values()) and not any(known.get(name) for name in usual)
            return usual if usual and not none else every
        return every if EVERY in self.occluder_sources else tuple(sorted(set(self.occluder_sources)))


def occluders_by_source(harvest: Result | None) -> Counter[str]:
    """How many instances of each source can occlude, as a harvest has counted them."""
    found: Counter[str] = Counter()
    for key, n in (harvest.counts if harvest else {}).items():
        kind, _, source = key.partition("/")
        if kind in ("occluders_other", "occluders_person"):
            found[source] += n
    return found


def formats_of(o: Options) -> dict[str, str]:
    """The format of each source of a build."""
    return {name: o.format_of(name) for name in o.roots}


def sources_of(o: Options, s: Synthesis) -> tuple[str, ...]:
    """Whose instances occlude in a build, by what its harvest has where that stands."""
    harvest = None
    with suppress(UserError):  # damaged: it will be made anew
        harvest = finished(o.out / "harvest")
    return s.sources_of(formats_of(o), occluders_by_source(harvest))


def _tell_sources(o: Options, s: Synthesis, taken: tuple[str, ...]) -> None:
    """One line where COCO was to give the occluders and has none."""
    if taken != s.sources_of(formats_of(o)):
        said = f"{OCCLUDERS} has no masks, those of {', '.join(taken)} occlude; --occluder-source names others"
        logging.event("warning", "warning", message=said, source="bank")
        sys.stderr.write(f"bank: {said}\n")


def bank(o: Options, cut: Thresholds, s: Synthesis) -> Result:
    """The occluders of each split: random instances (paper §5.1), never from a photo of another split."""
    split_of, sources = partial(_split_of, cut), sources_of(o, s)
    before, parts = digest_of(o.out / "harvest"), parts_of(o.out / "harvest" / "occluders")
    share = shares(parts, split_of, sources, s.min_occluder, s.bank_size)
    code = code_digest("ahp_toolkit.stages.bank", "ahp_toolkit.stages.review")
    key = {"cut": asdict(cut), "shares": share, "sources": sources, "min": s.min_occluder, "input": before}
    fn = Bank(split_of, share, sources, s.min_occluder)
    tables = dict.fromkeys(SPLITS, Occluder)
    job = Job("bank", o.out / "bank", fn, tables, key | {"code": code}, shard_size=1, unit="part")
    r = o.run(job, parts)
    if r.fresh:
        _tell_sources(o, s, sources)
    return r


def _split_of(cut: Thresholds, photo: str) -> str:
    return cut.split(photo)


def split(o: Options, s: Synthesis, name: str) -> Result:
    """Synthesis of one split (paper §4.1, §5.1): frozen samples at the wanted occlusion ratios."""
    from ahp_toolkit.stages import synthesize

    humans = parts_of(o.out / "review")
    fold = o.sizes.fold is not None  # val is all of its part of the photos, test is empty
    most = None if name == "train" or fold else {"val": o.sizes.val, "test": o.sizes.test}[name]
    ids = synthesize.chosen(humans, name, most)
    density = parse(s.density_of(name))
    each = 1 if name == "train" else s.per_human
    targets = assign(density, len(ids) * each, hashing.seed_of(s.seed, "targets", name))
    initial = synthesize.Initial(s.initial, s.initial_weights, s.initial_iou, o.device)
    fn = synthesize.Synth(name, density, s.settings(), initial, s.seed, str(o.out / "bank" / name), o.names)
    code = code_digest(synthesize.__name__, *initial.modules())
    options = {k: v for k, v in asdict(fn).items() if k not in ("roots", "bank")} | {"each": each, "most": most}
    options |= {"initial": initial.key()}
    inputs = [digest_of(o.out / "review"), digest_of(o.out / "bank")]
    key = {"options": options, "inputs": inputs, "code": code, "density": str(density)}
    tables = {MAIN: Sample, "humans": Human, "occluders": Occluder}
    network = s.initial != "simulated"
    job = Job(name, o.out / "splits" / name, fn, tables, key, 16, True, "human", network, beside=BESIDE)
    job = replace(job, check=o.mounted())
    items = lambda: synthesize.tasks(humans, ids, targets)  # noqa: E731
    return o.stream(job, items, ids.every)


@dataclass(frozen=True)
class Standing:
    """A split that stands: its digest, and the ids of its humans."""

    digest: str
    humans: frozenset[str]


def standing(folder: Path) -> Standing | None:
    """The split that stands there; None where none does, or it is damaged or has nobody."""
    try:
        done = finished(folder)
        parts = parquet.parts(folder / "humans") if done is not None else []
        ids = frozenset(i for p in parts for i in parquet.read_table(p, ["human_id"])["human_id"].to_pylist())
    except UserError:
        return None
    return Standing(done.digest, ids) if done is not None and ids else None


def tell_replaced(before: Standing | None, r: Result) -> None:
    """One line where a frozen split gave way to another one (spec §2: val is fixed for ever once generated)."""
    if before is None or r.digest == before.digest:
        return
    after = standing(r.folder)
    stayed, were = len(before.humans & (after.humans if after else frozenset())), len(before.humans)
    logging.event("replaced", "warning", split=r.name, stayed=stayed, were=were)
    sys.stderr.write(
        f"{r.name}: replaces the {r.name} that stood here, {stayed} of its {were} humans stayed; figures on the two do "
        "not compare (to keep a split, copy its folder: see the README)\n"
    )


def _written(marks: Path, to: Path, what: str) -> bool:
    """Whether every picture that was written is still what was written."""
    return all(files_digest(to, w.name, what) == w.files for w in parquet.read_records(marks, WrittenSample))


def _names(split: Path) -> set[str]:
    """The file names of a split's samples."""
    return {
        file_stem(i)
        for p in parquet.parts(split)
        for i in parquet.read_table(p, ["sample_id"])["sample_id"].to_pylist()
    }


def _made(marks: Path) -> set[str]:
    """The file names of the samples whose pictures were written."""
    return {w.name for w in parquet.read_records(marks, WrittenSample)}


def _forget(names: Iterable[str], to: Path, what: str) -> None:
    """Remove the pictures of samples by their file names, and nothing else."""
    for name in names:
        if name == file_stem(name):  # a name of ours: no path
            forget(to, name, what)


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
            "code": code_digest("ahp_toolkit.stages.materialize"),
        }
        marks = to.parent / f".{to.name}.written"
        job = Job(f"write {name}", marks, fn, {MAIN: WrittenSample}, key, shard_size=1, unit="part")
        former = files.read_sealed(marks / "stage.json") or {}
        if former.get("key_digest") == job.key_digest:
            fn = replace(fn, before=str(marks))
        job = replace(job, fn=fn, check=missing.mounted(roots, root / "harvest", root / "harvest" / "occluders"))
        items = [p.name for p in parquet.parts(folder)]
        with lock(marks.parent):
            with suppress(UserError):  # no whole table stands: nothing is known of what was written
                _forget(_made(marks) - _names(folder), to, what)  # the split no longer has them
            result = run(job, lambda items=items: items, engine=engine, total=len(items))  # type: ignore[misc]
            again = not result.fresh and result.counts["dropped"] > 0  # a photo may be there now
            if again or not _written(marks, to, what):  # or a picture was lost or damaged since
                result = run(job, lambda items=items: items, engine=engine, total=len(items), anew=True)  # type: ignore[misc]
            _forget(_names(folder) - _made(marks), to, what)  # dropped now, and not whole since an earlier call
            files.forget_unfinished(to, deep=True)  # whole photos lie in a folder a sample
            if what == "crops":
                write_digests(to, parquet.read_records(marks, WrittenSample))
        results.append(result)
    return results
