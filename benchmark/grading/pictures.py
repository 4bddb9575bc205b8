"""Pictures of submissions and of the truth: 256x256 PNGs, 8-bit RGB without alpha, judged by what is decoded."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

from ahp_toolkit.core import hashing
from ahp_toolkit.core.crops import SIDE
from ahp_toolkit.storage import files, images
from benchmark.metric import Bytes

MOST_BYTES = 4 * 2**20  # of a file; the pixels themselves take 192 KiB
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")


def read_picture(path: Path) -> Bytes:
    """A picture of a submission or of the truth, as `picture_of`."""
    return picture_of(bytes_of(path), path.name)


def bytes_of(path: Path) -> bytes:
    """The bytes of a picture file; a pipe or a device is never waited for.

    Raises:
        ValueError: when it cannot be read, or is too large for a crop.
    """
    if (size := path.stat().st_size if path.is_file() else 0) > MOST_BYTES:
        raise ValueError(f"{path.name}: expected at most {MOST_BYTES} bytes, got {size}")
    return images.read_bytes(path)


def picture_of(data: bytes, name: str) -> Bytes:
    """The picture of a file's bytes, uint8 RGB [256, 256, 3]; ``name`` is for messages.

    Raises:
        ValueError: when it is not an 8-bit RGB PNG of 256x256 px without alpha, or is damaged.
    """
    pixels = images.decode(_plain_png(data, name))
    if pixels.shape != (SIDE, SIDE, 3):
        raise ValueError(f"{name}: wrong size: expected {SIDE}x{SIDE} px, got {pixels.shape[1]}x{pixels.shape[0]}")
    return pixels


def _plain_png(data: bytes, name: str) -> bytes:
    """The header and the pixels of an RGB PNG alone: what other chunks hold or unfold to is never read."""
    if data[:8] != _SIGNATURE:
        raise ValueError(f"{name}: expected a PNG")
    kept, place, seen = [_SIGNATURE], 8, list[bytes]()
    while place + 12 <= len(data) and seen[-1:] != [b"IEND"]:
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        end = place + 12 + length
        if end > len(data):
            raise ValueError(f"{name}: truncated: the file ends inside a chunk")
        if kind in _CRITICAL:
            if zlib.crc32(data[place + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
                raise ValueError(f"{name}: damaged: a chunk {kind.decode()} has a wrong checksum")
            kept.append(data[place:end])
            seen.append(kind)
        elif kind in (b"tRNS", b"acTL") or not seen:
            raise ValueError(f"{name}: expected the header first, no transparency and one frame")
        elif kind[:1].isupper():
            raise ValueError(f"{name}: unknown critical chunk")
        place = end
    if seen[:1] != [b"IHDR"] or seen.count(b"IHDR") != 1 or b"IDAT" not in seen or seen[-1] != b"IEND":
        raise ValueError(f"{name}: truncated or damaged: expected one header, pixels and an end")
    head = kept[1][8:-4]
    if len(head) != 13:
        raise ValueError(f"{name}: damaged header")
    width, height = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:8], "big")
    if (width, height) != (SIDE, SIDE):
        raise ValueError(f"{name}: wrong size: expected {SIDE}x{SIDE} px, got {width}x{height}")
    if (head[8], head[9]) != (8, 2):
        raise ValueError(f"{name}: expected 8-bit RGB without alpha, got {head[8]} bit, PNG colour type {head[9]}")
    return b"".join(kept)


def pixels_digest(pixels: Bytes) -> str:
    """sha256 of a picture's pixels, as `materialize` writes it of a true crop."""
    return hashing.digest_bytes(pixels.tobytes())


def picture_file(root: Path, image: str) -> tuple[bytes, str]:
    """A picture below a submission's folder: (bytes, sha256).

    Raises:
        ValueError: when it cannot be read.
    """
    data = bytes_of(files.safe_join(root, image))
    return data, hashlib.sha256(data).hexdigest()


def digest_of(root: Path, image: str) -> str:
    """The sha256 of a picture file; '' where it cannot be read."""
    try:
        return picture_file(root, image)[1]
    except ValueError:
        return ""


def kind_of(error: ValueError) -> str:
    """The kind of problem that a picture's error is."""
    return "wrong_size" if "wrong size" in str(error) else "bad_picture"
