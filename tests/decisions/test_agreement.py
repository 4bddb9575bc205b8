from __future__ import annotations

import math

import numpy as np
import pytest

from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.records import Decision
from ahp_toolkit.decisions import agreement
from ahp_toolkit.decisions.log import SETTLED
from ahp_toolkit.decisions.state import Case

ZERO = "0" * 16


def decisions(table: dict[str, dict[str, str]]) -> list[Decision]:
    return [
        Decision(c, v, r, ZERO, "occluded" if v == "discard" else "") for c, by in table.items() for r, v in by.items()
    ]


def test_fleiss_known_answer():
    """The worked example of Fleiss (1971) as it stands in textbooks: 10 subjects, 14 raters, 5 categories, .210."""
    counts = np.array([
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ])  # fmt: skip
    assert agreement.fleiss(counts) == pytest.approx(0.210, abs=5e-4)


def test_cohen_known_answer():
    """Two raters, 50 subjects: 20 both yes, 5 and 10 divided, 15 both no: kappa .4."""
    pairs = np.array([[1, 1]] * 20 + [[1, 0]] * 5 + [[0, 1]] * 10 + [[0, 0]] * 15)
    assert agreement.cohen(pairs) == pytest.approx(0.4)


def test_full_agreement_is_one_and_one_verdict_alone_is_undefined():
    mixed = decisions({"a": {"x": "discard", "y": "discard"}, "b": {"x": "preserve", "y": "preserve"}})
    _, counts = agreement.tally(mixed)
    assert agreement.raw(counts) == 1 and agreement.fleiss(counts) == 1
    _, counts = agreement.tally(decisions({"a": {"x": "discard", "y": "discard"}}))
    assert math.isnan(agreement.fleiss(counts))


def test_intervals_hold_the_figure_and_provisional_decisions_do_not_count():
    said = decisions({f"c{i}": {"x": "discard", "y": "discard" if i % 4 else "preserve"} for i in range(40)})
    said.append(Decision("c1", "preserve", "rule", ZERO, provisional=True))
    _, counts = agreement.tally(said)
    a = agreement.interval(agreement.raw, counts)
    assert a.n == 40 and a.low <= a.value == 0.75 <= a.high and 0.1 < a.high - a.low < 0.4
    assert set(agreement.by_pair(said)) == {("x", "y")}
    assert agreement.by_reviewer(said)["x"].value == 0.75
    assert agreement.by_reason(said)["occluded"].value == 0.75
    assert len(agreement.disagreements(said)) == 10


def test_a_majority_of_the_others_is_not_invented_where_they_are_divided():
    a = {"x": "discard", "y": "preserve", "z": "refine"}  # to each the two others are divided
    b = {"x": "refine", "y": "refine", "z": "preserve"}  # only z has two who agree
    found = agreement.by_reviewer(decisions({"a": a, "b": b}))
    assert (found["z"].value, found["z"].n) == (0.0, 1)
    assert all(math.isnan(found[who].value) and found[who].n == 0 for who in "xy")
    four = {"x": "discard", "y": "preserve", "z": "preserve", "w": "refine"}
    assert agreement.by_reviewer(decisions({"a": four}))["x"].n == 1  # most of the others say preserve


def test_nobody_shares_anything():
    said = [Decision("a", "discard", "x", ZERO)]
    assert agreement.tally(said)[0] == [] and agreement.disagreements(said) == []
    assert math.isnan(agreement.interval(agreement.fleiss, agreement.tally(said)[1]).value)


def independent(*made: Decision) -> list[tuple[str, str]]:
    """(reviewer, verdict) of what counts for agreement on one candidate."""
    case = Case(ZERO, entries={d.id: d for d in made})
    return [(d.reviewer, d.verdict) for d in agreement.independent(case)]


def test_decisions_made_before_seeing_the_others_count_and_those_on_the_current_mask():
    mask = encode(np.ones((4, 4), bool))
    new = mask.digest
    ann, bob = Decision("a", "discard", "ann", ZERO), Decision("a", "preserve", "bob", ZERO)
    settles = [Decision("a", "preserve", who, ZERO, note=SETTLED) for who in ("ann", "cho")]
    own = [("ann", "discard"), ("bob", "preserve")]
    assert independent(ann, bob) == independent(ann, bob, *settles) == own
    again = Decision("a", "refine", "ann", ZERO)
    assert independent(ann, bob, settles[0], again) == [("ann", "refine"), own[1]]
    corrects = Decision("a", "refine", "dan", ZERO, "bad_mask", mask, at="2026")
    assert independent(ann, bob, corrects) == [*own, ("dan", "refine")]
    later = [Decision("a", v, who, new) for v, who in (("discard", "bob"), ("preserve", "cho"))]
    assert independent(ann, bob, corrects, *later) == [("bob", "discard"), ("cho", "preserve")]
    settled = Decision("a", "preserve", "bob", new, corrected=mask, note=SETTLED)
    assert independent(ann, bob, corrects, *later, settled) == [("bob", "discard"), ("cho", "preserve")]
    assert independent(ann, bob, corrects, settled) == []  # of the current mask there is nothing else
    assert independent(ann, Decision("a", "discard", "model", ZERO, provisional=True)) == own[:1]
