"""One answer for each quirk of numbers, flags, ids, texts, boxes, segmentations and sizes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ahp_toolkit.core import masks, values
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.values import BadValue

BAD = (math.nan, math.inf, True, None, "", "seven", [], {})


@pytest.mark.parametrize(("value", "got"), [(7, 7), (7.5, 7.5), ("7", 7), (" 7.5 ", 7.5), ("7e1", 70), (-0.0, 0)])
def test_numbers(value: Any, got: float) -> None:
    assert values.number(value) == got


@pytest.mark.parametrize("value", [*BAD, "nan", "-inf", 10**400])
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises(BadValue):
        values.number(value)


@pytest.mark.parametrize(("value", "got"), [(7, 7), (7.0, 7), ("7", 7), ("7.0", 7), (2**62, 2**62), ("-3", -3)])
def test_whole_numbers(value: Any, got: int) -> None:
    found = values.integer(value)
    assert found == got and type(found) is int


@pytest.mark.parametrize("value", [*BAD, 7.5, "7.5", 2**63, 1e30, "9" * 30])
def test_what_is_no_whole_number(value: Any) -> None:
    with pytest.raises(BadValue):
        values.integer(value)


@pytest.mark.parametrize(
    ("value", "got"),
    [(True, True), (False, False), (1, True), (0, False), (1.0, True), (0.0, False), ("1", True), ("0", False),
     ("1.0", True), ("0.0", False), ("true", True), ("True", True), ("FALSE", False), (" 1 ", True), (None, None),
     ("", None), (-1, None), ("-1", None), (math.nan, None), ("Unspecified", None)],
)  # fmt: skip
def test_flags(value: Any, got: bool | None) -> None:
    assert values.flag(value) is got


@pytest.mark.parametrize("value", [2, 0.5, "2", "maybe", [], {}, [1]])
def test_what_is_no_flag(value: Any) -> None:
    with pytest.raises(BadValue) as error:
        values.flag(value)
    assert error.value.reason == "bad_flag"


@pytest.mark.parametrize(
    ("value", "got"),
    [(7, 7), (7.0, 7), ("7", 7), ("7.0", 7), ("007", "007"), ("a b", "a b"), (" x ", "x"), (0, 0), (-1, -1),
     ("7.5", "7.5"), ("1" * 30, "1" * 30)],
)  # fmt: skip
def test_ids(value: Any, got: int | str) -> None:
    found = values.identifier(value)
    assert found == got and type(found) is type(got)


@pytest.mark.parametrize("value", [None, True, "", " ", 7.5, math.nan, math.inf, [], {}, 2**70])
def test_what_is_no_id(value: Any) -> None:
    with pytest.raises(BadValue):
        values.identifier(value)


@pytest.mark.parametrize(
    ("given", "got"),
    [((20, 10), (20, 10)), ((20.0, "10"), (20, 10)), ((0, 0), None), ((None, None), None), ((20, 0), None),
     ((-1, -1), None), ((None, 10), None), (("", ""), None)],
)  # fmt: skip
def test_sizes(given: tuple[Any, Any], got: tuple[int, int] | None) -> None:
    assert values.size(*given) == got


@pytest.mark.parametrize("side", [True, 20.5, "wide", [], math.nan])
def test_what_is_no_size(side: Any) -> None:
    with pytest.raises(BadValue) as error:
        values.size(side, 10)
    assert error.value.reason == "bad_size"


@pytest.mark.parametrize("value", [[1, 2, 3, 4], ["1", 2.0, "3", 4], (1, 2, 3, 4)])
def test_boxes(value: Any) -> None:
    assert values.box(value) == (1, 2, 4, 6)


@pytest.mark.parametrize("value", [[1, 2, 3], "all", [1, 2, 3, None], [1, 2, 3, math.inf], [1, 2, 3, True], 7])
def test_what_is_no_box(value: Any) -> None:
    assert values.box(None) is None and values.box([]) is None
    with pytest.raises(BadValue):
        values.box(value)


SQUARE = np.zeros((10, 12), bool)
SQUARE[2:6, 3:9] = True
MASK = masks.encode(SQUARE)
FLAT = [3, 2, 9, 2, 9, 6, 3, 6]
POINTS = [[3, 2], [9, 2], [9, 6], [3, 6]]
RUNS = MASK.runs().tolist()


@pytest.mark.parametrize(
    "value",
    [
        FLAT, [FLAT], [FLAT, []], [[float(v) for v in FLAT]], [[str(v) for v in FLAT]], POINTS, [POINTS],
        {"size": [10, 12], "counts": RUNS}, {"size": [10.0, 12.0], "counts": [float(r) for r in RUNS]},
        {"size": [10, 12], "counts": MASK.counts}, {"size": [10, 12], "counts": MASK.counts.decode()},
        {"size": ["10", "12"], "counts": RUNS, "more": 1},
    ],
)  # fmt: skip
def test_every_form_of_a_segmentation_is_one_mask(value: Any) -> None:
    assert values.segmentation(value, 10, 12) == MASK


@pytest.mark.parametrize("value", [None, [], [[]], [[], []], [[[]]]])
def test_what_is_no_segmentation(value: Any) -> None:
    assert values.segmentation(value, 10, 12) is None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("polygon", "bad_segmentation"), (True, "bad_segmentation"), ([1, 2, 3, 4, 5], "bad_segmentation"),
        ([["a"] * 6], "bad_segmentation"), ([{"size": [10, 12]}], "bad_segmentation"),
        ([[1, 1, 5, 5]], "short_polygon"),
        ([[1, 1, math.nan, 5, 9, 9]], "not_finite"), ([[1, 1, None, 5, 9, 9]], "not_finite"),
        ([[100, 100, 120, 100, 120, 120]], "empty_mask"), ({"size": [10, 12], "counts": [120]}, "empty_mask"),
        ({"size": [12, 10], "counts": RUNS}, "bad_rle"), ({"size": [10, 12], "counts": [60.5, 59.5]}, "bad_rle"),
        ({"size": [10], "counts": RUNS}, "bad_rle"), ({"size": [10, 12]}, "bad_rle"), ({}, "bad_rle"),
        ({"size": [10, 12], "counts": "~~~"}, "bad_rle"), ({"size": [10, 12], "counts": 7}, "bad_rle"),
        ({"size": [10, 12], "counts": "é"}, "bad_rle"), ({"size": [10.5, 12], "counts": RUNS}, "bad_rle"),
    ],
)  # fmt: skip
def test_bad_segmentations_are_named(value: Any, reason: str) -> None:
    with pytest.raises(BadValue) as error:
        values.segmentation(value, 10, 12)
    assert error.value.reason == reason and "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_texts_in_every_encoding_and_line_end(encoding: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_bytes(f"ä{end} b {end}{end}".encode(encoding))
    assert values.read_lines(path) == ["ä", "b"]
    assert values.utf8(path.read_bytes()).decode().split() == ["ä", "b"]


def test_a_text_of_no_known_encoding_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"ab\xff\n")
    with pytest.raises(UserError, match="byte 2 is no UTF-8"):
        values.read_lines(tmp_path / "x")
    with pytest.raises(UserError, match="cannot be read"):
        values.read_lines(tmp_path / "y")
