"""Decisions to and from other tools: CSV and Parquet. What goes out comes back exactly; a bad row is named and counted.

Masks travel in `exchange.masks`. Imported rows are appended to the log of the importing reviewer, or without one to
that of the reviewer in the row. A row whose id is in a log already is counted, not repeated; a row without an id gets
the digest of its content as one.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

from ahp_toolkit.core import values
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.records import REASONS, Decision
from ahp_toolkit.core.text import from_cell, short_line, to_cell
from ahp_toolkit.core.values import BadValue
from ahp_toolkit.decisions import log
from ahp_toolkit.decisions.log import logs_of, path_of, read_decisions, read_entries, when
from ahp_toolkit.decisions.state import Case, Decisions
from ahp_toolkit.storage import files, parquet
from annotation.session.session import check_free

COLUMNS = tuple(f.name for f in fields(Decision))
REQUIRED = ("candidate_id", "verdict", "mask_digest")
#: Raised by a row of a stranger's file, whatever is wrong with it.
WRONG = (ValueError, TypeError, KeyError, OverflowError, RecursionError, AttributeError)
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that was not taken: where it is (``row 7``, a file's name) and why."""

    where: str
    why: str

    def __post_init__(self) -> None:
        for name in ("where", "why"):  # both hold what a stranger wrote
            object.__setattr__(self, name, short_line(getattr(self, name)))


@dataclass
class Imported:
    """The result of an import: decisions appended, those that the logs had already, and every bad row."""

    taken: int = 0
    known: int = 0
    bad: list[Bad] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """One line for people."""
        return f"{self.taken} taken, {self.known} known already, {len(self.bad)} bad"

    def refuse(self, where: str, e: Exception) -> None:
        """Count a bad row."""
        self.bad.append(Bad(where, f"a value is missing: {e}" if isinstance(e, KeyError) else str(e)))


def format_of(path: Path) -> str:
    """``csv`` or ``parquet``, by the file's ending.

    Raises:
        UserError: for another one.
    """
    suffix = path.suffix.lower().lstrip(".")
    if suffix not in ("csv", "parquet"):
        raise UserError(f"{path}: expected a file that ends in .csv or .parquet")
    return suffix


def export_decisions(root: Path, path: Path, history: bool = False) -> int:
    """Write the reviewers' decisions, sorted by candidate and reviewer; returns how many.

    Args:
        history: every decision that nobody took back, in the logs' order, not only those that count now.

    Raises:
        UserError: when a log is damaged or the file's ending is not known.
    """
    if history:
        decisions = read_decisions(logs_of(root))
    else:
        counted = chain.from_iterable(Decisions(root).refresh().counted().values())
        decisions = sorted(counted, key=lambda d: (d.candidate_id, d.reviewer))
    kind = format_of(path)
    files.forget_dead(path)
    if kind == "parquet":
        parquet.write_records(path, decisions, Decision)
    else:
        with files.atomic(path) as f:
            f.write(_csv(decisions).encode())
    return len(decisions)


def _csv(decisions: Iterable[Decision]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")  # a lone line feed in a note must not look like a row's end
    writer.writerow(COLUMNS)
    for d in decisions:
        writer.writerow([to_cell(_cell(getattr(d, name))) for name in COLUMNS])
    return text.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, Mask):
        return json.dumps(value.rle_json)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def import_decisions(root: Path, path: Path, reviewer: str = "") -> Imported:
    """Append a file's decisions to the logs of a build folder.

    Args:
        reviewer: whose decisions they become; '': those of the reviewers in the rows.

    Raises:
        UserError: when the file cannot be read at all or lacks a column that is needed.
    """
    return log_rows(root, _rows(path), reviewer)


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    if format_of(path) == "parquet":
        table = parquet.read_table(path)
        _check_columns(path, table.column_names)
        for i, row in enumerate(table.to_pylist(), 1):
            yield f"row {i}", row
        return
    try:
        text = values.decode_text(path.read_bytes())
    except (OSError, BadValue) as e:
        raise UserError(f"{path}: decisions cannot be read as UTF-8 CSV ({e})") from e
    reader = csv.DictReader(io.StringIO(text, newline=""))
    _check_columns(path, reader.fieldnames or [])
    csv.field_size_limit(2**31 - 1)  # masks are long
    try:
        for row in reader:
            yield f"line {reader.line_num}", {k: from_cell(v) if isinstance(v, str) else v for k, v in row.items()}
    except csv.Error as e:
        raise UserError(f"{path}, line {reader.line_num}: no CSV ({e})") from e


def _check_columns(path: Path, names: Collection[str]) -> None:
    missing = [n for n in REQUIRED if n not in names]
    if missing:
        way = "; ahp review export writes it" if missing[0] == "mask_digest" else ""
        raise UserError(f"{path}: expected a column {missing[0]}, got {', '.join(names) or 'an empty file'}{way}")


def log_rows(root: Path, rows: Iterable[tuple[str, Row]], reviewer: str = "") -> Imported:
    """Check rows and append the good ones to their reviewers' logs; see `import_decisions`.

    Bad are: a preserve or a refine of a mask that neither the build nor the rows have; two rows that contradict each
    other and have no order, since they have no time or become one ``reviewer``'s.

    Raises:
        UserError: when ``reviewer`` cannot be a name.
    """
    if reviewer:
        check_free(root, reviewer)
    state, out, rows = Decisions(root).refresh(), Imported(), list(rows)
    known = {e.id for path in logs_of(root) for e in read_entries(path)}
    carried = _carried(rows)
    latest: dict[tuple[str, str, str], tuple[str, str, Decision]] = {}
    appended: set[Path] = set()
    for where, row in rows:
        try:
            d = decision_of(row, reviewer)
            if not path_of(root, d.reviewer).exists():
                check_free(root, d.reviewer)
            _check(d, state)
            key, who = (d.candidate_id, d.reviewer, d.mask_digest), row.get("reviewer") or reviewer
            if d.id not in known:
                _check_mask(d, state, carried)
                _check_order(d, who, latest.get(key))
        except WRONG as e:
            out.refuse(where, e)
            continue
        latest[key] = (where, who, d)
        if d.id in known:
            out.known += 1
            continue
        log.append(path_of(root, d.reviewer), replace(d, at=d.at or log.now()), sync=False)
        known.add(d.id)
        appended.add(path_of(root, d.reviewer))
        out.taken += 1
    for path in sorted(appended):
        log.sync(path)
    return out


def _carried(rows: Iterable[tuple[str, Row]]) -> set[tuple[str, str]]:
    """(candidate id, digest) of the masks that rows carry."""
    out: set[tuple[str, str]] = set()
    for _, row in rows:
        with suppress(*WRONG):
            mask = _mask(row.get("corrected"))
            if mask is not None:
                out.add((str(row.get("candidate_id")), mask.digest))
    return out


def _check_mask(d: Decision, state: Decisions, carried: Collection[tuple[str, str]]) -> None:
    """Raises ValueError for a preserve or a refine of a mask that is not here: it would never count."""
    case = state.case(d.candidate_id)
    case = case if case.first else Case(state.candidates.mask_digests([d.candidate_id])[d.candidate_id])
    if d.verdict != "discard" and case.orphan(d) and (d.candidate_id, d.mask_digest) not in carried:
        raise ValueError(f"{d.candidate_id}: {d.verdict} of a mask that is not here; export it with --history")


def _check_order(d: Decision, who: str, before: tuple[str, str, Decision] | None) -> None:
    if before is None or before[2].verdict == d.verdict:
        return
    where, other, old = before
    if not (d.at and old.at and when(d.at) != when(old.at) and who == other):
        raise ValueError(f"{d.candidate_id}: {d.reviewer} decides {d.verdict} here and otherwise at {where}")


def _check(d: Decision, state: Decisions) -> None:
    if d.candidate_id not in state.candidates:
        raise ValueError(f"{d.candidate_id}: no such candidate in {state.root}")
    if d.reason not in ("", *REASONS):
        raise ValueError(f"{d.candidate_id}: reason: expected one of {', '.join(REASONS)} or none, got {d.reason!r}")
    if d.seconds < 0:
        raise ValueError(f"{d.candidate_id}: seconds: expected a number of 0 or more, got {d.seconds}")
    if d.corrected is not None:
        frame = state.candidates.record(d.candidate_id).mask
        if (d.corrected.height, d.corrected.width) != (frame.height, frame.width):
            got, want = (f"{m.width}x{m.height}" for m in (d.corrected, frame))
            raise ValueError(f"{d.candidate_id}: corrected mask: expected the photo's frame {want}, got {got}")


def decision_of(row: Row, reviewer: str = "") -> Decision:
    """One row of a table as a Decision; ``reviewer`` replaces the row's, and its id is then a new one.

    Raises:
        ValueError: naming what is wrong with it (TypeError and KeyError: a mask that is none).
    """
    if None in row:  # type: ignore[comparison-overlap]  # csv's key of surplus cells
        raise ValueError(f"more cells than columns: {row[None]!r}")  # type: ignore[index]
    text = {k: _text(row, k) for k in ("candidate_id", "verdict", "mask_digest", "reason", "at", "note", "id")}
    text["at"] = log.utc(text["at"]) if text["at"] else ""
    for name in REQUIRED:
        if not text[name]:
            raise ValueError(f"{name} is empty")
    who = reviewer or _text(row, "reviewer")
    if not who:
        raise ValueError(f"{text['candidate_id']}: no reviewer in the row; give --reviewer")
    if who != _text(row, "reviewer"):
        text["id"] = ""
    seconds = row.get("seconds")
    return Decision(
        **text,
        reviewer=who,
        corrected=_mask(row.get("corrected")),
        seconds=values.number(seconds) if seconds not in (None, "") else 0.0,
        provisional=bool(values.flag(row.get("provisional"))),
    )


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name}: expected text, got {value!r}")
    return value or ""


def _mask(value: Any) -> Mask | None:
    if value is None or value == "":
        return None
    return log.mask_from_json(json.loads(value) if isinstance(value, str) else value)
