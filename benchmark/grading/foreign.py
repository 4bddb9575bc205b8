"""Files that somebody else made, opened without trust: plain files alone, bounded in bytes and in what they unfold to.

JSON is decoded into the known fields; all else is skipped. Parquet is first read through in a process of its own, with
a limit on memory and time.
"""

from __future__ import annotations

import json
import os
import select
import stat
import subprocess  # nosec B404
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.values import BadValue
from benchmark.grading import probe
from benchmark.grading.claims import KEYS
from benchmark.grading.records import FIELDS, Row

MAX_JSON_BYTES, MAX_RUN_BYTES = 64 * 2**20, 2**20
MAX_JSON_RECORDS = 250_000
_SHOWN, _LONGEST_CLAIM = 8, 64 * 2**10  # keys in a message; bytes of a claim
_Json = msgspec.Raw
_UNUSABLE = object()  # of no claim's type


class JsonRecord(msgspec.Struct, gc=False):
    """A record as it stands in the file: its known fields, not decoded."""

    sample_id: _Json = _Json()
    amodal: _Json = _Json()
    modal: _Json = _Json()
    image: _Json = _Json()
    seconds: _Json = _Json()


class _Rle(msgspec.Struct, gc=False):
    size: list[int | float] | None = None
    counts: str | list[int | float] | None = None
    height: int | None = None
    width: int | None = None


_RECORDS, _OBJECT = msgspec.json.Decoder(list[JsonRecord]), msgspec.json.Decoder(dict[str, _Json])
_MASK, _TEXT = msgspec.json.Decoder(_Rle | None), msgspec.json.Decoder(str | None)
_NUMBER = msgspec.json.Decoder(float | None)


def plain_bytes(path: Path, most: int) -> bytes:
    """The bytes of a plain file; a pipe or a device is never waited for.

    Raises:
        UserError: when it cannot be read, is no plain file, or is larger than ``most`` bytes.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as f:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise UserError(f"{path}: expected a plain file, got a pipe, a device or a folder")
            if found.st_size > most:
                raise UserError(f"{path}: expected at most {most} bytes, got {found.st_size}; write Parquet")
            return f.read(most)
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror or e})") from e


def read_object(path: Path) -> dict[str, Any]:
    """A small JSON object (run.json) as plain values.

    Raises:
        UserError: when it is none.
    """
    return _claims(_object(plain_bytes(path, MAX_RUN_BYTES), path))


def read_json(path: Path) -> tuple[list[JsonRecord], dict[str, Any]]:
    """The records of predictions.json, and the plain values beside them where it is an object.

    Raises:
        UserError: when it is no list of objects, nor an object with one under ``predictions``.
    """
    data = plain_bytes(path, MAX_JSON_BYTES).removeprefix(b"\xef\xbb\xbf").strip()
    beside: dict[str, Any] = {}
    if data[:1] == b"{":
        parts = _object(data, path)
        data = bytes(parts.pop("predictions", b""))
        if data[:1] != b"[":
            keys = ", ".join([*parts][:_SHOWN])[:300]
            raise UserError(f"{path}: expected a list under the key predictions, found the keys {keys or 'none'}")
        beside = _claims(parts)
    with _json_of(path):
        records = _RECORDS.decode(data)
    if len(records) > MAX_JSON_RECORDS:
        raise UserError(f"{path}: expected at most {MAX_JSON_RECORDS} records, got {len(records)}; write Parquet")
    return records, beside


def keys_of(path: Path) -> list[str]:
    """The keys of the first record of predictions.json, for messages."""
    data = plain_bytes(path, MAX_JSON_BYTES).removeprefix(b"\xef\xbb\xbf").strip()
    with _json_of(path):
        data = bytes(_OBJECT.decode(data)["predictions"]) if data[:1] == b"{" else data
        first = msgspec.json.decode(data, type=list[_Json])[0]
        return [k[:60] for k in _OBJECT.decode(first)][:_SHOWN]


def _object(data: bytes, path: Path) -> dict[str, _Json]:
    with _json_of(path):
        return _OBJECT.decode(data)


@contextmanager
def _json_of(path: Path) -> Iterator[None]:
    try:
        yield
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, IndexError) as e:
        raise UserError(f"{path}: cannot be read as JSON ({str(e)[:200]}); see SUBMIT.md") from e


def _claims(parts: dict[str, _Json]) -> dict[str, Any]:
    """The known keys with small values; a value that is large or nested too deeply is no usable claim."""
    found: dict[str, Any] = {}
    for key in (k for k in KEYS if k in parts):
        try:
            raw = bytes(parts[key])
            found[key] = msgspec.json.decode(raw) if len(raw) <= _LONGEST_CLAIM else _UNUSABLE
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found[key] = _UNUSABLE
    return found


def id_of(record: JsonRecord) -> str | None:
    """The sample id of a JSON record; None where it is no text."""
    return _decoded(_TEXT, record.sample_id)


def row_of(record: JsonRecord) -> Row:
    """A JSON record as a row; a mask of another form is the fault that names it."""
    row: dict[str, Any] = {"sample_id": id_of(record), "seconds": _decoded(_NUMBER, record.seconds)}
    for key in ("amodal", "modal"):
        row[key] = _mask(getattr(record, key))
    image = bytes(record.image)
    row["image"] = None if image in (b"", b"null") else _decoded(_TEXT, record.image) or 0  # 0: no text, a fault
    return row


def has(record: JsonRecord, key: str) -> bool:
    """Whether a JSON record gives a field."""
    return bytes(getattr(record, key)) not in (b"", b"null")


def _decoded(decoder: msgspec.json.Decoder[Any], raw: _Json) -> Any:
    try:
        return decoder.decode(raw) if bytes(raw) else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _mask(raw: _Json) -> Any:
    if not bytes(raw):
        return None
    try:
        found = _MASK.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        return BadValue("bad_rle", str(e)[:200])
    return None if found is None else {k: getattr(found, k) for k in found.__struct_fields__}


# --- Parquet ------------------------------------------------------------------------------------------------------


class _Prober:
    """The process that reads tables through, started when it is needed; a new one after it has died or was too slow."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._owner, self._lock = 0, threading.Lock()

    def ask(self, path: Path) -> str:
        """What is wrong with a table; '' where nothing is."""
        with self._lock:
            fresh = self._process is None or self._owner != os.getpid() or self._process.poll() is not None
            answer = self._answer(path, fresh)
            # memory that an earlier file took is no fault of this one
            return answer if fresh or not answer else self._answer(path, fresh=True)

    def _answer(self, path: Path, fresh: bool) -> str:
        if fresh:
            self._stop()
            self._owner, command = os.getpid(), [sys.executable, "-I", str(probe.__file__)]
            environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
            self._process = subprocess.Popen(  # nosec
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env=environment,
            )  # fmt: skip
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(str(path.absolute())) + "\n")
            process.stdin.flush()
            if select.select([process.stdout], [], [], probe.SECONDS)[0] and (line := process.stdout.readline()):
                return str(json.loads(line))
            why = f"it takes more than {probe.SECONDS} s" if process.poll() is None else "it unfolds to too much"
        except OSError:
            why = "it unfolds to too much"
        self._stop()
        return f"{why}, or is damaged"

    def _stop(self) -> None:
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.communicate()
        self._process = None


_PROBER = _Prober()


def check_tables(paths: Sequence[Path]) -> None:
    """Read tables through in a process of its own, so that no file takes this one's memory, time or life.

    Raises:
        UserError: when one cannot be read, or unfolds to more than the limits of `probe`.
    """
    for path in paths:
        open_table(path)
        if why := _PROBER.ask(path):
            raise UserError(f"{path}: cannot be read as Parquet: {why}; write the predictions again")


def open_table(path: Path) -> tuple[pq.ParquetFile, list[str]]:
    """A table of predictions, and the columns to read.

    Raises:
        UserError: when ``sample_id`` is missing, or a column of ours is there twice or of another type.
    """
    with readable(path):
        found = pq.ParquetFile(path)
        schema = found.schema_arrow
    names = schema.names
    if found.metadata.num_rows > probe.ROWS:
        raise UserError(f"{path}: {found.metadata.num_rows} rows; expected at most {probe.ROWS}")
    if "placements" in names:
        raise UserError(f"{path}: is a table of a split, not of predictions; see SUBMIT.md")
    if "sample_id" not in names:
        raise UserError(f"{path}: expected a column sample_id, found {', '.join(names[:_SHOWN])[:300]}; see SUBMIT.md")
    columns: list[str] = []
    for name in (n for n in FIELDS if n in names):
        if names.count(name) != 1:
            raise UserError(f"{path}: expected one column {name}, found {names.count(name)}; see SUBMIT.md")
        columns += _columns(path, name, schema.field(name).type)
    return found, columns


def _columns(path: Path, name: str, kind: pa.DataType) -> list[str]:
    """The leaf columns of a field, after a look at its type."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_null(kind) and name != "sample_id":
        return []
    if name == "seconds":
        good, expected = pa.types.is_floating(kind) or pa.types.is_integer(kind), "numbers"
    elif name in ("amodal", "modal"):
        good, expected = pa.types.is_struct(kind), "RLE, a struct of size and counts"
    else:
        good, expected = _is_text(kind), "text"
    if not good:
        raise UserError(f"{path}: expected {expected} in the column {name}, got {str(kind)[:100]}; see SUBMIT.md")
    if not pa.types.is_struct(kind):
        return [name]
    inside = [f.name for f in kind if f.name in ("size", "counts", "height", "width") and not pa.types.is_null(f.type)]
    twice = len(inside) != len(set(inside))
    if twice or "counts" not in [f.name for f in kind] or not all(_is_rle_part(kind.field(n).type) for n in inside):
        raise UserError(f"{path}: expected size and counts in the column {name}, got {str(kind)[:100]}; see SUBMIT.md")
    return [f"{name}.{n}" for n in inside]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_rle_part(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return bool(pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type))
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    return bool(_is_text(kind) or binary or pa.types.is_integer(kind))


def has_column(path: Path, key: str) -> bool:
    """Whether any record of a table gives a field."""
    file, columns = open_table(path)
    mine = [c for c in columns if c.partition(".")[0] == key]
    with readable(path):
        batches = file.iter_batches(probe.BATCH, columns=mine, use_threads=False) if mine else ()
        return any(b[key].null_count < len(b) for b in batches)


def table_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The records of a table, in order."""
    file, known = open_table(path)
    with readable(path):
        for batch in file.iter_batches(probe.BATCH, columns=list(columns or known), use_threads=False):
            yield from batch.to_pylist()


def wanted_rows(path: Path, ids: Sequence[str]) -> Iterator[Row]:
    """The records of some ids; of a row group that holds none of them the ids alone are read.

    No ``pyarrow.dataset``: its scanner waits for ever (26.0) where a reading thread meets a damaged footer.
    """
    file, columns = open_table(path)
    wanted = pa.array(ids, pa.string())
    with readable(path):
        for group in range(file.num_row_groups):
            found = (_are_in(b, wanted) for b in file.iter_batches(probe.BATCH, [group], ["sample_id"]))
            if any(pc.any(f).as_py() for f in found):
                for batch in file.iter_batches(probe.BATCH, [group], columns):
                    kept = _are_in(batch, wanted)
                    try:
                        yield from batch.filter(kept).to_pylist()
                    except pa.ArrowNotImplementedError:  # string_view (26.0)
                        yield from (r for r, keep in zip(batch.to_pylist(), kept.to_pylist(), strict=True) if keep)


def _are_in(batch: pa.RecordBatch, ids: pa.StringArray) -> pa.BooleanArray:
    return pc.is_in(batch["sample_id"].cast(pa.string()), ids)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Pages, texts and types can be damaged behind a good footer."""
    try:
        yield
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as e:
        raise UserError(f"{path}: cannot be read as Parquet ({str(e)[:200]}); write the predictions again") from e
