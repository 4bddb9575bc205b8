from __future__ import annotations

import math

import numpy as np
import pytest

from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.records import Decision
from ahp_toolkit.decisions import agreement
from ahp_toolkit.decisions.mask_history import MENDED, Case, digest
from ahp_toolkit.decisions.voices import SETTLED


def words(table: dict[str, dict[str, str]]) -> list[Decision]:
    return [Decision(c, v, r, "occluded" if v == "discard" else "") for c, by in table.items() for r, v in by.items()]


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
    mixed = words({"a": {"x": "discard", "y": "discard"}, "b": {"x": "preserve", "y": "preserve"}})
    _, counts = agreement.tally(mixed)
    assert agreement.raw(counts) == 1 and agreement.fleiss(counts) == 1
    _, counts = agreement.tally(words({"a": {"x": "discard", "y": "discard"}}))
    assert math.isnan(agreement.fleiss(counts))


def test_intervals_hold_the_figure_and_provisional_words_do_not_count():
    said = words({f"c{i}": {"x": "discard", "y": "discard" if i % 4 else "preserve"} for i in range(40)})
    said.append(Decision("c1", "preserve", "rule", provisional=True))
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
    found = agreement.by_reviewer(words({"a": a, "b": b}))
    assert (found["z"].value, found["z"].n) == (0.0, 1)
    assert all(math.isnan(found[who].value) and found[who].n == 0 for who in "xy")
    four = {"x": "discard", "y": "preserve", "z": "preserve", "w": "refine"}
    assert agreement.by_reviewer(words({"a": four}))["x"].n == 1  # most of the others say preserve


def test_nobody_shares_anything():
    said = [Decision("a", "discard", "x")]
    assert agreement.tally(said)[0] == [] and agreement.disagreements(said) == []
    assert math.isnan(agreement.interval(agreement.fleiss, agreement.tally(said)[1]).value)


def heard(*said: Decision) -> list[tuple[str, str]]:
    """(reviewer, verdict) of what counts for agreement on one candidate."""
    case = Case()
    for d in said:
        case.take(d)
    return [(d.reviewer, d.verdict) for d in agreement.unaware(case)]


def test_what_was_said_before_seeing_the_others_counts_and_of_the_newest_mask():
    mask = encode(np.ones((4, 4), bool))
    first, new = "0" * 16, digest(mask)
    ann, bob = Decision("a", "discard", "ann", shown=first), Decision("a", "preserve", "bob", shown=first)
    settles = [Decision("a", "preserve", who, shown=first, note=SETTLED) for who in ("ann", "cho")]
    own = [("ann", "discard"), ("bob", "preserve")]
    assert heard(ann, bob) == heard(ann, bob, *settles) == own
    assert heard(ann, bob, settles[0], Decision("a", "refine", "ann", shown=first)) == [("ann", "refine"), own[1]]
    mends = Decision("a", "refine", "dan", "bad_mask", mask, at="2026", note=MENDED)
    assert "dan" not in dict(heard(ann, bob, mends))  # it decides nothing
    wants = Decision("a", "refine", "dan", shown=first)
    assert heard(ann, bob, wants, mends) == heard(ann, bob, wants) == [*own, ("dan", "refine")]
    later = [Decision("a", v, who, shown=new) for v, who in (("discard", "bob"), ("preserve", "cho"))]
    assert heard(ann, bob, mends, *later) == [("bob", "discard"), ("cho", "preserve")]
    settled = Decision("a", "preserve", "bob", corrected=mask, shown=new, note=SETTLED)
    assert heard(ann, bob, mends, *later, settled) == [("bob", "discard"), ("cho", "preserve")]
    assert heard(ann, bob, mends, settled) == []  # of the newest mask there is nothing else
    assert heard(ann, Decision("a", "discard", "model", provisional=True)) == own[:1]
