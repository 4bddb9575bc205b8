"""``ahp convert``: annotations from one format to another, without a build."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ahp_toolkit.runtime.options import Local


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="[NAME:]FORMAT=PATH...")
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Choice(["coco", "cocoa", "kins", "yolo", "png"]),
    help="Format to write.",
)
@click.option("--out", required=True, type=Local(file_okay=False), help="New folder to write to.")
@click.option("--person-name", "person_names", multiple=True, metavar="NAME", help="A category that is people too.")
def convert(sources: tuple[str, ...], target: str, out: Path, person_names: tuple[str, ...]) -> None:
    """Write annotations in another format.

    Reads every FORMAT of ahp build, and kins, cocoa and labelme with amodal outlines; PATH is the data root, or one
    JSON file. COCO and YOLO hold visible outlines; COCOA and KINS hold visible and whole ones; PNG masks hold what is
    known. What a format cannot hold is counted, one line a kind. Photos are not copied.
    """
    from ahp_toolkit.export.convert import convert as run

    account = run(sources, target, out, person_names)
    sys.stdout.write(f"{out}: {account.written} of {account.things} objects of {account.photos} photos as {target}\n")
    sys.stdout.writelines(f"{line}\n" for line in account.lines())
