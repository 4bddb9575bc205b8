"""Plain files of tars, as tarfile finds them where it is right."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahp_toolkit.storage.tar_index import plain_files

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
PARTS = st.text("abcé漢 .-_0", min_size=1, max_size=30).filter(lambda p: p.strip(". ") != "")
NAMES = st.lists(PARTS, min_size=1, max_size=7).map("/".join)
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])
MEMBERS = st.lists(st.tuples(NAMES, KINDS, st.sampled_from([0, 1, 511, 512, 513, 9000])), max_size=8)


def packed(members: list[tuple[str, bytes, int]], form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, kind, size in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "x" * (size % 300)
            info.size = size if info.isreg() else 0
            try:
                tar.addfile(info, io.BytesIO(bytes(info.size)))
            except ValueError:  # names that ustar cannot hold
                assert form == tarfile.USTAR_FORMAT
    return out.getvalue()


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=150, deadline=None)
@given(members=MEMBERS)
def test_finds_what_tarfile_finds(form: str, members: list[tuple[str, bytes, int]]) -> None:
    data = packed(members, FORMATS[form])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        wanted = [(m.name, m.offset_data, m.size) for m in tar if m.isreg()]
    assert list(plain_files(io.BytesIO(data))) == wanted


@pytest.mark.parametrize("form", FORMATS)
def test_a_cut_tar_is_told_and_not_shortened(form: str) -> None:
    data = packed([("a" * 90, tarfile.REGTYPE, 700), ("b/c", tarfile.REGTYPE, 10)], FORMATS[form])
    with pytest.raises(ValueError, match="cut short"):
        list(plain_files(io.BytesIO(data[:1700])))


def test_negative_sizes_are_no_sizes() -> None:
    info = tarfile.TarInfo("a")
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"\xff" * 12
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    with pytest.raises(ValueError, match="negative"):
        list(plain_files(io.BytesIO(bytes(head) + bytes(1024))))
