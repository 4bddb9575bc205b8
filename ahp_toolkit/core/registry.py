"""Plug-ins: one file each; listing reads the folder, getting imports the file (design, rule 3)."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

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
