"""The generated parts of the documentation: each table comes from the code that it describes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path

from ahp_toolkit.runtime import logging, signals


def write(folder: Path) -> None:
    """Write every table as Markdown below ``folder``."""
    folder.mkdir(exist_ok=True)
    for make in (metrics, statuses, events, models, options):
        (folder / f"{make.__name__}.md").write_text(make())


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; pipes inside cells are escaped."""
    names = list(head)
    lines = [names, ["---"] * len(names), *([str(c).replace("|", r"\|") for c in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def metrics() -> str:
    """Every metric's facts and definition, by board."""
    from benchmark.metric import METRICS

    found = METRICS.all().values()
    text = ""
    for board in ("mask", "content"):
        text += f"\n## The {board} board\n\n"
        rows = [
            (f"`{m.name}`", m.unit or "–", "higher" if m.higher_is_better else "lower", m.definition)
            for m in found
            if m.board == board
        ]
        text += table(("metric", "unit", "better", "definition"), rows)
    return text


def models() -> str:
    """Each model with its tasks and paper, and its departures from the paper as its own file states them."""
    from baselines.base import MODELS

    text = ""
    for name in MODELS.names():
        module = MODELS.get(name)
        text += f"\n## `{name}`\n\n{', '.join(module.TASKS)} · {module.PAPER}\n\n"
        text += inspect.cleandoc(module.__doc__ or "").replace("``", "`").replace("<", "&lt;") + "\n"
    return text


def statuses() -> str:
    """Exit statuses of every command."""
    return table(("status", "when"), signals.STATUSES.items())


def events() -> str:
    """The events of ``--log-json``, from the table in the docstring of the log's module."""
    doc = inspect.cleandoc(logging.__doc__ or "")
    rule, *lines, _ = doc.split("by event:\n\n", 1)[-1].split("\n\n")[0].splitlines()
    width = rule.index(" ")
    rows = ((f"`{line[:width].strip()}`", line[width:].strip()) for line in lines)
    return table(("event", "fields besides time, level, event"), rows)


def options() -> str:
    """The options of ``ahp build``, one table a part of its configuration."""
    from ahp_toolkit.build.config import Config
    from ahp_toolkit.runtime.settings import reference

    return reference(Config).replace("<", "&lt;")
