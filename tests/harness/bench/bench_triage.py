"""How many humans people must look at for one that is preserved, by triage against the queue's own order.

Two populations with the paper's 5.6 % of preserves (Open Images, Table 1): people of the sample world, the preserved
ones thinned out to that share; and a synthetic one, large enough for the 1 % risk to be provable. A simulated reviewer
answers with the truth, batch by batch, and triage runs again after each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ahp_toolkit.core.hashing import unit_hash
from ahp_toolkit.decisions.triage.features import Row
from ahp_toolkit.decisions.triage.triage import Settings, triage

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.annotation.people import population
from tests.annotation.world_people import world

SHARE = 0.056
KEPT = 0.99


def thinned(rows: Sequence[Row], truth: dict[str, str]) -> tuple[list[Row], dict[str, str]]:
    """Preserves (and refines alike) left out by hash until `SHARE` of all are preserved."""
    others = sum(v == "discard" for v in truth.values())
    kept = sum(v == "preserve" for v in truth.values())
    keep = min(1.0, SHARE / (1 - SHARE) * others / max(kept, 1))
    left = [r for r in rows if truth[r.candidate_id] == "discard" or unit_hash("thin", r.candidate_id) < keep]
    return left, {r.candidate_id: truth[r.candidate_id] for r in left}


def reviewed(rows: Sequence[Row], truth: dict[str, str], s: Settings, batch: int) -> tuple[int, int]:
    """(humans looked at until `KEPT` of the preserves are found, preserves found then)."""
    wanted = KEPT * sum(v == "preserve" for v in truth.values())
    said: dict[str, str] = {}
    found = 0
    while True:
        made = triage(rows, said, s)
        queue = sorted((t for t in made.records if t.candidate_id not in said), key=lambda t: t.rank)
        for t in queue[:batch]:
            said[t.candidate_id] = truth[t.candidate_id]
            found += truth[t.candidate_id] == "preserve"
            if found >= wanted:
                return len(said), found


def in_order(rows: Sequence[Row], truth: dict[str, str]) -> tuple[int, int]:
    """The same in the queue's own order."""
    wanted = KEPT * sum(v == "preserve" for v in truth.values())
    found = n = 0
    while found < wanted:
        found += truth[rows[n].candidate_id] == "preserve"
        n += 1
    return n, found


def show(name: str, rows: Sequence[Row], truth: dict[str, str], s: Settings, batch: int) -> None:
    """One comparison, printed."""
    start = time.perf_counter()
    preserves = sum(v == "preserve" for v in truth.values())
    (a, found_a), (b, found_b) = in_order(rows, truth), reviewed(rows, truth, s, batch)
    ratio = (a / found_a) / (b / found_b)
    print(f"{name}: {len(rows)} people, {preserves} preserved; {KEPT:.0%} of them found")
    print(f"  reviewed per preserved: {a / found_a:.2f} in order, {b / found_b:.2f} by triage: {ratio:.2f} times fewer")
    print(f"  ({time.perf_counter() - start:.0f} s, audit {s.audit:.0%})")


def discards(n: int, s: Settings) -> None:
    """What auto-discards save at the stated risk, once the audit is through."""
    rows, truth = population(n, 0, preserved=SHARE)
    said = {c: v for i, (c, v) in enumerate(truth.items()) if s.audited(c) is not None or i % 10 == 0}
    start = time.perf_counter()
    made = triage(rows, said, s)
    took = time.perf_counter() - start
    gone = [t.candidate_id for t in made.records if t.auto_discard]
    preserves = sum(v == "preserve" for v in truth.values())
    lost = sum(truth[c] == "preserve" for c in gone)
    print(f"auto-discards, {n} synthetic people, {preserves} preserved, AUC {made.report['auc']:.3f}:")
    print(f"  {len(gone)} discarded unseen ({len(gone) / n:.0%}), {lost} preserves lost ({lost / preserves:.2%});")
    print(f"  stated risk {s.risk:.0%}, proven {made.audit.upper:.2%} from {made.audit.preserves} audited preserves")
    print(f"  one triage: {took:.1f} s, {took / n * 1e3:.3f} ms a person")


def main(scenes: int = 2400) -> None:
    """Print all figures."""
    rows, truth = thinned(*world(scenes))
    show("sample world", rows, truth, Settings(audit=0.02), batch=50)
    rows, truth = population(6000, 1, preserved=SHARE, blur=0.3)
    show("synthetic", rows, truth, Settings(audit=0.02), batch=400)
    discards(30_000, Settings(audit=0.25))


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:]))
