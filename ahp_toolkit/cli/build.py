"""The commands of the build: ``ahp demo``, ``ahp build`` and its parts, ``ahp doctor``. Wiring and words only."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ahp_toolkit.build import arguments
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.registry import completes, pairs
from ahp_toolkit.export.formats import FORMATS
from ahp_toolkit.parsers import PARSERS
from ahp_toolkit.runtime import logging
from ahp_toolkit.runtime.engine_options import engine_of, engine_options
from ahp_toolkit.runtime.lazy_group import LazyGroup
from ahp_toolkit.runtime.options import Folder, Local, Named, Number
from ahp_toolkit.segmenters import SEGMENTERS
from ahp_toolkit.sources import SOURCES
from annotation.review_commands import merge_options

if TYPE_CHECKING:
    from ahp_toolkit.runtime.stage import Result

FOLDER = Folder()
LOCAL = Local(file_okay=False)
FILE = Local(dir_okay=False)


def _say(text: str) -> None:
    logging.event("message", message=text)
    click.echo(text, err=True)


@click.group(
    cls=LazyGroup,
    table={
        "plan": ("ahp_toolkit.cli.plan:plan", "Say what would run, how long and how large; make nothing."),
        "segmenter": ("ahp_toolkit.cli.training:segmenter", "Train a human segmenter on the harvest."),
        "parser": ("ahp_toolkit.cli.training:parser", "Train the HRNet body-part parser on the harvest."),
    },
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--source",
    "sources",
    multiple=True,
    callback=arguments.source,
    metavar="[NAME:]FORMAT=PATH",
    shell_complete=pairs(SOURCES.names),
    help="A source dataset of a FORMAT: "
    + ", ".join(SOURCES.names())
    + ".  NAME (else FORMAT) begins its ids.  Repeatable.",
)
@click.option(
    "--out",
    type=FOLDER,
    help="The build folder, outside the sources' data; or an address for it (s3://, gs://, az://).",
)
@click.option(
    "--work", type=LOCAL, help="Local folder to work in, for an --out at an address.  [default: in the cache]"
)
@click.option(
    "--review",
    type=click.Choice(["provisional", "oracle", "none"]),
    default="none",
    show_default=True,
    help="Decisions where nobody has decided: by rule (marked provisional everywhere), the sample world's truth, none.",
)
@click.option(
    "--decisions",
    multiple=True,
    type=FILE,
    help="A decision log (JSON lines). Repeatable; people's words replace provisional ones.",
)
@merge_options
@click.option("--seed", type=int, default=0, show_default=True, help="Decides the splits' samples, and nothing else.")
@engine_options
@click.option(
    "--segmenter",
    default="source_mask",
    show_default=True,
    shell_complete=completes(SEGMENTERS.names),
    help="Who segments humans that have a box only.",
)
@click.option("--segmenter-weights", type=Named(), help="Checkpoint, folder or model name for the segmenter.")
@click.option(
    "--parser",
    default="source_parsing",
    show_default=True,
    shell_complete=completes(PARSERS.names),
    help="Who labels body parts where the source does not.",
)
@click.option("--parser-weights", type=Named(), help="Checkpoint for the parser.")
@click.option(
    "--train",
    type=click.Choice(["none", "debug", "full"]),
    default="none",
    show_default=True,
    help="Train the segmenter and the parser on this very harvest when no weights are given.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 ...")
@click.option(
    "--min-area",
    type=click.IntRange(0),
    default=300,
    show_default=True,
    help="Smallest human, px² of its mask, else of its box.",
)
@click.option(
    "--gutter", type=click.IntRange(0), default=5, show_default=True, help="Border, px, that no human may touch."
)
@click.option(
    "--verify/--no-verify", default=True, show_default=True, help="Decode every photo that is used, at harvest."
)
@click.option(
    "--val-humans",
    type=click.IntRange(0),
    default=297,
    show_default=True,
    help="Humans in val, at most; where a fifth of all is fewer, about that: whole photos are taken.",
)
@click.option(
    "--test-humans",
    type=click.IntRange(0),
    default=56,
    show_default=True,
    help="Humans in test, at most; where a tenth of all is fewer, about that: whole photos are taken.",
)
@click.option(
    "--fold",
    callback=arguments.fold,
    metavar="K/N",
    help="Cross-validation: val is the K-th of N parts of the photos, all else is train.",
)
@click.option(
    "--density",
    "densities",
    multiple=True,
    callback=arguments.densities,
    metavar="SPLIT=DENSITY",
    help="Occlusion ratios of a split: train, val, or bins low-high:weight,...",
)
@click.option(
    "--occluders",
    "per_human",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Samples of each human in val and test.",
)
@click.option(
    "--occluder-source",
    "occluder_sources",
    multiple=True,
    callback=arguments.occluders,
    metavar="NAME",
    shell_complete=completes(lambda: ["all", *SOURCES.names()]),
    help="Whose instances occlude: sources of this build, or all. Repeatable, or with commas.  "
    "[default: coco, as in the paper; all where the build has no coco, or one without masks]",
)
@click.option(
    "--placement",
    type=click.Choice(["stratified", "uniform"]),
    default="stratified",
    show_default=True,
    help="Uniform ratios inside each bin, or uniform translations.",
)
@click.option(
    "--scale", type=Number(0), nargs=2, metavar="LOW HIGH", help="Occluder size relative to the human's longer side."
)
@click.option("--flip/--no-flip", default=True, show_default=True, help="Whether occluders may be mirrored.")
@click.option(
    "--initial",
    default="simulated",
    show_default=True,
    shell_complete=completes(lambda: ["simulated", *SEGMENTERS.names()]),
    help="Who makes the frozen initial masks: simulated, or a segmenter's name.",
)
@click.option("--initial-weights", type=Named(), help="Checkpoint for that segmenter.")
@click.option(
    "--initial-iou",
    type=Number(0.3, 1.0),
    default=0.775,
    show_default=True,
    help="Mean modal IoU of simulated initial masks.",
)
@click.option("--scenes", type=FILE, help="CSV or JSON: image id, scene category.")
@click.option(
    "--places365", type=FILE, nargs=2, metavar="WEIGHTS CATEGORIES", help="Scenes by a Places365 checkpoint instead."
)
@click.option("--stop-after", type=click.Choice(["harvest", "segment", "parse", "review", "splits"]), help="End here.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bars.")
@click.pass_context
def build(ctx: click.Context, **options: Any) -> None:
    """Build the dataset: from the source datasets to splits with exact ground truth, and one HTML page.

    \b
    ahp build --source coco=/data/coco --source lip=/data/lip --out out/ahp --review provisional
    ahp build --source objects365=/data/o365 --out out/ahp --segmenter deeplab --train full

    The same command goes on where it was stopped; what stands already is left alone.
    """
    if ctx.invoked_subcommand is not None:
        return
    if not options["sources"] or options["out"] is None:
        raise UserError("ahp build: expected --source FORMAT=PATH (at least one) and --out DIR; see ahp build --help")
    run_build(options)


def run_build(options: dict[str, Any]) -> Path:
    """Run the stages in order, say what each made, and end with the page."""
    from ahp_toolkit.build import build as builder
    from ahp_toolkit.build.checks import check_device
    from ahp_toolkit.cli.next_step import next_step
    from ahp_toolkit.runtime.publish import shown, working
    from ahp_toolkit.storage.lock import lock

    start = time.monotonic()
    made, synthesis = builder.options_from(options)
    check_device(options["engine"], made.device)
    out = made.out
    with working(out, options.get("work")) as folder, lock(folder), engine_of(options) as engine:
        made = replace(made, out=folder, engine=engine)
        page = builder.build(made, synthesis, _result, stop_after=options["stop_after"])
    if page is not None:
        _say(f"done in {time.monotonic() - start:.0f} s; the report:")
        click.echo(shown(out, made.out, page).resolve())
    if hint := next_step(made, options["stop_after"]):
        _say(hint)
    return made.out


def _result(result: Result, words: str) -> None:
    """One line a stage: what came in, what went on, what was dropped and why."""
    state = "" if result.fresh else "  (stands already)"
    _say(f"{result.name:10s} {words}{state}")
    reasons: dict[str, int] = {}
    for key, n in result.dropped.items():
        reason = key.partition("/")[2] or key
        reasons[reason] = reasons.get(reason, 0) + n
    if reasons:
        said = ", ".join(f"{n} {r}" for r, n in sorted(reasons.items(), key=lambda x: (-x[1], x[0])))
        _say(f"{'':10s} dropped: {said}")


@build.command()
@click.option("--root", type=FOLDER, required=True, help="The build folder.")
@click.option(
    "--format",
    "fmt",
    required=True,
    shell_complete=completes(FORMATS.names),
    help="cocoa, kins, ahp or webdataset.",
)
@click.option("--out", type=FOLDER, help="Where to; default ROOT/export/FORMAT, or FORMAT-humans.")
@click.option("--split", "splits", multiple=True, type=click.Choice(["train", "val", "test"]), help="Default: all.")
@click.option(
    "--what",
    type=click.Choice(["samples", "humans"]),
    default="samples",
    show_default=True,
    help="Occluded samples, or the whole people they are made of.",
)
@click.option("--images/--no-images", default=True, show_default=True, help="Write the pictures too.")
def export(root: Path, fmt: str, out: Path | None, splits: tuple[str, ...], what: str, images: bool) -> None:
    """Write the humans or the samples in another format: COCO amodal (COCOA, KINS), the AHP layout, WebDataset."""
    from ahp_toolkit.build import build as builder
    from ahp_toolkit.runtime.publish import reading_and_working, shown

    with reading_and_working(root, out) as (read, folder):
        to = folder if out else folder / "export" / (fmt if what == "samples" else f"{fmt}-{what}")
        for path in builder.export(read, to, fmt, splits or ("train", "val", "test"), what, images):
            click.echo(shown(out or root, folder, path))


@build.command()
@click.option("--root", type=FOLDER, required=True, help="The build folder.")
@click.option("--out", type=FOLDER, help="Where to, for --what full; default ROOT/materialized.")
@click.option(
    "--split", "splits", multiple=True, type=click.Choice(["train", "val", "test"]), help="Default: val and test."
)
@click.option(
    "--what",
    type=click.Choice(["full", "crops"]),
    default="full",
    show_default=True,
    help="Whole photos with masks, or the protocol's 256x256 crops (into splits/SPLIT/crops).",
)
@engine_options
def materialize(root: Path, out: Path | None, splits: tuple[str, ...], what: str, **options: Any) -> None:
    """Write the pixels of samples: occluded and recovered picture, amodal, modal and invisible mask.

    Every picture is checked against the digest of its recipe.
    """
    from ahp_toolkit.build import build as builder
    from ahp_toolkit.build.splits import pictures_of
    from ahp_toolkit.runtime.publish import reading_and_working, shown

    if out and what == "crops":
        raise UserError(f"--out {out}: is for --what full; crops lie beside the split's tables, leave --out out")
    place = out or root
    with reading_and_working(root, out) as (read, folder), engine_of(options) as engine:
        to = folder if out else folder / "materialized"
        names = splits or ("val", "test")
        for name, result in zip(names, builder.materialize(read, to, names, what, engine), strict=True):
            written = result.counts.get("written", 0)  # "in" counts parts
            _result(result, f"{written + sum(result.dropped.values())} samples -> {written} written")
            click.echo(shown(place, folder, pictures_of(read, to, name, what)))


@build.command()
@click.option("--root", type=FOLDER, required=True, help="The build folder.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses what the sheets show.")
@click.option("--decisions", multiple=True, type=FILE, help="A decision log that the build was given. Repeatable.")
def report(root: Path, seed: int, decisions: tuple[Path, ...]) -> None:
    """Make the HTML page, tables and pictures of a build anew, reviewers' words merged as the build merged them."""
    from ahp_toolkit.build import build as builder
    from ahp_toolkit.runtime.publish import shown, working
    from ahp_toolkit.storage.lock import lock

    with working(root, build=True) as folder:
        builder.roots_of(folder)  # a folder that is no build gets no lock file
        with lock(folder):
            builder.tell_left_out(folder, decisions)
            click.echo(shown(root, folder, builder.report(folder, seed, decisions=decisions)).resolve())


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--out", type=LOCAL, default=Path("out/demo"), show_default=True, help="Where to.")
@click.option("--scenes", type=click.IntRange(24), default=240, show_default=True, help="Size of the world, photos.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True)
@click.option("--bench/--no-bench", default=True, show_default=True, help="End with a small leaderboard of models.")
def demo(out: Path, scenes: int, seed: int, workers: int, bench: bool) -> None:
    """See the whole pipeline work on an embedded, procedural world: five sources to splits, pages and a leaderboard."""
    from ahp_toolkit.cli.demo import run_demo

    for page in run_demo(out, scenes, seed, workers, _say, bench):
        click.echo(page.resolve())


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def doctor(as_json: bool) -> None:
    """Say what is installed, what is missing, which weights are found where, and how to get the rest."""
    from dataclasses import asdict

    from ahp_toolkit.cli.doctor import examine

    found = list(examine())
    if as_json:
        click.echo(json.dumps([asdict(f) for f in found], indent=1))
    else:
        for f in found:
            mark = {True: "ok  ", False: "LACK", None: "--  "}[f.ok]
            click.echo(f"{mark} {f.topic:8s} {f.name:28s} {f.said}")
    lacking = [f.name for f in found if f.ok is False]
    if lacking:
        raise UserError(
            f"{len(lacking)} needed things are missing: {', '.join(lacking)}; the lines above say how to get them"
        )
