"""Rows of any number grouped by key on disk: sorted runs, written as they come, merged range by range.

Memory holds one run and one range, whatever the number of rows; the order inside a key is the order of arrival.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core.errors import UserError

Rows = NDArray[np.void]
RUN_ROWS = 400_000
RANGE_ROWS = 100_000
TEXT_BYTES = 32 * 2**20
_STEP = 1024  # every so many rows of a run its key is kept in memory


class Range(NamedTuple):
    """The rows of a range of keys, sorted by key; ``texts[i]`` belongs to ``rows[i]`` (empty list: no texts)."""

    rows: Rows
    texts: list[bytes]


class _Run(NamedTuple):
    start: int  # first row in the file of rows
    marks: NDArray[Any]  # keys of rows 0, _STEP, 2 * _STEP, ...
    size: int  # rows
    text_start: int  # where its texts start in the file of texts


class Grouper:
    """Rows of one structured dtype with a field ``key``, and, if ``texts``, a byte string for each.

    The dtype of a grouper with texts has a field ``end`` (int64), which belongs to the grouper.
    """

    def __init__(self, folder: Path, name: str, dtype: np.dtype[np.void], texts: bool = False) -> None:
        self.dtype, self.texts = dtype, texts
        self.path, self.text_path = folder / f"{name}.rows", folder / f"{name}.texts"
        self.runs: list[_Run] = []
        self._rows: list[Rows] = []
        self._texts: list[bytes] = []
        self._held = self._text_held = self._written = self._text_written = 0
        self.path.touch()
        self.text_path.touch()

    def add(self, rows: Rows, texts: Sequence[bytes] = ()) -> None:
        """Take in rows (and one text for each, where the grouper has texts)."""
        self._rows.append(rows)
        self._held += len(rows)
        if self.texts:
            self._texts.extend(texts)
            self._text_held += sum(map(len, texts))
        if self._held >= RUN_ROWS or self._text_held >= TEXT_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is held as one run, sorted by key."""
        if not self._held:
            return
        rows = np.concatenate(self._rows) if len(self._rows) > 1 else self._rows[0]
        order = _order(rows["key"])
        rows = rows if order is None else _take(rows, order)
        if self.texts:
            self._flush_texts(rows, range(len(rows)) if order is None else order.tolist())
        self.runs.append(_Run(self._written, rows["key"][::_STEP].copy(), len(rows), self._text_written))
        _append(self.path, rows)
        self._written += len(rows)
        self._text_written += self._text_held
        self._rows, self._texts, self._held, self._text_held = [], [], 0, 0

    def _flush_texts(self, rows: Rows, order: Sequence[int]) -> None:
        texts = [self._texts[i] for i in order]
        rows["end"] = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
        _append(self.text_path, b"".join(texts))

    def read(self, bounds: Sequence[Any]) -> Iterator[Range]:
        """The rows below each bound (and not below the one before it), then the rest: ``len(bounds) + 1`` ranges."""
        self.flush()
        at = [0] * len(self.runs)
        text_at = [0] * len(self.runs)
        with self.path.open("rb", 0) as file, self.text_path.open("rb", 0) as text_file:
            for bound in [*bounds, None]:
                parts, texts = [np.zeros(0, self.dtype)], list[bytes]()
                for i, run in enumerate(self.runs):
                    rows = self._below(file, run, at[i], bound)
                    if not len(rows):
                        continue
                    at[i] += len(rows)
                    parts.append(rows)
                    if self.texts:
                        texts += _texts(text_file, run.text_start, text_at[i], rows["end"])
                        text_at[i] = int(rows["end"][-1])
                yield _merged(np.concatenate(parts) if len(parts) > 2 else parts[-1], texts)

    def _below(self, file: Any, run: _Run, at: int, bound: Any) -> Rows:
        """The rows of a run from number ``at`` on whose key is below ``bound``."""
        stop = run.size
        if bound is not None:
            stop = min(stop, int(np.searchsorted(run.marks, bound)) * _STEP)
        if stop <= at:
            return np.zeros(0, self.dtype)
        file.seek((run.start + at) * self.dtype.itemsize)
        rows = np.fromfile(file, self.dtype, stop - at)
        return rows if bound is None else rows[: int(np.searchsorted(rows["key"], bound))]


def bounds(groupers: Sequence[Grouper], range_rows: int = RANGE_ROWS) -> list[Any]:
    """Keys that cut the groupers' rows, taken together, into ranges of about ``range_rows`` rows; none inside a key."""
    for g in groupers:
        g.flush()
    marks = [run.marks for g in groupers for run in g.runs]
    if not marks:
        return []
    return list(np.unique(np.sort(np.concatenate(marks))[:: max(1, range_rows // _STEP)])[1:])


def starts(keys: NDArray[Any]) -> NDArray[np.int64]:
    """Where each group of equal neighbours starts."""
    if not len(keys):
        return np.zeros(0, np.int64)
    return np.concatenate(([0], np.flatnonzero(keys[1:] != keys[:-1]) + 1))


def _order(keys: NDArray[Any]) -> NDArray[np.int64] | None:
    """The stable order by key; None where the keys are in order already."""
    return None if bool(np.all(keys[:-1] <= keys[1:])) else np.argsort(keys, kind="stable")


def _take(rows: Rows, order: NDArray[np.int64]) -> Rows:
    # eight bytes at a time move faster than structured rows
    if rows.dtype.itemsize % 8:
        return rows[order]
    octets = rows.view(np.uint64).reshape(len(rows), -1)
    return np.take(octets, order, axis=0).view(rows.dtype).ravel()


def _append(path: Path, data: Any) -> None:
    try:
        with path.open("ab") as f:
            f.write(data if isinstance(data, bytes) else np.ascontiguousarray(data).view(np.uint8).data)
    except OSError as e:
        raise UserError(
            f"{path.parent}: no room for the temporary index ({e.strerror or e}); set TMPDIR to a larger disk"
        ) from e


def _texts(file: Any, start: int, begin: int, ends: NDArray[np.int64]) -> list[bytes]:
    file.seek(start + begin)
    data = file.read(int(ends[-1]) - begin)
    borders = [0, *(ends - begin).tolist()]
    return [data[a:b] for a, b in itertools.pairwise(borders)]


def _merged(rows: Rows, texts: list[bytes]) -> Range:
    order = _order(rows["key"])
    if order is None:
        return Range(rows, texts)
    return Range(_take(rows, order), [texts[i] for i in order.tolist()] if texts else [])
