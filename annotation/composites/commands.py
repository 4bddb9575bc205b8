"""``ahp review compose``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ahp_toolkit.runtime.options import Number
from annotation.session.options import HELP, root_option, workers_option


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
def compose(root: Path, write: bool, voters: int | None, workers: int, **settings: Any) -> None:
    """Propose real composites for the test split; the App's panel lets editors move them and others vote.

    Run again, proposals that somebody has edited or voted on stay as they are, beside the new ones.
    """
    from ahp_toolkit.decisions import votes
    from ahp_toolkit.stages import composites
    from ahp_toolkit.storage.build_folder import Build
    from annotation.composites.compose import Settings, propose

    if write:
        from ahp_toolkit.build.checks import frozen, warn_replaced

        before = frozen(root / "splits" / "test")
        made = composites.write_test(root, voters)
        click.echo(f"{made.counts['out']} test samples in {made.folder}, {made.counts['dropped']} dropped")
        warn_replaced(before, made.folder)
        return
    done = propose(root, Build(root).data_roots, Settings(**settings), workers, quiet=False)
    if voters is not None:
        votes.keep_voters(root, voters)
    same = done.counts.get("same_photo", 0)
    counts = f"{done.counts['in']} people, {done.counts['out']} proposals ({same} within one photo)"
    click.echo(
        f"{counts}, {done.counts['dropped']} people without any; {len(votes.passed(root, voters))} passed so far"
    )
