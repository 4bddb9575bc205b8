"""``ahp review export``, ``import`` and ``resegment``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import VERDICTS
from ahp_toolkit.core.registry import completes
from ahp_toolkit.core.text import one_line
from ahp_toolkit.decisions.merge import Merge
from ahp_toolkit.runtime.options import Local, Named
from ahp_toolkit.segmenters import SEGMENTERS
from annotation.session.options import FILE, FOLDER, HELP, merge_options, root_option


@click.command(context_settings=HELP)
@root_option
@click.option("--decisions", type=FILE, help="A .csv or .parquet file for the reviewers' decisions.")
@click.option("--history", is_flag=True, help="Every decision that nobody took back, not only those that count.")
@click.option("--coco", type=FILE, help="A COCO JSON file for the masks.")
@click.option("--png", "pngs", type=FOLDER, help="A folder for the masks as PNG, one a candidate.")
@click.option(
    "--verdict", "verdicts", multiple=True, type=click.Choice(VERDICTS), help="Masks of these only; default: all."
)
@merge_options
def export(root: Path, history: bool, verdicts: tuple[str, ...], merge: Merge, **paths: Path | None) -> None:
    """Write decisions and masks for other tools; `ahp review import` takes them back."""
    from annotation.exchange import decisions as exchange
    from annotation.exchange import masks

    decisions, coco, pngs = paths["decisions"], paths["coco"], paths["pngs"]
    if not (decisions or coco or pngs):
        raise UserError("ahp review export: expected --decisions, --coco or --png with where to write")
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
    "--reviewer", default="", help="Whose decisions they become; default: for rows the reviewer in them, for masks you."
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

    Good rows are taken, every bad one is named; with a bad one the exit status is 1. A row needs mask_digest, the
    digest of the mask that was shown, and its time a zone. An annotation that names no candidate must
    be of category person.
    """
    from annotation.exchange import decisions as exchange
    from annotation.exchange import masks

    if path.is_dir() or path.suffix.lower() == ".json":
        from annotation.commands import default_reviewer

        done = masks.import_masks(root, path, reviewer or default_reviewer(), use)  # type: ignore[arg-type]
    else:
        done = exchange.import_decisions(root, path, reviewer)
    for bad in done.bad:
        click.echo(one_line(f"{path}, {bad.where}: {bad.why}"), err=True)
    click.echo(done.summary)
    if done.bad:
        ctx.exit(1)


@click.command(context_settings=HELP)
@root_option
@click.option(
    "--segmenter", default="sam", show_default=True, shell_complete=completes(SEGMENTERS.names), help="The segmenter."
)
@click.option("--weights", type=Named(), help="Its checkpoint, folder or model name.")
@click.option("--device", default="auto", show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True)
@merge_options
def resegment(root: Path, merge: Merge, **tool: Any) -> None:
    """Give humans to refine a new mask by another segmenter; they come back into the queue."""
    from ahp_toolkit.storage.build_folder import Build
    from annotation.exchange.resegment import Tool
    from annotation.exchange.resegment import resegment as run

    click.echo(run(root, Tool(**tool), {k: str(v) for k, v in Build(root).roots.items()}, merge).summary)
