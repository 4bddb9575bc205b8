"""Pictures inside tar and zip archives, read in place: an index of names and offsets, built once and kept in the cache.

No member is unpacked to disk. Members that are no plain files (links, devices), that are encrypted, or whose names
are absolute or hold ``..`` are not in the index. A compressed tar cannot be entered in the middle: it is decompressed
once into the cache, as one tar.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import struct
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast

import pyarrow as pa

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import StorageError
from ahp_toolkit.core.limits import MAX_INDEX_BYTES, MAX_LIST_BYTES, MAX_PICTURE_BYTES, MAX_UNPACKED
from ahp_toolkit.storage import files, remote, tar_index
from ahp_toolkit.storage.lock import waiting

#: How a compressed tar is opened.
_COMPRESSED: dict[str, Any] = {".tar.gz": gzip.open, ".tgz": gzip.open, ".tar.bz2": bz2.open, ".tar.xz": lzma.open}
#: The endings of an archive that takes the place of a folder, in the order of the search.
SUFFIXES = (".zip", ".tar", *_COMPRESSED)
_VERSION = 1
_LOCAL = struct.Struct("<4s22xHH")  # of a zip's local header: signature, lengths of name and extra field
_EXTRA = 256  # bytes of extra field read on speculation, so that a member is one request
_PIECE = 8 * 2**20  # bytes of a member read, or inflated, at a time
_MAX_NAME, _INT64 = 4096, 2**63 - 1
_ENTRY_BYTES = 512  # of memory that a member takes while the index is built, besides its name
#: What zipfile, `tar_index` and the decompressors raise over headers made of anything.
_DAMAGED = (zipfile.BadZipFile, EOFError, ValueError, struct.error, NotImplementedError, IndexError,
            KeyError, OverflowError, zlib.error, lzma.LZMAError)  # fmt: skip
_SCHEMA = pa.schema([("name", pa.string()), ("offset", pa.int64()), ("stored", pa.int64()), ("size", pa.int64()),
                     ("deflated", pa.bool_()), ("crc", pa.int64())])  # fmt: skip


class Entry(NamedTuple):
    """A member: where its bytes (in a zip: its local header) begin, how many lie there, and how many they make.

    ``crc`` is -1 where the archive has none (tar).
    """

    name: str
    offset: int
    stored: int
    size: int
    deflated: bool
    crc: int


class Archive:
    """One archive with its index, which lies in the cache as a memory-mapped table sorted by name."""

    def __init__(self, path: Path, index: pa.Table, stored: Path | None = None) -> None:
        self.path, self.stored = path, stored or path  # stored: where the bytes lie that the index is of
        self._index = index
        self._names = cast(Any, index["name"])

    @staticmethod
    def at(path: Path) -> Archive:
        """The archive at a local path or an address; its index is built unless this very version's lies in the cache.

        Raises:
            StorageError: when it is damaged, too large, or a store does not answer.
        """
        found = path.stat()
        return _opened(path, found.st_size, found.st_mtime_ns)

    def names_of(self, rest: str) -> tuple[str, str]:
        """The names under which a file ``rest`` of the archive's folder may stand in it."""
        suffix = next(end for end in SUFFIXES if self.path.name.endswith(end))
        return f"{self.path.name.removesuffix(suffix)}/{rest}", rest

    def entry(self, name: str) -> Entry | None:
        """The member of a name, or None."""
        at = bisect_left(range(len(self._names)), name, key=lambda i: self._names[i].as_py())
        if at >= len(self._names) or self._names[at].as_py() != name:
            return None
        return Entry(*(self._index[c][at].as_py() for c in _SCHEMA.names))

    def read(self, entry: Entry) -> bytes:
        """A member's content.

        Raises:
            OSError: when it is damaged or too large, or unpacks to more or less than the index says.
        """
        if not _plausible(entry):
            sizes = f"{entry.stored} bytes stored for {entry.size}"
            raise OSError(None, f"{entry.name} is damaged or too large in {self.path.name}: {sizes}")
        made, crc = io.BytesIO(), 0  # its value is no second copy, as a join of parts would be
        for part in _inflated(entry, self._pieces(entry)) if entry.deflated else self._pieces(entry):
            made.write(part)
            crc = zlib.crc32(part, crc)
            if made.tell() > entry.size:
                break
        if made.tell() != entry.size or (entry.crc >= 0 and crc != entry.crc):
            raise OSError(None, f"{entry.name} is damaged in {self.path.name}")
        return made.getvalue()

    def _pieces(self, entry: Entry) -> Iterator[bytes]:
        """The stored bytes, read as they are needed; most pictures are one piece, and one request."""
        at, left = entry.offset, entry.stored
        if entry.crc >= 0:
            ahead = 30 + len(entry.name.encode()) + _EXTRA
            data = _range(self.stored, at, at + ahead + min(left, _PIECE))
            start = self._behind_header(entry, data)
            data = data[start : start + left]
            yield data
            at, left = at + start + len(data), left - len(data)
        while left > 0 and (data := _range(self.stored, at, at + min(left, _PIECE))):
            yield data
            at, left = at + len(data), left - len(data)

    def _behind_header(self, entry: Entry, data: bytes) -> int:
        """The length of a zip member's local header, whose extra field only that header gives."""
        if len(data) < 30 or data[:4] != b"PK\x03\x04":
            raise OSError(None, f"{entry.name} is damaged in {self.path.name}")
        _, name, extra = _LOCAL.unpack_from(data)
        return int(30 + name + extra)


def _plausible(entry: Entry) -> bool:
    """Whether so many stored bytes can make a picture of that size: a sparse file of 8 KB can claim gigabytes."""
    if not 0 <= entry.size <= MAX_PICTURE_BYTES:
        return False
    if not entry.deflated:
        return entry.stored == entry.size
    # the most that deflate grows: 9 bits a byte in fixed blocks, whose bound in zlib is below this
    most = entry.size + entry.size // 8 + entry.size // 128 + 64
    return 0 <= entry.stored <= min(most, MAX_PICTURE_BYTES)


def _inflated(entry: Entry, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The content, at most a byte and what the engine holds back (a few KB) above the size that the index says."""
    engine, left = zlib.decompressobj(-15), entry.size + 1
    try:
        for piece in pieces:
            while piece and left > 0 and not engine.eof:
                part = engine.decompress(piece, min(left, _PIECE))
                yield part
                piece, left = engine.unconsumed_tail, left - len(part)
            if left <= 0 or engine.eof:
                return
        yield engine.flush()  # all was fed, yet the last match may not be out
    except zlib.error as e:
        raise OSError(None, f"{entry.name} is damaged ({e})") from e


def _range(path: Path, start: int, end: int) -> bytes:
    if remote.scheme_of(str(path)):
        return remote.read(str(path), start, end)
    with path.open("rb") as f:
        f.seek(start)
        return f.read(end - start)


@lru_cache(maxsize=512)
def _opened(path: Path, size: int, changed: int) -> Archive:
    key = hashing.digest_value([str(path.resolve()), size, changed, _VERSION])
    folder = files.cache_folder() / "archives"
    index, plain = folder / f"{key[:32]}.arrow", folder / f"{key[:32]}.tar"
    compressed = next((end for end in _COMPRESSED if path.name.endswith(end)), "")
    if not index.exists() or (compressed and not plain.exists()):
        with waiting(folder / f"{key[:32]}.lock"), _one_line(path):  # one process of many builds it
            if compressed and not plain.exists():
                _decompress(path, size, compressed, plain)
            if not index.exists():
                _build(plain if compressed else path, index)
    with pa.memory_map(str(index)) as f:
        return Archive(path, pa.ipc.open_file(f).read_all(), plain if compressed else None)


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except _TooMuch as e:
        raise StorageError(f"{path}: {e}") from e
    except _DAMAGED as e:
        raise StorageError(f"{path}: cannot be read as an archive ({e}); fetch it again") from e


def _decompress(path: Path, size: int, ending: str, to: Path) -> None:
    """A compressed tar as a plain one in the cache. Pictures hardly shrink, so what grows much is no tar of them."""
    most = MAX_UNPACKED * size + 2**20
    with path.open("rb") as packed, files.atomic(to) as out:
        try:
            with _COMPRESSED[ending](packed) as f:
                while data := f.read(_PIECE):
                    out.write(data)
                    if out.tell() > most:
                        raise _TooMuch(f"decompresses to more than {MAX_UNPACKED} times its size; unpack it by hand")
        except (gzip.BadGzipFile, OSError) as e:
            if getattr(e, "errno", None):  # of the disk
                raise
            raise ValueError(str(e)) from e


def _build(path: Path, to: Path) -> None:
    size, read = path.stat().st_size, _zipped if path.name.endswith(".zip") else _tarred
    with io.BufferedReader(_Ranges(path, size), 8 * 2**20 if remote.scheme_of(str(path)) else 2**16) as f:
        last = _last(e for e in read(cast(IO[bytes], f)) if e.offset >= 0 and e.offset + e.stored <= size)
    rows = [last[name] for name in sorted(last)]
    columns = [pa.array(c, t) for c, t in zip(zip(*rows, strict=True), _SCHEMA.types, strict=True)] if rows else None
    table = pa.table(columns, schema=_SCHEMA) if columns else _SCHEMA.empty_table()
    with files.atomic(to) as out, pa.ipc.new_file(out, _SCHEMA) as w:
        w.write_table(table.combine_chunks())


class _TooMuch(Exception):
    """An archive above the limits of memory or disk."""


def _last(found: Iterable[Entry]) -> dict[str, Entry]:
    """The last member of every name, as if all were unpacked in order."""
    last, room = {}, MAX_INDEX_BYTES
    for entry in found:
        last[entry.name] = entry
        room -= _ENTRY_BYTES + len(entry.name.encode())
        if room < 0:
            raise _TooMuch(
                f"more than {MAX_INDEX_BYTES // _ENTRY_BYTES} members, or as many of long names; pack its files into "
                f"several archives, each for its own folder"
            )
    return last


def safe_name(name: str) -> str:
    """A member's name as a relative path; '' for one that would leave its folder, or that no file can have."""
    plain = name.replace("\\", "/")
    parts = PurePosixPath(plain).parts
    bad = plain.startswith("/") or ".." in parts or "\x00" in plain or not parts or ":" in parts[0]
    if bad or len(plain) > _MAX_NAME or any(0xD800 <= ord(c) < 0xE000 for c in plain):
        return ""
    return "/".join(parts)


def _zipped(f: IO[bytes]) -> Iterator[Entry]:
    with zipfile.ZipFile(f) as z:
        for i in z.infolist():
            name, kind = safe_name(i.filename), stat.S_IFMT(i.external_attr >> 16)
            if not name or i.is_dir():  # in this order: is_dir() of an empty name is an IndexError before Python 3.12
                continue
            plain = kind in (0, stat.S_IFREG) and not i.flag_bits & 1
            if plain and i.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                size = min(i.file_size, _INT64)  # a claim of 2**64 - 1 is refused when it is read, not for all members
                deflated = i.compress_type == zipfile.ZIP_DEFLATED
                yield Entry(name, i.header_offset, i.compress_size, size, deflated, i.CRC)


def _tarred(f: IO[bytes]) -> Iterator[Entry]:
    for written, start, size in tar_index.plain_files(f):
        if name := safe_name(written):
            yield Entry(name, start, size, size, False, -1)


class _Ranges(io.RawIOBase):
    """An archive as a seekable stream over ranges of its bytes; what is read of it in one piece is bounded."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size, self._at = path, size, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, (0, self._at, self._size)[whence] + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        if len(buffer) > MAX_LIST_BYTES:
            raise _TooMuch(f"a list of members of {len(buffer)} bytes, at most {MAX_LIST_BYTES} are read")
        end = min(self._at + len(buffer), self._size)
        data = _range(self._path, self._at, end) if end > self._at else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
