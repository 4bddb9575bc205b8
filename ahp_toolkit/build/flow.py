"""The build, from the sources to the people: one function a stage, in the order of the paper's section 4.

Each stage reads tables and writes the next; a stage that stands already, made with the same options and inputs by the
same code, is left alone. Only the flow and the commands know two stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ahp_toolkit.core import hashing
from ahp_toolkit.core.closing import Closing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Candidate, Decision, Human, Occluder
from ahp_toolkit.core.registry import Registry
from ahp_toolkit.decisions import rule as provisional
from ahp_toolkit.decisions.merge import Merge, logs_of, outcome
from ahp_toolkit.decisions.proposals import first_at
from ahp_toolkit.parsers import PARSERS
from ahp_toolkit.runtime import dry
from ahp_toolkit.runtime.code import code_digest
from ahp_toolkit.runtime.engines import Engine
from ahp_toolkit.runtime.stage import MAIN, Job, Result, finished, forget_stale, run
from ahp_toolkit.segmenters import SEGMENTERS
from ahp_toolkit.sources import SOURCES
from ahp_toolkit.stages.deduplicate import Unite, find_duplicates
from ahp_toolkit.stages.harvest import Harvest, Photo, Rules, entries_of
from ahp_toolkit.stages.review import Decide, Review, SplitSizes, Thresholds, decisions_on, forget, thresholds
from ahp_toolkit.storage import files, missing, parquet

#: Told after each stage: what it made, in words.
Say = Callable[[Result, str], None]


@dataclass(frozen=True)
class Options:
    """Everything the people of a build depend on. ``roots`` are data roots by source name; see ``ahp build --help``."""

    out: Path
    roots: dict[str, Path]
    formats: dict[str, str] = field(default_factory=dict)
    workers: int = 1
    rules: Rules = field(default_factory=Rules)
    segmenter: str = "source_mask"
    segmenter_weights: str | None = None
    parser: str = "source_parsing"
    parser_weights: str | None = None
    train: str = "none"
    device: str = "auto"
    review: str = "none"
    decisions: tuple[Path, ...] = ()
    merge: Merge = field(default_factory=Merge)
    sizes: SplitSizes = field(default_factory=SplitSizes)
    scenes: Path | None = None
    places365: tuple[Path, Path] | None = None
    close_holes: bool = True
    quiet: bool = False
    engine: Engine | None = None

    @property
    def names(self) -> dict[str, str]:
        """Source name -> absolute data root, as text for the stage functions."""
        return {name: str(root.resolve()) for name, root in sorted(self.roots.items())}

    def format_of(self, name: str) -> str:
        """The format of a source."""
        return self.formats.get(name, name)

    def mounted(self) -> Callable[[], None]:
        """The check of a stage that reads photos: the data roots hold photos of the harvest."""
        return missing.mounted(self.names, self.out / "harvest", self.out / "harvest" / "occluders")

    def run(self, job: Job, items: list[Any], carry: Result | None = None) -> Result:
        """Run a job over a list of items with this build's engine and progress."""
        return self.stream(job, lambda: items, len(items), carry)

    def stream(
        self,
        job: Job,
        items: Callable[[], Iterable[Any]],
        total: int | None,
        carry: Result | None = None,
        anew: bool = False,
    ) -> Result:
        """The same over items that come one after the other."""
        with_ = {"workers": self.workers, "engine": self.engine, "quiet": self.quiet, "anew": anew}
        return run(job, items, total=total, carry=carry, **with_)  # type: ignore[arg-type]


def parts_of(folder: Path) -> list[str]:
    """The parts of a table as text, in order."""
    return [str(p) for p in parquet.parts(folder)]


def harvest(o: Options) -> Result:
    """Acquisition (paper §4.1 (1)): candidates and occluders of all sources, each photograph once."""
    inputs = {n: hashing.stamp(SOURCES.get(o.format_of(n)).inputs(r)) for n, r in sorted(o.roots.items())}
    modules = [f"ahp_toolkit.stages.{m}" for m in ("harvest", "deduplicate")] + [
        SOURCES.module(f) for f in sorted(map(o.format_of, o.roots))
    ]
    formats = {n: o.format_of(n) for n in sorted(o.roots)}
    key = {"rules": asdict(o.rules), "inputs": inputs, "formats": formats, "code": code_digest(*modules)}
    raw, found = o.out / ".harvest.raw", o.out / ".harvest.raw.json"
    tables = {MAIN: Candidate, "occluders": Occluder, "duplicates": Candidate}
    unite = Unite(str(raw), str(found))
    job = Job("harvest", o.out / "harvest", unite, tables, key, shard_size=1, unit="part")
    done = finished(job.folder, job.key_digest)
    if done is not None:
        if not dry.running():
            forget_stale(job)
            _forget(raw, found)
        return done
    raw_tables = {MAIN: Candidate, "occluders": Occluder, "photos": Photo}
    fn = Harvest(o.names, o.rules, formats)
    first = Job("harvest", raw, fn, raw_tables, key, growing=True, unit="photo")
    read = o.stream(first, lambda: _entries(o), _total(o))
    if read.fresh:
        files.remove_tree(job.partial)  # its shards are of a raw harvest that is gone
    find_duplicates(raw / "photos", formats).save(found)
    parts = [p.name for p in parquet.parts(raw)]
    result = o.stream(job, lambda: parts, len(parts), read, anew=True)  # that none stands was seen, and told, above
    _forget(raw, found)
    return result


def _forget(raw: Path, found: Path) -> None:
    """The raw harvest has served; a kill may have left a part of it."""
    files.remove_tree(raw)
    found.unlink(missing_ok=True)


def _total(o: Options) -> int | None:
    """The number of entries of all sources; None where one cannot tell it cheaply."""
    counts: list[Any] = [getattr(SOURCES.get(o.format_of(name)), "total", None) for name in sorted(o.roots)]
    if not all(counts):
        return None
    return sum(count(root) for count, (_, root) in zip(counts, sorted(o.roots.items()), strict=True))


def _entries(o: Options) -> Iterator[tuple[str, Any]]:
    for name, root in sorted(o.roots.items()):
        for entry in entries_of(SOURCES.get(o.format_of(name)), root, name):
            yield name, entry


def segment(o: Options) -> Result:
    """Human segmentation (paper §4.1 (2)): a mask for every candidate that has only a box."""
    from ahp_toolkit.stages.segment import Segment, job

    weights = o.segmenter_weights or _trained(o, SEGMENTERS, o.segmenter)
    made, parts = job(o.out / "segment", o.out / "harvest", Segment(o.segmenter, weights, o.device, o.names))
    return o.run(replace(made, check=o.mounted()), parts)


def parse(o: Options) -> Result:
    """Body-part pseudo labels (paper §3.2): the 20 LIP classes."""
    from ahp_toolkit.stages.parse import Parse, job

    weights = o.parser_weights or _trained(o, PARSERS, o.parser)
    made, parts = job(o.out / "parse", o.out / "segment", Parse(o.parser, weights, o.device, o.names))
    return o.run(replace(made, check=o.mounted()), parts)


def _trained(o: Options, registry: Registry, name: str) -> str | None:
    """The checkpoint that ``--train`` makes of this very harvest, for a plug-in that can be trained."""
    if o.train == "none" or not registry.get(name).TRAINABLE:
        return None
    from ahp_toolkit.build import training

    how = {"settings": o.train, "device": o.device, "quiet": o.quiet, "roots": o.names}
    return str(training.train(registry, o.out, name, o.out / "weights" / f"{name}.pt", how, o.sizes))


def digest_of(folder: Path) -> str:
    """The digest of a finished stage.

    Raises:
        UserError: when it is not finished.
    """
    done = finished(folder)
    if done is None:
        raise UserError(f"{folder}: expected a finished stage (stage.json), found none; run ahp build first")
    return done.digest


def rule_of(o: Options) -> Any | None:
    """What decides where nobody has: the provisional rule, the sample world's truth, or nothing."""
    if o.review == "oracle":
        from ahp_toolkit.sample_world.oracle import Oracle

        worlds = tuple(str(r.resolve().parent) for r in o.roots.values())
        return Oracle(worlds, tuple((n, o.format_of(n)) for n in sorted(o.roots)))
    return provisional.decide if o.review == "provisional" else None


def review(o: Options) -> tuple[Result, Thresholds]:
    """Filtering scheme (paper §4.1 (3)): decisions by rule and by people, then humans with their splits."""
    forget()
    rule = rule_of(o)
    logs = tuple(dict.fromkeys(str(p.resolve()) for p in (*o.decisions, *logs_of(o.out))))
    code = code_digest("ahp_toolkit.stages.review", *((rule.__module__,) if rule is not None else ()))
    base = {"input": digest_of(o.out / "parse"), "code": code, "mode": o.review}
    parts = parts_of(o.out / "parse")
    ruled = [""] * len(parts)
    if rule is not None:
        learned = o.review == "provisional" and provisional.OPINION.exists()
        things = str((o.out / "harvest" / "occluders").resolve()) if learned else ""
        opinion = {"opinion": hashing.digest_file(provisional.OPINION)} if learned else {}
        fn = Decide(rule, things)
        job = Job("decide", o.out / "decide", fn, {MAIN: Decision}, base | opinion, shard_size=1, unit="part")
        o.run(job, parts)
        ruled = parts_of(o.out / "decide")
    sorted_out = sorted((o.out / "triage").glob("part-*.parquet"))
    triage = str((o.out / "triage").resolve()) if sorted_out else ""
    proposed = sorted((o.out / "refine").glob("part-*.parquet"))
    refine = str((o.out / "refine").resolve()) if proposed else ""
    cut = thresholds(_preserved_photos(parts, ruled, logs, o.merge, triage, refine), o.sizes)
    scenes = _scenes(o)
    key = base | {"cut": asdict(cut), "logs": [hashing.digest_file(Path(p)) for p in logs]}
    key |= {"scenes": hashing.digest_file(Path(scenes)) if scenes else "", "merge": asdict(o.merge)}
    key |= {"refine": hashing.digest_files(proposed), "triage": hashing.digest_files(sorted_out)}
    tables = {MAIN: Human, "decisions": Decision}
    closing = Closing() if o.close_holes else None
    key |= {"closing": asdict(closing) if closing else {}}
    work = Review(cut, logs, scenes, o.merge, refine, triage, closing)
    job = Job("review", o.out / "review", work, tables, key, shard_size=1, unit="part")
    return o.run(job, list(zip(parts, ruled, strict=True))), cut


def _scenes(o: Options) -> str:
    """Scene categories as the JSON that the workers read: a user's file, a Places365 classifier's, or '' for none."""
    path = o.out / "scenes.json"
    if o.scenes is not None:
        from ahp_toolkit.stages.scenes import read_scenes

        scenes = read_scenes(o.scenes)
    elif o.places365 is not None:
        scenes = classify_scenes(o, o.places365)
    else:
        return ""
    if not path.exists() or files.read_json(path) != scenes:
        dry.stop("scenes", path)
        files.write_json(path, scenes)
    return str(path.resolve())


def classify_scenes(o: Options, places: tuple[Path, Path]) -> dict[str, str]:
    """Figure 5b's scene categories by a Places365 checkpoint (weights, categories): image id -> category."""
    from ahp_toolkit.stages.scene_labels import Classify, SceneLabel

    weights, categories = (str(p.resolve()) for p in places)
    key = {"files": [hashing.digest_file(p) for p in places], "input": digest_of(o.out / "parse")}
    key |= {"code": code_digest("ahp_toolkit.stages.scene_labels")}
    fn = Classify(weights, categories, o.device, o.names)
    job = Job("scenes", o.out / "scenes", fn, {MAIN: SceneLabel}, key, shard_size=1, unit="part", network=True)
    o.run(replace(job, check=o.mounted()), parts_of(o.out / "parse"))
    return {s.image_id: s.scene for s in parquet.read_records(job.folder, SceneLabel)}


def _preserved_photos(
    parts: list[str], ruled: list[str], logs: tuple[str, ...], merge: Merge, triage: str, refine: str
) -> Iterator[str]:
    """The photo key of every human that is preserved, read from a few columns only."""
    columns = ["candidate.candidate_id", "candidate.image.photo", "candidate.image.image_id"]
    for part, decisions in zip(parts, ruled, strict=True):
        rule = {d.candidate_id: d for d in parquet.read_records(Path(decisions), Decision)} if decisions else {}
        mask = first_at(Path(part))
        for i, row in enumerate(parquet.read_table(Path(part), columns).to_pylist()):
            c = row["candidate"]
            stands = merge(decisions_on(c["candidate_id"], rule, logs, triage, refine, partial(mask, i)))
            if stands is not None and outcome(stands) == "preserve":
                yield c["image"]["photo"] or c["image"]["image_id"]
