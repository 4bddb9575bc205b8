"""The only image decoder and writer: EXIF, grey, CMYK, palette, 16 bit, size limits, clear errors.

Images in memory are RGB uint8 [H, W, 3]. EXIF rule (formats §7): pixels are used as every viewer shows them, turned by
EXIF, unless the annotated size is that of the stored pixels alone; another size is an error. JPEG is decoded strictly:
what a lenient decoder would patch over is an error here.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import warnings
from pathlib import Path
from typing import IO, NamedTuple

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from ahp_toolkit.core.limits import MAX_LABEL_PIXELS, MAX_PIXELS, MAX_SCANNED_PIXELS
from ahp_toolkit.core.limits import MAX_PICTURE_BYTES as MAX_BYTES
from ahp_toolkit.storage.files import atomic
from ahp_toolkit.storage.locations import Foreign

Rgb = NDArray[np.uint8]
#: Larger pictures are refused before they are decoded (decompression bombs).
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
#: The formats that are opened, found by content. Pillow knows forty more; one of them (EPS) runs Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM")
#: A disk or a mount that fails, too many open files: no fault of a picture, which must not be dropped for it.
_MACHINE = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE)
_STRIP = 256  # rows that are converted at a time
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_MOVED = range(2, 9)  # EXIF orientations that move any pixel
_ORIENTATION, _TIFF_SIZE = 274, (256, 257)  # tags


class ImageError(ValueError):
    """A picture that cannot be used; ``reason`` is one word for counting (missing, empty, unreadable, corrupt, ...)."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Header(NamedTuple):
    """What a file says of itself before its pixels are decoded: stored size in px, PIL mode and format, EXIF turn."""

    width: int
    height: int
    mode: str
    format: str
    orientation: int

    def frame(self, size: tuple[int, int] | None) -> tuple[tuple[int, int], bool]:
        """((width, height) to use, whether EXIF must be applied) for an annotated ``size`` (None: as viewers show it).

        Raises:
            ImageError: ``size_mismatch`` when neither the stored nor the turned size is the annotated one.
        """
        stored = (self.width, self.height)
        shown = stored[::-1] if self.orientation in _TURNED else stored
        if size is None or size == shown:
            return shown, self.orientation in _MOVED
        if size == stored:
            return stored, False
        raise ImageError("size_mismatch", f"annotated as {size[0]}x{size[1]}, the file is {stored[0]}x{stored[1]} px")


def read_bytes(path: Path) -> bytes:
    """The bytes of a picture file. A pipe or a device in its place is never waited for.

    Raises:
        ImageError: ``missing``, ``empty``, ``too_large`` or ``unreadable``.
        OSError: when the machine failed, not the picture.
    """
    try:
        with _plain_file(path) as f:
            data = f.read(MAX_BYTES)
    except FileNotFoundError as e:
        raise ImageError("missing", f"{path.name}: no such file") from e
    except OSError as e:
        _not_the_machine(e)
        raise ImageError("unreadable", f"{path.name}: {e.strerror or e}") from e
    if not data:
        raise ImageError("empty", f"{path.name}: the file is empty")
    return data


def _not_the_machine(e: OSError) -> None:
    if e.errno in _MACHINE:
        raise e


def _plain_file(path: Path) -> IO[bytes]:
    """Open a picture file; a pipe or a device of that name would never end, or never begin."""
    if isinstance(path, Foreign):
        data = path.read(MAX_BYTES)
        if len(data) > MAX_BYTES:
            raise ImageError("too_large", f"{path.name}: more than {MAX_BYTES} bytes")
        return io.BytesIO(data)
    f = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")  # noqa: PTH123, SIM115  a descriptor; the caller closes
    found = os.fstat(f.fileno())
    if not stat.S_ISREG(found.st_mode):
        f.close()
        raise ImageError("unreadable", f"{path.name}: not a plain file")
    if found.st_size > MAX_BYTES:
        f.close()
        raise ImageError("too_large", f"{path.name}: {found.st_size} bytes, at most {MAX_BYTES} are read")
    return f


def header(data: bytes | Path) -> Header:
    """Read a picture's header only.

    Raises:
        ImageError: when it is missing, no picture, or larger than MAX_PIXELS.
    """
    if isinstance(data, bytes):
        with _open(data) as im:
            return _header_of(im)
    try:
        with _plain_file(data) as f, _open(f, data.name) as im:
            return _header_of(im)
    except FileNotFoundError as e:
        raise ImageError("missing", f"{data.name}: no such file") from e
    except OSError as e:
        _not_the_machine(e)
        raise ImageError("unreadable", f"{data.name}: {e.strerror or e}") from e


def _open(data: bytes | IO[bytes], name: str = "image") -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise ImageError("too_large", f"{name}: more than {MAX_PIXELS} px") from e
    except UnidentifiedImageError as e:
        raise ImageError("unreadable", f"{name}: not a picture that can be identified") from e
    except Exception as e:
        raise ImageError("unreadable", f"{name}: {type(e).__name__}: {e}") from e


def _header_of(im: Image.Image) -> Header:
    try:
        orientation = int(im.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001  broken EXIF is no reason to lose a photo
        orientation = 1
    # Newer Pillows give a TIFF's size as turned; the tags say what is stored
    width, height = (int(im.tag_v2[t]) for t in _TIFF_SIZE) if isinstance(im, TiffImageFile) else im.size
    form = "JPEG" if im.format == "MPO" else im.format or ""  # several JPEGs in a row; the first is the photo
    return Header(width, height, im.mode, form, orientation)


def decode(data: bytes, size: tuple[int, int] | None = None, shown: bool = False) -> Rgb:
    """Decode a picture to RGB uint8 [H, W, 3].

    Args:
        data: the file's bytes; the format is found by content, not by name.
        size: (width, height) px of the frame the annotations live in; None takes the picture as viewers show it.
        shown: as every viewer shows it, whatever EXIF says, in place of ``size``.

    Raises:
        ImageError: ``unreadable``, ``corrupt``, ``truncated``, ``too_large`` or ``size_mismatch``.
    """
    with _open(data) as im:
        head = _header_of(im)
        turn = 2 <= head.orientation <= 8 if shown else head.frame(size)[1]
        if head.format == "JPEG" and data.count(b"\xff\xda") * head.width * head.height > MAX_SCANNED_PIXELS:
            raise ImageError("too_large", f"JPEG {head.width}x{head.height}: too many scans of so many pixels")
        if head.format == "JPEG" and head.mode in ("RGB", "L") and not turn:
            try:
                return simplejpeg.decode_jpeg(data, "RGB", strict=True)
            except ValueError as e:
                raise ImageError(*_jpeg_reason(str(e))) from e
        try:
            im.load()
            was_turned = _turned_by_pillow(im, head)
            pixels = _to_rgb(im)
            im.close()  # its pixels take more than ours: freed before they are turned
            if turn == was_turned:
                return pixels
            return np.ascontiguousarray(turned(pixels, head.orientation, back=was_turned))
        except Exception as e:
            reason = "truncated" if "truncated" in str(e) else "corrupt"
            raise ImageError(reason, f"{head.format} {head.width}x{head.height}: {type(e).__name__}: {e}") from e


def _turned_by_pillow(im: Image.Image, head: Header) -> bool:
    """Whether loading applied the orientation, as Pillow does for TIFF alone: it takes the tag away then."""
    return isinstance(im, TiffImageFile) and head.orientation != 1 and _ORIENTATION not in im.getexif()


def turned(pixels: NDArray[np.uint8], orientation: int, back: bool = False) -> NDArray[np.uint8]:
    """Pixels [H, W, ...] turned by an EXIF orientation (2 to 8), or ``back``: from turned to stored."""
    if orientation in (6, 8):
        return np.rot90(pixels, 1 if (orientation == 8) != back else -1)
    if orientation in (3, 7):
        pixels = pixels[::-1, ::-1]
    if orientation in (5, 7):
        return pixels.swapaxes(0, 1)
    return {2: pixels[:, ::-1], 4: pixels[::-1]}.get(orientation, pixels)


def _jpeg_reason(message: str) -> tuple[str, str]:
    cut = "remature end" in message or "EOF" in message
    return ("truncated" if cut else "corrupt"), f"JPEG: {message}"


def _to_rgb(im: Image.Image) -> Rgb:
    if im.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        grey = np.asarray(im)
        high = 65535.0 if im.mode != "F" else max(1.0, float(grey.max()))
        out = np.empty((*grey.shape, 3), np.uint8)
        for y in range(0, len(grey), _STRIP):  # a float copy of the largest picture would take 1.6 GB
            rows = grey[y : y + _STRIP, :, None].astype(np.float64)
            out[y : y + _STRIP] = (rows.clip(0, high) * (255.0 / high)).astype(np.uint8)
        return out
    out = np.empty((im.height, im.width, 3), np.uint8)
    for y in range(0, im.height, _STRIP):  # whole, the largest palette picture would take 2.1 GB on its way
        strip = im.crop((0, y, im.width, min(y + _STRIP, im.height)))
        out[y : y + _STRIP] = np.asarray(strip.convert("RGB"))
    return out


def read(path: Path, size: tuple[int, int] | None = None, shown: bool = False) -> Rgb:
    """Read a picture file to RGB uint8 [H, W, 3]; see `decode`.

    Raises:
        ImageError: with the reason in one word.
    """
    try:
        return decode(read_bytes(path), size, shown)
    except ImageError as e:
        raise ImageError(e.reason, str(e) if path.name in str(e) else f"{path.name}: {e}") from e


def read_labels(data: bytes | Path) -> NDArray[np.uint8]:
    """Read a label picture (8-bit grey, palette or 1-bit) unchanged: uint8 [H, W] of indices; 1-bit gives 0 and 1.

    Raises:
        ImageError: when it is missing, cut short, or not a single-channel 8-bit picture.
    """
    name = data.name if isinstance(data, Path) else "labels"
    with _open(read_bytes(data) if isinstance(data, Path) else data) as im:
        if im.mode not in ("L", "P", "1"):
            raise ImageError("not_labels", f"{name}: expected one 8-bit channel, got mode {im.mode}")
        if im.width * im.height > MAX_LABEL_PIXELS:
            raise ImageError("too_large", f"{name}: {im.width}x{im.height}, at most {MAX_LABEL_PIXELS} px of labels")
        try:
            head = _header_of(im)
            labels = np.asarray(im, dtype=np.uint8)
            if _turned_by_pillow(im, head):
                labels = turned(labels, head.orientation, back=True)
            return np.ascontiguousarray(labels)
        except Exception as e:
            raise ImageError("corrupt", f"{name}: {type(e).__name__}: {e}") from e


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write uint8 [H, W, 3] RGB, [H, W, 4] RGBA, or [H, W] grey as PNG, atomically."""
    with atomic(path) as f:
        f.write(encode(pixels, ".png", [cv2.IMWRITE_PNG_COMPRESSION, 3]))


def write_jpeg(path: Path, pixels: Rgb, quality: int = 95) -> None:
    """Write RGB uint8 [H, W, 3] as JPEG (quality 1 to 100, no chroma subsampling from 90), atomically."""
    with atomic(path) as f:
        f.write(encode_jpeg(pixels, quality))


def encode_jpeg(pixels: Rgb, quality: int = 95) -> bytes:
    """RGB uint8 [H, W, 3] to JPEG bytes."""
    subsampling = "444" if quality >= 90 else "420"
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", subsampling)


def encode(pixels: NDArray[np.uint8], suffix: str, options: list[int] | None = None) -> bytes:
    """Encode uint8 pixels (RGB, RGBA or grey) in OpenCV's format for ``suffix``."""
    if pixels.ndim == 3:
        code = cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
        pixels = np.asarray(cv2.cvtColor(pixels, code), np.uint8)
    ok, buffer = cv2.imencode(suffix, pixels, options or [])
    if not ok:
        raise ValueError(f"OpenCV cannot encode {pixels.shape} {pixels.dtype} as {suffix}")
    return buffer.tobytes()


def write_palette_png(path: Path, labels: NDArray[np.uint8], palette: list[int]) -> None:
    """Write uint8 [H, W] indices as a palette PNG (VOC's form); ``palette`` is flat R, G, B of up to 256 entries."""
    im = Image.fromarray(labels, mode="P")
    im.putpalette(palette)
    with atomic(path) as f:
        im.save(f, format="PNG")
