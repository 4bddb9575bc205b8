"""Single stages of a build, for tests and harnesses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ahp_toolkit.build.build import MAKE
from ahp_toolkit.build.config import Config, Running, Source
from ahp_toolkit.runtime.engines import Engine, LocalEngine
from ahp_toolkit.runtime.stage import Result


def config(out: Path, roots: Mapping[str, Path], **nodes: Any) -> Config:
    """The configuration of a build in ``out`` on data roots, each named by its format; ``nodes`` are `Config`'s."""
    return Config(sources={name: Source(name, root) for name, root in roots.items()}, run=Running(out), **nodes)


def made(c: Config, group: str, engine: Engine | None = None) -> dict[str, Result]:
    """Run the steps of one stage; results by step, the last one of a name."""
    with LocalEngine(1) as own:
        return {step.name: step.run(engine or own, quiet=True) for step in MAKE[group](c)}
