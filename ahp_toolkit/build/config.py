"""All settings of a build: its command-line options, ``build.json`` and the reference page come from this tree."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import SPLITS
from ahp_toolkit.core.registry import completes, pairs
from ahp_toolkit.parsers import PARSERS
from ahp_toolkit.runtime.engine_options import EngineSettings
from ahp_toolkit.runtime.options import Folder, Local, Named, Number
from ahp_toolkit.runtime.settings import as_json, from_json, made, option, reference
from ahp_toolkit.segmenters import SEGMENTERS
from ahp_toolkit.sources import SOURCES
from ahp_toolkit.storage import files

#: The stages that a user names, in the order of the paper's section 4.
STAGES = ("harvest", "segment", "parse", "review", "splits", "report")
#: ``--occluder-source``: all sources of the build.
EVERY = "all"
#: The format whose instances occlude where the user does not say (spec §2).
OCCLUDERS = "coco"
_NAME = re.compile(r"[A-Za-z0-9_-]+")


def _file() -> click.ParamType:
    return Local(dir_okay=False)


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset of one format. ``path`` is a local folder or an address."""

    format: str
    path: Path


def _sources(values: tuple[str, ...]) -> dict[str, Source]:
    """[NAME:]FORMAT=PATH as {NAME: Source}: each name once, each format known, each path a folder."""
    found: dict[str, Source] = {}
    for value in values:
        left, equals, path = value.partition("=")
        name, colon, kind = left.rpartition(":")
        name = name if colon else kind
        if not equals or not path:
            raise UserError(f"--source {value}: expected [NAME:]FORMAT=PATH, such as coco=/data/coco")
        SOURCES.get(kind)
        if not _NAME.fullmatch(name):
            raise UserError(f"--source {value}: expected a NAME of letters, digits, - and _, got {name!r}")
        if name in found:
            raise UserError(f"--source {name} is given twice; give the second a name of its own: NAME:{kind}={path}")
        found[name] = Source(kind, Folder().convert(path, None, None))
        if not found[name].path.is_dir():
            raise UserError(f"--source {name}: expected the dataset's folder, {path} is none")
    return found


def _densities(values: tuple[str, ...]) -> dict[str, str]:
    """SPLIT=DENSITY as {SPLIT: DENSITY}: split and density known; of two for one split the later counts."""
    from ahp_toolkit.occlusion.densities import parse

    found = {}
    for value in values:
        split, equals, text = value.partition("=")
        if not equals or split not in SPLITS:
            raise UserError(f"--density {value}: expected SPLIT=DENSITY, such as val=0-0.1:1,0.1-0.2:1")
        parse(text)
        found[split] = text
    return found


def _names(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for value in values for name in value.split(",")))


def fold_of(value: str) -> tuple[int, int]:
    """K/N as (K, N), K from 1 to N, N of 2 or more."""
    k, slash, n = value.partition("/")
    if not (slash and k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n) and int(n) >= 2):
        raise UserError(f"--fold {value}: expected K/N with N of 2 or more and K from 1 to N, such as 1/5")
    return int(k), int(n)


@dataclasses.dataclass(frozen=True)
class Harvesting:
    """Harvest: which people become candidates (paper §4.1 (1))."""

    min_area: int = option(
        300, "Smallest human: the area of its mask, else of its box", unit="px²", type=lambda: click.IntRange(0)
    )
    gutter: int = option(5, "Border that no human may touch", unit="px", type=lambda: click.IntRange(0))
    verify: bool = option(True, "Decode every photo that is used, at harvest.")
    person_names: tuple[str, ...] = option(
        (),
        "A category that is people beside person, in any case, such as pedestrian. Repeatable, or with commas.",
        flag="--person-name",
        parse=_names,
        click={"metavar": "NAME"},
    )


@dataclasses.dataclass(frozen=True)
class Segmenting:
    """Segment: a mask for every person (paper §4.1 (2))."""

    segmenter: str = option(
        "source_mask",
        "The network that segments humans that have a box only.",
        click={"shell_complete": completes(SEGMENTERS.names)},
    )
    segmenter_weights: str | None = option(None, "Checkpoint, folder or model name for the segmenter.", type=Named)


@dataclasses.dataclass(frozen=True)
class Parsing:
    """Parse: body parts of every person (paper §3.2)."""

    parser: str = option(
        "source_parsing",
        "The network that labels body parts where the source does not.",
        click={"shell_complete": completes(PARSERS.names)},
    )
    parser_weights: str | None = option(None, "Checkpoint for the parser.", type=Named)


@dataclasses.dataclass(frozen=True)
class Training:
    """Train: networks of the build's own."""

    train: str = option(
        "none",
        "Train the segmenter and the parser on this very harvest where no weights are given.",
        type=lambda: click.Choice(["none", "debug", "full"]),
    )
    device: str = option("auto", "Where networks run: auto, cpu, cuda, cuda:1 ...")


@dataclasses.dataclass(frozen=True)
class Merging:
    """Merge: one decision of several reviewers' decisions."""

    rule: str = option(
        "majority",
        "How the decisions of several reviewers become one.",
        flag="--merge",
        type=lambda: click.Choice(["majority", "unanimous", "senior"]),
    )
    seniors: tuple[str, ...] = option(
        (), "For --merge senior, the most senior first.", flag="--senior", click={"metavar": "NAME"}
    )
    least: int = option(1, "Reviewers a candidate needs.", type=lambda: click.IntRange(1))


@dataclasses.dataclass(frozen=True)
class Reviewing:
    """Review: which people are kept (paper §4.1 (3))."""

    review: str = option(
        "none",
        "Decisions where nobody has decided: by rule (marked provisional everywhere), the sample world's truth, none.",
        type=lambda: click.Choice(["provisional", "oracle", "none"]),
    )
    decisions: tuple[Path, ...] = option(
        (), "A decision log (JSON lines). Repeatable; people's decisions replace provisional ones.", type=_file
    )
    scenes: Path | None = option(None, "CSV or JSON: image id, scene category.", type=_file)
    places365: tuple[Path, Path] | None = option(
        None,
        "Scenes by a Places365 checkpoint instead.",
        type=_file,
        click={"nargs": 2, "metavar": "WEIGHTS CATEGORIES"},
    )
    close_holes: bool = option(True, "Close what bags and straps cut out of the masks of preserved people.")
    merge: Merging = dataclasses.field(default_factory=Merging)


@dataclasses.dataclass(frozen=True)
class Splitting:
    """Splits: train, val and test by photo (paper §5.1)."""

    val: int = option(
        297,
        "Humans in val, at most; where a fifth of all is fewer, about that: whole photos are taken.",
        flag="--val-humans",
        type=lambda: click.IntRange(0),
    )
    test: int = option(
        56,
        "Humans in test, at most; where a tenth of all is fewer, about that: whole photos are taken.",
        flag="--test-humans",
        type=lambda: click.IntRange(0),
    )
    fold: tuple[int, int] | None = option(
        None,
        "Cross-validation: val is the K-th of N parts of the photos, all else is train.",
        type=lambda: click.STRING,
        parse=fold_of,
        click={"metavar": "K/N", "nargs": 1},
    )


@dataclasses.dataclass(frozen=True)
class Synthesis:
    """Synthesis: occluded samples of the kept people (paper §4.1, §5.1)."""

    seed: int = option(0, "Decides the splits' samples, and nothing else.")
    densities: dict[str, str] = option(
        {},
        "Occlusion ratios of a split: train, val, or bins low-high:weight,...",
        flag="--density",
        parse=_densities,
        click={"metavar": "SPLIT=DENSITY"},
    )
    per_human: int = option(
        3, "Samples of each human in val and test.", flag="--occluders", type=lambda: click.IntRange(1)
    )
    occluder_sources: tuple[str, ...] = option(
        (),
        "Whose instances occlude: sources of this build, or all. Repeatable, or with commas.  [default: those of "
        "format coco, as in the paper; all where the build has none, or none with masks]",
        flag="--occluder-source",
        parse=_names,
        click={"metavar": "NAME", "shell_complete": completes(lambda: [EVERY, *SOURCES.names()])},
    )
    placement: str = option(
        "stratified",
        "Uniform ratios inside each bin, or uniform translations.",
        type=lambda: click.Choice(["stratified", "uniform"]),
    )
    scale: tuple[float, float] | None = option(
        None,
        "Occluder size relative to the human's longer side.",
        type=lambda: Number(0),
        click={"nargs": 2, "metavar": "LOW HIGH"},
    )
    flip: bool = option(True, "Whether occluders may be mirrored.")
    initial: str = option(
        "simulated",
        "What makes the frozen initial masks: simulated, or a segmenter's name.",
        click={"shell_complete": completes(lambda: ["simulated", *SEGMENTERS.names()])},
    )
    initial_weights: str | None = option(None, "Checkpoint for that segmenter.", type=Named)
    initial_iou: float = option(0.775, "Mean modal IoU of simulated initial masks.", type=lambda: Number(0.3, 1.0))
    bank_size: int = option(20_000, "Occluders of each split, at most.", flag="")
    min_occluder: int = option(300, "Smallest occluder.", unit="px²", flag="")

    def density_of(self, split: str) -> str:
        """The density of a split; test takes val's, since the real composites come later (spec §2)."""
        return self.densities.get(split, "train" if split == "train" else "val")

    def occluder_sources_of(self, formats: Mapping[str, str], occluders: Mapping[str, float]) -> tuple[str, ...]:
        """The sources whose instances occlude: those that the user named, else those of COCO's format (spec §2).

        All sources where those of COCO's format have no occluders.

        Args:
            formats: the format of each source of the build.
            occluders: how many occluders each source has; empty where that is not known.
        """
        every = tuple(sorted(formats))
        if self.occluder_sources:
            return every if EVERY in self.occluder_sources else tuple(sorted(set(self.occluder_sources)))
        usual = tuple(name for name in every if formats[name] == OCCLUDERS)
        none = any(occluders.values()) and not any(occluders.get(name) for name in usual)
        return usual if usual and not none else every


@dataclasses.dataclass(frozen=True)
class Running:
    """Run: where to build, how far, and what is shown."""

    out: Path | None = option(
        None,
        "The build folder, outside the sources' data; or an address for it (s3://, gs://, az://).",
        type=Folder,
        stored=False,
    )
    work: Path | None = option(
        None,
        "Local folder to work in, for an --out at an address.  [default: in the cache]",
        type=lambda: Local(file_okay=False),
        stored=False,
    )
    stop_after: str | None = option(None, "End here.", type=lambda: click.Choice(STAGES[:-1]), stored=False)
    rebuild: tuple[str, ...] = option(
        (),
        "Make a stage again, even where it is up to date. Repeatable.",
        type=lambda: click.Choice(STAGES),
        stored=False,
    )
    dry_run: bool = option(
        False,
        "Say which stages are up to date, how many items the others have and how long they took before; make nothing.",
        stored=False,
    )
    quiet: bool = option(False, "No progress bars.", flag="-q --quiet", stored=False)


@dataclasses.dataclass(frozen=True)
class Config:
    """Sources."""

    sources: dict[str, Source] = option(
        {},
        "A source dataset.  FORMAT: "
        + ", ".join(SOURCES.names())
        + ".  Ids begin with NAME, else FORMAT.  Repeatable.",
        flag="--source",
        parse=_sources,
        stored=False,
        click={"metavar": "[NAME:]FORMAT=PATH", "shell_complete": pairs(SOURCES.names)},
    )
    run: Running = dataclasses.field(default_factory=Running)
    harvest: Harvesting = dataclasses.field(default_factory=Harvesting)
    segment: Segmenting = dataclasses.field(default_factory=Segmenting)
    parse: Parsing = dataclasses.field(default_factory=Parsing)
    training: Training = dataclasses.field(default_factory=Training)
    review: Reviewing = dataclasses.field(default_factory=Reviewing)
    splits: Splitting = dataclasses.field(default_factory=Splitting)
    synthesis: Synthesis = dataclasses.field(default_factory=Synthesis)
    engine: EngineSettings = dataclasses.field(default_factory=EngineSettings)

    @property
    def out(self) -> Path:
        """The local build folder."""
        if self.run.out is None:
            raise UserError("ahp build: expected --out DIR; see ahp build --help")
        return self.run.out

    @property
    def roots(self) -> dict[str, str]:
        """Absolute data root by source, as text for the stage functions."""
        return {name: str(s.path.resolve()) for name, s in sorted(self.sources.items())}

    @property
    def formats(self) -> dict[str, str]:
        """Format by source."""
        return {name: s.format for name, s in sorted(self.sources.items())}

    def at(self, folder: Path) -> Config:
        """The same build in another folder."""
        return dataclasses.replace(self, run=dataclasses.replace(self.run, out=folder))


def config_of(given: Mapping[str, Any]) -> Config:
    """The configuration that the options of ``ahp build`` name."""
    return made(Config, given)


def write(c: Config, resolved: Mapping[str, Any], versions: Mapping[str, str]) -> None:
    """Write ``build.json``: roots and formats of the sources, all stored options, versions of packages.

    Args:
        resolved: options whose value follows from the data.
    """
    content = {
        "roots": c.roots,
        "formats": c.formats,
        "options": as_json(c) | dict(resolved),
        "versions": dict(versions),
    }
    files.write_json(c.out / "build.json", content)


def read(root: Path) -> Config:
    """The configuration of a build from its ``build.json``.

    Raises:
        UserError: when the folder is no build, or the file does not hold a configuration.
    """
    import msgspec

    from ahp_toolkit.storage.build_folder import Build
    from ahp_toolkit.storage.locations import place

    build = Build(root)
    roots = build.data_roots
    try:
        found = from_json(Config, build.options)
    except (msgspec.ValidationError, TypeError) as e:
        raise UserError(f"{root / 'build.json'}: options: {e}; run the ahp build of it again") from e
    sources = {name: Source(build.formats.get(name, name), place(at)) for name, at in roots.items()}
    return dataclasses.replace(found, sources=sources).at(root)


def options_page() -> str:
    """The reference of all options of ``ahp build``, as Markdown."""
    return f"# Options of `ahp build`\n\n{reference(Config)}"
