"""Options that the commands below ``ahp review`` share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ahp_toolkit.build.config import Merging
from ahp_toolkit.decisions.merge import Merge
from ahp_toolkit.runtime.options import Local
from ahp_toolkit.runtime.settings import options_of
from annotation.session.build_check import REVIEWED, check_build

FOLDER = Local(file_okay=False)
FILE = Local(dir_okay=False)
HELP = {"help_option_names": ["-h", "--help"]}


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


def merge_options(command: Callable[..., None]) -> Callable[..., None]:
    """``--merge``, ``--senior`` and ``--least`` as the argument ``merge``: how several decisions become one."""

    @functools.wraps(command)
    def run(*args: Any, rule: str, seniors: tuple[str, ...], least: int, **options: Any) -> None:
        command(*args, merge=Merge(rule, seniors, least), **options)

    return options_of(Merging)(run)
