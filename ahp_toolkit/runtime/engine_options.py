"""The choice of an engine: the options of every command that has shards to work on."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from typing import Any

import click

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.runtime.engines import Engine, LocalEngine
from ahp_toolkit.runtime.options import Share
from ahp_toolkit.runtime.settings import option, options_of


@dataclass(frozen=True)
class EngineSettings:
    """Engine: where the work is done."""

    workers: int | None = option(
        None,
        "Processes. The bytes made do not depend on it.  [default: all cores; on Ray all its CPUs]",
        type=lambda: click.IntRange(1),
        stored=False,
    )
    engine: str = option(
        "local",
        "A pool of processes of this machine, or a Ray cluster.",
        type=lambda: click.Choice(["local", "ray"]),
        stored=False,
    )
    ray_address: str | None = option(
        None, "A running cluster, auto or HOST:PORT.  [default: one is started here]", stored=False
    )
    gpus_per_actor: float | None = option(
        None,
        "Share of a GPU for each worker that runs a network (0.25), or a whole number.  [default: one, where Ray has "
        "any]",
        type=Share,
        stored=False,
    )


#: A decorator for every command that has shards to work on; `engine_of` takes what it gives.
engine_options = options_of(EngineSettings)


def engine_of(given: dict[str, Any], workers: int | None = None) -> Engine:
    """The engine that the options of a command name; takes these options out of ``given``.

    Args:
        workers: instead of all cores, where the user gives no number on the local engine.
    """
    settings = EngineSettings(**{f.name: given.pop(f.name) for f in fields(EngineSettings)})
    if settings.workers is None and settings.engine == "local":
        settings = replace(settings, workers=workers)
    return make_engine(settings)


def make_engine(settings: EngineSettings) -> Engine:
    """The engine of a command; close it at the end (``with make_engine(...) as engine``).

    Raises:
        UserError: for options of another engine, or a cluster that cannot be reached.
    """
    if settings.engine == "ray":
        from ahp_toolkit.runtime.ray_engine import connect

        return connect(settings.workers, settings.ray_address, settings.gpus_per_actor)
    if settings.ray_address is not None or settings.gpus_per_actor is not None:
        raise UserError("--ray-address and --gpus-per-actor go with --engine ray")
    return LocalEngine(settings.workers or os.cpu_count() or 1)
