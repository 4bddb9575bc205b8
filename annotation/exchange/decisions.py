"""Decisions to and from other tools: CSV and Parquet. What goes out comes back exactly; a bad row is named and counted.

Masks travel in `exchange_masks`. Rows of an import are appended to the log of the importing reviewer (or, without one,
of the reviewer that the row names), in their order; a row that stands in the log already is counted, not repeated.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.records import REASONS, Decision
from ahp_toolkit.core.text import from_cell, short_line, to_cell
from ahp_toolkit.decisions.candidates import Candidates
from ahp_toolkit.decisions.log import FOLDER, Retraction, append, now, read_entries, when
from ahp_toolkit.decisions.mask_history import Case, digest
from ahp_toolkit.decisions.merge import logs_of, read_logs, words_of
from ahp_toolkit.decisions.proposals import firsts, known
from ahp_toolkit.storage import files, parquet

COLUMNS = tuple(f.name for f in fields(Decision))
NEEDED = ("candidate_id", "verdict")
_TRUE, _FALSE = {"true", "1", "yes"}, {"false", "0", "no", ""}


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that was not taken: where it stands (``row 7``, a file's name) and why."""

    where: str
    why: str

    def __post_init__(self) -> None:
        for name in ("where", "why"):  # both hold what a stranger wrote
            object.__setattr__(self, name, short_line(getattr(self, name)))


@dataclass
class Imported:
    """What an import did: decisions appended, those that were said already, and every bad row."""

    taken: int = 0
    known: int = 0
    bad: list[Bad] = field(default_factory=list)

    @property
    def words(self) -> str:
        """One line for people."""
        return f"{self.taken} taken, {self.known} known already, {len(self.bad)} bad"


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
        history: every standing decision in the logs' order, not only each reviewer's last that counts: what was said
            of a mask before a newer one that somebody has decided on is history.

    Raises:
        UserError: when a log is damaged or the file's ending is not known.
    """
    if history:
        words = list(read_logs(logs_of(root)))
    else:
        counted = (d for said in words_of(root).values() for d in said)
        words = sorted(counted, key=lambda d: (d.candidate_id, d.reviewer))
    kind = format_of(path)
    files.forget_dead(path)
    if kind == "parquet":
        parquet.write_records(path, words, Decision)
    else:
        with files.atomic(path) as f:
            f.write(_csv(words).encode())
    return len(words)


def _csv(words: Iterable[Decision]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")  # a lone line feed in a note must not look like a row's end
    writer.writerow(COLUMNS)
    for d in words:
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
        reviewer: whose words they become; '': those that the rows name.

    Raises:
        UserError: when the file cannot be read at all or lacks a column that is needed.
    """
    return log_rows(root, _rows(path), reviewer)


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if format_of(path) == "parquet":
        table = parquet.read_table(path)
        _check_columns(path, table.column_names)
        for i, row in enumerate(table.to_pylist(), 1):
            yield f"row {i}", row
        return
    try:
        text = path.read_bytes().decode("utf-8-sig")  # spreadsheets put a mark in front
    except (OSError, UnicodeDecodeError) as e:
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
    missing = [n for n in NEEDED if n not in names]
    if missing:
        raise UserError(f"{path}: expected a column {missing[0]}, got {', '.join(names) or 'an empty file'}")


def log_rows(root: Path, rows: Iterable[tuple[str, Mapping[str, Any]]], reviewer: str = "") -> Imported:
    """Check rows and append the good ones to their reviewers' logs; see `import_decisions`.

    A reviewer's rows on one candidate are their words in order, whatever their times: several clocks give these. What
    they say otherwise than a row before them is bad where nothing tells which is newer: without a time, of one time, or
    of two people who become one ``reviewer``. So is a word older than what its reviewer had said before this import,
    unless that stands before it in the rows too: the end of a log is what stands. So is a word older than the last that
    its reviewer has taken back: it may be that one. And so is a preserve or a refine of a
    mask that neither the build has nor any of the rows brings.

    Raises:
        UserError: when ``reviewer`` cannot be a name.
    """
    from annotation.session.session import check_free

    if reviewer:
        check_free(root, reviewer)
    candidates, out, rows = Candidates(root), Imported(), list(rows)
    masks = _Masks.of(root, rows)
    said: dict[tuple[str, str], list[Decision]] = {}
    back: dict[tuple[str, str], str] = {}
    for e in chain.from_iterable(map(read_entries, logs_of(root))):
        key = e.candidate_id, e.reviewer
        if isinstance(e, Retraction):
            back[key] = max(back.get(key, ""), e.at, key=when)
    for d in read_logs(logs_of(root)):
        said.setdefault((d.candidate_id, d.reviewer), []).append(d)
    stood = {key: words[-1] for key, words in said.items()}
    fresh: dict[tuple[str, str], _Row] = {}
    spoke: set[str] = set()
    for where, row in rows:
        try:
            d = decision_of(row, reviewer)
            if d.reviewer not in spoke:  # else it has a log by now
                check_free(root, d.reviewer)
            _check_decision(d, candidates)
            key, this = (d.candidate_id, d.reviewer), _Row(where, _text(row, "reviewer") or reviewer, d)
            repeats = _stands(said.get(key, []), d)
            if not repeats:
                masks.check(d)
                _check_order(this, fresh.get(key), stood.get(key))
                _check_back(d, back.get(key, ""))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError, AttributeError) as e:
            out.bad.append(Bad(where, str(e) if not isinstance(e, KeyError) else f"a mask lacks {e}"))
            continue
        fresh[key] = this
        if repeats:
            out.known += 1
            if key in stood and _same(stood[key], d):
                del stood[key]  # the rows after this one were said since
            continue
        taken = replace(d, at=d.at or now())
        append(root / FOLDER / f"{d.reviewer}.jsonl", taken, sync=False)
        said.setdefault(key, []).append(taken)
        out.taken += 1
        spoke.add(d.reviewer)
    _sync(root, spoke)
    return out


@dataclass(frozen=True)
class _Masks:
    """Which masks rows may be about: the build's (digests by candidate), what people have here, what rows bring."""

    firsts: Mapping[str, str]
    cases: Mapping[str, Case]
    brought: frozenset[tuple[str, str]]

    @staticmethod
    def of(root: Path, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> _Masks:
        wanted: set[str] = set()
        brought: set[tuple[str, str]] = set()
        for _, row in rows:
            cid, shown = str(row.get("candidate_id")), row.get("shown")
            with suppress(ValueError, TypeError, KeyError, OverflowError, RecursionError, AttributeError):
                mask = _mask(row.get("corrected"))
                if mask is not None:
                    brought.add((cid, digest(mask)))
                elif shown:
                    wanted.add(cid)
        return _Masks(firsts(root, wanted), known(root) if wanted else {}, frozenset(brought))

    def check(self, d: Decision) -> None:
        """Raises ValueError for a preserve or a refine of a mask that is not here: it would be of another."""
        if not d.shown or d.corrected is not None or d.verdict == "discard":
            return
        case = self.cases.get(d.candidate_id, Case())
        here = d.shown == self.firsts.get(d.candidate_id) or (d.candidate_id, d.shown) in self.brought
        if not here and case.other(d.shown) is None and d.shown not in case.gone:
            raise ValueError(f"{d.candidate_id}: {d.verdict} of a mask that is not here; export it with --history")


@dataclass(frozen=True, slots=True)
class _Row:
    """A good row: where it stands, whose word it was, and the word as it is taken."""

    where: str
    speaker: str
    word: Decision


def _stands(said: Sequence[Decision], d: Decision) -> bool:
    """Whether a row repeats a standing word: of its time, or without one the last."""
    if not d.at:
        return any(_same(old, d) for old in [*(old for old in said if not old.at), *said[-1:]])
    return any(_same(old, replace(d, at=old.at)) for old in said if old.at and when(old.at) == when(d.at))


def _same(a: Decision, b: Decision) -> bool:
    """Whether a row says what a word says: its time, and which mask was shown, may be left out."""
    return replace(b, at=b.at or a.at, shown=b.shown or a.shown) == a


def _check_order(this: _Row, before: _Row | None, stood: Decision | None) -> None:
    d = this.word
    if before is not None and before.word.verdict != d.verdict:
        ordered = d.at and before.word.at and when(d.at) != when(before.word.at) and this.speaker == before.speaker
        if not ordered:
            raise ValueError(f"{d.candidate_id}: {d.reviewer} says {d.verdict} here and otherwise at {before.where}")
    if stood is not None and d.at and stood.at and when(d.at) < when(stood.at):
        raise ValueError(f"{d.candidate_id}: {d.reviewer} has said {stood.verdict} since, at {stood.at}")


def _check_back(d: Decision, back: str) -> None:
    if d.at and back and when(d.at) < when(back):
        raise ValueError(f"{d.candidate_id}: {d.reviewer} has taken a word back since, at {back}")


def _time(at: str) -> str:
    """A row's time in UTC; '' where it has none."""
    if not at:
        return at
    read: datetime | None = None
    with suppress(ValueError):
        read = datetime.fromisoformat(at)
    if read is None or read.tzinfo is None:
        raise ValueError(f"at: expected ISO 8601 with a zone, such as 2026-01-31T09:30:00Z, got {at!r}")
    return read.astimezone(UTC).isoformat(timespec="milliseconds") if read.utcoffset() else at


def _check_decision(d: Decision, candidates: Candidates) -> None:
    if d.candidate_id not in candidates:
        raise ValueError(f"{d.candidate_id}: no such candidate in {candidates.root}")
    if d.reason not in ("", *REASONS):
        raise ValueError(f"{d.candidate_id}: reason: expected one of {', '.join(REASONS)} or none, got {d.reason!r}")
    if not (math.isfinite(d.seconds) and d.seconds >= 0):
        raise ValueError(f"{d.candidate_id}: seconds: expected a number of 0 or more, got {d.seconds}")
    if d.corrected is not None:
        frame = candidates.record(d.candidate_id).mask
        if (d.corrected.height, d.corrected.width) != (frame.height, frame.width):
            got, want = (f"{m.width}x{m.height}" for m in (d.corrected, frame))
            raise ValueError(f"{d.candidate_id}: corrected mask: expected the photo's frame {want}, got {got}")


def decision_of(row: Mapping[str, Any], reviewer: str = "") -> Decision:
    """One row of a table as a Decision; ``reviewer`` takes the place of the row's.

    Raises:
        ValueError: saying what is wrong with it (TypeError and KeyError: a mask that is none).
    """
    unknown = [str(k) for k in row if k is None]
    if unknown:
        raise ValueError(f"more cells than columns: {row[None]!r}")  # type: ignore[index]
    text = {k: _text(row, k) for k in ("candidate_id", "verdict", "reason", "at", "note", "shown")}
    text["at"] = _time(text["at"])
    if not text["candidate_id"]:
        raise ValueError("candidate_id is empty")
    who = reviewer or _text(row, "reviewer")
    if not who:
        raise ValueError(f"{text['candidate_id']}: no reviewer in the row; name one for the import")
    seconds = row.get("seconds")
    return Decision(
        **text,
        reviewer=who,
        corrected=_mask(row.get("corrected")),
        seconds=float(seconds) if seconds not in (None, "") else 0.0,
        provisional=_truth(row.get("provisional")),
    )


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name}: expected text, got {value!r}")
    return value or ""


def _truth(value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    if str(value).lower() not in _TRUE | _FALSE:
        raise ValueError(f"provisional: expected true or false, got {value!r}")
    return str(value).lower() in _TRUE


def _mask(value: Any) -> Mask | None:
    if value is None or value == "":
        return None
    said = json.loads(value) if isinstance(value, str) else value
    if "size" in said:
        return Mask(int(said["size"][0]), int(said["size"][1]), str(said["counts"]).encode("ascii"))
    counts = said["counts"]
    if isinstance(counts, int):  # bytes(n) would make n of them
        raise ValueError("corrected: RLE counts must be bytes or text")
    return Mask(int(said["height"]), int(said["width"]), bytes(counts))


def _sync(root: Path, reviewers: Iterable[str]) -> None:
    """All appended lines to the disk, once a log."""
    for who in sorted(reviewers):
        fd = os.open(root / FOLDER / f"{who}.jsonl", os.O_WRONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
