"""Options of the commands that open the App."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True)
class Opening:
    """How the App is opened.

    Attributes:
        port: None: the first free one from 5151 on.
        browser: open the address in the browser.
        check: fill the database and stop.
    """

    port: int | None
    browser: bool
    check: bool


def opening_options(check: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator: ``--port``, ``--no-browser`` and ``--check`` (with this help) as the argument ``opening``."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @click.option("--port", type=click.IntRange(1, 65535), help="Default: the first free one from 5151 on.")
        @click.option("--no-browser", is_flag=True, help="Print the address and open nothing.")
        @click.option("--check", is_flag=True, help=check)
        @functools.wraps(command)
        def run(*args: Any, port: int | None, no_browser: bool, check: bool, **options: Any) -> None:
            command(*args, opening=Opening(port, not no_browser, check), **options)

        return run

    return decorate
