"""Our reader of MATLAB structs against SciPy's writer, and on damaged files."""

from __future__ import annotations

import io
import random
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat
from scipy.sparse import csc_matrix

from ahp_toolkit.sources.reading.mat import struct_fields

TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")


def written(fields: dict[str, Any], packed: bool = True, **more: Any) -> bytes:
    out = io.BytesIO()
    savemat(out, more | {"GTinst": fields}, do_compression=packed, long_field_names=True)
    return out.getvalue()


@given(
    kind=st.sampled_from(TYPES),
    height=st.integers(0, 9),
    width=st.integers(0, 9),
    packed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_scipy_writes_is_read(kind: str, height: int, width: int, packed: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 100, (height, width)).astype(kind)
    edges = np.empty((2, 1), object)
    edges[0, 0], edges[1, 0] = csc_matrix(np.eye(3)), "text"
    fields = {"Boundaries": edges, "A" * 50: numbers, "Segmentation": numbers.T, "Categories": numbers[:1]}
    found = struct_fields(written(fields, packed, other=np.eye(2)), "GTinst", ("Segmentation", "Categories"))
    for name, array in found.items():
        assert array.dtype == np.dtype(kind) and np.array_equal(array, fields[name])


def test_big_endian_files_are_read() -> None:
    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    def matrix(kind: int, name: bytes, *rest: bytes, shape: tuple[int, ...] = (1, 1)) -> bytes:
        head = element(6, struct.pack(">II", kind, 0)) + element(5, struct.pack(f">{len(shape)}i", *shape))
        return element(14, head + element(1, name) + b"".join(rest))

    numbers = matrix(11, b"", element(4, struct.pack(">6H", *range(6))), shape=(2, 3))
    made = matrix(2, b"G", struct.pack(">HHI", 4, 5, 4), element(1, b"abc\0"), numbers)
    packed = zlib.compress(made)
    for body in (made, struct.pack(">II", 15, len(packed)) + packed):
        found = struct_fields(bytes(124) + b"\x01\x00MI" + body, "G", ("abc",))["abc"]
        assert np.array_equal(found, [[0, 2, 4], [1, 3, 5]]) and found.dtype == np.uint16


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no MATLAB file"),
        (bytes(124) + b"\x00\x02IM" + bytes(99), "level 5"),
        (written({"Segmentation": np.eye(2) * 1j, "Categories": np.eye(2)}), "real numbers"),
        (written({"Segmentation": np.eye(2)}), "no field Categories"),
        (written({"Segmentation": csc_matrix(np.eye(3)), "Categories": np.eye(2)}), "real numbers"),
        (written({"Segmentation": "text", "Categories": np.eye(2)}), "real numbers"),
        (written({})[:-30], "unpacked|cut short|are there"),
    ],
)
def test_what_is_not_there_is_said(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        struct_fields(data, "GTinst", ("Segmentation", "Categories"))


def test_damaged_files_end_in_a_reason_or_in_an_array() -> None:
    """SciPy 1.17.1 dies on some of these (SIGSEGV)."""
    labels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    good = written({"Segmentation": labels, "Categories": np.ones((3, 1), np.uint8)}, packed=False)
    refused = 0
    for seed in range(3000):
        rng, data = random.Random(seed), bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(128, len(data))] = rng.choice((0, 1, 14, 15, 128, 255, rng.randrange(256)))
        try:
            struct_fields(bytes(data), "GTinst", ("Segmentation", "Categories"))
        except ValueError:
            refused += 1
    assert 1000 < refused < 3000
