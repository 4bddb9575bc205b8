"""Hostile zip and tar archives, written field by field: whatever a header can say, it says at some time.

Plain bytes are changed last, and seldom: most changes leave signatures and checksums right, so that what stands behind
them is reached.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from functools import lru_cache
from random import Random
from typing import Any

from tests.harness.fuzz import mutate

Files = Mapping[str, bytes]
NAMES = (
    b"", b"/", b"//", b".", b"..", b"./", b"../x.jpg", b"/etc/passwd", b"a/../../x.jpg", b"..\\x.jpg", b"C:\\x.jpg",
    b"c:x.jpg", b"a\\b.jpg", b"./x.jpg", b"././x.jpg", b"a//b.jpg", b"x/", b"x.jpg/", b"\x00", b"\x00x.jpg",
    b"x.jpg\x00y", b"x" * 99, b"x" * 100, b"x" * 255, b"x" * 256, b"x" * 300, b"x" * 5000, b"x/" * 50, b"\xff.jpg",
    b"x/" * 2047 + b"y",
    b"\xed\xa0\x80.jpg", b"\xc3\xa9.jpg", b"a\nb.jpg", b"\x1b[31m.jpg", b"~", b"-rf", b"*", b" ", b"x.zip", b"x.tar",
    b"train2017/train2017/x.jpg", b"TRAIN2017/x.jpg", b"con", b"\xe2\x80\xae.jpg", b"a/" * 400 + b"x.jpg",
)  # fmt: skip
SIZES = (
    0, 1, 2, 7, 511, 512, 513, 1000, 65535, 65536, 2**24, 2**29, 2**29 + 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1,
    2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip


def folder_of(rng: Random) -> str:
    """Where the members lie in their archive."""
    return rng.choice(("train2017/", "train2017/", "", "./", "./train2017/", "x/"))


def fit(value: int, width: int) -> bytes:
    """A number in so many little-endian bytes, its upper part cut."""
    return (value & (1 << 8 * width) - 1).to_bytes(width, "little")


# --- zip ------------------------------------------------------------------------------------------------------------

_BOTH = {"need": 2, "flags": 2, "method": 2, "time": 4, "crc": 4, "csize": 4, "usize": 4, "nlen": 2, "elen": 2}
_CENTRAL = {"clen": 2, "disk": 2, "inner": 2, "attr": 4, "offset": 4}
#: Plain, Unicode, encrypted (of three kinds), sizes behind the data, patched.
_FLAGS = (0, 0x800, 1, 0x41, 0x2000, 0x2001, 8, 9, 0x20, 0xFFFF)
_METHODS = (0, 8, 0, 8, 1, 6, 9, 12, 14, 93, 95, 99, 0xFFFF)
_JUNK = (b"\x75\x70\x05\x00\x01abcd", b"\x01\x00", b"\xff" * 40, bytes(400), b"\x01\x00\x08\x00" * 99)
_END = ("count", "here", "size", "start", "disk", "clen", "count64", "size64", "start64", "locate")
_KINDS = (0o100644, 0o120777, 0o040755, 0o010644, 0o020644, 0o060644, 0o140644, 0o170000, 0)


def zipped(files: Files, rng: Random, huge: bool = False) -> bytes:
    """A hostile zip of these files."""
    base = folder_of(rng)
    members = [_zip_member((base + name).encode(), data, rng.randrange(2)) for name, data in files.items()]
    end: dict[str, Any] = {"front": b"", "comment": b"", "zip64": rng.random() < 0.1}
    if huge and rng.random() < 1 / 1000:
        members += _giants(rng)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        _zip_change(members, end, rng)
    data = _zip_bytes(members, end)
    for _ in range(rng.choice((0, 0, 0, 0, 1))):
        data = data[: rng.randrange(len(data) + 1)] if rng.random() < 0.2 else mutate.flip(data, rng)
    return data


def _zip_member(name: bytes, data: bytes, deflated: int = 1) -> dict[str, Any]:
    stored = (_deflate if len(data) < 2**22 else _deflate.__wrapped__)(data) if deflated else data  # no giants are kept
    both = {"need": 20, "flags": 0x800, "method": 8 * deflated, "time": 0x58210000, "crc": zlib.crc32(data)}
    both |= {"csize": len(stored), "usize": len(data), "nlen": None, "elen": None}
    return {"name": name, "local_name": None, "data": stored, "local": dict(both), "extra": b"", "local_extra": b"",
            "central": both | {"clen": None, "disk": 0, "inner": 0, "attr": 0o100644 << 16, "offset": None},
            "comment": b"", "tail": b"", "mark": b"PK\x01\x02"}  # fmt: skip


@lru_cache(maxsize=16)
def _deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(6, zlib.DEFLATED, -15)
    return engine.compress(data) + engine.flush()


def _giants(rng: Random) -> list[dict[str, Any]]:
    """Members that unpack to much, or very many of them."""
    kind = rng.randrange(3)
    if kind == 0:
        return [_zip_member(b"bomb.jpg", bytes(rng.choice((10**8, 5 * 10**8, 6 * 10**8))))]
    if kind == 1:
        lies = _zip_member(b"bomb.jpg", bytes(10**8))
        for said in (lies["local"], lies["central"]):
            said["usize"] = rng.choice((0, 1000, 2**29))
        return [lies]
    return [_zip_member(b"train2017/%d.jpg" % n, b"") for n in range(rng.choice((2000, 70_000)))]


def _zip_change(members: list[dict[str, Any]], end: dict[str, Any], rng: Random) -> None:
    m, kind = rng.choice(members), rng.randrange(13)
    if kind <= 2:
        _zip_field(m, rng)
    elif kind == 3:
        m["name"] = rng.choice(NAMES)
        m["local_name"] = rng.choice((None, None, b"", b"other.jpg", b"y" * 300))
    elif kind == 4:  # the same name again, or other names for the same bytes
        again = {**m, "local": dict(m["local"]), "central": dict(m["central"])}
        if rng.random() < 0.5:
            again["name"], again["alias"] = rng.choice((b"alias.jpg", m["name"] + b"x")), m
        else:
            again["data"] = rng.choice((b"", b"other", mutate.flip(m["data"], rng)))
        members.extend([again] * rng.choice((1, 1, 3, 60)))
    elif kind == 5:
        said = [rng.choice(SIZES) for _ in range(rng.randrange(5))]
        body = b"".join(fit(v, 8) for v in said)[: rng.choice((None, None, 3, 12))]
        m["extra"] += struct.pack("<HH", 1, rng.choice((len(body), len(body), 0, 8, 65535))) + body
        for key in rng.sample(("usize", "csize", "offset"), rng.randrange(4)):
            m["central"][key] = 2**32 - 1
    elif kind == 6:
        m[rng.choice(("extra", "local_extra"))] += rng.choice(_JUNK)
    elif kind == 7:
        mode = rng.choice(_KINDS) << 16 | rng.choice((0, 0x10, 0xFFFF))
        m["central"]["attr"] = mode
        if rng.random() < 0.5:
            m["data"] = rng.choice((b"/etc/passwd", b"../../../x.jpg", m["data"]))
    elif kind == 8:
        m["data"] = rng.choice((mutate.flip(m["data"], rng), b"", m["data"] * 3, _deflate(bytes(10**6)), bytes(9)))
        if rng.random() < 0.5:
            m["local"]["csize"] = m["central"]["csize"] = len(m["data"])
    elif kind == 9:  # sizes behind the data, with or without their signature
        m["local"]["flags"] = m["central"]["flags"] = 8
        m["tail"] = rng.choice((b"PK\x07\x08", b"")) + bytes(rng.choice((12, 20)))
        m["local"] |= {"crc": 0, "csize": 0, "usize": 0}
    elif kind == 10:
        end[rng.choice(_END)] = rng.choice((*SIZES, len(members) + 1, -1))
        end["zip64"] = end["zip64"] or rng.random() < 0.3
    elif kind == 11:
        where = rng.choice(("front", "comment"))
        end[where] = rng.choice((b"#!/bin/sh\n", b"PK\x05\x06" + bytes(18), b"PK\x03\x04", b"x" * 65535, b"x" * 70_000))
    else:
        m[rng.choice(("mark", "local_mark"))] = rng.choice((b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PKXX", b""))


def _zip_field(m: dict[str, Any], rng: Random) -> None:
    field = rng.choice((*_BOTH, *_CENTRAL, "csize", "usize", "method", "flags"))
    known: dict[str, tuple[int, ...]] = {"flags": _FLAGS, "method": _METHODS, "need": (0, 10, 20, 45, 63, 255, 65535)}
    value = rng.choice(known.get(field, (*SIZES, len(m["data"]) + 1, len(m["data"]) - 1)))
    for where in rng.choice((("central",), ("local",), ("central", "local"))):
        if field in m[where]:
            m[where][field] = value


def _zip_bytes(members: list[dict[str, Any]], end: dict[str, Any]) -> bytes:
    out, central = bytearray(end["front"]), bytearray()
    for m in members:
        alias = m.get("alias")
        m["at"] = alias.get("at", 0) if alias else len(out)
        if alias is None:
            local = m["name"] if m["local_name"] is None else m["local_name"]
            out += m.get("local_mark", b"PK\x03\x04") + _fields(m["local"], _BOTH, local, m["local_extra"])
            out += local + m["local_extra"] + m["data"] + m["tail"]
    for m in members:
        said = m["central"] | {"offset": m["at"] if m["central"]["offset"] is None else m["central"]["offset"]}
        said["clen"] = len(m["comment"]) if said["clen"] is None else said["clen"]
        central += m["mark"] + b"\x14\x03" + _fields(said, _BOTH | _CENTRAL, m["name"], m["extra"])
        central += m["name"] + m["extra"] + m["comment"]
    start, count = len(out), len(members)
    out += central
    if end["zip64"]:
        said = [end.get("count64", count)] * 2 + [end.get("size64", len(central)), end.get("start64", start)]
        at = len(out)
        out += b"PK\x06\x06" + fit(44, 8) + b"\x2d\x03\x2d\x00" + bytes(8) + b"".join(fit(v, 8) for v in said)
        out += b"PK\x06\x07" + bytes(4) + fit(end.get("locate", at), 8) + fit(1, 4)
        end = {"count": 65535, "here": 65535, "size": 2**32 - 1, "start": 2**32 - 1} | end
    out += b"PK\x05\x06" + fit(end.get("disk", 0), 2) + bytes(2) + fit(end.get("here", count), 2)
    out += fit(end.get("count", count), 2) + fit(end.get("size", len(central)), 4) + fit(end.get("start", start), 4)
    return bytes(out + fit(end.get("clen", len(end["comment"])), 2) + end["comment"])


def _fields(said: dict[str, Any], widths: dict[str, int], name: bytes, extra: bytes) -> bytes:
    known = {"nlen": len(name), "elen": len(extra)}
    return b"".join(fit(known[k] if said[k] is None else said[k], w) for k, w in widths.items())


# --- tar ------------------------------------------------------------------------------------------------------------

BLOCK = 512
_TAR = {"name": 100, "mode": 8, "uid": 8, "gid": 8, "size": 12, "mtime": 12, "sum": 8, "type": 1, "link": 100,
        "magic": 8, "uname": 32, "gname": 32, "major": 8, "minor": 8, "prefix": 155, "pad": 12}  # fmt: skip
_TYPES = (b"0", b"\0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"x", b"g", b"L", b"K", b"S", b"X", b"V", b"M", b"D",
          b"N", b"A", b"Z", b"\xff", b" ")  # fmt: skip
_KEYS = (b"path", b"size", b"linkpath", b"mtime", b"uid", b"hdrcharset", b"comment", b"GNU.sparse.major", b"", b"\xff",
         b"GNU.sparse.minor", b"GNU.sparse.size", b"GNU.sparse.realsize", b"GNU.sparse.map", b"GNU.sparse.name",
         b"GNU.sparse.numblocks", b"GNU.sparse.offset", b"GNU.sparse.numbytes", b"SCHILY.xattr.user.x")  # fmt: skip
_TEXTS = (b"", b"0", b"1", b"-1", b"-512", b"1e9", b"nan", b"9" * 20, b"9" * 5000, b"0,1", b"0,512,1024,9", b"BINARY",
          b"x=y", b"a\nb", b"1,", b"\x00", b" 5", b"5 ", b"+5", b"0x10", b"1_0", b"512", b"1000")  # fmt: skip


def tarred(files: Files, rng: Random, huge: bool = False) -> bytes:
    """A hostile tar of these files."""
    base = folder_of(rng)
    blocks = [_tar_member((base + name).encode(), data) for name, data in files.items()]
    if huge and rng.random() < 1 / 1000:
        blocks += _chains(rng)
    end = bytes(2 * BLOCK)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        if rng.random() < 0.05:
            end = rng.choice((b"", bytes(BLOCK), bytes(100), bytes(20 * BLOCK), b"x" * BLOCK, end + end, b"\0" * 511))
        else:
            _tar_change(blocks, rng)
    data = b"".join(map(_tar_bytes, blocks)) + end
    for _ in range(rng.choice((0, 0, 0, 0, 1))):
        data = data[: rng.randrange(len(data) + 1)] if rng.random() < 0.2 else mutate.flip(data, rng)
    return data


def _tar_member(name: bytes, data: bytes, kind: bytes = b"0") -> dict[str, Any]:
    return {"name": name, "mode": b"0000644", "uid": b"0000000", "gid": b"0000000", "size": b"%011o" % len(data),
            "mtime": b"14000000000", "sum": None, "type": kind, "link": b"", "magic": b"ustar\x0000", "data": data,
            "pad": b""}  # fmt: skip


def _chains(rng: Random) -> list[dict[str, Any]]:
    """Headers before headers, long names, long lists of holes, very many members."""
    kind, count = rng.randrange(6), rng.choice((500, 2000, 20_000))
    if kind == 0:
        return [_tar_member(b"././@LongLink", b"long.jpg\0", rng.choice((b"L", b"K")))] * count
    if kind == 1:
        return [_tar_member(b"x", record(b"path", b"p.jpg"), rng.choice((b"x", b"g")))] * count
    if kind == 2:
        text = rng.choice((b"9", b"9 ", b"1=", b"a", b"\n", b"10 a=bcd1\n", b"0")) * count
        return [_tar_member(b"x", text * rng.choice((1, 1, 6)), b"x"), _tar_member(b"train2017/y.jpg", b"abc")]
    if kind == 3:
        return [_tar_member(b"././@LongLink", b"x/" * 10 * count, b"L"), _tar_member(b"y.jpg", b"abc")]
    if kind == 4:
        holes = _tar_member(b"holes.jpg", (b"%011o\0" % 512 * 42)[:504] + b"\x01" + bytes(7), b"S")
        return [holes | {"data": holes["data"] * count, "pad": b"\x01"}]
    return [_tar_member(b"train2017/%d.jpg" % n, b"") for n in range(count)]


def record(key: bytes, value: bytes) -> bytes:
    """One record of a pax header, which begins with its own length."""
    body = b" " + key + b"=" + value + b"\n"
    size = len(body) + 1
    while len(b"%d" % size) + len(body) != size:
        size = len(b"%d" % size) + len(body)
    return b"%d" % size + body


def _tar_change(blocks: list[dict[str, Any]], rng: Random) -> None:
    at = rng.randrange(len(blocks))
    m, kind = dict(blocks[at]), rng.randrange(12)
    blocks[at] = m  # chains hold one header many times
    if kind == 0:
        m["name"] = rng.choice(NAMES)
    elif kind == 1:
        m["type"] = rng.choice(_TYPES)
        if rng.random() < 0.3:
            m["data"] = b""
    elif kind <= 3:
        m["size"] = _number(rng, len(m["data"]))
    elif kind == 4:
        field = rng.choice(list(_TAR))
        m[field] = rng.choice((b"", b"\xff" * 8, b"\x80" + bytes(6) + b"\x01", b"-1", b"9", b" 7", b"x", b"0000644\0"))
    elif kind == 5:
        m["link"] = rng.choice((*NAMES, blocks[0]["name"]))
        m["type"] = rng.choice((b"1", b"2"))
    elif kind == 6:
        m["prefix"], m["magic"] = rng.choice(NAMES), rng.choice((b"ustar\x0000", b"ustar  \0", b"", b"xxxxxxxx"))
    elif kind == 7:
        blocks[at : at + 1] = [m] * rng.choice((2, 2, 3, 40))
        if rng.random() < 0.5:
            blocks[at] = m | {"data": b"other", "size": b"%011o" % 5}
    elif kind <= 9:
        blocks.insert(at, _tar_member(b"PaxHeaders/x", _pax(rng), rng.choice((b"x", b"x", b"x", b"g", b"X"))))
        if rng.random() < 0.1:
            blocks[at]["size"] = _number(rng, 20)
    elif kind == 10:
        long = rng.choice((*NAMES, b"n/" * 100 + b"x.jpg")) + rng.choice((b"\0", b"", b"\0\0rest"))
        blocks.insert(at, _tar_member(b"././@LongLink", long, rng.choice((b"L", b"L", b"K"))))
    else:
        m["data"] = rng.choice((mutate.flip(m["data"], rng), b"", b"3\n0\n1\n" + b"9" * 600, b"9" * 4000 + b"\n"))
        if rng.random() < 0.5:
            m["size"] = b"%011o" % len(m["data"])


def _number(rng: Random, right: int) -> bytes:
    value = rng.choice((*SIZES, right + 1, max(right - 1, 0), right + BLOCK))
    signed = rng.choice((value, value, -value, -BLOCK, -2 * BLOCK, -right - BLOCK))
    how = rng.randrange(4)
    if how == 0:
        return (signed & 2**96 - 1 | 1 << 95).to_bytes(12, "big")  # GNU's base 256: the first byte is 0x80 or 0xff
    if how == 1:
        return (signed & 2**95 - 1).to_bytes(12, "big")
    if how == 2:
        return rng.choice((b"", b"-1", b"9999", b"+17", b"0o17", b"1_7", b"\xff" * 12, b" 17 ", b"17\0junk", b"\x00"))
    return b"%o" % value


def _pax(rng: Random) -> bytes:
    out = b""
    for _ in range(rng.choice((1, 1, 2, 4))):
        key = rng.choice(_KEYS)
        value = rng.choice(NAMES if key in (b"path", b"linkpath", b"GNU.sparse.name") else _TEXTS)
        one = record(key, rng.choice((value, value, value, b"1")))
        out += one if rng.random() < 0.8 else rng.choice((b"", b"0", b"5", b"99999", b"9" * 30, b"-3", b" ")) + one[2:]
    return mutate.flip(out, rng) if rng.random() < 0.1 else out


def _tar_bytes(m: dict[str, Any]) -> bytes:
    said = b"".join(m.get(k, b"")[:w].ljust(w, b"\0") if m.get(k) is not None else b" " * w for k, w in _TAR.items())
    if m["sum"] is None:
        said = said[:148] + b"%06o\0 " % sum(said) + said[156:]
    return said + m["data"] + bytes(-len(m["data"]) % BLOCK)
