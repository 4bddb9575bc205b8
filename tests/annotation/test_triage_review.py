"""What triage discards unseen is a discard in the review stage until people have decided, and it is counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ahp_toolkit.build.config import Reviewing
from ahp_toolkit.cli.build import summary
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.records import Decision, Dropped, Human
from ahp_toolkit.decisions import proposals, rule
from ahp_toolkit.decisions.candidates import Candidates, Ruled, auto_discarded
from ahp_toolkit.decisions.log import check_name
from ahp_toolkit.decisions.triage.triage import Triage, ordered
from ahp_toolkit.runtime.stage import MAIN, Result
from ahp_toolkit.stages import review
from ahp_toolkit.stages.review import Review, Thresholds
from ahp_toolkit.storage import files, parquet
from annotation.session import session
from annotation.session.queue import LeasedOrder, Plan
from tests.annotation.small import person, rectangle, say, write
from tests.build.steps import config, made

PEOPLE = [person(i) for i in range(6)]
IDS = [p.candidate.candidate_id for p in PEOPLE]


def sort_out(root, *gone: str) -> None:
    records = [Triage(cid, 0.1, i, cid in gone, False) for i, cid in enumerate(IDS)]
    parquet.write_records(root / "triage/part-00000.parquet", records, Triage)


@pytest.fixture
def root(tmp_path):
    review.forget()
    return write(tmp_path, PEOPLE, photos=True)


def reviewed(root, mode: str = "provisional") -> Result:
    return made(config(root, {"coco": root / "data/coco"}, review=Reviewing(mode)), "review")["review"]


def kept_and_dropped(root) -> tuple[set[str], dict[str, Dropped]]:
    kept = {h.human_id for h in parquet.read_records(root / "review", Human)}
    return kept, {d.id: d for d in parquet.read_records(root / "review/dropped.parquet", Dropped)}


def test_an_auto_discard_beats_the_rule_and_people_beat_both(root):
    assert all(rule.decide(p).verdict == "preserve" for p in PEOPLE)
    first = reviewed(root)
    assert first.fresh and first.counts["out"] == 6
    sort_out(root, IDS[1], IDS[2])
    assert auto_discarded(root / "triage") == {IDS[1], IDS[2]}
    second = reviewed(root)
    kept, dropped = kept_and_dropped(root)
    assert second.fresh and kept == set(IDS) - {IDS[1], IDS[2]}
    assert {(d.id, d.reason, d.detail) for d in dropped.values()} == {
        (c, "triage", "discard by triage") for c in IDS[1:3]
    }
    assert second.counts["triage/coco"] == 2
    assert "4 preserved, 0 to refine" in summary(second, "provisional")
    assert "2 discarded unseen by triage" in summary(second, "provisional")
    made_ = {d.candidate_id: d for d in parquet.read_records(root / "review/decisions", Decision)}
    assert all(made_[c].provisional and made_[c].reviewer == made_[c].reason == "triage" for c in IDS[1:3])
    assert not reviewed(root).fresh  # the same triage: nothing to do
    say(root, "ann", IDS[1], "preserve")
    third = reviewed(root)
    assert kept_and_dropped(root)[0] == set(IDS) - {IDS[2]} and third.counts["triage/coco"] == 1


def test_without_a_rule_an_auto_discard_is_no_longer_undecided(root):
    sort_out(root, IDS[0])
    reviewed(root, "none")
    reasons = {cid: d.reason for cid, d in kept_and_dropped(root)[1].items()}
    assert reasons == dict.fromkeys(IDS, "undecided") | {IDS[0]: "triage"}


def test_a_rule_that_knows_the_truth_beats_triage(root):
    sort_out(root, IDS[0])
    known = [Decision(IDS[0], "preserve", "oracle", PEOPLE[0].mask.digest)]
    parquet.write_records(root / "decide/part-00000.parquet", known, Decision)
    ruled = {d.candidate_id: d for d in known}
    assert Review(Thresholds(0, 0), triage=str(root / "triage")).decisions_on(IDS[0], ruled, lambda: "0" * 16) == known
    assert Candidates(root).ruled == {IDS[0]: Ruled("preserve", "")}
    part = str(root / "parse/part-00000.parquet")
    out = Review(Thresholds(0, 0), triage=str(root / "triage"))([(part, str(root / "decide/part-00000.parquet"))])
    assert [h.human_id for h in out.tables[MAIN]] == [IDS[0]]


def test_the_app_shows_it_as_a_provisional_discard_and_nobody_has_its_name(root):
    sort_out(root, IDS[3])
    shown = session.Session(root, "ann")
    row = shown.row(IDS[3])
    assert (row["verdict"], row["reason"], row["provisional"]) == ("discard", "triage", True)
    assert [i["id"] for i in shown.queue("provisional")["items"]] == [IDS[3]]
    with pytest.raises(UserError, match="neither 'rule' nor 'triage'"):
        check_name("triage")


def triaged(root, *gone: str) -> None:
    sort_out(root, *gone)
    files.write_json(root / "triage/stage.json", {"name": "triage"})


def queued(order: LeasedOrder, root) -> tuple[list[str], int]:
    """The candidates of the queue, in order, and how many are left by the progress."""
    answer = session.Session(root, "ann", order).queue(n=64)
    return [i["id"] for i in answer["items"]], answer["progress"]["left"]


def propose_other(root, cid: str) -> None:
    """Another mask is proposed for a candidate."""
    one = replace(PEOPLE[IDS.index(cid)], mask=encode(rectangle(5, 5, 30, 60)), segmenter="sam@1")
    proposals.propose(root, [one])


def test_who_came_into_the_build_after_triage_is_asked_about_last_and_who_left_it_never(root):
    triaged(root, IDS[1])
    new = [person(6), person(7)]
    write(root, [*PEOPLE[2:], *new], photos=True)
    there = [*IDS[2:], *(p.candidate.candidate_id for p in new)]
    assert ordered(root) == there
    assert queued(LeasedOrder(root), root) == (there, len(there))


def test_an_auto_discard_with_another_mask_is_asked_about_and_by_as_many_as_any(root):
    triaged(root, IDS[3], IDS[4])
    late = LeasedOrder(root)  # an App that runs already
    assert queued(late, root) == ([c for c in IDS if c not in IDS[3:5]], 4)
    propose_other(root, IDS[3])
    for order in (late, LeasedOrder(root)):
        assert queued(order, root) == ([IDS[3], *IDS[:3], IDS[5]], 5)
    say(root, "bob", IDS[3], "preserve")
    again = LeasedOrder(root, Plan(overlap=1.0))  # begun when the first of two has decided
    assert IDS[3] in queued(again, root)[0] and IDS[4] not in queued(again, root)[0]
