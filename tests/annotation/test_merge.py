"""Several reviewers, one decision; what no rule settles is listed; proposed masks count once they were judged."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.records import VERDICTS, Decision
from ahp_toolkit.decisions import log, merge, proposals
from ahp_toolkit.decisions.merge import Merge
from ahp_toolkit.stages import review
from ahp_toolkit.storage import parquet
from tests.annotation.small import person, rectangle, say, write


def word(who, verdict, **more):
    return Decision("a", verdict, who, **more)


@pytest.mark.parametrize(
    ("rule", "words", "verdict"),
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
def test_the_rules(rule, words, verdict):
    said = rule([word(f"r{i}", v) for i, v in enumerate(words)])
    assert (said.verdict if said else None) == verdict


def test_people_come_before_the_rule_and_a_settling_word_before_all():
    rule = word("rule", "preserve", provisional=True)
    assert Merge("unanimous")([rule]).verdict == "preserve"
    assert Merge("unanimous")([rule, word("ann", "discard")]).verdict == "discard"
    split = [word("ann", "discard", note="settled", at="2026-01-02"), word("bob", "preserve")]
    assert Merge("unanimous")(split).verdict == "discard"
    assert Merge("senior", ("bob",))(split).verdict == "discard"


def test_a_mended_mask_is_not_lost_between_equal_words():
    mask = encode(rectangle(1, 1, 9, 9))
    assert Merge()([word("ann", "preserve", corrected=mask), word("bob", "preserve")]).corrected == mask
    assert merge.outcome(word("ann", "refine", corrected=mask)) == "preserve"
    assert merge.outcome(word("ann", "discard", corrected=mask)) == "discard"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"rule": "loudest"}, "one of majority, unanimous, senior"),
        ({"rule": "senior"}, "seniors' names"),
        ({"seniors": ("ann",)}, "only with it"),
        ({"least": 0}, "1 or more"),
    ],
)
def test_wrong_settings_are_refused(args, said):
    with pytest.raises(UserError, match=said):
        Merge(**args)


@given(st.lists(st.sampled_from(VERDICTS), min_size=1, max_size=7))
def test_no_rule_invents_a_verdict_and_order_does_not_matter(verdicts):
    words = [word(f"r{i}", v) for i, v in enumerate(verdicts)]
    for rule in (Merge(), Merge("unanimous"), Merge("senior", ("r1", "r0"))):
        one, other = rule(words), rule(words[::-1])
        assert (one is None) == (other is None)
        assert one is None or (one.verdict == other.verdict and one.verdict in verdicts)


def test_what_is_not_settled_is_listed(tmp_path):
    say(tmp_path, "ann", "a", "discard")
    say(tmp_path, "bob", "a", "preserve")
    say(tmp_path, "bob", "b", "preserve")
    words = merge.words_of(tmp_path)
    made = merge.settle(words, Merge("unanimous", least=2))
    assert (dict(made.decided), made.disagreed, made.waiting) == ({}, ("a",), ("b",))
    assert [d.verdict for d in merge.settle(words, Merge()).decided.values()] == ["discard", "preserve"]


def test_one_reviewer_with_two_logs_has_one_word(tmp_path):
    for name, verdict in (("1.jsonl", "discard"), ("2.jsonl", "preserve")):
        log.append(tmp_path / name, word("ann", verdict))
    review.forget()
    said = review.decisions_on("a", {}, [str(tmp_path / "1.jsonl"), str(tmp_path / "2.jsonl")])
    assert [d.verdict for d in said] == ["preserve"]


def run_review(root, rule=None):
    review.forget()
    logs = tuple(map(str, merge.logs_of(root)))
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


def test_a_proposed_mask_counts_only_when_judged(tmp_path):
    one = person(1)
    cid, new = one.candidate.candidate_id, encode(rectangle(5, 5, 30, 60))
    write(tmp_path, [one, person(2)])
    say(tmp_path, "ann", cid, "refine", reason="bad_mask")
    proposals.propose(tmp_path, [replace(one, mask=new, segmenter="sam@1")])
    assert proposals.reopened(tmp_path) == {cid}
    assert [s.segmenter for s in proposals.current(tmp_path)] == ["sam@1", "source_mask@source"]
    (human,) = run_review(tmp_path).tables[""]
    assert (human.verdict, human.mask) == ("refine", one.mask)  # released as it was: nobody has seen the new one
    say(tmp_path, "ann", cid, "preserve")
    assert proposals.reopened(tmp_path) == set()
    (human,) = run_review(tmp_path).tables[""]
    assert (human.verdict, human.mask, human.box) == ("preserve", new, new.box)


def test_a_mask_mended_by_hand_is_what_a_later_preserve_means(tmp_path):
    one, new = person(1), encode(rectangle(5, 5, 30, 60))
    cid = one.candidate.candidate_id
    write(tmp_path, [one, person(2)])
    say(tmp_path, "ann", cid, "refine", corrected=new, note="mended")
    say(tmp_path, "ann", cid, "preserve")
    (human,) = run_review(tmp_path).tables[""]
    assert (human.verdict, human.mask) == ("preserve", new)
