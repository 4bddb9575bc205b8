"""``ahp build segmenter`` and ``ahp build parser``: the networks that a harvest trains. Wiring and words only."""

from __future__ import annotations

from pathlib import Path

import click

from ahp_toolkit.runtime.options import Local

FOLDER = Local(file_okay=False)
FILE = Local(dir_okay=False)
HELP = {"help_option_names": ["-h", "--help"]}


@click.command(context_settings=HELP)
@click.option("--root", type=FOLDER, required=True, help="A build folder with a finished harvest.")
@click.option("--out", type=FILE, help="The checkpoint; default ROOT/weights/NAME.pt.")
@click.option(
    "--name",
    type=click.Choice(["deeplab", "centermask"]),
    default="deeplab",
    show_default=True,
    help="deeplab: masks of box-only people; centermask: the paper's network for initial masks.",
)
@click.option(
    "--preset",
    type=click.Choice(["debug", "full"]),
    default="full",
    show_default=True,
    help="debug: a minute on 2 CPU cores; full: the paper's kind, for a GPU.",
)
@click.option("--device", default="auto", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def segmenter(root: Path, out: Path | None, name: str, preset: str, device: str, seed: int) -> None:
    """Train a human segmenter on the harvested humans that have masks.

    Photos that may become val or test are left out: a fold's, else those of the lowest hashes, at most half of all.
    """
    from ahp_toolkit.build import build, training

    to = out or root / "weights" / f"{name}.pt"
    click.echo(training.train_segmenter(root, to, build.roots_of(root), preset, device, seed, name=name))


@click.command(context_settings=HELP)
@click.option("--root", type=FOLDER, required=True, help="A build folder with a finished harvest.")
@click.option("--out", type=FILE, help="The checkpoint; default ROOT/weights/hrnet.pt.")
@click.option(
    "--preset",
    type=click.Choice(["debug", "full"]),
    default="full",
    show_default=True,
    help="debug: a minute on 2 CPU cores; full: the paper's kind, for a GPU.",
)
@click.option("--device", default="auto", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def parser(root: Path, out: Path | None, preset: str, device: str, seed: int) -> None:
    """Train the HRNet body-part parser on the harvested humans that have a parsing (LIP).

    Photos that may become val or test are left out: a fold's, else those of the lowest hashes, at most half of all.
    """
    from ahp_toolkit.build import build, training

    click.echo(
        training.train_parser(root, out or root / "weights" / "hrnet.pt", build.roots_of(root), preset, device, seed)
    )
