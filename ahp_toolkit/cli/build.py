"""``ahp build`` and its parts: export, materialize, report."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ahp_toolkit.build.config import Config, config_of
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.registry import completes
from ahp_toolkit.export.formats import FORMATS
from ahp_toolkit.runtime import logging
from ahp_toolkit.runtime.engine_options import engine_of, engine_options
from ahp_toolkit.runtime.lazy_group import LazyGroup
from ahp_toolkit.runtime.options import Folder, Local
from ahp_toolkit.runtime.settings import options_of

if TYPE_CHECKING:
    from ahp_toolkit.runtime.stage import Result

FOLDER = Folder()
LOCAL = Local(file_okay=False)
FILE = Local(dir_okay=False)
HELP = {"help_option_names": ["-h", "--help"]}


def say(text: str) -> None:
    """Tell the person at the terminal, and the log."""
    logging.event("message", message=text)
    click.echo(text, err=True)


@click.group(
    cls=LazyGroup,
    table={
        "segmenter": ("ahp_toolkit.cli.training:segmenter", "Train a human segmenter on the harvest."),
        "parser": ("ahp_toolkit.cli.training:parser", "Train a body-part parser on the harvest."),
    },
    invoke_without_command=True,
    context_settings=HELP,
)
@options_of(Config)
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: one JSON object instead of lines.")
@click.pass_context
def build(ctx: click.Context, as_json: bool, **options: Any) -> None:
    """Build the dataset: from the source datasets to splits with exact ground truth, and one HTML page.

    \b
    ahp build --source coco=/data/coco --source lip=/data/lip --out out/ahp --review provisional
    ahp build --source objects365=/data/o365 --out out/ahp --segmenter deeplab --train full
    ahp build --source penn:coco=/data/penn --source coco=/data/coco --out out/ahp --dry-run

    The same command goes on where it was stopped; stages that are up to date are left alone.
    """
    if ctx.invoked_subcommand is not None:
        return
    c = config_of(options)
    if c.run.dry_run:
        _dry_run(c, as_json)
    else:
        _build(c)


def _dry_run(c: Config, as_json: bool) -> None:
    from ahp_toolkit.build.checks import check
    from ahp_toolkit.build.dry_run import dry_run, text
    from ahp_toolkit.storage.locations import Remote
    from ahp_toolkit.storage.sync import folder_of

    check(c)
    if isinstance(c.out, Remote):
        folder = c.run.work or folder_of(c.out)
        click.echo(f"{c.out}: its working folder {folder} is looked at, the store is not", err=True)
        c = c.at(folder)
    lines = dry_run(c)
    if as_json:
        click.echo(json.dumps({"stages": [asdict(x) for x in lines]}, indent=1))
        return
    for line in text(lines, c.engine.workers or os.cpu_count() or 1):
        click.echo(line)


def _build(c: Config) -> None:
    """Build, print what each stage made, and end with the page."""
    from ahp_toolkit.build.checks import next_step
    from ahp_toolkit.build.opened import build_dataset
    from ahp_toolkit.storage.sync import shown

    start = time.monotonic()
    folder = build_dataset(c, lambda result: say_result(result, c.review.review)).root
    if c.run.stop_after is None:
        say(f"done in {time.monotonic() - start:.0f} s; the report:")
        click.echo(shown(c.out, folder, folder / "report" / "index.html").resolve())
    if hint := next_step(c.at(folder)):
        say(hint)


def say_result(result: Result, review: str = "") -> None:
    """One line a stage: what came in, what went on, what was dropped and why."""
    line = summary(result, review)
    if line:
        _result(result, line)


def summary(r: Result, review: str) -> str:
    """What a stage made; '' for those that have nothing to say."""
    c = r.counts
    if r.name == "harvest" and "duplicates" in {p.name for p in r.folder.iterdir()}:
        read = f"{_sum(c, 'images/')} photos, {_sum(c, 'persons/')} persons read -> {c['out']} candidates; "
        read += f"{_sum(c, 'occluders_other/')} other instances and {_sum(c, 'occluders_person/')} persons can occlude"
        lost = _sum(c, "occluders_lost/")
        return f"{read}, {lost} are lost with photos that cannot be read" if lost else read
    if r.name == "segment":
        return f"{c['out'] + c['dropped']} candidates -> {c['out']} with a mask"
    if r.name == "parse":
        return f"{c['out']} people"
    if r.name == "review":
        how = {"provisional": _provisional(r.folder), "oracle": " (the sample world's truth)"}
        line = f"{_sum(c, 'preserve/')} preserved, {_sum(c, 'refine/')} to refine{how.get(review, '')}"
        unseen = _sum(c, "triage/")
        return f"{line}, {unseen} discarded unseen by triage" if unseen else line
    if r.name in ("train", "val", "test"):
        from ahp_toolkit.occlusion.densities import parse
        from ahp_toolkit.storage import files

        density = parse(files.read_json(r.folder / "stage.json")["key"].get("density", "val"))
        bins = ", ".join(str(c.get(f"bin{i}", 0)) for i in range(len(density.bins)))
        return f"{c['in']} people -> {c['out']} samples (by bin: {bins})"
    return ""


def _provisional(review: Path) -> str:
    """How many of the people in a review's table a rule has chosen, in brackets; '' where people chose all."""
    from ahp_toolkit.storage import parquet

    parts = sorted(review.glob("part-*.parquet"))
    rows = [v for p in parts for v in parquet.read_table(p, ["provisional"])[0].to_pylist()]
    if not any(rows):
        return ""
    some = "" if all(rows) else f"{sum(rows)} of them "
    return f" ({some}provisional: decided by rule, not by people)"


def _sum(counts: dict[str, int], start: str) -> int:
    return sum(n for k, n in counts.items() if k.startswith(start))


def _result(result: Result, line: str) -> None:
    state = "" if result.fresh else "  (up to date)"
    say(f"{result.name:10s} {line}{state}")
    reasons: dict[str, int] = {}
    for key, n in result.dropped.items():
        reason = key.partition("/")[2] or key
        reasons[reason] = reasons.get(reason, 0) + n
    if reasons:
        dropped = ", ".join(f"{n} {r}" for r, n in sorted(reasons.items(), key=lambda x: (-x[1], x[0])))
        say(f"{'':10s} dropped: {dropped}")


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
    from ahp_toolkit.build.build import roots_beside
    from ahp_toolkit.export.export import Contents
    from ahp_toolkit.export.export import export as write
    from ahp_toolkit.stages.report import renderer_of
    from ahp_toolkit.storage.sync import reading_and_working, shown

    with reading_and_working(root, out) as (read, folder):
        to = folder if out else folder / "export" / (fmt if what == "samples" else f"{fmt}-{what}")
        roots_beside(read, to)  # refuses a folder that is no build, and one among the sources' files
        contents = Contents(what, images, renderer_of(read))
        for path in write(read, to, fmt, splits or ("train", "val", "test"), contents):
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
    from ahp_toolkit.build.build import roots_beside
    from ahp_toolkit.stages.materialize import materialize as write
    from ahp_toolkit.stages.materialize import pictures_of
    from ahp_toolkit.storage.sync import reading_and_working, shown

    if out and what == "crops":
        raise UserError(f"--out {out}: is for --what full; crops lie beside the split's tables, leave --out out")
    place = out or root
    with reading_and_working(root, out) as (read, folder), engine_of(options) as engine:
        to = folder if out else folder / "materialized"
        names = splits or ("val", "test")
        roots = roots_beside(read, to)
        for name, result in zip(names, write(read, roots, to, names, what, engine), strict=True):
            written = result.counts.get("written", 0)  # "in" counts parts
            _result(result, f"{written + sum(result.dropped.values())} samples -> {written} written")
            click.echo(shown(place, folder, pictures_of(read, to, name, what)))


@build.command()
@click.option("--root", type=FOLDER, required=True, help="The build folder.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses what the sheets show.")
@click.option("--decisions", multiple=True, type=FILE, help="A decision log that the build was given. Repeatable.")
def report(root: Path, seed: int, decisions: tuple[Path, ...]) -> None:
    """Make the HTML page, tables and pictures of a build again, decisions merged as the build merged them."""
    from ahp_toolkit.build import config
    from ahp_toolkit.build.build import remake_report
    from ahp_toolkit.build.checks import warn_left_out
    from ahp_toolkit.storage.lock import lock
    from ahp_toolkit.storage.sync import shown, working

    with working(root, build=True) as folder:
        given = config.read(folder).review.decisions  # a folder that is no build gets no lock file
        with lock(folder):
            warn_left_out(folder, given, decisions)
            click.echo(shown(root, folder, remake_report(folder, seed, decisions)).resolve())
