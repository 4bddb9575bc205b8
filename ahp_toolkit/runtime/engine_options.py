"""The command-line options that choose an engine, alike in every command that has shards to work on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ahp_toolkit.runtime.engines import ENGINES, Engine, make_engine
from ahp_toolkit.runtime.options import Share

F = TypeVar("F", bound=Callable[..., Any])
_WORKERS = "Processes. The bytes made do not depend on it.  [default: all cores; on Ray all its CPUs]"
_GPUS = (
    "Share of a GPU for each worker that runs a network (0.25), or a whole number.  [default: one, where Ray has any]"
)


def engine_options(command: F) -> F:
    """``--workers``, ``--engine``, ``--ray-address``, ``--gpus-per-actor``: what `engine_of` takes."""
    options = (
        click.option("--workers", type=click.IntRange(1), help=_WORKERS),
        click.option("--engine", type=click.Choice(list(ENGINES)), default="local", show_default=True),
        click.option("--ray-address", help="A running cluster, auto or HOST:PORT.  [default: one is started here]"),
        click.option("--gpus-per-actor", type=Share(), help=_GPUS),
    )
    for option in reversed(options):
        command = option(command)
    return command


def engine_of(options: dict[str, Any], workers: int | None = None) -> Engine:
    """The engine that these options name; takes what is the engine's alone out of them.

    Args:
        workers: instead of all cores, where none are asked for on the local engine.
    """
    name, address, gpus = (options.pop(k) for k in ("engine", "ray_address", "gpus_per_actor"))
    asked = options.get("workers")
    return make_engine(name, workers if asked is None and name == "local" else asked, address, gpus)
