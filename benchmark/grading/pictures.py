"""Pictures of submissions and of the truth: 256x256 PNGs, 8-bit RGB without alpha, and their bytes' digests."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ahp_toolkit.core.crops import SIDE
from ahp_toolkit.storage import files, images
from benchmark.metric import Bytes


def read_picture(path: Path) -> Bytes:
    """A picture of a submission or of the truth, as `picture_of`."""
    return picture_of(images.read_bytes(path), path.name)


def picture_of(data: bytes, name: str) -> Bytes:
    """The picture of a file's bytes, uint8 RGB [256, 256, 3]; ``name`` is for messages.

    Raises:
        ValueError: when it is not an 8-bit RGB PNG of 256x256 px without alpha, or is damaged.
    """
    # PNG: signature, then IHDR with width, height, bit depth and colour type (2 is RGB)
    if data[:8] != b"\x89PNG\r\n\x1a\n" or len(data) < 33:
        raise ValueError(f"{name}: expected a PNG")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if (width, height) != (SIDE, SIDE):
        raise ValueError(f"{name}: wrong size: expected {SIDE}x{SIDE} px, got {width}x{height}")
    if (data[24], data[25]) != (8, 2):
        raise ValueError(f"{name}: expected 8-bit RGB without alpha, got {data[24]} bit, PNG colour type {data[25]}")
    return images.decode(data)


def picture_file(root: Path, image: str) -> tuple[bytes, str]:
    """A picture below a submission's folder: (bytes, sha256).

    Raises:
        ValueError: when it cannot be read.
    """
    data = images.read_bytes(files.safe_join(root, image))
    return data, hashlib.sha256(data).hexdigest()


def digest_of(root: Path, image: str) -> str:
    """A picture's sha256, empty where it cannot be read."""
    try:
        return picture_file(root, image)[1]
    except ValueError:
        return ""


def picture_problem(root: Path, image: str) -> tuple[str, str] | None:
    """(kind, detail) of what is wrong with a picture, or None."""
    try:
        read_picture(files.safe_join(root, image))
    except ValueError as e:
        return kind_of(e), str(e)
    return None


def kind_of(error: ValueError) -> str:
    """The kind of problem that a picture's error is."""
    return "wrong_size" if "wrong size" in str(error) else "bad_picture"
