"""The progress of a review: counts, pace, agreement, the preserved ratio of each source, and what the triage saved.

One list of small tables serves the terminal and the HTML page alike.
"""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ahp_toolkit.core.records import VERDICTS, Decision
from ahp_toolkit.decisions import agreement
from ahp_toolkit.decisions.agreement import Agreement
from ahp_toolkit.decisions.merge import Merge, Settled, settle
from ahp_toolkit.decisions.state import Decisions
from ahp_toolkit.decisions.triage.triage import PAPER_PACE, Triage, report_of
from ahp_toolkit.report.tables import Column, Table
from ahp_toolkit.storage import parquet

ENOUGH = 10  # candidates: for fewer, a kappa and a bootstrap interval mean nothing
IDLE = 60.0  # s: a longer pause is no work
#: The paper's preserved ratio (Table 1; spec §1) by our source; the paper gives COCO, VOC and LIP together.
PAPER_RATIO = dict.fromkeys(("coco", "voc_sbd", "lip"), 5_940 / 24_806) | {
    "openimages": 17_677 / 314_359,
    "objects365": 32_982 / 669_166,
}


def _table(title: str, headings: Sequence[str], rows: Sequence[tuple[str, ...]], note: str = "") -> Table:
    """A table of texts; a column of words is aligned left, a column of figures right."""
    columns = [
        Column(h, number=i > 0 and not any(r[i][:1].isalpha() or len(r[i]) > 24 for r in rows))
        for i, h in enumerate(headings)
    ]
    return Table(columns, rows, title, (note,) if note else ())


@dataclass(frozen=True)
class Status:
    """Everything that is known of a review. ``sources`` maps every candidate's id to its source.

    ``decisions`` are all final ones, also those on candidates that the build does not have; all else is of its own.
    ``counted`` are those that count, by candidate, one a reviewer; ``independent`` as `agreement.independent`.
    """

    sources: dict[str, str]
    decisions: tuple[Decision, ...]
    counted: dict[str, list[Decision]]
    independent: tuple[Decision, ...]
    settled: Settled
    ruled: frozenset[str]
    reopened: frozenset[str]
    triage: dict[str, Any] | None
    audited: frozenset[str]

    @cached_property
    def verdicts(self) -> dict[str, str]:
        """candidate id -> what people have decided."""
        return {c: d.verdict for c, d in self.settled.decided.items() if not d.provisional and c in self.sources}


def status(root: Path, merge: Merge | None = None, logs: Sequence[Path] = ()) -> Status:
    """Read a build folder's review; ``logs`` are more decision logs than its own (``ahp build --decisions``).

    Raises:
        UserError: when there is no parse table, or a log is damaged.
    """
    state, sources = Decisions(root, logs=logs).refresh(), _sources(root)
    made = tuple(d for case in state.cases.values() for d in case.decisions if not d.provisional)
    cases = {cid: case for cid, case in state.cases.items() if cid in sources}
    found = ((cid, [d for d in case.counted() if not d.provisional]) for cid, case in cases.items())
    counted = {cid: ds for cid, ds in found if ds}
    shared = (case for case in cases.values() if len(case.decisions) > 1)
    independent = tuple(d for case in shared for d in agreement.independent(case))
    reopened = frozenset(state.reopened & sources.keys())
    report = report_of(root)
    audited = [t.candidate_id for t in parquet.read_records(root / "triage", Triage) if t.audit] if report else []
    decide = sorted((root / "decide").glob("part-*.parquet"))
    ruled = (c for p in decide for c in parquet.read_table(p, ["candidate_id"])["candidate_id"].to_pylist())
    settled = settle(counted, merge or Merge())
    read = frozenset(ruled), reopened, report, frozenset(audited)
    return Status(sources, made, counted, independent, settled, *read)


def _sources(root: Path) -> dict[str, str]:
    out = {}
    for part in parquet.parts(root / "parse"):
        column = parquet.read_table(part, ["candidate.candidate_id", "candidate.image.source"])["candidate"]
        out.update({c["candidate_id"]: c["image"]["source"] for c in column.to_pylist()})
    return out


def tables(s: Status) -> list[Table]:
    """The status as tables; empty ones are left out."""
    made = [_counts(s), _by_source(s), _pace(s), _agreement(s), _reasons(s), _triage(s), _disagreed(s)]
    return [t for t in made if t.rows]


def _counts(s: Status) -> Table:
    counts = Counter(s.verdicts.values())
    total, decided = len(s.sources), len(s.verdicts)
    seen = {d.candidate_id for d in s.decisions}
    rows = [("candidates", total), ("decided by people", decided), *((f"  {v}", counts[v]) for v in VERDICTS)]
    rows += [
        ("reviewers disagree", len(s.settled.disagreed)),
        ("waiting for another reviewer", len(s.settled.waiting)),
        ("back with a new mask", len(s.reopened)),
        ("nobody has looked", total - len(seen & s.sources.keys())),
        ("  of them decided by a rule (provisional)", len((s.ruled & s.sources.keys()) - seen)),
    ]
    kept = [(name, n) for name, n in rows if n or name in ("candidates", "decided by people", "nobody has looked")]
    cells = [(name, f"{n:,}", _percent(n, total)) for name, n in kept]
    unknown = len(seen - s.sources.keys())
    if unknown:
        cells.append(("decisions on unknown candidates", f"{unknown:,}", ""))  # a share of none of the build's
    return _table("Review", ("", "humans", "share"), cells)


def _by_source(s: Status) -> Table:
    rows = []
    for source in sorted(set(s.sources.values())):
        of = [c for c, name in s.sources.items() if name == source]
        rows.append(_source_row(s, source, of, PAPER_RATIO.get(source)))
    if len(rows) > 1:
        rows.append(_source_row(s, "all", list(s.sources), None))
    columns = ("source", "candidates", "decided", "preserved", "refined", "ratio", "audit's ratio", "paper")
    note = "Ratio: preserved of decided. With triage the decided ones are the likely ones; the audit is a random share."
    return _table("Preserved ratio (Table 1)", columns, rows, note)


def _source_row(s: Status, name: str, ids: Sequence[str], paper: float | None) -> tuple[str, ...]:
    decided = [s.verdicts[c] for c in ids if c in s.verdicts]
    audit = [s.verdicts[c] for c in s.audited & set(ids) if c in s.verdicts] if s.audited else []
    kept = decided.count("preserve")
    return (
        name,
        f"{len(ids):,}",
        f"{len(decided):,}",
        f"{kept:,}",
        f"{decided.count('refine'):,}",
        _percent(kept, len(decided)),
        _percent(audit.count("preserve"), len(audit)),
        "" if paper is None else f"{100 * paper:.1f} %",
    )


def _pace(s: Status) -> Table:
    took: dict[str, list[float]] = {}
    for d in s.decisions:
        if d.seconds > 0:
            took.setdefault(d.reviewer, []).append(min(d.seconds, IDLE))
    rows = [_pace_row(who, took[who]) for who in sorted(took)]
    if len(took) > 1:
        rows.append(_pace_row("all", [x for v in took.values() for x in v]))
    columns = ("reviewer", "decisions", "median s", "mean s", "against the paper's 3.26 s")
    return _table("Pace", columns, tuple(rows), f"A pause counts as at most {IDLE:.0f} s.")


def _pace_row(name: str, seconds: Sequence[float]) -> tuple[str, ...]:
    mean = float(np.mean(seconds))
    faster = f"{PAPER_PACE / mean:.2f} times as fast"
    return name, f"{len(seconds):,}", f"{np.median(seconds):.2f}", f"{mean:.2f}", faster


def _agreement(s: Status) -> Table:
    found = s.independent
    _, counts = agreement.tally(found)
    shares: dict[str, Agreement] = {}
    kappas: dict[str, Agreement] = {}
    if len(counts):
        shares["raw agreement"] = agreement.interval(agreement.raw, counts)
        kappas["Fleiss' kappa"] = agreement.interval(agreement.fleiss, counts)
        kappas |= {f"Cohen's kappa, {a} and {b}": k for (a, b), k in agreement.by_pair(found).items()}
        shares |= {f"{who} with the majority of the others": k for who, k in agreement.by_reviewer(found).items()}
    rows = [*(_figure(n, k) for n, k in shares.items()), *(_figure(n, k, kappa=True) for n, k in kappas.items())]
    ties = "The majority of the others: where they are divided evenly there is none, and the candidate does not count."
    note = " ".join(filter(None, (ties, _few([*shares.values(), *kappas.values()]))))
    return _table("Agreement", ("", "value", "95 % interval", "candidates"), rows, note)


def _reasons(s: Status) -> Table:
    found = agreement.by_reason(s.independent)
    rows = tuple(_figure(name, k) for name, k in found.items())
    note = "Of the candidates that somebody discarded for this reason, the share that all their reviewers discarded."
    note = " ".join(filter(None, (note, _few(list(found.values())))))
    return _table("Agreement by reason", ("reason", "value", "95 % interval", "candidates"), rows, note)


def _figure(name: str, k: Agreement, kappa: bool = False) -> tuple[str, ...]:
    if math.isnan(k.value):
        return name, "not defined", "", f"{k.n:,}"
    if k.n < ENOUGH:
        return name, "–" if kappa else f"{k.value:.3f}", "–", f"{k.n:,}"
    return name, f"{k.value:.3f}", f"{k.low:.3f} to {k.high:.3f}", f"{k.n:,}"


def _few(found: Sequence[Agreement]) -> str:
    """Why some figures are a dash."""
    few = any(k.n < ENOUGH for k in found)
    return f"–: fewer than {ENOUGH} candidates, too few for a kappa or an interval." if few else ""


def _triage(s: Status) -> Table:
    if s.triage is None:
        return _table("Triage", (), ())
    r, a = s.triage, s.triage["audit"]
    risk, confidence = r["settings"]["risk"], r["settings"]["confidence"]
    proof = f"{a['lost']} of {a['preserves']} audited preserves lost: at most {100 * a['upper']:.2f} %"
    short = f"{a['preserves']} of the {a['needed']} audited preserves that could prove {100 * risk:g} %"
    rows = [
        ("scores by", r["method"] + (f", from {r['trained_on']:,} decisions" if r["trained_on"] else "")),
        ("AUC, photos held out", "" if r["auc"] is None else f"{r['auc']:.3f}"),
        ("stated risk", f"{100 * risk:g} % of preserves, with {100 * confidence:g} % confidence"),
        ("audit", f"{a['decided']:,} of {a['size']:,} decided" + _held(a["waiting"])),
        ("proof", proof if r["auto_discard"] or a["upper"] <= risk else short),
        ("discarded unseen", f"{r['auto_discard']:,} ({100 * r['saved_share']:.1f} %)"),
        ("saved", f"{r['saved_hours']:.1f} h at the paper's pace"),
    ]
    return _table("Triage", ("", ""), tuple(row for row in rows if row[1]))


def _held(waiting: int) -> str:
    return f"; {waiting:,} more wait for one before them" if waiting else ""


def _disagreed(s: Status, most: int = 20) -> Table:
    divided = agreement.disagreements(d for ds in s.counted.values() for d in ds)
    ids = [c for c in divided if c in s.settled.disagreed or c in s.settled.decided]
    rows = tuple((c, ", ".join(f"{d.reviewer}: {d.verdict}" for d in s.counted[c]), _result(s, c)) for c in ids[:most])
    note = f"The first {most} of {len(ids):,}, most divided first." if len(ids) > most else ""
    return _table("Disagreements", ("candidate", "decisions", "result"), rows, note)


def _result(s: Status, candidate_id: str) -> str:
    d = s.settled.decided.get(candidate_id)
    return d.verdict if d else "open"


def _percent(n: int, of: int) -> str:
    return f"{100 * n / of:.1f} %" if of else ""


def status_text(s: Status) -> str:
    """The status for a terminal."""
    return "\n\n".join(t.text() for t in tables(s))


def status_html(root: Path, merge: Merge | None = None, page: bool = False, logs: Sequence[Path] = ()) -> str:
    """The status as an HTML section for the report, or as a ``page`` of its own. What comes from data is escaped."""
    body = "".join(map(_html, tables(status(root, merge, logs))))
    section = f'<section id="review"><h2>Review</h2>{body}</section>'
    if not page:
        return section
    style = (
        ":root{color-scheme:light dark}"
        "body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse}th,td{padding:4px 12px;text-align:left;border-bottom:1px solid #8884}"
        ".n{text-align:right;font-variant-numeric:tabular-nums}.muted{opacity:.7}"
    )
    policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8">{policy}<title>AHP review</title>'
    return f"{head}<style>{style}</style></head><body>{section}</body></html>\n"


def _html(t: Table) -> str:
    notes = "".join(f'<p class="muted">{html.escape(n)}</p>' for n in t.notes)
    return f'<h3>{html.escape(t.title)}</h3><div class="scroll">{t.html()}</div>{notes}'
