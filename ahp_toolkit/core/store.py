"""Parquet tables of records on disk: atomic writes, digests, and paths that never leave their root."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from .errors import UserError
from .limits import MAX_JSON_BYTES
from .tables import from_table, to_table

R = TypeVar("R")
_LEFT = re.compile(r"\.[0-9a-f]{8}\.tmp")
_LONGEST_NAME = 255  # bytes, on every usual file system


@contextmanager
def atomic(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path``; on success flush, fsync and rename it there, else leave nothing.

    Text is UTF-8.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temp, fd = _temporary(path)
    try:
        with os.fdopen(fd, mode, encoding=None if "b" in mode else "utf-8") as f:  # whatever the locale
            yield f
            f.flush()
            os.fsync(f.fileno())
            temp.replace(path)  # before it is closed: until then it is seen to be held
    except OSError as e:
        e.filename = e.filename or str(path)  # "no space left" alone does not say where
        raise
    finally:
        temp.unlink(missing_ok=True)


def _temporary(path: Path) -> tuple[Path, int]:
    """A new file beside ``path``, open and held by flock, so that `forget_dead` tells it from one left behind."""
    while True:
        temp = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
        # 644 less the user's umask: who asked for privacy gets it
        fd = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with suppress(OSError):  # a file system without locks: nobody can take it for a dead one either
            fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return temp, fd
        os.close(fd)  # taken for a dead one before it was held


def forget_dead(*paths: Path) -> None:
    """Remove what killed `atomic` calls left beside these files; no lock is needed: what is being written is held."""
    names: dict[Path, set[str]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).add(path.name)
    for folder, wanted in names.items():
        for left in folder.glob(".*.tmp"):
            if left.name[1:-13] in wanted and _LEFT.fullmatch(left.name[-13:]):
                _remove_dead(left)


def _remove_dead(left: Path) -> None:
    try:
        fd = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # gone, a link, or not ours
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        left.unlink(missing_ok=True)
    except OSError:
        pass  # somebody is writing it, or the file system does not tell
    finally:
        os.close(fd)


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


def table_bytes(table: pa.Table) -> bytes:
    """One Parquet file; the same table gives the same bytes. Each page carries its checksum."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_statistics=False, write_page_checksum=True)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def write_table(path: Path, table: pa.Table) -> None:
    """Write one Parquet file atomically."""
    write_bytes(path, table_bytes(table))


def write_records(path: Path, records: Sequence[Any], cls: type) -> None:
    """Write records of one type as one Parquet file, atomically."""
    write_table(path, to_table(records, cls))


def parts(folder: Path) -> list[Path]:
    """The ``part-*.parquet`` files of a table folder, in order.

    Raises:
        UserError: when there is none.
    """
    found = sorted(folder.glob("part-*.parquet"), key=lambda p: (len(p.name), p.name))  # part-100000 after part-99999
    if not found:
        raise UserError(f"{folder}: expected a table (part-*.parquet), found none; run the stage that makes it first")
    return found


def read_records(folder: Path, cls: type[R]) -> Iterator[R]:
    """All records of a table folder (or of one Parquet file), in order, one file in memory at a time.

    Raises:
        UserError: when there is no such table or a file of it cannot be read.
    """
    for path in [folder] if folder.is_file() else parts(folder):
        table = read_table(path)
        try:
            yield from from_table(table, cls)
        except (TypeError, KeyError, ValueError) as e:
            why = " ".join(str(e).split())[:200]
            raise UserError(f"{path}: no table of {cls.__name__} ({why}); run the command that made it again") from e


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """One Parquet file, or some columns of it (dotted names reach into structs).

    Raises:
        UserError: when the file is missing, damaged, or lacks a column.
    """
    with _readable(path):
        file = pq.ParquetFile(path, page_checksum_verification=True)
        return file.read(columns=None if columns is None else list(columns))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as e:
        why = " ".join(str(e).split())[:200]
        raise UserError(f"{path}: cannot be read as Parquet ({why}); run the command that made it again") from e


def count_records(folder: Path) -> int:
    """Number of records in a table folder, from the files' footers.

    Raises:
        UserError: when there is no such table or a file of it cannot be read.
    """
    count = 0
    for path in parts(folder):
        with _readable(path):
            count += pq.ParquetFile(path).metadata.num_rows
    return count


def concat(paths: Sequence[Path], to: Path) -> None:
    """Join Parquet files of one schema into one, atomically, one of them in memory at a time."""
    first = read_table(paths[0])
    more = {"compression": "zstd", "write_statistics": False, "write_page_checksum": True}
    with atomic(to) as f, pq.ParquetWriter(f, first.schema, **more) as w:
        w.write_table(first)
        for path in paths[1:]:
            w.write_table(read_table(path))


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
        said = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    check = said.pop("check", None) if isinstance(said, dict) else None
    return said if check is not None and check == digest_value(said) else None


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


def digest_bytes(*chunks: bytes) -> str:
    """sha256 hex of the chunks, each preceded by its length so that borders count."""
    h = hashlib.sha256()
    for c in chunks:
        h.update(len(c).to_bytes(8, "little"))
        h.update(c)
    return h.hexdigest()


def digest_value(value: Any) -> str:
    """sha256 hex of a JSON-like value, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """sha256 hex of a file's content."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def digest_files(paths: Sequence[Path]) -> str:
    """sha256 hex over names and contents of files (a table folder's identity)."""
    return digest_value([[p.name, digest_file(p)] for p in paths])


def stamp(paths: Sequence[Path]) -> list[list[object]]:
    """Name, size and modification time of each file: the cheap fingerprint of large inputs."""
    return [[p.name, s.st_size, s.st_mtime_ns] for p in paths for s in [p.stat()]]


def unit_hash(*keys: object) -> float:
    """A number in [0, 1) that depends on the keys alone: the same on every machine."""
    h = hashlib.sha256("\x1f".join(map(str, keys)).encode()).digest()
    return int.from_bytes(h[:8], "big") / 2**64


def seed_of(*keys: object) -> int:
    """A 63-bit seed that depends on the keys alone: the same on every machine and in every process."""
    h = hashlib.sha256("\x1f".join(map(str, keys)).encode()).digest()
    return int.from_bytes(h[:8], "big") >> 1


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
