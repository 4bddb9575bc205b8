"""Plug-ins: one file each. Listing reads the folder, getting imports the file (design, rule 3)."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from ahp_toolkit.core.errors import UserError


class Registry:
    """The plug-ins of one kind: the modules of one package, and modules that other packages announce.

    A package outside the toolkit announces a module as a Python entry point of the registry's group, for example
    ``[project.entry-points."ahp_toolkit.sources"]`` with ``kitti = "my_package.kitti"``. A built-in name wins.

    Args:
        kind: what messages call a plug-in ("source").
        package: the package whose modules are plug-ins, all but ``base`` and ``helpers``.
        group: of the entry points; None: the package's name.
        facts: names that every plug-in module must hold.
    """

    def __init__(
        self,
        kind: str,
        package: str,
        helpers: Iterable[str] = (),
        group: str | None = None,
        facts: Iterable[str] = (),
    ) -> None:
        self.kind = kind
        self.package = package
        self.group = group or package
        self.facts = tuple(facts)
        self._helpers = {"base", *helpers}

    def names(self) -> list[str]:
        """Sorted names of the built-in and the announced plug-ins; no plug-in is imported."""
        return sorted({*self._own(), *self._announced()})

    def module(self, name: str) -> str:
        """The dotted name of a plug-in's module.

        Raises:
            UserError: for an unknown name, with the nearest known one.
        """
        if name in self._own():
            return f"{self.package}.{name}"
        announced = self._announced()
        if name not in announced:
            names = self.names()
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else "known: " + ", ".join(names)
            raise UserError(f"no {self.kind} is named {name!r}; {hint}")
        return announced[name]

    def get(self, name: str) -> ModuleType:
        """Import and return the plug-in.

        Raises:
            UserError: for an unknown name, with the nearest known one; for an announced module that cannot be imported
                or lacks a fact.
        """
        module = self.module(name)
        if module == f"{self.package}.{name}":
            return importlib.import_module(module)
        try:
            found = importlib.import_module(module)
        except ImportError as e:
            raise UserError(
                f"{self.kind} {name!r}: {module} cannot be imported ({e}); mend or remove its package"
            ) from e
        missing = [fact for fact in self.facts if not hasattr(found, fact)]
        if missing:
            raise UserError(f"{self.kind} {name!r}: {module} does not define {', '.join(missing)}; mend its package")
        return found

    def _own(self) -> set[str]:
        spec = importlib.util.find_spec(self.package)
        folders = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
        found = {f.stem for d in folders for f in d.glob("*.py") if not f.stem.startswith("_")}
        return found - self._helpers

    def _announced(self) -> dict[str, str]:
        return {e.name: e.module for e in importlib.metadata.entry_points(group=self.group)}


Complete = Callable[[Any, Any, str], list[Any]]


def completes(names: Callable[[], Iterable[str]]) -> Complete:
    """A click ``shell_complete`` of names, read at the moment of completion; plug-ins are not imported."""
    return lambda _, __, start: [n for n in names() if n.startswith(start)]


def pairs(names: Callable[[], Iterable[str]]) -> Complete:
    """A click ``shell_complete`` of NAME=FOLDER: the name with its equals sign, then folders."""

    def complete(_: Any, __: Any, start: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        if "=" in start:
            return [CompletionItem(start.partition("=")[2], type="dir")]
        return [f"{n}=" for n in names() if n.startswith(start)]

    return complete
