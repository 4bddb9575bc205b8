"""Which mask a word is about, and which words are merged: panel, queue, stage, exports and status by one rule."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.records import Decision
from ahp_toolkit.decisions import log as decisions
from ahp_toolkit.decisions import merge, proposals
from ahp_toolkit.decisions.log import Retraction
from ahp_toolkit.decisions.mask_history import Case, Proposal, digest
from ahp_toolkit.decisions.merge import Merge
from ahp_toolkit.decisions.status import status
from ahp_toolkit.decisions.voices import Words, outcome
from ahp_toolkit.stages import review
from ahp_toolkit.storage import parquet
from annotation.exchange import decisions as exchange
from annotation.exchange import masks, resegment
from annotation.session.queue import Handed, Plan
from annotation.session.session import ByScore, Session, log_path
from tests.annotation.small import person, rectangle, say, write

ONE = person(1)
A = ONE.candidate.candidate_id
NEW, OTHER = encode(rectangle(5, 5, 30, 60)), encode(rectangle(6, 6, 30, 60))
PLANS = [lambda root: ByScore(), Handed]


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "build", [ONE, person(2), person(3)], photos=True)


def propose(root, mask=NEW):
    proposals.propose(root, [replace(ONE, mask=mask, segmenter="sam@1")])


def stage(root, rule=None):
    """(verdict, mask) of the one candidate as it is released, or why it is not."""
    review.forget()
    logs = tuple(map(str, merge.logs_of(root)))
    fn = review.Review(review.Thresholds(0, 0), logs, "", rule or Merge(), str(root / "refine"))
    out = fn([(str(p), "") for p in parquet.parts(root / "parse")])
    humans = [(h.verdict, h.mask) for h in out.tables[""] if h.human_id == A]
    return humans[0] if humans else next(d.reason for d in out.dropped if d.id == A)


def detail(root):
    review.forget()
    fn = review.Review(review.Thresholds(0, 0), tuple(map(str, merge.logs_of(root))), "", refine=str(root / "refine"))
    return next(d.detail for p in parquet.parts(root / "parse") for d in fn([(str(p), "")]).dropped if d.id == A)


def asked(session):
    return A in [i["id"] for i in session.queue(n=8)["items"]]


def shown_to(session):
    session.listen()
    return session.item(A)["shown"]


@pytest.mark.parametrize("order", PLANS)
def test_a_mended_mask_is_asked_about_again_and_decided_anew(root, order):
    ann = Session(root, "ann", order(root))
    ann.decide(A, "refine", "bad_mask")
    assert not asked(ann)
    ann.correct(A, NEW)
    assert asked(ann) and asked(Session(root, "ann", order(root)))
    assert ann.progress()["left"] == 3
    assert shown_to(ann) == digest(NEW)
    assert stage(root) == ("preserve", NEW)  # until somebody decides anew
    ann.decide(A, "preserve")
    assert not asked(ann) and ann.progress()["left"] == 2
    assert stage(root) == ("preserve", NEW)


def test_a_refine_on_a_mended_mask_is_a_refine(root):
    ann, bob = Session(root, "ann", Handed(root)), Session(root, "bob", Handed(root))
    ann.correct(A, NEW)
    bob.decide(A, "refine", "bad_mask", shown=shown_to(bob))
    assert stage(root) == ("refine", NEW)  # bob was shown what ann has only brought
    ann.decide(A, "refine", "bad_mask", shown=shown_to(ann))
    words = [w for said in merge.words_of(root).values() for w in said]
    assert [(w.corrected, w.shown) for w in words] == [(None, digest(NEW))] * 2
    assert stage(root) == ("refine", NEW)
    assert status(root).verdicts == {A: "refine"} and ann.state(A)["verdict"] == "refine"


def test_another_segmenter_is_given_the_mask_that_is_to_be_refined(root):
    ann, bob = Session(root, "ann"), Session(root, "bob")
    ann.correct(A, NEW)
    bob.decide(A, "refine", "bad_mask", shown=shown_to(bob))
    assert [s.mask for s in resegment.to_refine(root)] == [NEW]
    propose(root, OTHER)
    assert next((s.mask, s.segmenter) for s in proposals.current(root)) == (OTHER, "sam@1")


@pytest.mark.parametrize("order", [lambda root: ByScore(), lambda root: Handed(root, Plan(overlap=1.0))])
@pytest.mark.parametrize("first", ["refine", "discard", "preserve"])
def test_a_mask_that_another_mends_is_asked_about_again_and_the_words_from_before_do_not_count(root, order, first):
    ann, bob = (Session(root, who, order(root)) for who in ("ann", "bob"))
    before = shown_to(bob)
    bob.decide(A, first, "other" if first != "preserve" else "", shown=before)
    ann.decide(A, "refine", "bad_mask", shown=before)
    ann.correct(A, NEW)
    assert proposals.reopened(root) == {A} and asked(ann) and asked(bob)
    assert ann.progress()["left"] == 3 and bob.progress()["left"] == 3
    assert stage(root) == ("other" if first == "discard" else ("preserve", NEW))  # until somebody has decided on it
    ann.decide(A, "preserve", shown=shown_to(ann))
    assert stage(root) == ("preserve", NEW) == stage(root, Merge("unanimous")) and ann.state(A)["verdict"] == "preserve"
    assert proposals.reopened(root) == set() and not asked(ann) and asked(bob)
    bob.decide(A, "refine", "bad_mask", shown=before)  # a page from before
    assert stage(root) == ("preserve", NEW) and asked(bob)
    bob.decide(A, "discard", "occluded", shown=shown_to(bob))
    assert stage(root) == "occluded" and not asked(bob)


def test_words_that_do_not_say_are_about_a_mended_mask_by_their_time(root):
    for who, minute in (("bob", 1), ("cho", 3)):
        say(root, who, A, "refine", reason="bad_mask", at=f"2026-01-01T00:0{minute}:00+00:00")
    say(root, "ann", A, "refine", corrected=NEW, at="2026-01-01T00:02:00+00:00", note="mended")
    say(root, "ann", A, "preserve", at="2026-01-01T00:00:00+00:00")  # a clock set back: of one person the order counts
    assert {d.reviewer for d in merge.words_of(root)[A]} == {"ann", "cho"}
    assert proposals.known(root)[A].answered() == {"ann", "cho"}


def test_times_of_any_zone_are_compared_as_times(root):
    """Bob's, at 08:30 UTC, is from before ann's mask; as text it is later."""
    say(root, "bob", A, "preserve", at="2026-01-01T10:30:00+02:00")
    say(root, "ann", A, "refine", corrected=NEW, at="2026-01-01T09:00:00+00:00", note="mended")
    assert proposals.known(root)[A].answered() == set()
    say(root, "cho", A, "preserve", corrected=OTHER, at="2026-01-01T10:00:00+02:00")
    assert proposals.known(root)[A].shown(ONE.mask) == NEW
    said = [Decision(A, v, w, at=at, note="settled") for v, w, at in (
        ("discard", "ann", "2026-01-01T09:00:00+00:00"), ("preserve", "bob", "2026-01-01T10:30:00+02:00"))]  # fmt: skip
    assert Merge()(said).verdict == outcome(said).verdict == decisions.newest_of(said).verdict == "discard"
    assert decisions.when("yesterday") == decisions.when("") < decisions.when("2026-01-01")


def test_a_preserve_that_repeats_a_mended_mask_does_not_make_it_new(root):
    """Bob mends after ann; who was still shown ann's mask and preserves that one is asked about bob's."""
    ann, bob = Session(root, "ann"), Session(root, "bob")
    ann.correct(A, NEW)
    old = shown_to(ann)
    bob.correct(A, OTHER)
    ann.decide(A, "preserve", shown=old)
    assert shown_to(bob) == digest(OTHER) and asked(ann) and asked(bob)
    bob.decide(A, "preserve", shown=digest(OTHER))
    assert stage(root) == ("preserve", OTHER)


@pytest.mark.parametrize("order", PLANS)
def test_a_preserve_of_a_mask_that_was_taken_back_releases_what_was_shown(root, order):
    ann = Session(root, "ann", order(root))
    ann.decide(A, "refine", "bad_mask", shown=shown_to(ann))
    ann.correct(A, NEW)
    new = shown_to(ann)
    ann.decide(A, "")  # the mended mask, not the refine
    ann.decide(A, "preserve", shown=new)  # the page still shows it
    assert stage(root) == ("preserve", NEW)
    assert asked(ann) and shown_to(ann) == digest(ONE.mask) and proposals.reopened(root) == {A}
    ann.decide(A, "preserve", shown=digest(ONE.mask))
    assert stage(root) == ("preserve", ONE.mask) and not asked(ann) and proposals.reopened(root) == set()


def test_another_who_preserved_a_mask_that_was_taken_back_is_asked_again(root):
    ann, bob = Session(root, "ann"), Session(root, "bob")
    ann.correct(A, NEW)
    new = shown_to(bob)
    ann.decide(A, "")
    bob.listen()
    bob.decide(A, "preserve", shown=new)
    assert stage(root) == ("preserve", NEW) and asked(bob)
    ann.decide(A, "discard", "other", shown=shown_to(ann))
    assert stage(root) == "other" and not asked(ann)  # bob's word is about another mask


@pytest.mark.parametrize("proposed", [False, True])
def test_a_word_that_only_brings_a_mask_overrides_nobody(root, proposed):
    ann, bob = Session(root, "ann"), Session(root, "bob")
    bob.decide(A, "discard", "occluded")
    if proposed:
        propose(root, OTHER)
    ann.correct(A, NEW)
    for rule in (Merge(), Merge("unanimous"), Merge("senior", ("ann",))):
        assert stage(root, rule) == "occluded"
    assert stage(root, Merge(least=2)) == "undecided"  # ann has not decided
    ann.listen()
    assert ann.words.disagreed() == [] and status(root).verdicts == {A: "discard"}
    ann.decide(A, "preserve", shown=digest(NEW))
    assert stage(root) == ("preserve", NEW)


@pytest.mark.parametrize("settled", [False, True])
def test_who_mends_a_mask_stands_by_what_they_had_said(root, settled):
    ann, bob = Session(root, "ann"), Session(root, "bob")
    bob.decide(A, "preserve" if settled else "discard", "" if settled else "other")
    ann.decide(A, "discard", "occluded", settle=settled)
    ann.correct(A, NEW)
    assert [d.verdict for d in merge.words_of(root)[A]] == ["discard", "preserve" if settled else "discard"]
    assert stage(root) in ("occluded", "other") and ann.words.disagreed() == []
    assert ann.state(A)["verdict"] == "discard" and asked(ann)


def test_a_mask_brought_after_two_preserves_makes_no_disagreement(root):
    ann, bob = Session(root, "ann"), Session(root, "bob")
    for session in (ann, bob):
        session.decide(A, "preserve")
    ann.correct(A, NEW)
    assert stage(root, Merge("unanimous", least=2)) == ("preserve", ONE.mask)
    assert [d.verdict for d in status(root).said[A]] == ["preserve"] * 2 and ann.words.disagreed() == []


def test_a_refine_on_a_proposal_that_its_speaker_mends_is_not_merged_with_older_words(root):
    ann, bob = Session(root, "ann"), Session(root, "bob")
    bob.decide(A, "discard", "occluded")
    propose(root, OTHER)
    ann.decide(A, "refine", "bad_mask", shown=shown_to(ann))
    ann.correct(A, NEW)
    assert stage(root) == ("preserve", NEW)


@pytest.mark.parametrize("order", PLANS)
def test_a_provisional_word_is_nobodys_answer(root, order):
    say(root, "model", A, "preserve", provisional=True)
    ann = Session(root, "ann", order(root))
    assert asked(ann)
    propose(root)
    say(root, "model", A, "discard", provisional=True, shown=digest(NEW))
    assert proposals.reopened(root) == {A} and asked(ann)
    say(root, "ann", A, "discard", reason="other", shown=digest(NEW))
    assert not asked(ann) and proposals.reopened(root) == set()


def test_an_old_panels_refine_on_a_mended_mask_is_a_refine(root):
    """It logged that mask with the word."""
    say(root, "zoe", A, "refine", corrected=NEW, at="2026-01-01T00:00:00+00:00", note="mended")
    say(root, "bob", A, "refine", reason="bad_mask", corrected=NEW, at="2026-01-02T00:00:00+00:00")
    assert stage(root) == ("refine", NEW) and status(root).verdicts == {A: "refine"}
    say(root, "bob", A, "refine", corrected=OTHER, at="2026-01-03T00:00:00+00:00")  # a mask of his own
    assert stage(root) == ("preserve", OTHER)


def test_an_import_with_a_mask_is_a_decision_and_not_asked_about(root, tmp_path):
    path = tmp_path / "m.json"
    masks.export_coco(root, path)
    said = json.loads(path.read_text())
    said["annotations"] = [n for n in said["annotations"] if n["candidate_id"] == A]
    said["annotations"][0]["segmentation"]["counts"] = NEW.counts.decode()
    path.write_text(json.dumps(said))
    for who, use in (("ann", "preserve"), ("bob", "refine")):
        assert masks.import_masks(root, path, who, use).taken == 1
        assert not asked(Session(root, who, Handed(root))) and not asked(Session(root, who))
        assert stage(root) == ("preserve", NEW)


@pytest.mark.parametrize("shown", [True, False])
def test_words_from_before_a_proposal_are_not_merged_with_words_on_it(root, shown):
    ann, bob = Session(root, "ann", Handed(root)), Session(root, "bob", Handed(root))
    ann.decide(A, "refine", "bad_mask")
    propose(root)
    assert stage(root) == ("refine", ONE.mask) and asked(bob)  # nobody has seen the new one
    if shown:
        bob.decide(A, "preserve")
    else:
        say(root, "bob", A, "preserve")
    for rule in (Merge(), Merge("unanimous"), Merge("senior", ("ann",))):
        assert stage(root, rule) == ("preserve", NEW)
    bob.listen()
    assert bob.state(A)["verdict"] == "preserve" and not bob.state(A)["disagreed"]
    assert status(root).verdicts == {A: "preserve"}
    assert not asked(Session(root, "ann", Handed(root)))


def test_a_verdict_on_an_old_mask_does_not_release_a_new_one(root):
    say(root, "ann", A, "preserve")
    say(root, "cho", A, "preserve")
    propose(root)
    assert stage(root) == ("preserve", ONE.mask)
    say(root, "bob", A, "discard", reason="other")
    assert stage(root) == "other"


def test_a_word_is_about_the_mask_that_was_shown(root):
    bob = Session(root, "bob", Handed(root, Plan(overlap=1.0)))
    old = shown_to(bob)
    propose(root)
    bob.decide(A, "preserve", shown=old)  # it came while bob was looking
    assert stage(root) == ("preserve", ONE.mask)
    assert proposals.reopened(root) == {A} and asked(bob)
    propose(root, OTHER)
    new = shown_to(bob)
    propose(root, NEW)
    bob.decide(A, "preserve", shown=new)
    assert stage(root) == ("preserve", OTHER)  # not the newest: nobody has seen that one yet
    assert [s.mask for s, v in masks.chosen(root, ["preserve"])] == [OTHER]
    bob.decide(A, "preserve", shown=shown_to(bob))
    assert stage(root) == ("preserve", NEW) and not asked(bob)


def test_what_is_shown_is_what_a_preserve_releases(root):
    """Mended, discarded, looked at again; a proposal after the mended mask; a mended one after the proposal."""
    ann = Session(root, "ann", Handed(root))
    ann.correct(A, NEW)
    ann.decide(A, "discard", "other")
    ann.decide(A, "preserve", shown=shown_to(ann))
    assert stage(root) == ("preserve", NEW)
    propose(root, OTHER)
    assert shown_to(ann) == digest(OTHER)
    ann.decide(A, "preserve")
    assert stage(root) == ("preserve", OTHER)
    ann.correct(A, NEW)
    assert shown_to(ann) == digest(NEW) and asked(ann)
    ann.decide(A, "preserve")
    assert stage(root) == ("preserve", NEW)


def test_taking_a_word_back_opens_a_proposal_again(root):
    ann = Session(root, "ann", Handed(root))
    ann.decide(A, "discard")
    ann.decide(A, "")
    ann.decide(A, "refine", "bad_mask")
    propose(root)
    ann = Session(root, "ann", Handed(root))
    ann.decide(A, "discard", "other")
    assert proposals.reopened(root) == set() and not asked(ann)
    ann.decide(A, "")
    assert proposals.reopened(root) == {A} and asked(ann) and asked(Session(root, "ann", Handed(root)))
    ann.decide(A, "")  # the refine from before it too: the next word is about the proposal all the same
    say(root, "ann", A, "preserve")
    assert proposals.reopened(root) == set() and stage(root) == ("preserve", NEW)


def test_proposals_and_words_of_before_keep_their_meaning(root):
    """No ``heard`` and no ``shown``: any word more than there were is about the proposal."""
    say(root, "ann", A, "refine")
    part = root / "refine" / "part-00000.parquet"
    parquet.write_records(part, [Proposal(A, replace(ONE, mask=NEW), 1)], Proposal)
    pq.write_table(parquet.read_table(part).drop(["heard", "at"]), part)
    assert proposals.reopened(root) == {A} and stage(root) == ("refine", ONE.mask)
    say(root, "ann", A, "preserve")
    assert proposals.reopened(root) == set() and stage(root) == ("preserve", NEW)
    line = '{"candidate_id": "a", "verdict": "preserve", "reviewer": "ann"}'
    assert decisions.entry_from_json(line) == Decision("a", "preserve", "ann")


@pytest.mark.parametrize("order", PLANS)
def test_a_preserve_of_a_mask_that_nobody_has_any_more_releases_no_other_and_is_asked_again(root, order):
    """The build was made anew with another segmenter."""
    ann = Session(root, "ann", order(root))
    ann.decide(A, "preserve", shown=shown_to(ann))
    ann.decide(person(2).candidate.candidate_id, "preserve")
    write(root, [replace(ONE, mask=NEW), person(2), person(3)])
    assert stage(root) == "undecided" and detail(root) == "preserved by ann with a mask that nobody has any more"
    parts, logs = [str(p) for p in parquet.parts(root / "parse")], tuple(map(str, merge.logs_of(root)))
    review.forget()
    assert list(review.preserved_photos(parts, [""] * 2, review.Review(review.Thresholds(0, 0), logs))) == [
        person(2).candidate.image.photo
    ]
    assert status(root).verdicts == {person(2).candidate.candidate_id: "preserve"}
    assert status(root).reopened == {A} and not list(masks.chosen(root, ["preserve"]))[1:]
    ann = Session(root, "ann", order(root))
    assert asked(ann) and ann.progress()["left"] == 2 and not ann.state(A)["decided"]
    ann.decide(A, "preserve", shown="0" * 16)  # a page from before
    assert asked(ann) and stage(root) == "undecided"
    ann.decide(A, "preserve", shown=shown_to(ann))
    assert not asked(ann) and stage(root) == ("preserve", NEW) and proposals.reopened(root) == set()


def test_other_words_on_a_mask_that_nobody_has_any_more_stand(root):
    say(root, "ann", A, "refine", reason="bad_mask", shown="0" * 16)
    assert stage(root) == ("refine", ONE.mask) and not asked(Session(root, "ann"))
    say(root, "ann", A, "discard", reason="other", shown="0" * 16)
    assert stage(root) == "other" and not asked(Session(root, "ann"))


@pytest.mark.parametrize("order", PLANS)
def test_a_lost_preserve_leaves_no_other_word_on_the_same_mask_to_decide_alone(root, order):
    sessions = {who: Session(root, who, order(root)) for who in ("ann", "bob", "cat")}
    for who, verdict in (("ann", "preserve"), ("bob", "discard"), ("cat", "preserve")):
        sessions[who].decide(A, verdict, "occluded" if verdict == "discard" else "", shown=digest(ONE.mask))
    write(root, [replace(ONE, mask=NEW), person(2), person(3)])
    assert stage(root) == "undecided" and detail(root).startswith("preserved by ann, cat with a mask that nobody")
    assert proposals.reopened(root) == {A} and status(root).verdicts == {}
    assert asked(Session(root, "ann", order(root)))


def test_a_rules_word_stands_where_a_preserve_is_of_a_mask_that_is_gone(root):
    say(root, "ann", A, "preserve", shown="0" * 16)
    rule = {A: Decision(A, "discard", "rule", provisional=True)}
    logs = [str(p) for p in merge.logs_of(root)]
    review.forget()
    assert review.decisions_on(A, rule, logs, first=lambda: digest(ONE.mask)) == [rule[A]]


@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_preserve_takes_its_proposed_mask_along(root, tmp_path, history, kind):
    ann = Session(root, "ann", Handed(root))
    ann.decide(A, "refine", "bad_mask")
    propose(root)
    ann.decide(A, "preserve", shown=shown_to(ann))
    say(root, "bob", A, "preserve", at="2099-01-01T00:00:00+00:00")  # since the proposal, and does not say
    assert stage(root) == ("preserve", NEW) and len(merge.words_of(root)[A]) == 2
    other, path = write(tmp_path / "other", [ONE, person(2)], photos=True), tmp_path / f"d.{kind}"
    exchange.export_decisions(root, path, history)
    assert exchange.import_decisions(other, path).bad == []
    assert stage(other) == ("preserve", NEW) and not asked(Session(other, "ann"))
    assert exchange.import_decisions(root, path).taken == 0


def test_an_imported_word_on_a_mask_that_is_not_here_is_bad(root, tmp_path):
    ann, bob = Session(root, "ann"), Session(root, "bob")
    ann.decide(A, "refine", "bad_mask")
    bob.correct(A, NEW)
    ann.decide(A, "refine", "bad_mask", shown=shown_to(ann))
    other, path = write(tmp_path / "other", [ONE, person(2)]), tmp_path / "d.csv"
    exchange.export_decisions(root, path)
    done = exchange.import_decisions(other, path)
    assert done.words == "0 taken, 0 known already, 1 bad" and "export it with --history" in done.bad[0].why
    assert exchange.import_decisions(root, path).words == "0 taken, 1 known already, 0 bad"
    exchange.export_decisions(root, path, history=True)  # ann's words come before bob's mask in it
    assert exchange.import_decisions(other, path).words == "3 taken, 0 known already, 0 bad"
    assert stage(other) == ("refine", NEW)
    path.write_text(f"candidate_id,verdict,shown\n{A},discard,{'0' * 16}\n")
    assert exchange.import_decisions(other, path, "cho").taken == 1  # whatever its mask


@pytest.mark.parametrize("first", ["ann", "zoe"])
def test_of_two_who_mended_the_newest_mask_counts_whatever_their_names(root, first):
    second = {"ann": "zoe", "zoe": "ann"}[first]
    say(root, first, A, "preserve", corrected=NEW, at="2026-01-01T00:00:00+00:00")
    say(root, second, A, "preserve", corrected=OTHER, at="2026-01-02T00:00:00+00:00")
    assert stage(root) == ("preserve", OTHER)
    assert shown_to(Session(root, "bob")) == digest(OTHER)


def test_a_provisional_row_never_replaces_a_final_word(root, tmp_path):
    say(root, "ann", A, "discard", reason="occluded")
    path = tmp_path / "d.csv"
    path.write_text(f"candidate_id,verdict,provisional\n{A},preserve,true\n")
    assert exchange.import_decisions(root, path, "ann").taken == 1
    assert stage(root) == "occluded" and status(root).verdicts == {A: "discard"}
    session = Session(root, "ann")
    assert session.state(A)["verdict"] == "discard" and session.words.mine("ann")[A].verdict == "discard"
    said = decisions.last_words(decisions.read_log(log_path(root, "ann")))
    assert [d.verdict for d in said[A]] == ["discard"]


MOVES = st.tuples(
    st.sampled_from(["ann", "bob"]),
    st.sampled_from(["discard", "preserve", "refine", "mended", "back", "propose"]),
    st.booleans(),
    st.sampled_from(["", digest(ONE.mask), digest(NEW), digest(OTHER)]),
    st.sampled_from([NEW, OTHER]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(MOVES, max_size=12))
def test_the_live_view_the_logs_and_the_stage_agree(tmp_path_factory, moves):
    root = write(tmp_path_factory.mktemp("x"), [ONE, person(2)])
    live = Words(root / "decisions")
    for k, (who, what, provisional, shown, mask) in enumerate(moves):
        at, log = f"2026-01-01T00:00:{k:02d}+00:00", log_path(root, who)
        if what == "propose":
            propose(root, mask)
        elif what == "back":
            decisions.append(log, Retraction(A, who, at), sync=False)
        elif what == "mended":
            decisions.append(log, Decision(A, "refine", who, "", mask, at=at, note="mended"), sync=False)
        else:
            d = Decision(A, what, who, "other", at=at, provisional=provisional, shown=shown)
            decisions.append(log, d, sync=False)
        live.refresh()
    case = proposals.known(root).get(A, Case())
    assert live.said(A) == [d for d in case.counted() if not d.provisional]
    assert live.answered.get(A, set()) == case.answered()
    assert live.case(A).shown(ONE.mask) == case.shown(ONE.mask)
    finals = [w.word for w in case.words if not w.word.provisional]
    assert all(not d.provisional for d in case.counted()) or not finals
    stands = Merge()(case.counted())
    if stands is None:
        assert stage(root) == "undecided"
    elif stands.verdict == "discard":
        assert stage(root) == "other"
    else:
        assert stage(root) == (merge.outcome(stands), case.mask(stands, ONE.mask))
