"""Section 4 of the paper: from the source datasets to splits with exact ground truth, and one page."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ahp_toolkit.build import config
from ahp_toolkit.build.checks import check_place, frozen, warn_occluders, warn_replaced
from ahp_toolkit.build.config import STAGES, Config
from ahp_toolkit.core.closing import Closing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import SPLITS
from ahp_toolkit.core.registry import Registry
from ahp_toolkit.decisions.log import logs_of
from ahp_toolkit.decisions.merge import Merge
from ahp_toolkit.parsers import PARSERS
from ahp_toolkit.runtime.engines import Engine
from ahp_toolkit.runtime.stage import Job, Result, Stage, Step, finished
from ahp_toolkit.segmenters import SEGMENTERS
from ahp_toolkit.stages import bank, deduplicate, review, synthesize
from ahp_toolkit.stages import parse as parsing
from ahp_toolkit.stages import segment as segmenting
from ahp_toolkit.stages.harvest import Rules
from ahp_toolkit.stages.report import Report
from ahp_toolkit.stages.review import SplitSizes, Thresholds
from ahp_toolkit.stages.training import Training, check_initial
from ahp_toolkit.storage import files as disk
from ahp_toolkit.storage import missing
from ahp_toolkit.storage.locations import place

PACKAGES = ("ahp-toolkit", "numpy", "opencv-python-headless", "pillow", "pyarrow", "pycocotools", "simplejpeg", "torch")


def build(c: Config, engine: Engine, say: Callable[[Result], None]) -> Path | None:
    """Run the stages in order and tell each result; returns the page, or None when the build stops before it.

    Raises:
        UserError: when an option, an input or a stage needs the user.
    """
    before = begin(c)
    result = None
    for name in groups(c):
        for step in MAKE[name](c):
            result = step.run(engine, c.run.quiet, again=name in c.run.rebuild)
            say(result)
        if name == "harvest":
            if before.get("roots") != c.roots:  # the same annotations in another place: its photos may not be there
                missing.check_mounted(c.roots, *_photos(c))
            _write(c)
    return result.folder / "index.html" if result is not None and result.name == "report" else None


def groups(c: Config) -> Sequence[str]:
    """The names of the stages that a build makes."""
    return STAGES[: STAGES.index(c.run.stop_after or STAGES[-1]) + 1]


# Each function below describes the steps of one stage, and may read what the stages before it have written: run each
# step before asking for the next.


def harvest(c: Config) -> Iterator[Step]:
    """Acquisition (paper §4.1 (1)): candidates and occluders of all sources, each photograph once."""
    h = c.harvest
    rules = Rules(h.min_area, h.gutter, verify=h.verify, person_names=h.person_names)
    read, whole = deduplicate.stages(c.out / "harvest", c.roots, c.formats, rules)
    again = "harvest" in c.run.rebuild or not whole.up_to_date()
    if again:
        yield read
    yield replace(whole, again=again)


def segment(c: Config) -> Iterator[Step]:
    """Human segmentation (paper §4.1 (2)): a mask for every candidate that has only a box."""
    weights = c.segment.segmenter_weights
    if training := _training(c, SEGMENTERS, c.segment.segmenter, weights):
        yield training
        weights = str(training.path)
    fn = segmenting.Segment(c.segment.segmenter, weights, c.training.device, c.roots)
    yield _stage(c, *segmenting.job(c.out / "segment", c.out / "harvest", fn))


def parse(c: Config) -> Iterator[Step]:
    """Body-part pseudo labels (paper §3.2): the 20 LIP classes."""
    weights = c.parse.parser_weights
    if training := _training(c, PARSERS, c.parse.parser, weights):
        yield training
        weights = str(training.path)
    fn = parsing.Parse(c.parse.parser, weights, c.training.device, c.roots)
    yield _stage(c, *parsing.job(c.out / "parse", c.out / "segment", fn))


def decide(c: Config) -> Iterator[Step]:
    """Filtering scheme (paper §4.1 (3)): decisions by rule and by people, then humans with their splits."""
    logs = tuple(dict.fromkeys(p.resolve() for p in (*c.review.decisions, *logs_of(c.out))))
    rule, scenes = _rule(c), c.review.scenes
    if rule is not None:
        yield review.decide_stage(c.out, rule, _opinion(c))
    if scenes is None and c.review.places365 is not None:
        from ahp_toolkit.stages import scenes as scene_stage

        step = scene_stage.stage(c.out, c.review.places365, c.training.device, c.roots)
        yield _stage(c, step.job, step.items)
        scenes = step.job.folder
    given = review.Given(logs, scenes, merge_of(c), c.review.review if rule is not None else "", _closing(c))
    yield review.stage(c.out, given, _sizes(c))


def splits(c: Config) -> Iterator[Step]:
    """Occluder banks and frozen samples (paper §4.1, §5.1): occlusion at the wanted ratios, val fixed once made."""
    s = c.synthesis
    cut = Thresholds(**disk.read_json(c.out / "review" / "stage.json")["key"]["cut"])
    check_initial(s.initial, s.initial_weights, cut)
    sources = _occluder_sources(c)
    banks = bank.stage(c.out, cut, bank.Wanted(sources, s.min_occluder, s.bank_size))
    fresh = not banks.up_to_date()
    yield banks
    if fresh:
        warn_occluders(c, sources)
    given: dict[str, Any] = {"scale": s.scale} if s.scale else {}
    settings = synthesize.Settings(mode=s.placement, flip=s.flip, **given)  # type: ignore[arg-type]
    initial = synthesize.Initial(s.initial, s.initial_weights, s.initial_iou, c.training.device)
    for name in SPLITS:
        folder = c.out / "splits" / name
        before = None if name == "train" else frozen(folder)
        real = composites(c, initial) if name == "test" else None
        if real is not None:
            yield real
        else:
            fold = c.splits.fold is not None  # val is all of its part of the photos, test is empty
            most = None if name == "train" or fold else {"val": c.splits.val, "test": c.splits.test}[name]
            wanted = synthesize.Wanted(name, s.density_of(name), 1 if name == "train" else s.per_human, most, s.seed)
            made = synthesize.stage(c.out, wanted, settings, initial, c.roots)
            yield _stage(c, made.job, made.items, made.total)
        warn_replaced(before, folder)


def report(c: Config) -> Iterator[Step]:
    """The page with all counts, figures and samples."""
    yield Report(c.out, c.synthesis.seed, merge_of(c), c.review.decisions)


MAKE: dict[str, Callable[[Config], Iterator[Step]]] = {
    "harvest": harvest,
    "segment": segment,
    "parse": parse,
    "review": decide,
    "splits": splits,
    "report": report,
}


def _stage(c: Config, job: Job, items: Any, total: int | None = None) -> Stage:
    """A stage that reads photos: their data roots must be mounted."""
    return Stage(replace(job, check=missing.mounted(c.roots, *_photos(c))), items, total)


def _photos(c: Config) -> tuple[Path, Path]:
    return c.out / "harvest", c.out / "harvest" / "occluders"


def _training(c: Config, registry: Registry, name: str, weights: str | None) -> Training | None:
    """The training that ``--train`` wants of a network without weights."""
    if weights or c.training.train == "none" or not getattr(registry.get(name), "TRAINABLE", False):
        return None
    return Training(registry, name, c.out, c.roots, c.training.train, c.training.device, _sizes(c))


def _rule(c: Config) -> Any | None:
    """The function that decides where nobody has: the provisional rule, the sample world's truth, or none."""
    if c.review.review == "oracle":
        from ahp_toolkit.sample_world.oracle import Oracle

        worlds = tuple(str(s.path.resolve().parent) for _, s in sorted(c.sources.items()))
        return Oracle(worlds, tuple(c.formats.items()))
    if c.review.review == "provisional":
        from ahp_toolkit.decisions import rule

        return rule.decide
    return None


def _opinion(c: Config) -> Path | None:
    """The file of the learned classifier, where it decides."""
    from ahp_toolkit.decisions.rule import OPINION

    return OPINION if c.review.review == "provisional" and OPINION.exists() else None


def composites(c: Config, initial: synthesize.Initial) -> Step | None:
    """Test as real composites, as soon as voters have passed some (spec §2)."""
    if not (c.out / "compose").exists():
        return None
    from ahp_toolkit.decisions.votes import begun, passed
    from ahp_toolkit.stages.composites import stage

    return stage(c.out, None, initial, c.synthesis.seed) if begun(c.out) and passed(c.out) else None


def _closing(c: Config) -> Closing | None:
    return Closing() if c.review.close_holes else None


def merge_of(c: Config) -> Merge:
    """The rule that makes one decision of several reviewers'."""
    return Merge(**asdict(c.review.merge))


def _sizes(c: Config) -> SplitSizes:
    return SplitSizes(c.splits.val, c.splits.test, fold=c.splits.fold)


def _occluder_sources(c: Config) -> tuple[str, ...]:
    """The sources whose instances occlude, by what the harvest has where it is finished."""
    done = None
    with suppress(UserError):  # damaged: it will be made again
        done = finished(c.out / "harvest")
    return c.synthesis.occluder_sources_of(c.formats, bank.by_source(done.counts if done else {}))


def begin(c: Config) -> dict[str, Any]:
    """Write ``build.json`` where there is none: the folder is a build from here on. Returns the content that was there.

    One that is there belongs to the stages that are there, and stays until the harvest of the new options is made.
    """
    disk.forget_unfinished(c.out)
    with suppress(UserError):  # none, or damaged
        content = disk.read_json(c.out / "build.json")
        if isinstance(content, dict) and content:
            return content
    _write(c)
    return {}


def _write(c: Config) -> None:
    resolved = {"densities": {n: c.synthesis.density_of(n) for n in SPLITS}, "occluder_sources": _occluder_sources(c)}
    config.write(c, resolved, {p: version(p) for p in _installed(PACKAGES)} | {"python": platform.python_version()})


def _installed(packages: Iterable[str]) -> Iterator[str]:
    from importlib.metadata import PackageNotFoundError

    for package in packages:
        with suppress(PackageNotFoundError):
            version(package)
            yield package


def remake_report(root: Path, seed: int, decisions: Sequence[Path]) -> Path:
    """Make a build's page again, its reviewers' decisions merged by its own rule.

    Raises:
        UserError: when the folder is no build.
    """
    return Report(root, seed, merge_of(config.read(root)), tuple(decisions)).make()


def roots_beside(root: Path, out: Path) -> dict[str, str]:
    """The data roots of a build; refuses an ``out`` among the sources' files, as the build itself does."""
    c = config.read(root)
    check_place(out, {name: place(at) for name, at in c.roots.items()})
    return c.roots
