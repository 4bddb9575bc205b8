"""``ahp build segmenter`` and ``ahp build parser``: the networks that a harvest trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ahp_toolkit.core.registry import completes
from ahp_toolkit.parsers import PARSERS
from ahp_toolkit.runtime.options import Local
from ahp_toolkit.segmenters import SEGMENTERS

FOLDER = Local(file_okay=False)
FILE = Local(dir_okay=False)
HELP = {"help_option_names": ["-h", "--help"]}
OPTIONS = (
    click.option("--root", type=FOLDER, required=True, help="A build folder with a finished harvest."),
    click.option("--out", type=FILE, help="The checkpoint; default ROOT/weights/NAME.safetensors."),
    click.option(
        "--preset",
        type=click.Choice(["debug", "full"]),
        default="full",
        show_default=True,
        help="debug: a minute on 2 CPU cores; full: the paper's kind, for a GPU.",
    ),
    click.option("--device", default="auto", show_default=True),
    click.option("--seed", type=int, default=0, show_default=True),
)


def _options(command: Any) -> Any:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.command(context_settings=HELP)
@_options
@click.option(
    "--name",
    default="deeplab",
    show_default=True,
    shell_complete=completes(SEGMENTERS.names),
    help="deeplab: masks of box-only people; centermask: the paper's network for initial masks.",
)
def segmenter(**given: Any) -> None:
    """Train a human segmenter on the harvested humans that have masks.

    Photos that may become val or test are left out: a fold's, else those of the lowest hashes, at most half of all.
    """
    _train("segmenter", given)


@click.command(context_settings=HELP)
@_options
@click.option("--name", default="hrnet", show_default=True, shell_complete=completes(PARSERS.names))
def parser(**given: Any) -> None:
    """Train a body-part parser on the harvested humans that have a parsing (LIP).

    Photos that may become val or test are left out: a fold's, else those of the lowest hashes, at most half of all.
    """
    _train("parser", given)


def _train(kind: str, given: dict[str, Any]) -> None:
    from ahp_toolkit.build import config
    from ahp_toolkit.runtime.engines import LocalEngine
    from ahp_toolkit.stages.review import SplitSizes
    from ahp_toolkit.stages.training import Training

    root: Path = given["root"]
    c = config.read(root)
    sizes = SplitSizes(c.splits.val, c.splits.test, fold=c.splits.fold)
    registry = SEGMENTERS if kind == "segmenter" else PARSERS
    how = {"seed": given["seed"], "to": given["out"]}
    step = Training(registry, given["name"], root, c.roots, given["preset"], given["device"], sizes, **how)
    with LocalEngine(1) as engine:
        step.run(engine)
    click.echo(step.path)
