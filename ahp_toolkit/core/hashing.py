"""Digests of bytes, values and files, and numbers drawn from keys: the same on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


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


def photo_hash(photo: str) -> float:
    """The place of a photo key in [0, 1): photos are cut into val, test and train by it, on every machine alike."""
    return unit_hash("split", photo)


def seed_of(*keys: object) -> int:
    """A 63-bit seed that depends on the keys alone: the same on every machine and in every process."""
    h = hashlib.sha256("\x1f".join(map(str, keys)).encode()).digest()
    return int.from_bytes(h[:8], "big") >> 1
