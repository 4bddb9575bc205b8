"""The session without a browser: the queue, decisions that reach the log first, taking back, crashes, reviewers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from ahp_toolkit.core import masks
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.decisions.log import path_of, read_decisions, read_entries
from ahp_toolkit.decisions.triage.triage import Triage
from ahp_toolkit.storage import files, parquet
from annotation.app import server
from annotation.app.writer import Writer
from annotation.exchange import decisions as exchange
from annotation.session.queue import LeasedOrder, Plan
from annotation.session.session import Session
from tests.annotation import tiny_build
from tests.annotation.small import decide

N = 24


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    root = tmp_path_factory.mktemp("build")
    return root, tiny_build.write(root, N, part=10)


@pytest.fixture
def root(build: tuple[Path, list[str]], tmp_path: Path) -> Path:
    for name in ("parse", "decide"):
        (tmp_path / name).symlink_to(build[0] / name)
    (tmp_path / "build.json").write_text((build[0] / "build.json").read_text())
    return tmp_path


@pytest.fixture
def ids(build: tuple[Path, list[str]]) -> list[str]:
    return build[1]


def queue_ids(session: Session, view: str = "todo", **options) -> list[str]:
    return [i["id"] for i in session.queue(view, n=64, **options)["items"]]


def test_the_queue_gives_every_candidate_once_with_its_pictures(root, ids):
    session = Session(root, "ann")
    answer = session.queue(n=3)
    assert [i["id"] for i in answer["items"]] == ids[:3]
    assert queue_ids(session, seen=ids[:5]) == ids[5:]
    item = answer["items"][0]
    assert item["photo"].startswith("data:image/jpeg;base64,")
    assert item["facts"]["source"] == "coco"
    assert answer["progress"]["total"] == N
    assert answer["progress"]["pace"] is None


def test_the_label_picture_is_the_mask_or_its_parts(root, ids):
    import base64

    session = Session(root, "ann")
    seen = set()
    for item in session.queue(n=8)["items"]:
        data = np.frombuffer(base64.b64decode(item["label"].split(",")[1]), np.uint8)
        label = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        s = session.candidates.record(item["id"])
        x0, _, x1, _ = item["crop"]
        scale = ((x1 - x0) / label.shape[1]) ** 2
        assert (label > 0).sum() * scale == pytest.approx(s.mask.area, rel=0.03)
        seen |= set(np.unique(label)) - {0}
    assert seen == {5, 9, 13, 255}


def test_a_decision_is_on_the_log_before_the_answer_and_can_be_taken_back(root, ids):
    session = Session(root, "ann")
    assert decide(session, ids[0], "discard", "occluded", 1.25)["mine"]["verdict"] == "discard"
    assert decide(session, ids[0], "preserve", seconds=2)["mine"]["verdict"] == "preserve"
    lines = path_of(root, "ann").read_text().splitlines()
    assert [json.loads(x)["verdict"] for x in lines] == ["discard", "preserve"]
    assert decide(session, ids[0], "")["mine"]["verdict"] == "discard"  # the decision before counts again
    assert decide(session, ids[0], "")["mine"] is None
    assert decide(session, ids[0], "")["mine"] is None  # nothing left: no harm
    assert len(path_of(root, "ann").read_text().splitlines()) == 4  # the history is kept
    assert ids[0] in queue_ids(session)
    assert list(read_decisions([path_of(root, "ann")])) == []


def test_a_decision_sent_twice_counts_once(root, ids):
    session = Session(root, "ann")
    for _ in range(3):
        decide(session, ids[0], "discard", at="2026-01-01T00:00:00.001Z")
    assert len(list(read_entries(path_of(root, "ann")))) == 1
    again = Session(root, "ann")  # after a crash of the server too
    decide(again, ids[0], "discard", at="2026-01-01T00:00:00.001Z")
    decide(again, ids[0], "", at="2026-01-01T00:00:00.001Z")
    assert again.state.finals(ids[0]) == []


def test_a_decision_sent_twice_counts_once_behind_a_bad_line(root, ids):
    session = Session(root, "ann")
    decide(session, ids[0], "discard", at="2026-01-01T00:00:00.001Z")
    log = path_of(root, "ann")
    with log.open("a") as f:
        f.write("no decision\n")
    before = len(log.read_text().splitlines())
    for _ in range(2):  # a retraction that counted twice would take back two decisions
        decide(session, ids[0], "", at="2026-01-01T00:00:00.002Z")
    assert "line 2" in session.progress()["trouble"]
    assert len(log.read_text().splitlines()) == before + 1


def test_progress_counts_and_pace(root, ids):
    session = Session(root, "ann")
    for k, seconds in enumerate((1.0, 3.0, 500.0)):  # a pause counts as at most a minute
        progress = decide(session, ids[k], "discard", seconds=seconds)["progress"]
    assert (progress["done"], progress["left"]) == (3, N - 3)
    assert progress["pace"] == pytest.approx((1 + 3 + 60) / 3)
    assert progress["counts"] == {"discard": 3}


def test_views_and_the_order_by_triage_score(root, ids):
    scored = zip(ids[5:8], (0.1, 0.9, 0.5), strict=True)
    records = [Triage(cid, score, i, False, False) for i, (cid, score) in enumerate(scored)]
    parquet.write_records(root / "triage" / "part-00000.parquet", records, Triage)
    session = Session(root, "ann")
    assert queue_ids(session)[:4] == [ids[6], ids[7], ids[5], ids[0]]
    decide(session, ids[0], "preserve")
    decide(session, ids[1], "refine", "bad_mask")
    assert queue_ids(session, "mine") == [ids[1], ids[0]]
    assert queue_ids(session, "preserve") == [ids[0]]
    assert queue_ids(session, "refine") == [ids[1]]
    ruled = set(session.candidates.ruled)
    assert set(queue_ids(session, "provisional")) == ruled - set(ids[:2])
    assert set(queue_ids(session, "discard")) == ruled - set(ids[:2])
    assert [i["id"] for i in session.queue(n=1, back=2)["recent"]] == [ids[0], ids[1]]
    with pytest.raises(UserError, match="expected one of todo"):
        session.queue("nonsense")


def test_two_reviewers_see_each_other_and_a_disagreement_is_settled(root, ids):
    ann, bob = Session(root, "ann"), Session(root, "bob")
    decide(ann, ids[0], "discard", "occluded")
    decide(bob, ids[0], "preserve")
    decide(bob, ids[1], "preserve")
    assert queue_ids(ann, "disagreed") == [ids[0]]
    assert ids[1] in queue_ids(ann)  # the other's decision does not take it from my queue
    found = ann.queue("disagreed", n=1)["items"][0]["decisions"]
    assert [(d["reviewer"], d["verdict"]) for d in found] == [("ann", "discard"), ("bob", "preserve")]
    decide(ann, ids[0], "preserve", settle=True)
    assert queue_ids(bob, "disagreed") == []
    assert bob.row(ids[0])["verdict"] == "preserve"
    decide(ann, ids[0], "")
    assert queue_ids(bob, "disagreed") == [ids[0]]


@pytest.mark.parametrize("order", [lambda root: None, LeasedOrder])
def test_a_corrected_mask_comes_back_into_the_queue_and_is_kept_by_the_next_decision(root, ids, order):
    session = Session(root, "ann", order(root))
    decide(session, ids[0], "refine", "bad_mask")
    assert ids[0] not in queue_ids(session)
    whole = session.candidates.record(ids[0]).mask
    better = masks.encode(cv2.erode(whole.decode().view(np.uint8), np.ones((3, 3), np.uint8)).view(np.bool_))
    session.correct(ids[0], better)
    assert queue_ids(session)[0] == ids[0]
    decide(session, ids[0], "preserve")
    assert ids[0] not in queue_ids(session)
    assert read_decisions([path_of(root, "ann")])[-1].corrected == better


def test_a_decision_names_the_mask_shown(root, ids):
    session = Session(root, "ann")
    shown = session.item(ids[0])["mask_digest"]
    assert shown == session.candidates.record(ids[0]).mask.digest
    decide(session, ids[0], "discard", mask_digest=shown)
    decide(session, ids[1], "discard")  # a caller that names none was shown the current one
    decide(session, ids[1], "")
    first, second, _ = read_entries(path_of(root, "ann"))
    assert (first.mask_digest, second.mask_digest) == (shown, session.item(ids[1])["mask_digest"])
    with pytest.raises(UserError, match="16 hex digits of the mask shown"):
        decide(session, ids[0], "discard", mask_digest="mine")


@pytest.mark.parametrize("press", [("no/such#1", "discard", ""), (None, "keep", ""), (None, "discard", "ugly")])
def test_what_is_no_decision_is_refused_and_not_logged(root, ids, press):
    session = Session(root, "ann")
    with pytest.raises(UserError):
        decide(session, press[0] or ids[0], press[1], press[2])
    assert not path_of(root, "ann").exists()


def test_a_missing_photo_is_named_and_can_be_decided_on(root, ids):
    files.write_json(root / "build.json", {"roots": {"coco": str(root / "nowhere")}})
    session = Session(root, "ann")
    assert "cannot be shown" in session.queue(n=1)["items"][0]["problem"]
    decide(session, ids[0], "discard")


def test_a_name_whose_field_another_has_is_refused(root, ids, tmp_path):
    """In the database ann-b and ann_b were one."""
    decide(Session(root, "ann-b"), ids[0], "discard")
    with pytest.raises(UserError, match="'ann_b': too like 'ann-b'"):
        Session(root, "ann_b")
    with pytest.raises(UserError, match="too like"), server.serving(root, "ann_b", None, "127.0.0.1", print):
        pass
    path, shown = tmp_path / "d.csv", Session(root, "cho").item(ids[1])["mask_digest"]
    path.write_text(
        f"candidate_id,verdict,reviewer,mask_digest\n{ids[1]},preserve,ann_b,{shown}\n{ids[1]},preserve,ann-b,{shown}\n"
    )
    done = exchange.import_decisions(root, path)
    assert done.taken == 1 and "too like" in done.bad[0].why
    assert Session(root, "ann-b").state.mine("ann-b").keys() == set(ids[:2])


KILLED = """
import sys
from pathlib import Path
from annotation.session.session import KeyPress, Session
session = Session(Path(sys.argv[1]), "ann")
for cid in session.candidates:
    session.decide(KeyPress(cid, "discard"))
    print(cid, flush=True)
"""


def test_a_killed_process_loses_nothing_that_it_had_confirmed(root):
    p = subprocess.Popen([sys.executable, "-c", KILLED, str(root)], stdout=subprocess.PIPE, text=True)
    confirmed = [p.stdout.readline().strip() for _ in range(7)]
    p.kill()
    confirmed += [x.strip() for x in p.stdout.read().splitlines()]
    p.wait()
    logged = [d.candidate_id for d in read_decisions([path_of(root, "ann")])]
    assert logged[: len(confirmed)] == confirmed
    assert len(logged) - len(confirmed) <= 1


def test_one_fsync_a_second_when_the_setting_says_so(root, ids, monkeypatch):
    import os

    calls = []
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(fd))
    session = Session(root, "ann", sync="second")
    for cid in ids[:5]:
        decide(session, cid, "discard")
    assert not calls
    for _ in range(300):
        if calls:
            break
        time.sleep(0.1)
    time.sleep(1.3)
    assert len(calls) == 1
    with pytest.raises(UserError, match="expected 'decision' or 'second'"):
        Session(root, "ann", sync="never")


def test_the_writer_tries_until_the_database_is_back():
    taken: list[set[str]] = []
    trouble = [3]

    def write(ids: set[str]) -> None:
        if trouble[0]:
            trouble[0] -= 1
            raise ConnectionError("away")
        taken.append(ids)

    writer = Writer(write)
    for k in range(5):
        writer.put([f"c{k}"])
    for _ in range(600):
        if taken and set().union(*taken) == {f"c{k}" for k in range(5)}:
            break
        time.sleep(0.05)
    assert set().union(*taken) == {f"c{k}" for k in range(5)}
    assert writer.state() == ""


def test_the_writer_looks_after_the_database_before_each_write_and_while_there_is_none():
    seen: list[str] = []
    writer = Writer(lambda ids: seen.extend(sorted(ids)), lambda: seen.append("watch"), idle=0.01)
    while seen.count("watch") < 3:
        time.sleep(0.01)
    writer.put(["c"])
    while "c" not in seen:
        time.sleep(0.01)
    assert seen[seen.index("c") - 1] == "watch"
    assert writer.state() == ""


def test_what_another_decides_meanwhile_reaches_the_database_in_the_end(root, ids, monkeypatch):
    """Two servers, one database: a write from older logs may land last, and is then put right."""
    ann, bob = Session(root, "ann"), Session(root, "bob")
    held: dict[str, dict[str, object]] = {}

    def write_back(_: object, some: list[str], row_of, __: list[str]) -> None:
        found = {cid: row_of(cid) for cid in some}
        if ids[0] in some and bob.state.mine("bob").get(ids[0]) is None:
            decide(bob, ids[0], "discard")  # after our reading, before our writing
        held.update(found)

    monkeypatch.setattr(server, "write_back", write_back)
    monkeypatch.setattr(server.samples, "Counts", lambda dataset_of: lambda: None)
    monkeypatch.setitem(sys.modules, "fiftyone", SimpleNamespace(load_dataset=lambda name: None))
    ann.on_change = server.writer_for(ann).put
    decide(bob, ids[0], "preserve")
    decide(bob, ids[0], "")
    decide(ann, ids[1], "preserve")  # reads bob's decisions on the way
    for _ in range(600):
        if held.get(ids[0], {}).get("verdict") == "discard" and held.get(ids[1], {}).get("verdict") == "preserve":
            break
        time.sleep(0.05)
    assert (held[ids[0]]["verdict"], held[ids[1]]["verdict"]) == ("discard", "preserve")


def test_the_guide_is_one_page_with_all_its_pictures(root):
    page = Session(root, "ann").guide()
    assert page.count("data:image/png;base64,iVBOR") == 10
    assert 'src="guide/' not in page
    assert "glove" in page


def test_what_is_left_follows_the_plan(root, ids):
    plan = Plan("shards", ("ann", "bob"))
    mine = [c for c in ids if plan.assigned(c) == ("ann",)]
    session = Session(root, "ann", LeasedOrder(root, plan))
    assert session.progress()["left"] == len(mine) == len(queue_ids(session)) < N
    assert decide(session, mine[0], "discard")["progress"]["left"] == len(mine) - 1
    assert decide(session, mine[0], "")["progress"]["left"] == len(mine)
    shared = {who: Session(root, who, LeasedOrder(root)) for who in ("cho", "dan")}
    for cid in ids[:3]:
        decide(shared["cho"], cid, "discard")
    shared["dan"].queue(n=0)  # reads what the others have decided
    assert shared["dan"].progress()["left"] == N - 3 and shared["dan"].progress()["done"] == 0
    records = [Triage(cid, 0.1, i, i >= N - 5, False) for i, cid in enumerate(ids)]
    parquet.write_records(root / "triage" / "part-00000.parquet", records, Triage)
    files.write_json(root / "triage" / "stage.json", {})
    sorted_out = Session(root, "eve", LeasedOrder(root))
    assert sorted_out.progress()["left"] == N - 3 - 5 == len(queue_ids(sorted_out))
