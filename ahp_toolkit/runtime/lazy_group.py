"""A click group that knows its commands by "module:name" only, so that ``--help`` imports none of them."""

from __future__ import annotations

import importlib

import click

from ahp_toolkit.runtime import signals

#: name -> ("module:attribute", one line of help)
Table = dict[str, tuple[str, str]]
#: Where a context keeps the whole command line.
ARGUMENTS = "ahp.arguments"


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def __init__(self, *args: object, table: Table, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return [*self.table, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the command ``name``."""
        if name not in self.table:
            return super().get_command(ctx, name)
        module, attribute = self.table[name][0].split(":")
        return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the whole command line: `ahp` checks it when the log is open."""
        ctx.meta.setdefault(ARGUMENTS, tuple(args))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; a reader of our output that has gone is no error (click would make it status 1)."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise click.exceptions.Exit(signals.broken_pipe()) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List names and help lines without importing anything."""
        with formatter.section("Commands"):
            own = [(n, c.get_short_help_str(formatter.width)) for n, c in self.commands.items() if not c.hidden]
            formatter.write_dl([*((name, line) for name, (_, line) in self.table.items()), *own])
