"""What a command line says: of places (local folders, addresses in object stores), and of numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from .errors import UserError

#: Scheme -> what brings a folder from there and back.
_TOOLS = {"s3": "aws s3 sync", "gs": "gcloud storage rsync -r", "az": "azcopy sync"}


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


class Local(click.Path):
    """A path of this machine. An address is refused before it makes a folder of the name ``s3:``."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(path_type=Path, **settings)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path.

        Raises:
            UserError: for an address.
        """
        scheme, mark, _ = str(value).partition("://")
        if mark:
            name = f"{param.opts[0]} " if isinstance(param, click.Option) else ""
            kind = "folder" if not self.file_okay else "file" if not self.dir_okay else "path"
            way = "fetch the build first" if param and param.name == "root" else "copy from or to the store apart"
            tool = f", e.g. {_TOOLS[scheme]}" if scheme in _TOOLS else ""
            raise UserError(f"{name}{value}: takes a local {kind}; {way}{tool}")
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
