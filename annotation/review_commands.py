"""The commands below ``ahp review`` that need no screen. Wiring and words only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from ahp_toolkit.build.config import Merging
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.registry import completes
from ahp_toolkit.core.text import one_line
from ahp_toolkit.runtime.options import Local, Named, Number
from ahp_toolkit.runtime.settings import options_of
from ahp_toolkit.segmenters import SEGMENTERS
from annotation.build_check import REVIEWED, check_build

FOLDER = Local(file_okay=False)
FILE = Local(dir_okay=False)
SHARE = Number(0, 1, min_open=True, max_open=True)
HELP = {"help_option_names": ["-h", "--help"]}
VERDICTS = ("discard", "preserve", "refine")


def _root(ctx: click.Context, _: click.Parameter, root: Path) -> Path:
    """Checked before a command runs: an export of no build would write an empty file over a good one."""
    if not ctx.resilient_parsing:  # a completion asks
        check_build(root)
    return root


root_option = click.option("--root", type=REVIEWED, required=True, callback=_root, help="The build folder.")
workers_option = click.option(
    "--workers",
    type=click.IntRange(1),
    default=os.cpu_count() or 1,
    show_default=True,
    help="Processes. The bytes made do not depend on it.",
)


#: ``--merge``, ``--senior`` and ``--least``, for every command that makes one decision of several; see `merge_of`.
merge_options = options_of(Merging)


def merge_of(rule: str, seniors: tuple[str, ...], least: int) -> Any:
    """The merge rule that the options of `merge_options` name."""
    from ahp_toolkit.decisions.merge import Merge

    return Merge(rule, seniors, least)


@click.command(context_settings=HELP)
@root_option
@click.option("--html", "page", type=FILE, help="Write it as a page too.")
@merge_options
def status(root: Path, page: Path | None, rule: str, seniors: tuple[str, ...], least: int) -> None:
    """Say where the review stands: counts, pace, agreement, preserved ratio by source, what the triage saved."""
    from ahp_toolkit.decisions import status as made
    from ahp_toolkit.storage.files import atomic, forget_dead

    merge = merge_of(rule, seniors, least)
    click.echo(made.status_text(made.status(root, merge)))
    if page is not None:
        forget_dead(page)
        with atomic(page, "w") as f:
            f.write(made.status_html(root, merge, page=True))
        click.echo(page)


@click.command(context_settings=HELP)
@root_option
@click.option("--decisions", type=FILE, help="A .csv or .parquet file for the reviewers' decisions.")
@click.option("--history", is_flag=True, help="Every standing decision, not only those that count.")
@click.option("--coco", type=FILE, help="A COCO JSON file for the masks.")
@click.option("--png", "pngs", type=FOLDER, help="A folder for the masks as PNG, one a candidate.")
@click.option(
    "--verdict", "verdicts", multiple=True, type=click.Choice(VERDICTS), help="Masks of these only; default: all."
)
@merge_options
def export(
    root: Path,
    decisions: Path | None,
    history: bool,
    coco: Path | None,
    pngs: Path | None,
    verdicts: tuple[str, ...],
    rule: str,
    seniors: tuple[str, ...],
    least: int,
) -> None:
    """Write decisions and masks for other tools; `ahp review import` takes them back."""
    from annotation.exchange import decisions as exchange
    from annotation.exchange import masks

    if not (decisions or coco or pngs):
        raise UserError("ahp review export: expected --decisions, --coco or --png with where to write")
    merge = merge_of(rule, seniors, least)
    if decisions:
        click.echo(f"{exchange.export_decisions(root, decisions, history)} decisions to {decisions}")
    if coco:
        click.echo(f"{masks.export_coco(root, coco, verdicts, merge)} masks to {coco}")
    if pngs:
        click.echo(f"{masks.export_pngs(root, pngs, verdicts, merge)} masks to {pngs}")


@click.command("import", context_settings=HELP)
@root_option
@click.argument("path", type=Local(exists=True))
@click.option(
    "--reviewer", default="", help="Whose words they become; default: for decisions whom the rows name, for masks you."
)
@click.option(
    "--as",
    "use",
    type=click.Choice(["proposal", "preserve", "refine"]),
    default="proposal",
    show_default=True,
    help="Masks: back into the queue, or as the reviewer's decision.",
)
@click.pass_context
def import_(ctx: click.Context, root: Path, path: Path, reviewer: str, use: str) -> None:
    """Take in decisions (.csv, .parquet) or corrected masks (COCO .json, a folder of PNGs).

    Good rows are taken, every bad one is named; with a bad one the exit status is 1. An annotation that names no
    candidate must be of category person, and a word no older than what its reviewer says by
    now or has taken back, its time with a zone, and a preserve or refine of a mask that the build or the file has.
    """
    from annotation.exchange import decisions as exchange
    from annotation.exchange import masks

    if path.is_dir() or path.suffix.lower() == ".json":
        from annotation.commands import default_reviewer

        mender = reviewer or default_reviewer()
        done = masks.import_masks(root, path, mender, use)  # type: ignore[arg-type]
    else:
        done = exchange.import_decisions(root, path, reviewer)
    for bad in done.bad:
        click.echo(one_line(f"{path}, {bad.where}: {bad.why}"), err=True)
    click.echo(done.words)
    if done.bad:
        ctx.exit(1)


@click.command(context_settings=HELP)
@root_option
@click.option("--risk", type=SHARE, default=0.01, show_default=True, help="At most this share of true preserves lost.")
@click.option("--confidence", type=SHARE, default=0.95, show_default=True, help="Of the upper bound.")
@click.option("--audit", type=SHARE, default=0.1, show_default=True, help="Random share that people always see.")
@click.option("--protect-refine", is_flag=True, help="Losing a human to refine counts as well.")
@click.option("--second", type=FOLDER, help="A folder of masks by another segmenter (Segmented parts).")
@click.option("--embeddings", type=FILE, help="Parquet with candidate_id and embedding.")
@click.option("--seed", type=int, default=0, show_default=True)
@workers_option
@merge_options
def triage(
    root: Path,
    risk: float,
    confidence: float,
    audit: float,
    protect_refine: bool,
    second: Path | None,
    embeddings: Path | None,
    seed: int,
    workers: int,
    rule: str,
    seniors: tuple[str, ...],
    least: int,
) -> None:
    """Order the queue by what is known, and leave out obvious discards under a proven risk. Never preserves."""
    from ahp_toolkit.decisions import status as made
    from ahp_toolkit.decisions.triage.triage import Settings, run_triage

    protect = ("preserve", "refine") if protect_refine else ("preserve",)
    settings = Settings(risk, confidence, audit, protect, seed)
    merge = merge_of(rule, seniors, least)
    run_triage(root, settings, merge, second, embeddings, workers, quiet=False)
    for table in made.tables(made.status(root, merge)):
        if table.title == "Triage":
            click.echo("\n".join(": ".join(row) for row in table.rows))


@click.command(context_settings=HELP)
@root_option
@click.option(
    "--segmenter", default="sam", show_default=True, shell_complete=completes(SEGMENTERS.names), help="Who looks again."
)
@click.option("--weights", type=Named(), help="Its checkpoint, folder or model name.")
@click.option("--device", default="auto", show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True)
@merge_options
def resegment(
    root: Path,
    segmenter: str,
    weights: str | None,
    device: str,
    batch_size: int,
    rule: str,
    seniors: tuple[str, ...],
    least: int,
) -> None:
    """Give humans to refine a new mask by another segmenter; they come back into the queue."""
    from ahp_toolkit.stages.composites import roots_of
    from annotation.exchange.resegment import Tool
    from annotation.exchange.resegment import resegment as run

    tool = Tool(segmenter, weights, device, batch_size)
    click.echo(run(root, tool, roots_of(root), merge_of(rule, seniors, least)).words)


@click.command(context_settings=HELP)
@root_option
@click.option("--per-human", type=click.IntRange(1), default=6, show_default=True, help="Proposals a human.")
@click.option(
    "--ratio", nargs=2, type=Number(0, 1), default=(0.05, 0.5), show_default=True, help="Wanted occlusion ratio."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the proposals.")
@click.option(
    "--write",
    is_flag=True,
    help="Write what all voters passed as the test split, as the next ahp build would, and propose nothing.",
)
@click.option(
    "--voters",
    type=click.IntRange(1),
    show_default="as given last, else 2",
    help="Voters a composite needs; kept for ahp build.",
)
@workers_option
def compose(
    root: Path, per_human: int, ratio: tuple[float, float], seed: int, write: bool, voters: int | None, workers: int
) -> None:
    """Propose real composites for the test split; the App's panel lets editors move them and others vote.

    Proposed again, those that somebody has had a word on stay as they are, beside the new ones.
    """
    from ahp_toolkit.decisions import votes
    from ahp_toolkit.stages import composites
    from annotation.composites.compose import Wish, propose

    if write:
        from ahp_toolkit.build.checks import frozen, warn_replaced

        before = frozen(root / "splits" / "test")
        made = composites.write_test(root, voters)
        click.echo(f"{made.counts['out']} test samples in {made.folder}, {made.counts['dropped']} dropped")
        warn_replaced(before, made.folder)
        return
    done = propose(
        root, composites.roots_of(root), Wish(per_human=per_human, ratio=ratio, seed=seed), workers, quiet=False
    )
    if voters is not None:
        votes.keep_voters(root, voters)
    same = done.counts.get("same_photo", 0)
    words = f"{done.counts['in']} people, {done.counts['out']} proposals ({same} within one photo)"
    click.echo(f"{words}, {done.counts['dropped']} people without any; {len(votes.passed(root, voters))} passed so far")
