"""Plug-ins: one file each; listing reads the folder, getting imports the file (design, rule 3)."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import UserError


class Registry:
    """The plug-ins of one kind: the modules of one package whose names do not start with an underscore."""

    def __init__(self, kind: str, package: str, helpers: frozenset[str] = frozenset({"base"})) -> None:
        self.kind = kind
        self.package = package
        self._helpers = helpers

    def names(self) -> list[str]:
        """Sorted names, read from the folder; nothing is imported but the package itself."""
        spec = importlib.util.find_spec(self.package)
        folders = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
        found = {f.stem for d in folders for f in d.glob("*.py") if not f.stem.startswith("_")}
        return sorted(found - self._helpers)

    def get(self, name: str) -> ModuleType:
        """Import and return the plug-in.

        Raises:
            UserError: for an unknown name, with the nearest known one.
        """
        names = self.names()
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else "known: " + ", ".join(names)
            raise UserError(f"no {self.kind} is named {name!r}; {hint}")
        return importlib.import_module(f"{self.package}.{name}")


Complete = Callable[[Any, Any, str], list[Any]]


def completes(names: Callable[[], Iterable[str]]) -> Complete:
    """A click ``shell_complete`` of names, read when the shell asks; plug-ins are not imported for it."""
    return lambda _, __, start: [n for n in names() if n.startswith(start)]


def pairs(names: Callable[[], Iterable[str]]) -> Complete:
    """A click ``shell_complete`` of NAME=FOLDER: the name with its equals sign, then folders."""

    def complete(_: Any, __: Any, start: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        if "=" in start:
            return [CompletionItem(start.partition("=")[2], type="dir")]
        return [f"{n}=" for n in names() if n.startswith(start)]

    return complete
