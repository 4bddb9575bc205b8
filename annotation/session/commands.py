"""``ahp review status`` and ``triage``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ahp_toolkit.decisions.merge import Merge
from ahp_toolkit.runtime.options import Number
from annotation.session.options import FILE, FOLDER, HELP, merge_options, root_option, workers_option

SHARE = Number(0, 1, min_open=True, max_open=True)


@click.command(context_settings=HELP)
@root_option
@click.option("--html", "page", type=FILE, help="Write it as a page too.")
@merge_options
def status(root: Path, page: Path | None, merge: Merge) -> None:
    """Show the progress of the review: counts, pace, agreement, preserved ratio by source, what the triage saved."""
    from ahp_toolkit.decisions import status as made
    from ahp_toolkit.storage.files import atomic, forget_dead

    click.echo(made.status_text(made.status(root, merge)))
    if page is not None:
        forget_dead(page)
        with atomic(page, "w") as f:
            f.write(made.status_html(root, merge, page=True))
        click.echo(page)


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
    protect_refine: bool,
    second: Path | None,
    embeddings: Path | None,
    workers: int,
    merge: Merge,
    **settings: Any,
) -> None:
    """Order the queue by what is known, and leave out obvious discards under a proven risk. Never preserves."""
    from ahp_toolkit.decisions import status as made
    from ahp_toolkit.decisions.triage.triage import Evidence, Settings, run_triage

    protect = ("preserve", "refine") if protect_refine else ("preserve",)
    run_triage(root, Settings(protect=protect, **settings), merge, Evidence(second, embeddings), workers, quiet=False)
    for table in made.tables(made.status(root, merge)):
        if table.title == "Triage":
            click.echo("\n".join(": ".join(row) for row in table.rows))
