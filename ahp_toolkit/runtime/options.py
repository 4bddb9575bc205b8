"""What a command line says: of places (local folders, addresses in object stores), of names, and of numbers."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import click

from ahp_toolkit.core.errors import UserError

#: Scheme -> what brings a folder from there and back.
_TOOLS = {"s3": "aws s3 sync", "gs": "gcloud storage rsync -r", "az": "azcopy sync"}


def legible(text: str | os.PathLike[str], name: str = "") -> str:
    """A word of the command line as text: names are written into tables and logs, which are UTF-8.

    Raises:
        UserError: for bytes that are no UTF-8, which Python hands on as lone surrogates.
    """
    plain = os.fspath(text)
    try:
        plain.encode()
    except UnicodeEncodeError as e:
        shown = os.fsencode(plain).decode(errors="backslashreplace")
        raise UserError(f"{name}{shown}: expected a name in UTF-8, got other bytes; rename it (mv, convmv)") from e
    return plain


def _text_of(value: Any, param: click.Parameter | None, kind: str) -> str:
    """The word, neither empty (which would stand for the current folder) nor illegible."""
    name = f"{param.opts[0]} " if isinstance(param, click.Option) else ""
    if not os.fspath(value):
        here = "; . is the current folder" if kind in ("folder", "path") else ""
        raise UserError(f"{name or 'path '}'': expected a {kind}, got an empty name{here}")
    return legible(value, name)


class _Place(click.Path):
    """A path, of the kind that its settings allow."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(path_type=Path, **settings)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path."""
        _text_of(value, param, self.kind)
        return super().convert(value, param, ctx)

    @property
    def kind(self) -> str:
        """What it takes, in a word."""
        return "folder" if not self.file_okay else "file" if not self.dir_okay else "path"


class Folder(_Place):
    """A folder: a local path, or an address (``s3://bucket/prefix``), which is not asked for before it is used."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**({"file_okay": False} | settings))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; addresses become `places.Remote`."""
        if isinstance(value, str) and "://" in value:
            from ahp_toolkit.storage.locations import place

            return place(_text_of(value, param, self.kind))
        return super().convert(value, param, ctx)


class Local(_Place):
    """A path of this machine. An address is refused, with ``way`` out, before it makes a folder of the name ``s3:``."""

    def __init__(self, way: str = "", **settings: Any) -> None:
        super().__init__(**settings)
        self._way = way

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path.

        Raises:
            UserError: for an address.
        """
        scheme, mark, _ = str(value).partition("://")
        if mark:
            name = f"{param.opts[0]} " if isinstance(param, click.Option) else ""
            first = "fetch the build first" if param and param.name == "root" else "copy from or to the store apart"
            tool = f", e.g. {_TOOLS[scheme]}" if scheme in _TOOLS else ""
            raise UserError(f"{name}{value}: takes a local {self.kind}; {self._way or first + tool}")
        return super().convert(value, param, ctx)


class Named(click.ParamType):
    """A file or folder, or the name of something published or of ours: any text but none."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The text."""
        return _text_of(value, param, "file, folder or name")


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
