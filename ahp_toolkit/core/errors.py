"""The error a user causes, and the check for heavy optional packages."""

from __future__ import annotations

import importlib.util

from ahp_toolkit.core.text import short_line


class UserError(ValueError):
    """What a user did, in one line: what was expected, what came, in which file and record, and the way out.

    The command line prints it without a traceback and exits with status 2.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(short_line(message))


class StorageError(Exception):
    """A store that refuses or does not answer, or an archive that cannot be entered: one line, like a `UserError`.

    No ValueError and no OSError, on purpose: code that counts bad records must not take it for one and go on.
    """


def require(package: str, needed_for: str, install: str | None = None) -> None:
    """Check that an importable ``package`` is installed.

    Raises:
        UserError: with the line that installs it.
    """
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f"{needed_for} needs the package {package}, which is not installed: pip install {install or package}"
        )
