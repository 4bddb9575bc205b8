"""Decisions: an append-only log (JSON lines) that nothing ever overwrites, and the last word of each reviewer.

One line a decision. The last word wins per reviewer and candidate; history is kept. Final decisions replace
provisional ones whoever made them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.records import Decision

_FIELDS = {f.name for f in fields(Decision)}


def now() -> str:
    """The time as ISO 8601 UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def to_json(decision: Decision) -> str:
    """One line of the log, without its line end."""
    d: dict[str, Any] = {name: getattr(decision, name) for name in _FIELDS - {"corrected"}}
    if decision.corrected is not None:
        m = decision.corrected
        d["corrected"] = {"size": [m.height, m.width], "counts": m.counts.decode("ascii")}
    return json.dumps(d, sort_keys=True, ensure_ascii=False)


def from_json(line: str) -> Decision:
    """A log line to a Decision.

    Raises:
        ValueError: when the line is no decision (what is wrong is said).
    """
    d = json.loads(line)
    if not isinstance(d, dict):
        raise ValueError(f"expected an object, got {type(d).__name__}")
    unknown = set(d) - _FIELDS
    if unknown:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    for name in ("candidate_id", "verdict", "reviewer"):
        if not isinstance(d.get(name), str) or not d[name]:
            raise ValueError(f"field {name} is missing or no text")
    mask = d.pop("corrected", None)
    corrected = None
    if mask:
        height, width = (int(v) for v in mask["size"])
        corrected = Mask(height, width, mask["counts"].encode("ascii"))
    return Decision(corrected=corrected, **d)


def append(path: Path, decision: Decision, sync: bool = True) -> None:
    """Append one decision; with ``sync`` it is on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (to_json(decision) + "\n").encode()
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, line)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def read_log(path: Path) -> Iterator[Decision]:
    """All decisions of a log, in order. A last line cut short by a crash is left out; any other bad line is an error.

    Raises:
        UserError: naming the file and the line.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: decisions cannot be read ({e})") from e
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield from_json(line)
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            if number == len(lines):  # no line end after it: the crash came in the middle of the write
                return
            raise UserError(
                f"{path}, line {number}: expected one decision as JSON ({e}); mend or remove the line"
            ) from e


def last_words(decisions: Iterable[Decision]) -> dict[str, list[Decision]]:
    """candidate id -> the last decision of each reviewer, final ones alone where there are any."""
    latest: dict[tuple[str, str], Decision] = {}
    for d in decisions:
        latest.pop((d.candidate_id, d.reviewer), None)
        latest[d.candidate_id, d.reviewer] = d
    out: dict[str, list[Decision]] = {}
    for d in latest.values():
        out.setdefault(d.candidate_id, []).append(d)
    return {
        cid: [d for d in ds if not d.provisional] if any(not d.provisional for d in ds) else ds
        for cid, ds in out.items()
    }


def majority(decisions: list[Decision]) -> Decision:
    """One decision for a candidate: the verdict of most reviewers; between equals the stricter (discard, refine)."""
    order = ("discard", "refine", "preserve")
    votes = {v: sum(d.verdict == v for d in decisions) for v in order}
    verdict = max(order, key=lambda v: votes[v])
    return [d for d in decisions if d.verdict == verdict][-1]
