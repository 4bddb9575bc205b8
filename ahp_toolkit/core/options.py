"""What a command line says: of places (local folders, addresses in object stores), and of numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click


class Folder(click.Path):
    """A folder: a local path, or an address (``s3://bucket/prefix``), which is not asked for before it is used."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(path_type=Path, **({"file_okay": False} | settings))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; addresses become `places.Remote`."""
        if isinstance(value, str) and "://" in value:
            from .places import place

            return place(value)
        return super().convert(value, param, ctx)


class Number(click.FloatRange):
    """A range of numbers: click's own takes ``nan``, which no bound compares with."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return found


class Share(Number):
    """A share of one thing (0 to 1), or several whole ones: so Ray gives out GPUs."""

    def __init__(self) -> None:
        super().__init__(0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        found = super().convert(value, param, ctx)
        if found > 1 and found != int(found):
            self.fail(f"{value} is neither from 0 to 1 nor a whole number.", param, ctx)
        return found
