"""The candidates of a build folder by id: where each lies in the tables, and what the rule and the triage decided."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Container, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pyarrow as pa

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import digest_of
from ahp_toolkit.core.records import Segmented
from ahp_toolkit.storage import parquet
from ahp_toolkit.storage.parquet import from_table

_PARTS_KEPT = 32
_FEW = 64  # rows of a part: for fewer the whole part is read, and kept
#: The triage's folder, and its name as the one that discards unseen.
TRIAGE = "triage"


@dataclass(frozen=True, slots=True)
class Slice:
    """One of ``of`` even pieces of a build's candidates, by the hash of their photo: what one App holds.

    Raises:
        UserError: when there is no such piece.
    """

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise UserError(f"--slice {self.number}/{self.of}: expected K/N with K from 1 to N, such as 3/20")

    @classmethod
    def parse(cls, text: str) -> Slice:
        """``K/N``.

        Raises:
            UserError: for anything else.
        """
        number, _, of = text.partition("/")
        if not (number.isascii() and number.isdecimal() and of.isascii() and of.isdecimal()):
            raise UserError(f"--slice {text}: expected K/N with K from 1 to N, such as 3/20")
        return cls(int(number), int(of))

    @property
    def tail(self) -> str:
        """The end of a name that tells the piece; '' for the whole."""
        return f"-{self.number}of{self.of}" if self.of > 1 else ""

    def holds(self, candidate_id: str) -> bool:
        """Whether a candidate belongs to this piece; the people of one photo stay together."""
        photo = candidate_id.rpartition("#")[0]
        return self.of == 1 or int(hashing.unit_hash("slice", photo) * self.of) == self.number - 1


WHOLE = Slice()


@dataclass(frozen=True, slots=True)
class Ruled:
    """The verdict of the rule before anybody has looked."""

    verdict: str
    reason: str


class Candidates:
    """Random access to the Segmented records of ``root/parse``; a few parts of the table are kept in memory.

    With a ``piece`` there are no others than its own. Safe to call from several threads.
    """

    def __init__(self, root: Path, piece: Slice = WHOLE) -> None:
        self.root, self.piece = root, piece
        self._parts = parquet.parts(root / "parse")
        self._tables: OrderedDict[int, pa.Table] = OrderedDict()
        self._lock = threading.Lock()
        self._where = {
            cid: (p, row)
            for p, path in enumerate(self._parts)
            for row, cid in enumerate(_ids(path))
            if piece.holds(cid)
        }

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, candidate_id: object) -> bool:
        return candidate_id in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def record(self, candidate_id: str) -> Segmented:
        """One record.

        Raises:
            KeyError: when there is no such candidate.
        """
        part, row = self._where[candidate_id]
        return next(from_table(self._table(part).slice(row, 1), Segmented))

    def records(self, known: Container[str] = frozenset()) -> Iterator[Segmented]:
        """All records but those ``known``, in the tables' order; parts that hold no others are not read."""
        for path in self._parts:
            mine = [cid in self._where and cid not in known for cid in _ids(path)]
            if any(mine):
                yield from from_table(parquet.read_table(path).filter(pa.array(mine)), Segmented)

    def mask_digests(self, wanted: Collection[str]) -> dict[str, str]:
        """candidate id -> the digest of the build's own mask, of those ``wanted`` that there are."""
        by_part: dict[int, list[tuple[str, int]]] = {}
        for cid in wanted:
            if cid in self._where:
                part, row = self._where[cid]
                by_part.setdefault(part, []).append((cid, row))
        out: dict[str, str] = {}
        for part, rows in by_part.items():
            table = self._table(part) if len(rows) < _FEW else parquet.read_table(self._parts[part], ["mask"])
            found = table.column("mask").take([row for _, row in rows]).to_pylist()
            for (cid, _), m in zip(rows, found, strict=True):
                out[cid] = digest_of(m["height"], m["width"], m["counts"])
        return out

    def _table(self, part: int) -> pa.Table:
        with self._lock:
            if part not in self._tables:
                self._tables[part] = parquet.read_table(self._parts[part])
                while len(self._tables) > _PARTS_KEPT:
                    self._tables.popitem(last=False)
            self._tables.move_to_end(part)
            return self._tables[part]

    @cached_property
    def ruled(self) -> dict[str, Ruled]:
        """candidate id -> the provisional decision, where the build has made any, or the triage's discard."""
        columns = ["candidate_id", "verdict", "reason", "provisional"]
        found = (row for path in _optional(self.root / "decide") for row in _rows(path, columns))
        rows = [row for row in found if row[0] in self._where]
        shared = cache(Ruled)  # a few verdicts, however many candidates
        ruled = {cid: shared(verdict, reason) for cid, verdict, reason, _ in rows}
        known = {cid for cid, *_, provisional in rows if not provisional}
        unseen = (auto_discarded(self.root / TRIAGE) - known) & self._where.keys()
        return ruled | dict.fromkeys(unseen, Ruled("discard", TRIAGE))

    @cached_property
    def scores(self) -> dict[str, float]:
        """candidate id -> triage score (``triage/part-*.parquet``; higher: more likely kept), where triage has run."""
        rows = (row for path in _optional(self.root / TRIAGE) for row in _rows(path, ["candidate_id", "score"]))
        return {cid: float(score) for cid, score in rows if cid in self._where}

    @cached_property
    def ordered(self) -> list[str]:
        """Every id in the order of the queue: by triage score, highest first, then by id."""
        return sorted(self._where, key=lambda cid: (-self.scores.get(cid, float("-inf")), cid))


def auto_discarded(folder: Path) -> frozenset[str]:
    """The candidates that the triage in ``folder`` proposes to discard unseen; none where it has not run."""
    rows = (row for path in _optional(folder) for row in _rows(path, ["candidate_id", "auto_discard"]))
    return frozenset(cid for cid, discard in rows if discard)


def mask_digest_at(part: Path) -> Callable[[int], str]:
    """row -> the digest of its mask, in a part of ROOT/parse; the masks are read at the first call."""

    @cache
    def masks() -> pa.Array:
        return parquet.read_table(part, ["mask"]).column("mask").combine_chunks()

    def digest(row: int) -> str:
        m = masks()[row].as_py()
        return digest_of(m["height"], m["width"], m["counts"])

    return digest


def _ids(path: Path) -> list[str]:
    columns = parquet.read_table(path, ["candidate.candidate_id"]).column("candidate").combine_chunks()
    return [str(v) for v in columns.field("candidate_id").to_pylist()]


def _optional(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def _rows(path: Path, columns: list[str]) -> Iterator[tuple[str, ...]]:
    table = parquet.read_table(path, columns)
    return zip(*(table.column(c).to_pylist() for c in columns), strict=True)
