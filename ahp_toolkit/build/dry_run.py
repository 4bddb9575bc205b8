"""``ahp build plan``: what a build would do, how much of it, how long and how large, before anything is made.

What stands is found by the build's own functions in a dry run (`core.dry`), so a plan and a build never disagree.
Counts come from finished stages, else from the sources (`sources._estimate`) and from shares that are named here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ahp_toolkit.build import build, flow, splits
from ahp_toolkit.build.estimate import estimate
from ahp_toolkit.build.flow import Options
from ahp_toolkit.build.plan_rates import Rate, folder_of, has_gpu, items_of, rate, size_of
from ahp_toolkit.build.splits import Synthesis
from ahp_toolkit.core.records import SPLITS
from ahp_toolkit.decisions.merge import logs_of
from ahp_toolkit.parsers import PARSERS
from ahp_toolkit.runtime import dry
from ahp_toolkit.runtime.stage import Result, finished
from ahp_toolkit.segmenters import SEGMENTERS

#: Of a source's persons this share become candidates, and as many things and persons again can occlude.
CANDIDATES, OCCLUDERS = 0.88, 0.9
#: Of candidates this share are preserved: the paper's Table 1. Of coco128's 137 the rule keeps 29, .21.
PRESERVED = {"objects365": 0.0493, "openimages": 0.0562}
PRESERVED_ELSE = 0.239
#: Candidates without a mask of the source.
BOXES_ONLY = {"objects365": 1.0, "openimages": 0.9}
UNITS = {"harvest": "photos", "bank": "occluders", "report": "page"} | dict.fromkeys(SPLITS, "samples")
ALONE = ("report", "train segmenter", "train parser")  # not spread over workers


@dataclass(frozen=True)
class Step:
    """One line. ``state``: stands, goes on, runs. ``items`` None: unknown; ``estimated``: not exact.

    ``seconds`` are of one worker, ``bytes`` what will lie in the build folder; None where nobody knows.
    """

    name: str
    state: str
    items: int | None
    unit: str
    estimated: bool
    seconds: float | None
    known_by: str
    bytes: int | None
    network: str = ""


@dataclass(frozen=True)
class Plan:
    """All lines and the whole: ``seconds`` on ``workers``, at least, where lines are ``unknown``; bytes free there."""

    steps: list[Step]
    workers: int
    device: str
    seconds: float
    bytes: int
    free: int
    unknown: list[str] = field(default_factory=list)


def plan(o: Options, s: Synthesis, stop_after: str | None = None, like: Sequence[Path] = ()) -> Plan:
    """What ``builder.build`` would do with these options; nothing is written.

    Args:
        like: other build folders whose timings count where this one has none.

    Raises:
        UserError: what the build itself would say of the options and the sources.
    """
    names = stages(o, stop_after)
    with dry.dry_run():
        stands, would = _look(o, s, names)
    sizes = Sizes(o, s, stands)
    steps = [_step(o, name, stands, would, sizes, (o.out, *like)) for name in names]
    todo = [t for t in steps if t.state != "stands"]
    seconds = sum((t.seconds or 0.0) / (1 if t.name in ALONE else o.workers) for t in todo)
    unknown = [t.name for t in todo if t.seconds is None]
    size = sum(t.bytes or 0 for t in todo)
    return Plan(steps, o.workers, o.device, round(seconds, 1), size, _free(o.out), unknown)


def stages(o: Options, stop_after: str | None = None) -> list[str]:
    """The names of what a build does, in order."""
    segmenter = ["train segmenter"] if _trains(o, SEGMENTERS.get(o.segmenter), o.segmenter_weights) else []
    parser = ["train parser"] if _trains(o, PARSERS.get(o.parser), o.parser_weights) else []
    decide = ["decide"] if o.review != "none" else []
    groups = {
        "harvest": ["harvest"],
        "segment": [*segmenter, "segment"],
        "parse": [*parser, "parse"],
        "review": [*decide, "review"],
        "splits": ["bank", *SPLITS],
        "report": ["report"],
    }
    last = list(groups).index(stop_after or "report")
    return [name for group in list(groups.values())[: last + 1] for name in group]


def _trains(o: Options, plugin: Any, weights: str | None) -> bool:
    return o.train != "none" and not weights and plugin.TRAINABLE


def _look(o: Options, s: Synthesis, names: Sequence[str]) -> tuple[dict[str, Result | None], dry.Would | None]:
    """What stands, by name (None: it is no table), and the first thing that would be made."""
    cut: list[Any] = []

    def review() -> Result:
        result, thresholds = flow.review(o)
        cut.append(thresholds)
        return result

    calls: dict[str, Callable[[], Any]] = {
        "harvest": lambda: flow.harvest(o),
        "segment": lambda: flow.segment(o),
        "parse": lambda: flow.parse(o),
        "review": review,
        "bank": lambda: splits.bank(o, cut[0], s),
        "report": lambda: build.report(o.out, s.seed, anew=False, merge=o.merge, decisions=o.decisions),
    }
    calls |= {n: lambda n=n: build.split_of(o, s, n) for n in SPLITS}  # type: ignore[misc]
    stands: dict[str, Result | None] = {}
    first: list[str] = []  # made on the way to the next stage: decisions by rule, trained networks
    for name in names:
        first.append(name)
        if name not in calls:
            continue
        try:
            made = calls[name]()
        except dry.Would as would:
            if would.name == name:
                stands |= dict.fromkeys(first[:-1])
            return stands, would
        stands |= dict.fromkeys(first[:-1]) | {name: made if isinstance(made, Result) else None}
        first = []
    return stands, None


class Sizes:
    """How many items each stage has: counted where it stands, else estimated from what is before it."""

    def __init__(self, o: Options, s: Synthesis, stands: Mapping[str, Result | None]) -> None:
        self.o, self.s, self.stands = o, s, stands
        self.lacking: list[str] = []  # sources that cannot tell
        done = stands.get("harvest")
        self.by_source = self._counted(done) if done is not None else self._estimated()
        self.candidates = sum(self.by_source.values())
        self.boxes = self._boxes()
        self.humans = self._humans()

    def _counted(self, done: Result) -> dict[str, float]:
        self.photos: float = items_of("harvest", done)
        self.occluders: dict[str, float] = dict(splits.occluders_by_source(done))
        return {k.partition("/")[2]: n for k, n in done.counts.items() if k.startswith("candidates/")}

    def _estimated(self) -> dict[str, float]:
        found = {name: estimate(self.o.format_of(name), root) for name, root in sorted(self.o.roots.items())}
        self.lacking = [n for n, e in found.items() if e is None]
        known = {n: e for n, e in found.items() if e is not None}
        self.photos = sum(e.photos for e in known.values())
        self.occluders = {n: e.persons * OCCLUDERS for n, e in known.items()}
        return {n: e.persons * CANDIDATES for n, e in known.items()}

    def _boxes(self) -> float:
        """Candidates that a network must segment."""
        old = finished(self.o.out / "segment")  # of other options, perhaps: the share is the sources'
        if old is not None and old.counts["out"] + old.counts["dropped"]:
            return self.candidates * old.counts["box_only"] / (old.counts["out"] + old.counts["dropped"])
        return sum(n * BOXES_ONLY.get(k, 0.0) for k, n in self.by_source.items())

    def _humans(self) -> float:
        done = self.stands.get("review")
        if done is not None:
            return sum(n for k, n in done.counts.items() if k.startswith("preserve/"))
        if self.o.review == "none" and not self.o.decisions and not logs_of(self.o.out):
            return 0.0  # nobody decides: nobody is preserved
        return sum(n * PRESERVED.get(k, PRESERVED_ELSE) for k, n in self.by_source.items())

    def of(self, name: str) -> float:
        """Items of a stage: photos, persons, occluders in the banks, samples; 1 page."""
        if name in SPLITS:
            return self.people(name) * (1 if name == "train" else self.s.per_human)
        own = {"harvest": self.photos, "bank": self._banks(), "report": 1.0}
        return own.get(name, self.candidates)

    def people(self, split: str) -> float:
        """Preserved humans of a split."""
        sizes = self.o.sizes
        if sizes.fold is not None:
            val, test = self.humans / sizes.fold[1], 0.0
        else:
            val, test = min(sizes.val, self.humans * sizes.max_val), min(sizes.test, self.humans * sizes.max_test)
        return {"train": max(0.0, self.humans - val - test), "val": val, "test": test}[split]

    def _banks(self) -> float:
        """Occluders that the splits keep: a split may have those of its share of the photos."""
        counted = self.occluders if self.stands.get("harvest") is not None else None
        possible = sum(self.occluders.get(name, 0.0) for name in self.s.sources_of(splits.formats_of(self.o), counted))
        shares = [self.people(n) / self.humans for n in SPLITS] if self.humans else [1.0]
        return sum(min(self.s.bank_size, possible * share) for share in shares)

    def exact(self, name: str) -> bool:
        """Whether `of` was counted."""
        return name == "report" or ("harvest" in self.stands and name not in ("bank", *SPLITS))


def _step(
    o: Options,
    name: str,
    stands: Mapping[str, Result | None],
    would: dry.Would | None,
    sizes: Sizes,
    folders: Sequence[Path],
) -> Step:
    done = stands.get(name)
    if name in stands:
        known = items_of(name, done) if done is not None else None
        made = size_of(folder_of(o.out, name))
        return Step(name, "stands", known, UNITS.get(name, "persons"), False, 0.0, "", made)
    goes_on = would is not None and would.name == name and would.shards > 0
    state = "goes on" if goes_on else "runs"
    network = _network(o, name)
    pace = rate(name, _variant(o, name), folders, bool(network) and has_gpu(o.device))
    if name.startswith("train "):
        return _training(o, name, state, pace)
    items = sizes.of(name)
    busy = {"segment": sizes.boxes if network else items, "bank": sum(sizes.occluders.values())}.get(name, items)
    seconds = 0.0 if not busy else None if pace.seconds is None else round(pace.seconds * busy, 1)
    size = None if pace.bytes is None else round(pace.bytes * items)
    unknown = bool(sizes.lacking) and not items
    count = None if unknown else round(items)
    estimated = not sizes.exact(name)
    return Step(name, state, count, UNITS.get(name, "persons"), estimated, seconds, pace.known_by, size, network)


def _training(o: Options, name: str, state: str, pace: Rate) -> Step:
    registry, network = (PARSERS, o.parser) if "parser" in name else (SEGMENTERS, o.segmenter)
    steps = registry.get(network).PRESETS[o.train].steps
    seconds = None if pace.seconds is None else round(steps * pace.seconds, 1)
    size = None if pace.bytes is None else round(pace.bytes)
    return Step(name, state, steps, "steps", False, seconds, pace.known_by, size, network)


def _variant(o: Options, name: str) -> str:
    """The stage with what its pace depends on."""
    plug_in = {"segment": o.segmenter, "parse": o.parser}.get(name)
    preset = "debug" if o.train == "debug" else "full"
    if name.startswith("train "):
        return f"{name} {_network(o, name)} {o.train}"
    if plug_in is None:
        return name
    trained = (SEGMENTERS if name == "segment" else PARSERS).get(plug_in).TRAINABLE
    return f"{name} {plug_in} {preset}" if trained else f"{name} {plug_in}"


def _network(o: Options, name: str) -> str:
    """The network that a stage runs or trains; '' for none."""
    if name.startswith("train "):
        return o.segmenter if "segmenter" in name else o.parser
    if name == "segment" and SEGMENTERS.get(o.segmenter).NEEDS_PIXELS:
        return o.segmenter
    if name == "parse" and PARSERS.get(o.parser).NEEDS_PIXELS:
        return o.parser
    return ""


def _free(folder: Path) -> int:
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(there).free
