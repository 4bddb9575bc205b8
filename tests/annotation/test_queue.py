"""The queue: nobody is asked for nothing, nothing is asked twice without need, several processes and wrong clocks."""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahp_toolkit.core.errors import UserError
from annotation.session.queue import Plan, Queue

IDS = [f"coco/{i:03d}#1" for i in range(60)]


def test_a_shared_queue_hands_out_each_once_in_order(tmp_path):
    a, b = (Queue(tmp_path, IDS) for _ in range(2))
    assert a.next_for("ann", 3, {}) == IDS[:3]
    assert b.next_for("bob", 3, {}) == IDS[3:6]
    assert a.next_for("ann", 3, {}) == IDS[:3]  # a reload: what she holds comes again
    assert a.next_for("ann", 2, {IDS[0]: ["ann"]}) == IDS[1:3]
    assert a.next_for("ann", 2, {}, skip=IDS[:3]) == IDS[6:8]
    b.give_back("bob", IDS[3:6])
    assert a.next_for("cho", 2, {}) == IDS[3:5]


def test_a_lease_runs_out_and_a_clock_set_back_frees_and_keeps_nothing(tmp_path):
    now = [1000.0]
    queue = Queue(tmp_path, IDS[:1], Plan(lease_s=60), clock=lambda: now[0])
    assert queue.next_for("ann", 1, {}) == IDS[:1]
    now[0] = 500.0
    assert queue.next_for("bob", 1, {}) == []
    late = Queue(tmp_path, IDS[:1], Plan(lease_s=60), clock=lambda: now[0])  # another process, the same wrong clock
    assert late.next_for("bob", 1, {}) == []
    now[0] = 1059.0
    assert queue.next_for("bob", 1, {}) == []
    now[0] = 1061.0
    assert queue.next_for("bob", 1, {}) == IDS[:1]
    assert late.next_for("ann", 1, {}) == []


def test_a_clock_far_ahead_once_does_not_block_for_ever(tmp_path, monkeypatch):
    Queue(tmp_path, IDS[:1], Plan(lease_s=60), clock=lambda: 9e9).next_for("ann", 1, {})
    queue = Queue(tmp_path, IDS[:1], Plan(lease_s=60), clock=lambda: 1000.0)
    assert queue.next_for("bob", 1, {}) == []
    ticks = iter([100.0, 200.0])
    monkeypatch.setattr("annotation.session.queue.time.monotonic", lambda: next(ticks))
    queue._leases._ticked = 0.0
    assert queue.next_for("bob", 1, {}) == IDS[:1]


def test_a_line_cut_by_a_crash_or_damaged_frees_its_candidate(tmp_path):
    queue = Queue(tmp_path, IDS)
    queue.next_for("ann", 2, {})
    with queue._leases.path.open("ab") as f:
        f.write(b'{"no": "lease"}\n{"candidate_id": "coco/00')
    assert queue.next_for("bob", 2, {}) == IDS[2:4]
    lines = queue._leases.path.read_text().splitlines()
    assert all(json.loads(line) for line in lines)
    assert Queue(tmp_path, IDS).next_for("cho", 1, {}) == IDS[4:5]


def test_overlap_is_the_asked_share_and_goes_to_several(tmp_path):
    plan = Plan(overlap=0.3, copies=3)
    many = [f"x/{i}#0" for i in range(4000)]
    share = sum(plan.copies_of(c) == 3 for c in many) / len(many)
    assert abs(share - 0.3) < 0.03
    queue, seen = Queue(tmp_path, IDS, plan), {c: set() for c in IDS}
    for turn in range(len(IDS) * 3):
        who = f"r{turn % 3}"
        for c in queue.next_for(who, 1, seen):
            assert who not in seen[c]
            seen[c].add(who)
    assert {c: len(s) for c, s in seen.items()} == {c: plan.copies_of(c) for c in IDS}
    assert queue.left("r0", seen) == 0


@given(st.integers(1, 6), st.sampled_from([0.0, 0.25, 1.0]))
def test_shards_cover_all_by_the_asked_number_of_reviewers(reviewers, overlap):
    names = tuple(f"r{i}" for i in range(reviewers))
    plan = Plan("shards", names, overlap)
    for c in IDS:
        who = plan.assigned(c)
        assert len(who) == len(set(who)) == min(plan.copies_of(c), reviewers)
    more = Plan("shards", (*names, "new"), overlap)
    kept = [c for c in IDS if plan.assigned(c)[0] == more.assigned(c)[0]]
    assert len(kept) >= len(IDS) * reviewers / (reviewers + 1) * 0.6


def test_shards_need_no_lease_and_leave_out_what_is_said(tmp_path):
    queue = Queue(tmp_path, IDS, Plan("shards", ("ann", "bob")))
    mine = queue.next_for("ann", 99, {})
    assert sorted([*mine, *queue.next_for("bob", 99, {})]) == IDS
    assert queue.next_for("ann", 99, {mine[0]: {"ann"}}) == mine[1:]
    assert queue.next_for("eve", 99, {}) == []


def test_what_came_back_with_a_new_mask_is_asked_first(tmp_path):
    queue = Queue(tmp_path, IDS, first={IDS[9]})
    assert queue.next_for("ann", 2, {}) == [IDS[9], IDS[0]]
    assert queue.next_for("ann", 2, {IDS[9]: {"ann"}}) == IDS[:2]  # once answered it is as all others


def _work(root, who, out):
    queue, seen = Queue(root, IDS, Plan(lease_s=3600)), {}
    got = []
    while more := queue.next_for(who, 2, seen, got):
        got += more
    out.put((who, got))


def test_several_processes_never_hold_the_same_candidate(tmp_path):
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    workers = [context.Process(target=_work, args=(tmp_path, f"r{i}", out)) for i in range(4)]
    for w in workers:
        w.start()
    taken = Counter(c for _ in workers for c in out.get(timeout=60)[1])
    for w in workers:
        w.join()
    assert taken == Counter(IDS)


@pytest.mark.parametrize(
    "args", [{"mode": "x"}, {"mode": "shards"}, {"overlap": 1.5}, {"copies": 1}, {"lease_s": 0}]
)  # fmt: skip
def test_wrong_plans_are_refused(args):
    with pytest.raises(UserError, match="expected|need"):
        Plan(**args)
