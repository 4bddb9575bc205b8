"""What a command line says of places: local folders, and addresses in object stores."""

from __future__ import annotations

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
