"""A large review in slices: every candidate in exactly one, each App bounded, all decisions in the same logs."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.decisions.candidates import WHOLE, Candidates, Slice
from ahp_toolkit.decisions.log import logs_of
from ahp_toolkit.stages.review import Review, Thresholds, forget
from annotation import commands
from annotation.session.queue import LeasedOrder, Plan
from annotation.session.session import SLICE_VARIABLE, Session
from tests.annotation import tiny_build
from tests.annotation.small import decide

N = 5


@pytest.fixture
def root(tmp_path):
    tiny_build.write(tmp_path, 240, photos=60, part=50)
    return tmp_path


def sitting(root, name, number, of=N):
    piece = Slice(number, of)
    return Session(root, name, LeasedOrder(root, Plan(), piece), piece=piece)


def test_every_candidate_is_in_one_slice_with_its_whole_photo(root):
    whole = Candidates(root)
    pieces = [Candidates(root, Slice(k, N)) for k in range(1, N + 1)]
    assert sorted(cid for p in pieces for cid in p) == sorted(whole)
    assert all(10 <= len(p) <= 120 for p in pieces)
    for p in pieces:
        assert [s.candidate.candidate_id for s in p.records()] == [cid for cid in whole if cid in p]
        assert [s.candidate.candidate_id for s in p.records(set(list(p)[:-2]))] == list(p)[-2:]
        assert all(p.record(cid) == whole.record(cid) for cid in list(p)[:3])
        assert set(p.ruled) == set(whole.ruled) & set(p)
    photos = [{cid.partition("#")[0] for cid in p} for p in pieces]
    assert sum(map(len, photos)) == 60


def test_unsent_decisions_of_a_slice_wait_for_it(root):
    """The panel keeps them by session; another slice on the same port would refuse them for good."""
    names = [sitting(root, "ann", k).progress()["session"] for k in (1, 2)]
    assert len({*names, Session(root, "ann").progress()["session"]}) == 3
    assert Session(root, "ann").progress()["session"] == f"ann@{root.resolve()}"


def test_decisions_of_all_slices_reach_one_log_and_the_build(root):
    forget()
    decided = {}
    for k in range(1, N + 1):
        s = sitting(root, "ann", k)
        todo = [item["id"] for item in s.queue(n=3)["items"]]
        assert all(s.candidates.piece.holds(cid) for cid in todo)
        for cid in todo:
            decided[cid] = decide(s, cid, "preserve")["mine"]["verdict"]
        progress = s.progress()
        assert (progress["done"], progress["total"]) == (3, len(s.candidates))
        assert progress["left"] == len(s.candidates) - 3
    assert len(decided) == 3 * N
    logs = tuple(str(p) for p in logs_of(root))
    assert len(logs) == 1
    stage, candidates = Review(Thresholds(0, 0), logs), Candidates(root)
    for cid in decided:
        digest = candidates.record(cid).mask.digest
        assert stage.decisions_on(cid, {}, lambda digest=digest: digest)[0].verdict == "preserve"
    everything = Session(root, "ann")
    assert everything.progress()["done"] == 3 * N


def test_a_slice_sees_what_others_decide_on_its_own(root):
    one, other = sitting(root, "ann", 1), sitting(root, "bob", 1)
    elsewhere = sitting(root, "bob", 2)
    cid = one.queue(n=1)["items"][0]["id"]
    decide(one, cid, "discard")
    other.state.refresh()
    elsewhere.state.refresh()
    assert [d.reviewer for d in other.state.finals(cid)] == ["ann"]
    assert not elsewhere.state.finals(cid)
    with pytest.raises(UserError, match="no such candidate"):
        decide(elsewhere, cid, "preserve")


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "a/b", "1/0", "-1/4", "1/2/3", "¹/2"])
def test_no_such_slice(text):
    with pytest.raises(UserError, match="--slice"):
        Slice.parse(text)


def test_the_whole_is_one_slice():
    assert Slice.parse("1/1") == WHOLE and WHOLE.holds("anything") and WHOLE.tail == ""
    assert Slice.parse("3/20").tail == "-3of20" and SLICE_VARIABLE.startswith("AHP_")


def test_a_large_build_is_advised_to_slice(root, monkeypatch):
    from annotation.app import server

    class Dataset(list):
        name = "d"

    monkeypatch.setattr(commands, "MOST", 100)
    monkeypatch.setattr(commands, "GOOD", 60)
    monkeypatch.setattr(server, "prepare", lambda *_: Dataset())
    run = CliRunner().invoke
    output = run(commands.review, ["--root", str(root), "--reviewer", "ann", "--check"]).output
    assert "240 candidates for one App" in output and "--slice 1/4" in output
    output = run(commands.review, ["--root", str(root), "--reviewer", "ann", "--check", "--slice", "2/4"]).output
    assert "--slice" not in output
