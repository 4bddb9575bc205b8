"""The commands of ``ahp`` as attributes, for sphinx-click: ``ahp`` itself knows them by name only."""

from __future__ import annotations

import click

from ahp_toolkit.cli.main import ahp


def __getattr__(name: str) -> click.Command:
    """The command ``name``."""
    command = ahp.get_command(click.Context(ahp), name)
    if command is None:
        raise AttributeError(name)
    return command
