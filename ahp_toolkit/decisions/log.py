"""Decisions: an append-only log (JSON lines) that nothing ever overwrites, and the last word of each reviewer.

One line a decision. The last word wins per reviewer and candidate; history is kept. Final decisions replace
provisional ones whoever made them, and a later provisional one never replaces a final. A line ``{"retract":
candidate_id, "reviewer": ..., "at": ...}`` takes a reviewer's last standing word on a candidate back: the one before it
stands again, and both stay in the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.records import Decision
from ahp_toolkit.decisions.jsonl import append_line, read_bytes, whole

#: From strict to lenient: of verdicts with as many voices the stricter one stands.
STRICT = ("discard", "refine", "preserve")
#: Below a build folder: one log a reviewer.
FOLDER = "decisions"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_FIELDS = {f.name for f in fields(Decision)}


@dataclass(frozen=True, slots=True)
class Retraction:
    """A reviewer takes their last standing word on a candidate back. ``at`` is ISO 8601 UTC."""

    candidate_id: str
    reviewer: str
    at: str = ""


Entry = Decision | Retraction


def now() -> str:
    """The time as ISO 8601 UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def when(at: str) -> datetime:
    """A word's time, to compare: UTC where it names no zone; one that cannot be read is before all others."""
    with suppress(ValueError):
        read = datetime.fromisoformat(at)
        return read if read.tzinfo is not None else read.replace(tzinfo=UTC)
    return datetime.min.replace(tzinfo=UTC)


def to_json(entry: Entry) -> str:
    """One line of the log, without its line end."""
    if isinstance(entry, Retraction):
        d: dict[str, Any] = {"retract": entry.candidate_id, "reviewer": entry.reviewer, "at": entry.at}
    else:
        d = {name: getattr(entry, name) for name in _FIELDS - {"corrected"}}
        if entry.corrected is not None:
            d["corrected"] = entry.corrected.rle_json
    return json.dumps(d, sort_keys=True, ensure_ascii=False)


def entry_from_json(line: str) -> Entry:
    """A log line to a Decision or a Retraction.

    Raises:
        ValueError: when the line is neither (what is wrong is said).
    """
    d = json.loads(line)
    if not isinstance(d, dict):
        raise ValueError(f"expected an object, got {type(d).__name__}")
    if "retract" in d:
        _check(d, {"retract", "reviewer", "at"}, ("retract", "reviewer"))
        return Retraction(d["retract"], d["reviewer"], str(d.get("at", "")))
    _check(d, _FIELDS, ("candidate_id", "verdict", "reviewer"))
    mask = d.pop("corrected", None)
    corrected = None
    if mask:
        height, width = (int(v) for v in mask["size"])
        corrected = Mask(height, width, mask["counts"].encode("ascii"))
    kinds: dict[str, Any] = dict.fromkeys(("reason", "note", "at", "shown"), str)
    for name, kind in (kinds | {"seconds": (int, float), "provisional": bool}).items():
        if name in d and not isinstance(d[name], kind):
            raise ValueError(f"field {name}: expected another type, got {d[name]!r:.60}")
    if "seconds" in d:
        d["seconds"] = float(d["seconds"])  # no table holds a whole number of any size
    json.dumps(d, ensure_ascii=False).encode()  # what cannot be written again is refused here
    return Decision(corrected=corrected, **d)


def _check(d: dict[str, Any], known: set[str], needed: tuple[str, ...]) -> None:
    unknown = set(d) - known
    if unknown:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    for name in needed:
        if not isinstance(d.get(name), str) or not d[name]:
            raise ValueError(f"field {name} is missing or no text")


def append(path: Path, entry: Entry, sync: bool = True) -> None:
    """Append one entry whole or not at all; with ``sync`` it is on the disk when this returns (`jsonl.append_line`)."""
    append_line(path, to_json(entry), sync)


def read_entries(path: Path) -> Iterator[Entry]:
    """All entries of a log, in order. A last line cut short by a crash is left out; any other bad line is an error.

    Raises:
        UserError: naming the file and the line.
    """
    try:
        lines = whole(read_bytes(path)).split(b"\n")
    except OSError as e:
        raise UserError(f"{path}: decisions cannot be read ({e})") from e
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield entry_from_json(line.decode())
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as e:
            raise UserError(
                f"{path}, line {number}: expected one decision as JSON ({e}); mend or remove the line"
            ) from e


def standing(entries: Iterable[Entry]) -> list[Decision]:
    """The decisions that no retraction took back, in order."""
    kept: dict[int, Decision] = {}
    stacks: dict[tuple[str, str], list[int]] = {}
    for i, e in enumerate(entries):
        stack = stacks.setdefault((e.candidate_id, e.reviewer), [])
        if isinstance(e, Decision):
            kept[i] = e
            stack.append(i)
        elif stack:
            del kept[stack.pop()]
    return list(kept.values())


def read_log(path: Path) -> Iterator[Decision]:
    """The standing decisions of a log, in order: what was taken back is left out; see `read_entries`.

    Raises:
        UserError: naming the file and the line.
    """
    yield from standing(read_entries(path))


def last_words(decisions: Iterable[Decision]) -> dict[str, list[Decision]]:
    """candidate id -> the last decision of each reviewer, final ones alone where there are any."""
    latest: dict[tuple[str, str], Decision] = {}
    for d in decisions:
        key = (d.candidate_id, d.reviewer)
        if key not in latest or outranks(d, latest[key]):
            latest.pop(key, None)
            latest[key] = d
    out: dict[str, list[Decision]] = {}
    for d in latest.values():
        out.setdefault(d.candidate_id, []).append(d)
    return {
        cid: [d for d in ds if not d.provisional] if any(not d.provisional for d in ds) else ds
        for cid, ds in out.items()
    }


def outranks(new: Decision, old: Decision) -> bool:
    """Whether a reviewer's later word replaces an earlier one: a provisional word never replaces a final one."""
    return old.provisional or not new.provisional


def newest_of(decisions: Sequence[Decision]) -> Decision:
    """The newest by ``at``; of one time the last."""
    return max(enumerate(decisions), key=lambda x: (when(x[1].at), x[0]))[1]


def majority(decisions: Sequence[Decision]) -> Decision:
    """One decision for a candidate: the verdict of most, of equals the stricter; with the mask last mended."""
    verdict = max(STRICT, key=lambda v: sum(d.verdict == v for d in decisions))
    same = [d for d in decisions if d.verdict == verdict]
    mended = [d for d in same if d.corrected is not None]  # a mask somebody took the trouble to mend is not lost
    return newest_of(mended) if mended else same[-1]


def check_name(reviewer: str) -> str:
    """A reviewer's name as it is.

    Raises:
        UserError: when it cannot name a file and a field.
    """
    if not _NAME.fullmatch(reviewer) or reviewer in ("rule", "triage"):
        raise UserError(
            f"--reviewer {reviewer!r}: expected a letter and then letters, digits, - or _ (at most 64; neither "
            "'rule' nor 'triage')"
        )
    return reviewer
