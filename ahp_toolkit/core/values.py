"""What a number, a flag, an id, a text, a box, a segmentation and a size may look like in a file from anybody's tool.

Every reader of a dataset and every import uses these functions, so that one quirk has one answer everywhere. Each takes
plain values (as JSON, XML or CSV give them) and raises `BadValue` for what has no meaning.
"""

from __future__ import annotations

import codecs
import io
import math
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from ahp_toolkit.core import masks
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box, Mask

_INTEGER = re.compile(r"[+-]?\d{1,18}(?:\.0*)?")
_PLAIN_ID = re.compile(r"-?(?:0|[1-9]\d{0,17})(?:\.0+)?")
_FLAGS = {
    "1": True, "1.0": True, "true": True, "t": True, "yes": True,
    "0": False, "0.0": False, "false": False, "f": False, "no": False,
    "-1": None, "-1.0": None, "": None, "nan": None, "none": None, "null": None, "unknown": None, "unspecified": None,
}  # fmt: skip
#: Byte order marks, the longest first: UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


class BadValue(ValueError):
    """A value without a meaning: ``reason`` is one snake_case word to count it by, the text says what was expected."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def number(value: Any, reason: str = "bad_number") -> float:
    """A finite number: an int, a float, or either written as text.

    Raises:
        BadValue: ``not_finite`` for NaN, infinity and null; ``reason`` for all else, booleans included.
    """
    if type(value) is float or type(value) is int:
        found = _float(value)
    elif value is None:
        found = math.nan
    elif isinstance(value, str):
        try:
            found = float(value)
        except ValueError:
            raise BadValue(reason, f"expected a number, got {value[:60]!r}") from None
    else:
        raise BadValue(reason, f"expected a number, got {_shown(value)}")
    if not math.isfinite(found):
        raise BadValue("not_finite", f"expected a finite number, got {_shown(value)}")
    return found


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of more than 300 digits
        return math.inf


def integer(value: Any, reason: str = "bad_number") -> int:
    """A whole number of 64 bits: an int, a float without fraction, or either written as text.

    Raises:
        BadValue: ``reason``.
    """
    found = value
    if isinstance(value, float) and value.is_integer():
        found = int(value)
    elif isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        found = int(value.strip().partition(".")[0])
    if type(found) is not int or abs(found) >= 2**63:
        raise BadValue(reason, f"expected a whole number, got {_shown(value)}")
    return found


def flag(value: Any) -> bool | None:
    """True, False, or None where the file does not know: null, an empty text, -1, NaN.

    Raises:
        BadValue: ``bad_flag`` for all but 0, 1, true and false, as numbers or as text.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, float) and math.isnan(value):
        return None
    text = str(value).strip().lower() if isinstance(value, (int, float, str)) else "?"
    if text not in _FLAGS:
        raise BadValue("bad_flag", f"expected 0 or 1, true or false, got {_shown(value)}")
    return _FLAGS[text]


def identifier(value: Any) -> int | str:
    """An id: a whole number (also 7.0 and "7") as int, any other text as it is ("007" is not 7).

    Raises:
        BadValue: ``malformed`` for null, booleans, fractions, an empty text, half a surrogate pair and containers.
    """
    if type(value) is int and abs(value) < 2**63:
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    if isinstance(value, str) and value.strip():
        plain = value.strip()
        try:
            plain.encode()
        except UnicodeEncodeError:  # half of a surrogate pair: no table and no hash takes it
            raise BadValue("malformed", f"expected an id in Unicode, got {_shown(value)}") from None
        return int(plain.partition(".")[0]) if _PLAIN_ID.fullmatch(plain) else plain
    raise BadValue("malformed", f"expected an id (a whole number or a text), got {_shown(value)}")


def size(width: Any, height: Any) -> tuple[int, int] | None:
    """(width, height) in px; None where the file does not know it: null, 0 or negative. Then the photo's own counts.

    Raises:
        BadValue: ``bad_size`` for what is no whole number.
    """
    sides = [0 if side is None or side == "" else integer(side, "bad_size") for side in (width, height)]
    return (sides[0], sides[1]) if min(sides) > 0 else None


def numbers(value: Any, count: int, what: str) -> list[float] | None:
    """``count`` finite numbers; None for null and for an empty list.

    Raises:
        BadValue: ``not_finite``, or ``bad_box`` for another number of them.
    """
    if value is None or (isinstance(value, (list, tuple)) and not value):
        return None
    if not isinstance(value, (list, tuple)) or len(value) != count:
        got = f"{len(value)} values" if isinstance(value, (list, tuple)) else _shown(value)
        raise BadValue("bad_box", f"{what}: expected {count} numbers, got {got}")
    return [number(v, "bad_box") for v in value]


def box(value: Any, what: str = "bbox") -> Box | None:
    """COCO's [x, y, width, height] px as a Box; None for null and for an empty list.

    Raises:
        BadValue: ``not_finite`` or ``bad_box``.
    """
    found = numbers(value, 4, f"{what} [x, y, width, height]")
    return None if found is None else masks.box_from_xywh(*found)


def segmentation(value: Any, height: int, width: int) -> Mask | None:
    """The mask of a segmentation in a photo of ``height`` x ``width`` px; None where there is none.

    A list of polygons (x, y, x, y, ...), one polygon as a flat list, lists of [x, y] points, or COCO's RLE with counts
    as text, bytes or list. Null, ``[]`` and ``[[]]`` are no segmentation.

    Raises:
        BadValue: ``bad_segmentation``, ``not_finite``, ``short_polygon``, ``bad_rle`` or ``empty_mask``.
    """
    if value is None:
        return None
    if isinstance(value, dict):
        found = rle(value, height, width)
    elif isinstance(value, (list, tuple)):
        polygons = _polygons(value)
        if not polygons:
            return None
        try:
            found = masks.from_polygons(polygons, height, width)
        except (ValueError, OverflowError) as e:
            raise BadValue("short_polygon", str(e)) from e
    else:
        raise BadValue("bad_segmentation", f"expected polygons or RLE, got {_shown(value)}")
    if found.area == 0:
        raise BadValue("empty_mask", "the segmentation covers no pixel")
    return found


def rle(value: Any, height: int, width: int) -> Mask:
    """COCO's RLE ``{"size": [height, width], "counts": ...}``; counts as text, bytes or a list of whole numbers.

    Raises:
        BadValue: ``bad_rle``.
    """
    counts = value.get("counts") if isinstance(value, dict) else None
    given = value.get("size") if isinstance(value, dict) else None
    if counts is None or not isinstance(given, (list, tuple)) or len(given) != 2:
        raise BadValue("bad_rle", f"expected RLE with size [height, width] and counts, got {_shown(value)}")
    sides = [integer(v, "bad_rle") for v in given]
    if isinstance(counts, (list, tuple)):
        # a sum of fractions may fill the frame, so each count is checked, not their number
        counts = [c if type(c) is int else integer(c, "bad_rle") for c in counts]
    try:
        return masks.from_rle(sides, counts, height, width)
    except (ValueError, OverflowError) as e:
        raise BadValue("bad_rle", str(e)) from e


def _polygons(value: Sequence[Any]) -> list[list[float]]:
    """Every polygon as x, y, x, y, ...; empty ones are left out."""
    if not any(isinstance(p, (list, tuple, dict)) for p in value) or (
        len(value) > 2 and all(_is_point(p) for p in value)
    ):
        value = [value]
    return [found for p in value if (found := _polygon(p))]


def _polygon(polygon: Any) -> list[float]:
    if not isinstance(polygon, (list, tuple)):
        raise BadValue("bad_segmentation", f"expected a polygon (x, y, x, y, ...), got {_shown(polygon)}")
    if polygon and all(_is_point(p) or p == [] for p in polygon):
        polygon = [v for p in polygon for v in p]
    found = [number(v, "bad_segmentation") for v in polygon]
    if len(found) % 2:
        raise BadValue("bad_segmentation", f"a polygon of {len(found)} coordinates: x or y is missing")
    return found


def _is_point(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and not any(isinstance(v, (list, tuple)) for v in value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def decode_text(data: bytes) -> str:
    """Text in UTF-8, with or without byte order mark, or in UTF-16 or UTF-32 with one.

    Raises:
        BadValue: ``bad_text`` with the position of the first byte that fits no encoding.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as e:
        raise BadValue("bad_text", f"byte {e.start} is no {encoding.removesuffix('-sig').upper()}") from e


def utf8(data: bytes) -> bytes:
    """The same text as UTF-8 without byte order mark, as the fast JSON and CSV readers want it.

    Raises:
        BadValue: ``bad_text``.
    """
    if not any(data.startswith(mark) for mark, _ in _MARKS):
        return data
    return data[3:] if data.startswith(codecs.BOM_UTF8) else decode_text(data).encode()


def open_utf8(path: Path) -> IO[bytes]:
    """A large text file as UTF-8 bytes (with its byte order mark, where it is UTF-8): others are recoded on disk.

    Raises:
        OSError: when it cannot be read.
        BadValue: ``bad_text`` when it is not in the encoding of its byte order mark.
    """
    file = path.open("rb")
    start = file.read(4)
    file.seek(0)
    encoding = next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8")
    if encoding.startswith("utf-8"):
        return file
    recoded = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
    with io.TextIOWrapper(file, encoding, newline="") as text:
        try:
            while block := text.read(2**20):
                recoded.write(block.encode())
        except UnicodeError as e:
            recoded.close()
            raise BadValue("bad_text", f"no {encoding.upper()}, which its first bytes promise: {e}") from e
    recoded.seek(0)
    return recoded


def read_lines(path: Path, what: str = "one id a line") -> list[str]:
    """The lines of a small text file without blanks around them; empty lines are left out.

    Raises:
        UserError: when the file cannot be read as text.
    """
    try:
        text = decode_text(path.read_bytes())
    except BadValue as e:
        raise UserError(f"{path}: expected a text file with {what}: {e}; save it as UTF-8") from e
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror or e}); expected a text file, {what}") from e
    return [line.strip() for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
