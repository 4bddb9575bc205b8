"""Files on disk: atomic writes, JSON with a seal, and paths from data that never leave their root."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.hashing import digest_value
from ahp_toolkit.core.limits import MAX_JSON_BYTES

_LEFT = re.compile(r"\.[0-9a-f]{8}\.tmp")


_LONGEST_NAME = 255  # bytes, on every usual file system


@contextmanager
def atomic(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path``; on success flush, fsync and rename it there, else leave nothing.

    Text is UTF-8.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    # 644 less the user's umask: who asked for privacy gets it
    fd = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(fd, mode, encoding=None if "b" in mode else "utf-8") as f:  # whatever the locale
            yield f
            f.flush()
            os.fsync(f.fileno())
        temp.replace(path)
    except OSError as e:
        e.filename = e.filename or str(path)  # "no space left" alone does not say where
        raise
    finally:
        temp.unlink(missing_ok=True)


def forget_dead(*paths: Path) -> None:
    """Remove what killed `atomic` calls left beside these files; only for files that nobody writes at the moment."""
    names: dict[Path, set[str]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).add(path.name)
    for folder, wanted in names.items():
        for left in folder.glob(".*.tmp"):
            if left.name[1:-13] in wanted and _LEFT.fullmatch(left.name[-13:]):
                left.unlink(missing_ok=True)


def forget_unfinished(folder: Path, deep: bool = False) -> None:
    """Remove what a killed `atomic` left in a folder (and in those below it); only who holds the folder's lock may."""
    for left in folder.rglob(".*.tmp") if deep else folder.glob(".*.tmp"):
        left.unlink(missing_ok=True)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it; one that is not there is no error, one that cannot be removed is."""
    if folder.exists():
        shutil.rmtree(folder)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with atomic(path) as f:
        f.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys sorted."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """A JSON file, UTF-8, keys sorted."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def sealed(value: Any) -> bytes:
    """A JSON object with a digest of the rest of it under ``check``: see `read_sealed`."""
    plain = json.loads(json_bytes(value))
    return json_bytes(plain | {"check": digest_value(plain)})


def read_sealed(path: Path) -> dict[str, Any] | None:
    """What `sealed` made, without the digest; None when the file is missing, damaged, or was changed."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    check = value.pop("check", None) if isinstance(value, dict) else None
    return value if check is not None and check == digest_value(value) else None


def read_json(path: Path) -> Any:
    """Read a JSON file of ours.

    Raises:
        UserError: when it is missing, damaged, or too large to be read whole.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"more than {MAX_JSON_BYTES} bytes")
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as e:
        raise UserError(f"{path}: cannot be read as JSON ({e}); run the command that made it again") from e


def cache_folder() -> Path:
    """Where what can be made or fetched again is kept: ``AHP_CACHE``, else ``ahp-toolkit`` in the user's cache."""
    given = os.environ.get("AHP_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "ahp-toolkit"
    return Path(given) if given else base


def below(relative: str) -> PurePosixPath:
    """A path from data that stays below whatever root it is joined to.

    Raises:
        ValueError: when it is absolute, empty, holds ``..``, a NUL, no UTF-8, or a name no file can have.
    """
    pure = PurePosixPath(relative.replace("\\", "/"))
    if not pure.parts or "\x00" in relative or pure.is_absolute() or ".." in pure.parts or ":" in pure.parts[0]:
        raise ValueError(f"path leaves its data root: {relative!r}")
    if max(len(part.encode()) for part in pure.parts) > _LONGEST_NAME:  # encode: no table takes a lone surrogate
        raise ValueError(f"no file has a name so long: {relative!r:.80}")
    return pure


def safe_join(root: Path, relative: str) -> Path:
    """Join a path from data below ``root``; links are followed and must stay inside too.

    Raises:
        ValueError: when the path is absolute, empty, holds ``..`` or a NUL, or leads out of the root.
    """
    path = root / below(relative)
    base = os.path.realpath(root)
    real = os.path.realpath(path)
    if real != base and not real.startswith(base.rstrip("/") + "/"):
        raise ValueError(f"path leaves its data root through a link: {relative!r}")
    return path
