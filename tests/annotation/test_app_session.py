"""The session without a browser: the queue, words that reach the log first, taking back, crashes, several reviewers."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

from ahp_toolkit.core import masks
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Decision
from ahp_toolkit.decisions import log as decisions
from ahp_toolkit.decisions.log import Retraction, check_name
from ahp_toolkit.decisions.mask_history import digest
from ahp_toolkit.decisions.triage.triage import Triage
from ahp_toolkit.decisions.voices import Words, state
from ahp_toolkit.storage import files, parquet
from annotation.app import server
from annotation.app.mirror import Mirror
from annotation.exchange import decisions as exchange
from annotation.session.queue import Handed, Plan
from annotation.session.session import Session, log_path
from tests.annotation import tiny_build

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


def test_a_word_is_on_the_log_before_the_answer_and_can_be_taken_back(root, ids):
    session = Session(root, "ann")
    assert session.decide(ids[0], "discard", "occluded", 1.25)["mine"]["verdict"] == "discard"
    assert session.decide(ids[0], "preserve", seconds=2)["mine"]["verdict"] == "preserve"
    lines = log_path(root, "ann").read_text().splitlines()
    assert [json.loads(x)["verdict"] for x in lines] == ["discard", "preserve"]
    assert session.decide(ids[0], "")["mine"]["verdict"] == "discard"  # the word before stands again
    assert session.decide(ids[0], "")["mine"] is None
    assert session.decide(ids[0], "")["mine"] is None  # nothing left: no harm
    assert len(log_path(root, "ann").read_text().splitlines()) == 5  # the history is kept
    assert ids[0] in queue_ids(session)
    assert list(decisions.read_log(log_path(root, "ann"))) == []


def test_a_word_sent_twice_counts_once(root, ids):
    session = Session(root, "ann")
    for _ in range(3):
        session.decide(ids[0], "discard", at="2026-01-01T00:00:00.001Z")
    assert len(list(decisions.read_entries(log_path(root, "ann")))) == 1
    again = Session(root, "ann")  # after a crash of the server too
    again.decide(ids[0], "discard", at="2026-01-01T00:00:00.001Z")
    again.decide(ids[0], "", at="2026-01-01T00:00:00.001Z")
    assert again.words.said(ids[0]) == []


def test_a_word_sent_twice_counts_once_behind_a_bad_line(root, ids):
    session = Session(root, "ann")
    session.decide(ids[0], "discard", at="2026-01-01T00:00:00.001Z")
    log = log_path(root, "ann")
    with log.open("a") as f:
        f.write("no word\n")
    before = len(log.read_text().splitlines())
    for _ in range(2):  # a retraction that counted twice would take back two words
        session.decide(ids[0], "", at="2026-01-01T00:00:00.002Z")
    assert "line 2" in session.progress()["trouble"]
    assert len(log.read_text().splitlines()) == before + 1


def test_progress_counts_and_pace(root, ids):
    session = Session(root, "ann")
    for k, seconds in enumerate((1.0, 3.0, 500.0)):  # a pause counts as at most a minute
        progress = session.decide(ids[k], "discard", seconds=seconds)["progress"]
    assert (progress["done"], progress["left"]) == (3, N - 3)
    assert progress["pace"] == pytest.approx((1 + 3 + 60) / 3)
    assert progress["counts"] == {"discard": 3}


def test_views_and_the_order_by_triage_score(root, ids):
    scored = zip(ids[5:8], (0.1, 0.9, 0.5), strict=True)
    records = [Triage(cid, score, i, False, False) for i, (cid, score) in enumerate(scored)]
    parquet.write_records(root / "triage" / "part-00000.parquet", records, Triage)
    session = Session(root, "ann")
    assert queue_ids(session)[:4] == [ids[6], ids[7], ids[5], ids[0]]
    session.decide(ids[0], "preserve")
    session.decide(ids[1], "refine", "bad_mask")
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
    ann.decide(ids[0], "discard", "occluded")
    bob.decide(ids[0], "preserve")
    bob.decide(ids[1], "preserve")
    assert queue_ids(ann, "disagreed") == [ids[0]]
    assert ids[1] in queue_ids(ann)  # the other's word does not take it from my queue
    said = ann.queue("disagreed", n=1)["items"][0]["said"]
    assert [(w["reviewer"], w["verdict"]) for w in said] == [("ann", "discard"), ("bob", "preserve")]
    ann.decide(ids[0], "preserve", settle=True)
    assert queue_ids(bob, "disagreed") == []
    assert bob.state(ids[0])["verdict"] == "preserve"
    ann.decide(ids[0], "")
    assert queue_ids(bob, "disagreed") == [ids[0]]


@pytest.mark.parametrize("order", [lambda root: None, Handed])
def test_a_mended_mask_comes_back_into_the_queue_and_is_kept_by_the_next_word(root, ids, order):
    session = Session(root, "ann", order(root))
    session.decide(ids[0], "refine", "bad_mask")
    assert ids[0] not in queue_ids(session)
    whole = session.candidates.record(ids[0]).mask
    better = masks.encode(cv2.erode(whole.decode().view(np.uint8), np.ones((3, 3), np.uint8)).view(np.bool_))
    session.correct(ids[0], better)
    assert queue_ids(session)[0] == ids[0]
    session.decide(ids[0], "preserve")
    assert ids[0] not in queue_ids(session)
    assert list(decisions.read_log(log_path(root, "ann")))[-1].corrected == better


def test_a_word_says_which_mask_was_shown(root, ids):
    session = Session(root, "ann")
    shown = session.item(ids[0])["shown"]
    assert shown == digest(session.candidates.record(ids[0]).mask)
    session.decide(ids[0], "discard", shown=shown)
    session.decide(ids[1], "discard")  # a caller that does not say was shown what is shown now
    session.decide(ids[1], "")
    first, second, _ = decisions.read_entries(log_path(root, "ann"))
    assert (first.shown, second.shown) == (shown, session.item(ids[1])["shown"])
    with pytest.raises(UserError, match="no such mask"):
        session.decide(ids[0], "discard", shown="mine")


@pytest.mark.parametrize("word", [("no/such#1", "discard", ""), (None, "keep", ""), (None, "discard", "ugly")])
def test_what_is_no_word_is_refused_and_not_logged(root, ids, word):
    session = Session(root, "ann")
    with pytest.raises(UserError):
        session.decide(word[0] or ids[0], word[1], word[2])
    assert not log_path(root, "ann").exists()


def test_a_missing_photo_is_said_and_can_be_decided_on(root, ids):
    files.write_json(root / "build.json", {"roots": {"coco": str(root / "nowhere")}})
    session = Session(root, "ann")
    assert "cannot be shown" in session.queue(n=1)["items"][0]["problem"]
    session.decide(ids[0], "discard")


@pytest.mark.parametrize("name", ["", "../x", "a b", "rule", "a.b", "1", "x" * 65])
def test_names_that_cannot_name_a_log_are_refused(name):
    with pytest.raises(UserError, match="--reviewer"):
        check_name(name)


def test_a_name_whose_field_another_has_is_refused(root, ids, tmp_path):
    """In the database ann-b and ann_b were one."""
    Session(root, "ann-b").decide(ids[0], "discard")
    with pytest.raises(UserError, match="'ann_b': too like 'ann-b'"):
        Session(root, "ann_b")
    with pytest.raises(UserError, match="too like"), server.serving(root, "ann_b", None, "127.0.0.1", print):
        pass
    path = tmp_path / "d.csv"
    path.write_text(f"candidate_id,verdict,reviewer\n{ids[1]},preserve,ann_b\n{ids[1]},preserve,ann-b\n")
    done = exchange.import_decisions(root, path)
    assert done.taken == 1 and "too like" in done.bad[0].why
    assert Session(root, "ann-b").words.mine("ann-b").keys() == set(ids[:2])


def test_a_line_cut_by_a_crash_is_left_out_and_does_not_spoil_the_next(tmp_path):
    log = tmp_path / "decisions" / "ann.jsonl"
    decisions.append(log, Decision("a", "discard", "ann"))
    whole = log.read_bytes()
    for cut in (b'{"candidate_id": "b", "ver', "{'\u00e9".encode()[:-1], b"x" * 9000):
        log.write_bytes(whole + cut)
        log.with_name(".ann.jsonl.end").unlink(missing_ok=True)  # else the word of the round before were missed
        assert [d.candidate_id for d in decisions.read_log(log)] == ["a"]
        words = Words(log.parent)
        words.refresh()
        decisions.append(log, Decision("c", "preserve", "ann"))
        assert words.refresh() >= {"c"}
        assert [d.candidate_id for d in decisions.read_log(log)] == ["a", "c"]


def test_a_bad_line_in_the_middle_names_file_and_line(tmp_path):
    log = tmp_path / "ann.jsonl"
    log.write_text('{"retract": "a", "reviewer": "ann", "at": ""}\n{"retract": 1}\n' + '{"retract": "a"}\n')
    for read in (lambda: list(decisions.read_log(log)), Words(tmp_path).refresh):
        with pytest.raises(UserError, match=r"ann.jsonl, line 2"):
            read()


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["discard", "preserve", "refine", ""])), max_size=25))
def test_the_live_view_and_the_file_always_agree(moves):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "ann.jsonl"
        words = Words(Path(folder))
        stacks: dict[str, list[str]] = {"a": [], "b": []}
        for cid, verdict in moves:
            if verdict:
                stacks[cid].append(verdict)
                decisions.append(log, Decision(cid, verdict, "ann"), sync=False)
            else:
                stacks[cid][-1:] = []
                decisions.append(log, Retraction(cid, "ann"), sync=False)
            words.refresh()
            assert {c: d.verdict for c, d in words.mine("ann").items()} == {c: s[-1] for c, s in stacks.items() if s}
        if log.exists():
            last = decisions.last_words(decisions.read_log(log))
            assert {c: ds[0] for c, ds in last.items()} == words.mine("ann")


KILLED = """
import sys
from pathlib import Path
from annotation.session.queue import Handed, Plan
from annotation.session.session import Session
session = Session(Path(sys.argv[1]), "ann")
for cid in session.candidates:
    session.decide(cid, "discard")
    print(cid, flush=True)
"""


def test_a_killed_process_loses_nothing_that_it_had_confirmed(root):
    p = subprocess.Popen([sys.executable, "-c", KILLED, str(root)], stdout=subprocess.PIPE, text=True)
    confirmed = [p.stdout.readline().strip() for _ in range(7)]
    p.kill()
    confirmed += [x.strip() for x in p.stdout.read().splitlines()]
    p.wait()
    logged = [d.candidate_id for d in decisions.read_log(log_path(root, "ann"))]
    assert logged[: len(confirmed)] == confirmed
    assert len(logged) - len(confirmed) <= 1


def test_one_fsync_a_second_when_the_setting_says_so(root, ids, monkeypatch):
    import os

    calls = []
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(fd))
    session = Session(root, "ann", sync="second")
    for cid in ids[:5]:
        session.decide(cid, "discard")
    assert not calls
    for _ in range(300):
        if calls:
            break
        time.sleep(0.1)
    time.sleep(1.3)
    assert len(calls) == 1
    with pytest.raises(UserError, match="expected 'decision' or 'second'"):
        Session(root, "ann", sync="never")


def test_the_mirror_tries_until_the_database_is_back():
    taken: list[set[str]] = []
    trouble = [3]

    def write(ids: set[str]) -> None:
        if trouble[0]:
            trouble[0] -= 1
            raise ConnectionError("away")
        taken.append(ids)

    mirror = Mirror(write)
    for k in range(5):
        mirror.put([f"c{k}"])
    for _ in range(600):
        if taken and set().union(*taken) == {f"c{k}" for k in range(5)}:
            break
        time.sleep(0.05)
    assert set().union(*taken) == {f"c{k}" for k in range(5)}
    assert mirror.state() == ""


def test_the_mirror_looks_after_the_database_before_each_write_and_while_there_is_none():
    seen: list[str] = []
    mirror = Mirror(lambda ids: seen.extend(sorted(ids)), lambda: seen.append("watch"), idle=0.01)
    while seen.count("watch") < 3:
        time.sleep(0.01)
    mirror.put(["c"])
    while "c" not in seen:
        time.sleep(0.01)
    assert seen[seen.index("c") - 1] == "watch"
    assert mirror.state() == ""


def test_what_another_says_meanwhile_reaches_the_database_in_the_end(root, ids, monkeypatch):
    """Two servers, one database: a write from older logs may land last, and is then put right."""
    ann, bob = Session(root, "ann"), Session(root, "bob")
    held: dict[str, dict[str, object]] = {}

    def write_back(_: object, some: list[str], state_of, __: list[str]) -> None:
        found = {cid: state_of(cid) for cid in some}
        if ids[0] in some and bob.words.mine("bob").get(ids[0]) is None:
            bob.decide(ids[0], "discard")  # after our reading, before our writing
        held.update(found)

    monkeypatch.setattr(server, "write_back", write_back)
    monkeypatch.setattr(server.samples, "Counts", lambda dataset_of: lambda: None)
    monkeypatch.setitem(sys.modules, "fiftyone", SimpleNamespace(load_dataset=lambda name: None))
    ann.mirror = server.mirror_for(ann).put
    bob.decide(ids[0], "preserve")
    bob.decide(ids[0], "")
    ann.decide(ids[1], "preserve")  # reads what bob has said so far on the way
    for _ in range(600):
        if held.get(ids[0], {}).get("verdict") == "discard" and held.get(ids[1], {}).get("verdict") == "preserve":
            break
        time.sleep(0.05)
    assert (held[ids[0]]["verdict"], held[ids[1]]["verdict"]) == ("discard", "preserve")


def test_the_databases_fields():
    rule = type("R", (), {"verdict": "discard", "reason": "occluded"})()
    assert state([], None)["verdict"] is None
    assert state([], rule) | {"verdict": "discard", "provisional": True, "decided": False} == state([], rule)
    both = [Decision("a", "preserve", "ann"), Decision("a", "discard", "bob-2")]
    fields = state(both, rule)
    assert fields["disagreed"] and fields["decided"] and not fields["provisional"]
    assert (fields["verdict_ann"], fields["verdict_bob_2"], fields["verdict"]) == ("preserve", "discard", "discard")


def test_the_guide_is_one_page_with_all_its_pictures(root):
    page = Session(root, "ann").guide()
    assert page.count("data:image/png;base64,iVBOR") == 10
    assert 'src="guide/' not in page
    assert "glove" in page


def test_what_is_left_follows_the_plan(root, ids):
    plan = Plan("shards", ("ann", "bob"))
    mine = [c for c in ids if plan.assigned(c) == ("ann",)]
    session = Session(root, "ann", Handed(root, plan))
    assert session.progress()["left"] == len(mine) == len(queue_ids(session)) < N
    assert session.decide(mine[0], "discard")["progress"]["left"] == len(mine) - 1
    assert session.decide(mine[0], "")["progress"]["left"] == len(mine)
    shared = {who: Session(root, who, Handed(root)) for who in ("cho", "dan")}
    for cid in ids[:3]:
        shared["cho"].decide(cid, "discard")
    shared["dan"].queue(n=0)  # reads what the others have said
    assert shared["dan"].progress()["left"] == N - 3 and shared["dan"].progress()["done"] == 0
    records = [Triage(cid, 0.1, i, i >= N - 5, False) for i, cid in enumerate(ids)]
    parquet.write_records(root / "triage" / "part-00000.parquet", records, Triage)
    files.write_json(root / "triage" / "stage.json", {})
    sorted_out = Session(root, "eve", Handed(root))
    assert sorted_out.progress()["left"] == N - 3 - 5 == len(queue_ids(sorted_out))
