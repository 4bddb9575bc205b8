"""Small files that claim to be huge are refused before anything is allocated; nothing waits on a pipe."""

from __future__ import annotations

import io
import os
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ahp_toolkit.core import masks
from ahp_toolkit.core.limits import MAX_PIXELS
from ahp_toolkit.storage import images
from ahp_toolkit.storage.images import ImageError


def _number(x: int) -> bytes:
    """One number in COCO's compressed form."""
    out = b""
    while True:
        group, x = x & 0x1F, x >> 5
        more = x != (-1 if group & 0x10 else 0)
        out += bytes([48 + (group | 0x20 if more else group)])
        if not more:
            return out


def _counts(runs: list[int]) -> bytes:
    return b"".join(_number(r if i < 3 else r - runs[i - 2]) for i, r in enumerate(runs))


def test_the_rle_writer_of_these_tests_writes_coco() -> None:
    assert masks.Mask(2, 3, _counts([1, 2, 3])).decode().tolist() == [[False, True, False], [True, False, False]]


@pytest.mark.parametrize("side", [15_000, 10**6, 2**31, 2**40])
def test_a_few_bytes_of_rle_cannot_claim_terabytes(side: int) -> None:
    for make in (
        lambda: masks.Mask(side, side, _counts([min(side * side, 2**50)])),
        lambda: masks.from_rle([side, side], [side * side] if side < 2**31 else [1], side, side),
        lambda: masks.from_polygons([[0, 0, side, 0, side, side]], side, side),
        lambda: masks.LabelMap(side, side, b"\x01", struct.pack("<I", 2**32 - 1)),
    ):
        with pytest.raises(ValueError, match=f"at most {MAX_PIXELS}"):
            make()


def test_runs_whose_sum_wraps_round_to_the_right_one_are_refused() -> None:
    runs = [0] + [2**58] * 63
    runs.append((4 - sum(runs)) % 2**64)
    assert sum(runs) % 2**64 == 4
    with pytest.raises(ValueError, match="wrong size"):
        masks.Mask(2, 2, _counts(runs))
    with pytest.raises(ValueError, match="wrong size"):
        masks.from_runs(np.array([2**62, 2**62, 2**62, 2**62, 4], np.int64), 2, 2)


def _png(width: int, height: int, bits: int = 8, kind: int = 2) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(10**6)) for _ in range(20)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _as(kind: str, width: int, height: int) -> bytes:
    """A true small picture of a format, its header then made to claim a size."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, kind)
    data = bytearray(out.getvalue())
    if kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    elif kind == "BMP":
        data[18:26] = struct.pack("<II", width, height)
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
    elif kind == "PPM":
        return f"P6 {width} {height} 255\n".encode() + bytes(192)
    return bytes(data)


@pytest.mark.parametrize("bomb", [
    _png(60_000, 60_000), _png(60_000, 60_000, 8, 0), _png(100_000, 100_000, 1, 0), _png(2**31 - 1, 2**31 - 1),
    *(_as(kind, 60_000, 60_000) for kind in ("JPEG", "BMP", "GIF", "PPM")),
], ids=["rgb", "grey", "bits", "largest", "jpeg", "bmp", "gif", "ppm"])  # fmt: skip
def test_a_picture_bomb_is_refused_by_its_header(bomb: bytes, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    file = tmp_path / "bomb.png"
    file.write_bytes(bomb)
    for read in (images.decode, images.header, images.read_labels):
        with pytest.raises(ImageError) as e:
            read(bomb)
        assert e.value.reason == "too_large" or read is images.read_labels
    with pytest.raises(ImageError):
        images.read(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


def test_formats_that_start_programs_or_are_not_photos_are_not_opened() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(ImageError) as e:
        images.decode(eps)
    assert e.value.reason == "unreadable"
    for kind in ("ICO", "PCX", "TGA", "SGI", "JPEG2000"):
        out = io.BytesIO()
        Image.new("RGB", (32, 32)).save(out, kind)
        with pytest.raises(ImageError):
            images.decode(out.getvalue())


@pytest.mark.timeout(60)  # it would wait for ever
def test_a_pipe_or_a_device_in_a_pictures_place_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "photo.jpg"
    os.mkfifo(pipe)
    for path in (pipe, Path(os.devnull), Path("/dev/zero"), tmp_path):
        for read in (images.read_bytes, images.header, images.read, images.read_labels):
            with pytest.raises(ImageError):
                read(path)


def test_a_file_of_too_many_bytes_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    with file.open("wb") as f:
        f.truncate(images.MAX_BYTES + 1)  # sparse
    for read in (images.read, images.header):
        with pytest.raises(ImageError) as e:
            read(file)
        assert e.value.reason == "too_large"


def test_sixteen_bits_are_scaled_the_same_by_blocks() -> None:
    grey = np.random.default_rng(0).integers(0, 65536, (700, 30), dtype=np.uint16)
    out = io.BytesIO()
    Image.fromarray(grey).save(out, "PNG")
    assert np.array_equal(images.decode(out.getvalue())[..., 1], (grey * (255.0 / 65535.0)).astype(np.uint8))
