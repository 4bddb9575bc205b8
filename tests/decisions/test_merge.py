"""Several reviewers, one decision; what no rule settles is listed; proposed masks count once they were judged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import VERDICTS, Decision
from ahp_toolkit.decisions import log, merge
from ahp_toolkit.decisions.merge import Merge
from ahp_toolkit.decisions.state import Decisions
from ahp_toolkit.stages import review
from ahp_toolkit.storage import parquet
from tests.annotation.small import person, say, write


def of(who, verdict, **more):
    return Decision("a", verdict, who, "0" * 16, **more)


@pytest.mark.parametrize(
    ("rule", "verdicts", "verdict"),
    [
        (Merge(), ["preserve"], "preserve"),
        (Merge(), ["preserve", "discard", "preserve"], "preserve"),
        (Merge(), ["preserve", "discard"], "discard"),
        (Merge(), ["preserve", "refine"], "refine"),
        (Merge(), [], None),
        (Merge(least=2), ["preserve"], None),
        (Merge(least=2), ["preserve", "preserve"], "preserve"),
        (Merge("unanimous"), ["preserve", "preserve"], "preserve"),
        (Merge("unanimous"), ["preserve", "discard"], None),
        (Merge("senior", ("r1",)), ["discard", "preserve", "discard"], "preserve"),
        (Merge("senior", ("r9", "r2", "r0")), ["discard", "preserve", "refine"], "refine"),
        (Merge("senior", ("r9",)), ["discard", "preserve", "discard"], "discard"),
    ],
)
def test_the_rules(rule, verdicts, verdict):
    merged = rule([of(f"r{i}", v) for i, v in enumerate(verdicts)])
    assert (merged.verdict if merged else None) == verdict


def test_people_come_before_the_rule_and_a_settling_decision_before_all():
    rule = of("rule", "preserve", provisional=True)
    assert Merge("unanimous")([rule]).verdict == "preserve"
    assert Merge("unanimous")([rule, of("ann", "discard")]).verdict == "discard"
    split = [of("ann", "discard", note="settled", at="2026-01-02"), of("bob", "preserve")]
    assert Merge("unanimous")(split).verdict == "discard"
    assert Merge("senior", ("bob",))(split).verdict == "discard"


def test_of_several_settling_decisions_the_newest_counts_in_any_zone():
    times = (("discard", "ann", "2026-01-01T09:00:00+00:00"), ("preserve", "bob", "2026-01-01T10:30:00+02:00"))
    settled = [of(who, v, at=at, note="settled") for v, who, at in times]
    assert Merge()(settled).verdict == merge.newest_of(settled).verdict == "discard"


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({"rule": "loudest"}, "one of majority, unanimous, senior"),
        ({"rule": "senior"}, "seniors' names"),
        ({"seniors": ("ann",)}, "only with it"),
        ({"least": 0}, "1 or more"),
    ],
)
def test_wrong_settings_are_refused(args, why):
    with pytest.raises(UserError, match=why):
        Merge(**args)


@given(st.lists(st.sampled_from(VERDICTS), min_size=1, max_size=7))
def test_no_rule_invents_a_verdict_and_order_does_not_matter(verdicts):
    words = [of(f"r{i}", v) for i, v in enumerate(verdicts)]
    for rule in (Merge(), Merge("unanimous"), Merge("senior", ("r1", "r0"))):
        one, other = rule(words), rule(words[::-1])
        assert (one is None) == (other is None)
        assert one is None or (one.verdict == other.verdict and one.verdict in verdicts)


def test_what_is_not_settled_is_listed(tmp_path):
    a, b = (p.candidate.candidate_id for p in (person(1), person(2)))
    write(tmp_path, [person(1), person(2)])
    say(tmp_path, "ann", a, "discard")
    say(tmp_path, "bob", a, "preserve")
    say(tmp_path, "bob", b, "preserve")
    counted = Decisions(tmp_path).refresh().counted()
    made = merge.settle(counted, Merge("unanimous", least=2))
    assert (dict(made.decided), made.disagreed, made.waiting) == ({}, (a,), (b,))
    assert [d.verdict for d in merge.settle(counted, Merge()).decided.values()] == ["discard", "preserve"]


def test_one_reviewer_with_two_logs_has_one_decision(tmp_path):
    for name, verdict, at in (("1.jsonl", "discard", "2026-01-01"), ("2.jsonl", "preserve", "2026-01-02")):
        log.append(tmp_path / name, of("ann", verdict, at=at))
    review.forget()
    fn = review.Review(review.Thresholds(0, 0), (str(tmp_path / "1.jsonl"), str(tmp_path / "2.jsonl")))
    assert [d.verdict for d in fn.decisions_on("a", {}, lambda: "0" * 16)] == ["preserve"]


def run_review(root, rule=None):
    review.forget()
    logs = tuple(map(str, log.logs_of(root)))
    stage = review.Review(review.Thresholds(0, 0), logs, "", rule or Merge(), str(root / "refine"))
    return stage([(str(p), "") for p in parquet.parts(root / "parse")])


def test_the_stage_names_those_that_nobody_could_settle(tmp_path):
    write(tmp_path, [person(i) for i in range(4)])
    ids = [person(i).candidate.candidate_id for i in range(4)]
    say(tmp_path, "ann", ids[0], "preserve")
    say(tmp_path, "ann", ids[1], "preserve")
    say(tmp_path, "bob", ids[1], "discard")
    say(tmp_path, "ann", ids[2], "discard", reason="group")
    out = run_review(tmp_path, Merge("unanimous"))
    assert [h.human_id for h in out.tables[""]] == [ids[0]]
    assert {d.id: d.reason for d in out.dropped} == {ids[1]: "disagreed", ids[2]: "group", ids[3]: "undecided"}
    assert next(d.detail for d in out.dropped if d.id == ids[1]) == "ann: preserve, bob: discard"
