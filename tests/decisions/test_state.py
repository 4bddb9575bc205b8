"""Which decisions count for which mask: panel, queue, stage, exports and status by one rule."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.records import Decision
from ahp_toolkit.decisions import log, proposals
from ahp_toolkit.decisions.candidates import Candidates
from ahp_toolkit.decisions.log import Retraction, logs_of, path_of
from ahp_toolkit.decisions.merge import Merge
from ahp_toolkit.decisions.state import Decisions, row
from ahp_toolkit.decisions.status import status
from ahp_toolkit.stages import review
from ahp_toolkit.storage import parquet
from annotation.exchange import decisions as exchange
from annotation.exchange import masks, resegment
from annotation.session.queue import LeasedOrder, Plan
from annotation.session.session import ByScore, Session
from tests.annotation.small import decide, person, rectangle, say, write

ONE = person(1)
A = ONE.candidate.candidate_id
FIRST, NEW, OTHER = ONE.mask, encode(rectangle(5, 5, 30, 60)), encode(rectangle(6, 6, 30, 60))
PLANS = [lambda root: ByScore(), LeasedOrder]


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "build", [ONE, person(2), person(3)], photos=True)


def propose(root, mask=NEW):
    proposals.propose(root, [replace(ONE, mask=mask, segmenter="sam@1")])


def run_stage(root, rule=None):
    review.forget()
    fn = review.Review(
        review.Thresholds(0, 0), tuple(map(str, logs_of(root))), "", rule or Merge(), str(root / "refine")
    )
    return fn([(str(p), "") for p in parquet.parts(root / "parse")])


def stage(root, rule=None):
    """(verdict, mask) of the one candidate as it is released, or why it is not."""
    out = run_stage(root, rule)
    humans = [(h.verdict, h.mask) for h in out.tables[""] if h.human_id == A]
    return humans[0] if humans else next(d.reason for d in out.dropped if d.id == A)


def queued(session):
    return A in [i["id"] for i in session.queue(n=8)["items"]]


def shown_to(session):
    session.follow()
    return session.item(A)["mask_digest"]


def reopened(root):
    return Decisions(root).refresh().reopened


@pytest.mark.parametrize("order", PLANS)
def test_a_corrected_mask_is_decided_on_again(root, order):
    ann = Session(root, "ann", order(root))
    decide(ann, A, "refine", "bad_mask")
    assert not queued(ann)
    ann.correct(A, NEW)
    assert queued(ann) and queued(Session(root, "ann", order(root)))
    assert ann.progress()["left"] == 3 and shown_to(ann) == NEW.digest
    assert stage(root) == ("refine", FIRST)  # a correction decides nothing
    decide(ann, A, "preserve")
    assert not queued(ann) and ann.progress()["left"] == 2
    assert stage(root) == ("preserve", NEW)


@pytest.mark.parametrize("order", [lambda root: ByScore(), lambda root: LeasedOrder(root, Plan(overlap=1.0))])
@pytest.mark.parametrize("verdict", ["refine", "discard", "preserve"])
@pytest.mark.parametrize("how", ["corrected", "proposed"])
def test_decisions_on_an_older_mask_count_until_somebody_decides_on_the_newest(root, order, verdict, how):
    ann, bob = (Session(root, who, order(root)) for who in ("ann", "bob"))
    before = shown_to(bob)
    decide(bob, A, verdict, "other" if verdict != "preserve" else "", mask_digest=before)
    if how == "corrected":
        decide(ann, A, "refine", "bad_mask", mask_digest=before)
        ann.correct(A, NEW)
    else:
        propose(root)
    assert reopened(root) == {A} and queued(ann) and queued(bob)
    assert stage(root) == {"discard": "other", "refine": ("refine", FIRST)}.get(
        verdict, ("refine" if how == "corrected" else "preserve", FIRST)
    )
    decide(ann, A, "preserve", mask_digest=shown_to(ann))
    assert stage(root) == ("preserve", NEW) == stage(root, Merge("unanimous")) and ann.row(A)["verdict"] == "preserve"
    assert status(root).verdicts == {A: "preserve"}
    assert reopened(root) == set() and not queued(ann) and queued(bob)
    decide(bob, A, "refine", "bad_mask", mask_digest=before)  # a page that still shows the old mask
    assert stage(root) == ("preserve", NEW) and queued(bob)
    decide(bob, A, "discard", "occluded", mask_digest=shown_to(bob))
    assert stage(root) == "occluded" and not queued(bob)


def test_of_two_corrections_the_newest_is_shown_and_a_preserve_of_the_older_makes_it_no_newer(root):
    ann, bob = Session(root, "ann"), Session(root, "bob")
    ann.correct(A, NEW)
    old = shown_to(ann)
    bob.correct(A, OTHER)
    decide(ann, A, "preserve", mask_digest=old)
    assert shown_to(bob) == OTHER.digest and queued(ann) and queued(bob)
    assert stage(root) == ("preserve", NEW)  # nobody has decided on the newest
    decide(bob, A, "preserve", mask_digest=OTHER.digest)
    assert stage(root) == ("preserve", OTHER)


def test_masks_are_ordered_by_time_in_any_zone_whatever_the_reviewers_names(root):
    say(root, "zoe", A, "refine", corrected=NEW, at="2026-01-01T10:30:00+02:00")
    say(root, "ann", A, "refine", FIRST.digest, corrected=OTHER, at="2026-01-01T09:00:00+00:00")
    assert Decisions(root).refresh().case(A).current == OTHER.digest
    propose(root, FIRST)  # a segmenter has come back to the build's mask
    assert Decisions(root).refresh().case(A).current == FIRST.digest


def test_a_correction_that_is_taken_back_is_shown_no_longer(root):
    ann = Session(root, "ann")
    decide(ann, A, "refine", "bad_mask", mask_digest=shown_to(ann))
    ann.correct(A, NEW)
    answer = decide(ann, A, "", mask_digest=shown_to(ann))  # the correction, not the refine
    assert answer["item"]["mask_digest"] == FIRST.digest and stage(root) == ("refine", FIRST)
    decide(ann, A, "preserve", mask_digest=NEW.digest)  # a page that still shows it: that mask is nobody's
    assert stage(root) == ("refine", FIRST) and ann.row(A)["verdict"] == "refine"
    decide(ann, A, "preserve", mask_digest=FIRST.digest)
    assert stage(root) == ("preserve", FIRST) and not queued(ann)


def test_who_preserved_a_correction_before_it_was_taken_back_keeps_its_mask(root):
    ann, bob = Session(root, "ann"), Session(root, "bob")
    ann.correct(A, NEW)
    decide(bob, A, "preserve", mask_digest=shown_to(bob))
    decide(ann, A, "")
    assert stage(root) == ("preserve", NEW) and not queued(bob)


def test_another_segmenter_gets_the_mask_that_is_to_be_refined_once(root):
    bob = Session(root, "bob")
    Session(root, "ann").correct(A, NEW)
    decide(bob, A, "refine", "bad_mask", mask_digest=shown_to(bob))
    assert [s.mask for s in resegment.to_refine(root)] == [NEW] and stage(root) == ("refine", NEW)
    propose(root, OTHER)
    assert next((s.mask, s.segmenter) for s, _ in masks.chosen(root)) == (OTHER, "sam@1")
    assert list(resegment.to_refine(root)) == []  # the new mask waits for people


@pytest.mark.parametrize("order", PLANS)
def test_a_provisional_decision_answers_nothing_and_never_replaces_a_final_one(root, order):
    say(root, "model", A, "preserve", provisional=True)
    ann = Session(root, "ann", order(root))
    assert queued(ann)
    propose(root)
    say(root, "model", A, "discard", provisional=True)
    assert reopened(root) == {A} and queued(ann)
    say(root, "ann", A, "discard", reason="other")
    say(root, "ann", A, "preserve", provisional=True)
    assert not queued(ann) and reopened(root) == set() and stage(root) == "other"
    assert ann.state.mine("ann")[A].verdict == "discard"


@pytest.mark.parametrize("order", PLANS)
def test_a_preserve_of_a_mask_that_nobody_has_releases_no_other(root, order):
    """The build was made again with another segmenter."""
    ann = Session(root, "ann", order(root))
    decide(ann, A, "preserve", mask_digest=shown_to(ann))
    decide(ann, person(2).candidate.candidate_id, "preserve")
    write(root, [replace(ONE, mask=NEW), person(2), person(3)])
    assert stage(root) == "undecided"
    assert [d.detail for d in run_stage(root).dropped if d.id == A] == [
        "preserved by ann with a mask that the candidate no longer has"
    ]
    parts, logs = [str(p) for p in parquet.parts(root / "parse")], tuple(map(str, logs_of(root)))
    review.forget()
    fn = review.Review(review.Thresholds(0, 0), logs)
    assert list(review.preserved_photos(parts, [""] * 2, fn)) == [person(2).candidate.image.photo]
    assert status(root).verdicts == {person(2).candidate.candidate_id: "preserve"}
    assert status(root).reopened == {A} and not list(masks.chosen(root, ["preserve"]))[1:]
    ann = Session(root, "ann", order(root))
    assert queued(ann) and ann.progress()["left"] == 2 and not ann.row(A)["decided"]
    decide(ann, A, "preserve", mask_digest=shown_to(ann))
    assert not queued(ann) and stage(root) == ("preserve", NEW) and reopened(root) == set()


def test_a_discard_is_of_the_person_whatever_the_mask_a_refine_is_not(root):
    say(root, "ann", A, "discard", "0" * 16, reason="other")
    assert stage(root) == "other" and not queued(Session(root, "ann"))
    say(root, "bob", A, "refine", "0" * 16, reason="bad_mask")
    assert stage(root) == "undecided" and queued(Session(root, "ann"))  # they did not all discard that mask
    say(root, "bob", A, "preserve")
    assert stage(root) == ("preserve", FIRST)


def test_the_rule_decides_where_a_preserve_is_of_a_mask_that_nobody_has(root):
    say(root, "ann", A, "preserve", "0" * 16)
    rule = {A: Decision(A, "discard", "rule", FIRST.digest, provisional=True)}
    review.forget()
    fn = review.Review(review.Thresholds(0, 0), tuple(map(str, logs_of(root))))
    assert fn.decisions_on(A, rule, lambda: FIRST.digest) == [rule[A]]


@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_decision_takes_its_mask_along(root, tmp_path, history, kind):
    ann = Session(root, "ann", LeasedOrder(root))
    decide(ann, A, "refine", "bad_mask")
    propose(root)
    decide(ann, A, "preserve", mask_digest=shown_to(ann))
    assert stage(root) == ("preserve", NEW)
    other, path = write(tmp_path / "other", [ONE, person(2)], photos=True), tmp_path / f"d.{kind}"
    exchange.export_decisions(root, path, history)
    assert exchange.import_decisions(other, path).bad == []
    assert stage(other) == ("preserve", NEW) and not queued(Session(other, "ann"))
    assert exchange.import_decisions(root, path).taken == 0


@pytest.mark.parametrize("use", ["preserve", "refine"])
def test_an_imported_mask_is_the_reviewers_decision(root, tmp_path, use):
    path = tmp_path / "m.json"
    masks.export_coco(root, path)
    file = json.loads(path.read_text())
    file["annotations"] = [n for n in file["annotations"] if n["candidate_id"] == A]
    file["annotations"][0]["segmentation"]["counts"] = NEW.counts.decode()
    path.write_text(json.dumps(file))
    assert masks.import_masks(root, path, "ann", use).taken == 1
    assert stage(root) == {"preserve": ("preserve", NEW), "refine": ("refine", FIRST)}[use]
    assert queued(Session(root, "ann")) == (use == "refine")  # the correction is still to be decided on


def test_logs_of_two_places_are_united_by_id(root, tmp_path):
    ann = Session(root, "ann")
    decide(ann, A, "discard", "other", at="2026-01-01T00:00:00Z")
    decide(ann, A, "preserve", at="2026-01-01T00:00:01Z")
    decide(ann, A, "", at="2026-01-01T00:00:02Z")
    lines = path_of(root, "ann").read_text().splitlines()
    path_of(root, "ann").write_text("\n".join([*reversed(lines), *lines]) + "\n")  # any order, any number of times
    assert stage(root) == "other" and Session(root, "ann").row(A)["verdict"] == "discard"


def test_a_clock_set_back_takes_nothing_from_the_last_decision(root):
    ann = Session(root, "ann")
    decide(ann, A, "discard", "other", at="2026-01-02T00:00:00Z")
    decide(ann, A, "preserve", at="2026-01-01T00:00:00Z")
    decide(ann, A, "preserve", at="2026-01-01T00:00:00Z")  # sent again
    assert stage(root) == ("preserve", FIRST) and len(Decisions(root).refresh().case(A).decisions) == 2


def test_the_databases_fields():
    rule = type("R", (), {"verdict": "discard", "reason": "occluded"})()
    assert row([], None)["verdict"] is None
    assert row([], rule) | {"verdict": "discard", "provisional": True, "decided": False} == row([], rule)
    both = [Decision("a", "preserve", "ann", "0" * 16), Decision("a", "discard", "bob-2", "0" * 16)]
    fields = row(both, rule)
    assert fields["disagreed"] and fields["decided"] and not fields["provisional"]
    assert (fields["verdict_ann"], fields["verdict_bob_2"], fields["verdict"]) == ("preserve", "discard", "discard")


MOVES = st.tuples(
    st.sampled_from(["ann", "bob"]),
    st.sampled_from(["discard", "preserve", "refine", "correct", "back", "propose"]),
    st.booleans(),
    st.sampled_from([FIRST, NEW, OTHER]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(MOVES, max_size=12))
def test_the_live_state_the_logs_and_the_stage_agree(tmp_path_factory, moves):
    root = write(tmp_path_factory.mktemp("x"), [ONE, person(2)])
    live = Decisions(root, Candidates(root))
    made: dict[str, list[str]] = {"ann": [], "bob": []}
    for k, (who, what, provisional, mask) in enumerate(moves):
        at, path = f"2026-01-01T00:00:{k:02d}+00:00", path_of(root, who)
        if what == "propose":
            propose(root, mask)
        elif what == "back":
            if made[who]:
                log.append(path, Retraction(A, who, made[who].pop(), at), sync=False)
        else:
            verdict, corrected = ("refine", mask) if what == "correct" else (what, None)
            d = Decision(A, verdict, who, mask.digest if what != "correct" else FIRST.digest, "other", corrected, at=at,
                         provisional=provisional and what != "correct")  # fmt: skip
            made[who].append(d.id)
            log.append(path, d, sync=False)
        live.refresh()
    fresh = Decisions(root).refresh()
    assert live.finals(A) == fresh.finals(A) and live.reopened == fresh.reopened
    assert live.case(A).current == fresh.case(A).current
    counted = fresh.case(A).counted()
    assert len({d.mask_digest for d in counted} - {"0" * 16}) <= 1 or all(d.verdict == "discard" for d in counted)
    merged = Merge()(counted)
    if merged is None:
        assert stage(root) == "undecided"
    elif merged.verdict == "discard":
        assert stage(root) == "other"
    else:
        assert stage(root) == (merged.verdict, fresh.case(A).mask_of(merged, FIRST))
