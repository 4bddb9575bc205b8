"""A large review in slices: every candidate in exactly one, each App bounded, all words in the same logs."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.decisions.candidates import WHOLE, Candidates, Slice
from ahp_toolkit.decisions.merge import logs_of
from ahp_toolkit.stages.review import decisions_on, forget
from annotation import commands
from annotation.session.queue import Handed, Plan
from annotation.session.session import SLICE_VARIABLE, Session
from tests.annotation import tiny_build

N = 5


@pytest.fixture
def root(tmp_path):
    tiny_build.write(tmp_path, 240, photos=60, part=50)
    return tmp_path


def sitting(root, name, number, of=N):
    piece = Slice(number, of)
    return Session(root, name, Handed(root, Plan(), piece), piece=piece)


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


def test_unsent_words_of_a_slice_wait_for_it(root):
    """The panel keeps them by session; another slice on the same port would refuse them for good."""
    names = [sitting(root, "ann", k).progress()["session"] for k in (1, 2)]
    assert len({*names, Session(root, "ann").progress()["session"]}) == 3
    assert Session(root, "ann").progress()["session"] == f"ann@{root.resolve()}"


def test_words_of_all_slices_reach_one_log_and_the_build(root):
    forget()
    said = {}
    for k in range(1, N + 1):
        s = sitting(root, "ann", k)
        todo = [item["id"] for item in s.queue(n=3)["items"]]
        assert all(s.candidates.piece.holds(cid) for cid in todo)
        for cid in todo:
            said[cid] = s.decide(cid, "preserve")["mine"]["verdict"]
        progress = s.progress()
        assert (progress["done"], progress["total"]) == (3, len(s.candidates))
        assert progress["left"] == len(s.candidates) - 3
    assert len(said) == 3 * N
    logs = tuple(str(p) for p in logs_of(root))
    assert len(logs) == 1
    assert all(decisions_on(cid, {}, logs)[0].verdict == "preserve" for cid in said)
    everything = Session(root, "ann")
    assert everything.progress()["done"] == 3 * N


def test_a_slice_sees_what_others_say_about_its_own(root):
    one, other = sitting(root, "ann", 1), sitting(root, "bob", 1)
    elsewhere = sitting(root, "bob", 2)
    cid = one.queue(n=1)["items"][0]["id"]
    one.decide(cid, "discard")
    other.words.refresh()
    elsewhere.words.refresh()
    assert [d.reviewer for d in other.words.said(cid)] == ["ann"]
    assert not elsewhere.words.said(cid)
    with pytest.raises(UserError, match="no such candidate"):
        elsewhere.decide(cid, "preserve")


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "a/b", "1/0", "-1/4", "1/2/3", "¹/2"])
def test_no_such_slice(text):
    with pytest.raises(UserError, match="--slice"):
        Slice.parse(text)


def test_the_whole_is_one_slice():
    assert Slice.parse("1/1") == WHOLE and WHOLE.holds("anything") and WHOLE.tail == ""
    assert Slice.parse("3/20").tail == "-3of20" and SLICE_VARIABLE.startswith("AHP_")


def test_a_large_build_is_told_to_slice(root, monkeypatch):
    from annotation.app import server

    class Dataset(list):
        name = "d"

    monkeypatch.setattr(commands, "MOST", 100)
    monkeypatch.setattr(commands, "GOOD", 60)
    monkeypatch.setattr(server, "prepare", lambda *_: Dataset())
    run = CliRunner().invoke
    said = run(commands.review, ["--root", str(root), "--reviewer", "ann", "--check"]).output
    assert "240 candidates for one App" in said and "--slice 1/4" in said
    said = run(commands.review, ["--root", str(root), "--reviewer", "ann", "--check", "--slice", "2/4"]).output
    assert "--slice" not in said
