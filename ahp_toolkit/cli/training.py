"""``ahp build segmenter`` and ``ahp build parser``: train the build's networks on its harvest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ahp_toolkit.core.registry import Registry, completes
from ahp_toolkit.parsers import PARSERS
from ahp_toolkit.runtime.options import Local
from ahp_toolkit.segmenters import SEGMENTERS

FOLDER = Local(file_okay=False)
FILE = Local(dir_okay=False)
HELP = {"help_option_names": ["-h", "--help"]}


def _options(registry: Registry, name: str, what: str) -> Callable[[Any], Any]:
    """The options of both commands, which differ in the plug-ins they train."""
    preset = "debug: a minute on 2 CPU cores; full: the paper's kind, for a GPU."
    options = [
        click.option("--root", type=FOLDER, required=True, help="A build folder with a finished harvest."),
        click.option("--out", type=FILE, help="The checkpoint; default ROOT/weights/NAME.pt."),
        click.option("--name", default=name, show_default=True, shell_complete=completes(registry.names), help=what),
        click.option("--preset", type=click.Choice(["debug", "full"]), default="full", show_default=True, help=preset),
        click.option("--device", default="auto", show_default=True),
        click.option("--seed", type=int, default=0, show_default=True),
    ]

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.command(context_settings=HELP)
@_options(
    SEGMENTERS, "deeplab", "deeplab: masks of box-only people; centermask: the paper's network for initial masks."
)
def segmenter(root: Path, out: Path | None, name: str, preset: str, device: str, seed: int) -> None:
    """Train a human segmenter on the harvested humans that have masks.

    Photos that may become val or test are left out: a fold's, else those of the lowest hashes, at most half of all.
    """
    _train(SEGMENTERS, root, name, out, {"settings": preset, "device": device, "seed": seed})


@click.command(context_settings=HELP)
@_options(PARSERS, "hrnet", "hrnet: body parts, the paper's pseudo labels.")
def parser(root: Path, out: Path | None, name: str, preset: str, device: str, seed: int) -> None:
    """Train a body-part parser on the harvested humans that have a parsing (LIP).

    Photos that may become val or test are left out: a fold's, else those of the lowest hashes, at most half of all.
    """
    _train(PARSERS, root, name, out, {"settings": preset, "device": device, "seed": seed})


def _train(registry: Registry, root: Path, name: str, out: Path | None, how: dict[str, Any]) -> None:
    from ahp_toolkit.build import build, training

    to = out or root / "weights" / f"{name}.pt"
    click.echo(training.train(registry, root, name, to, how | {"roots": build.roots_of(root)}))
