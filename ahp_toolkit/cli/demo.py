"""``ahp demo``: the sample world as five source datasets, the whole build on it, and a small leaderboard at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import click

from ahp_toolkit.build import config
from ahp_toolkit.build.build import build
from ahp_toolkit.build.config import Config, Source
from ahp_toolkit.cli.build import HELP, say, say_result
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.runtime.code import code_digest
from ahp_toolkit.runtime.engines import LocalEngine
from ahp_toolkit.runtime.options import Local
from ahp_toolkit.runtime.progress import Progress
from ahp_toolkit.storage import files
from ahp_toolkit.storage.lock import lock

SOURCES = ("coco", "lip", "objects365", "openimages", "voc_sbd")


def world(folder: Path, scenes: int, seed: int) -> Path:
    """Write the sample world unless the folder holds it already."""
    from ahp_toolkit.sample_world import write_world

    mark = folder / "world.json"
    wanted = {"scenes": scenes, "seed": seed, "code": code_digest("ahp_toolkit.sample_world")}
    if mark.exists() and files.read_json(mark) == wanted:
        return folder
    with Progress("world", scenes, "photo") as bar:
        write_world(folder, seed=seed, scenes=scenes, progress=bar.update)
    files.write_json(mark, wanted)
    return folder


def _check(out: Path) -> None:
    """Refuse the folder of a build on other data: its tables would be replaced by the sample world's.

    Raises:
        UserError: when the folder holds such a build, or one whose data roots are not known.
    """
    roots = config.read(out).roots if (out / "build.json").exists() else {}
    if any(Path(root).parts[-2:] != ("world", name) for name, root in roots.items()):
        raise UserError(f"{out}: holds a build on other data; give another --out")


def run_demo(
    out: Path, scenes: int, seed: int, workers: int, say: Callable[[str], None], bench: bool = True
) -> list[Path]:
    """The whole pipeline on the sample world; returns the pages: the build's report, and with ``bench`` the boards."""
    start = time.monotonic()
    _check(out)
    say("The sample world: procedural people, no photographs. Nothing made from it is a result on people.")
    folder = world(out / "world", scenes, seed)
    c = Config(
        sources={name: Source(name, folder / name) for name in SOURCES},
        run=config.Running(out),
        segment=config.Segmenting("deeplab"),
        parse=config.Parsing("hrnet"),
        training=config.Training("debug"),
        review=config.Reviewing("oracle"),
        synthesis=config.Synthesis(seed),
    )
    with lock(out), LocalEngine(workers) as engine:
        page = build(c, engine, lambda result: say_result(result, "oracle"))
    assert page is not None
    pages = [page]
    if bench:
        from ahp_toolkit.cli.demo_bench import run_boards

        say(f"built in {time.monotonic() - start:.0f} s")
        pages.append(run_boards(out, seed, workers, say))
    say(f"done in {time.monotonic() - start:.0f} s; the report{' and the leaderboards' if bench else ''}:")
    return pages


@click.command(context_settings=HELP)
@click.option("--out", type=Local(file_okay=False), default=Path("out/demo"), show_default=True, help="Where to.")
@click.option("--scenes", type=click.IntRange(24), default=240, show_default=True, help="Size of the world, photos.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True)
@click.option("--bench/--no-bench", default=True, show_default=True, help="End with a small leaderboard of models.")
def demo(out: Path, scenes: int, seed: int, workers: int, bench: bool) -> None:
    """See the whole pipeline work on an embedded, procedural world: five sources to splits, pages and a leaderboard."""
    for page in run_demo(out, scenes, seed, workers, say, bench):
        click.echo(page.resolve())
