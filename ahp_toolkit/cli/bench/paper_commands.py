"""``ahp bench paper``: the paper's Tables 1 to 6 by one command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.runtime import logging
from ahp_toolkit.runtime.options import Local

FOLDER = Local(file_okay=False)
FILE = Local(exists=True)


def numbers(_: click.Context, __: click.Parameter, text: str) -> tuple[int, ...]:
    """``1,2,4`` as sorted numbers."""
    try:
        return tuple(sorted({int(n) for n in text.split(",")}))
    except ValueError as e:
        raise UserError(f"--tables {text}: expected numbers such as 2,4, between 1 and 6") from e


@click.command()
@click.option("--root", type=FOLDER, required=True, help="The build folder; runs go to ROOT/runs.")
@click.option("--tables", default="1,2,3,4,5,6", show_default=True, callback=numbers, help="Which of the paper's.")
@click.option("--recipe", type=click.Choice(["debug", "small", "paper"]), default="debug", show_default=True)
@click.option("--split", type=click.Choice(["val", "test"]), default="val", show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Runs of each row.")
@click.option("--steps", type=click.IntRange(1), help="Steps of every run, in place of the recipe's.")
@click.option(
    "--fed",
    type=click.Choice(["truth", "cascade"]),
    default="truth",
    show_default=True,
    help="Masks of content models at test: the true ones, or those of the paper's stage 1.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 ...")
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="Loader processes.")
@click.option("--inception", type=FILE, help="pytorch-fid's weights (else AHP_INCEPTION_WEIGHTS, torch's hub cache).")
@click.option("--lpips", type=FILE, help="torchvision's AlexNet weights (else AHP_LPIPS_WEIGHTS, torch's hub cache).")
@click.option("--dry-run", is_flag=True, help="Print each run and its time; train nothing for good.")
def paper(root: Path, tables: tuple[int, ...], dry_run: bool, **options: Any) -> None:
    """Fill the paper's tables: plan, train what is missing, predict, score, and write them below ROOT/paper.

    The same command resumes after a stop and repeats nothing that is up to date. A dry run takes step times from
    earlier runs, else it trains a few steps of each model and throws them away. The CSVs hold fractions (unit ratio)
    where the tables print per cent, ours and the paper's.

    \b
    ahp bench paper --root out/ahp --tables 2,4 --recipe small --dry-run
    ahp bench paper --root out/ahp --recipe paper --device cuda
    """
    from ahp_toolkit.build import config
    from ahp_toolkit.cli.bench import paper_page
    from ahp_toolkit.cli.bench.paper_tables import Setup, fill, plan
    from ahp_toolkit.storage.files import forget_unfinished
    from ahp_toolkit.storage.lock import lock

    config.read(root)  # refuses a folder that is no build
    files = {k: options.pop(k) for k in ("inception", "lpips")}
    setup = Setup(root=root, **options)
    wanted = plan(setup, tables)
    if dry_run:
        print_costs(setup, wanted, 1 in tables)
        return
    from benchmark.features.context import Context

    out = root / "paper"
    with lock(out):
        forget_unfinished(out)
        device = "cpu" if setup.device == "auto" else setup.device
        context = Context(files["inception"], files["lpips"], out / "cache", device)
        made = fill(setup, wanted, out / "scores", context, _say)
        pages = [paper_page.filled(setup, t, made) for t in wanted]
        if 1 in tables:
            pages.insert(0, paper_page.table_1(root))
        page = paper_page.write(root, out, pages)
    click.echo(page.resolve())


def print_costs(setup: Any, wanted: Any, first: bool) -> None:
    """Print the plan, a line a run, and the sum."""
    from ahp_toolkit.cli.bench.paper_tables import costs

    if first:
        click.echo("table 1: from the build's statistics, no run")
    total, runs = 0.0, 0
    for c in costs(setup, wanted, setup.root / "paper" / "timing"):
        job = c.job
        name = f"{job.model}/{job.task} {job.recipe} seed {job.seed}"
        given = ", ".join(f"{k}={v}" for k, v in job.settings.items())
        pace = "up to date" if not c.steps else f"{c.steps} steps x {c.seconds:.2f} s = {time_of(c.total)}"
        source = f" ({c.known_by})" if c.steps else ""
        click.echo(f"{name}{f' [{given}]' if given else ''}: {pace}{source}; for {', '.join(c.rows)}")
        total, runs = total + c.total, runs + bool(c.steps)
    click.echo(f"{runs} runs to train on {setup.device}, {time_of(total)} of training; predicting and scoring besides")


def time_of(seconds: float) -> str:
    """A duration for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _say(text: str) -> None:
    logging.event("message", message=text)
    click.echo(text, err=True)
