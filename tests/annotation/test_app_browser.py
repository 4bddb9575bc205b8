"""The review from the key to the disk: real FiftyOne, real MongoDB, real headless Chromium."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ahp_toolkit.core.hashing import unit_hash
from ahp_toolkit.core.masks import encode
from ahp_toolkit.decisions import log, proposals
from ahp_toolkit.decisions.candidates import Candidates
from ahp_toolkit.decisions.state import Decisions, verdict_field
from annotation.app import server
from annotation.exchange import decisions as exchange
from tests.annotation import app_server, tiny_build

pytestmark = [
    pytest.mark.browser,
    pytest.mark.database,
    pytest.mark.skipif(app_server.CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.skipif(app_server.find_mongod() is None, reason="no mongod"),
]
REVIEWERS = ("ann", "bob")
FIELDS = ("verdict", "reason", "provisional", "decided", "disagreed", "reviewers", *map(verdict_field, REVIEWERS))
KEYS = {"discard": "d", "preserve": "p", "refine": "r"}


def wanted(cid: str, who: str = "") -> str:
    u = unit_hash(cid, who)
    return "discard" if u < 0.7 else "preserve" if u < 0.9 else "refine"


@dataclass
class World:
    root: Path
    ids: list[str]
    mongo: app_server.Mongo
    servers: list[app_server.Server]

    def logged(self, reviewer: str) -> dict[str, str]:
        path = log.path_of(self.root, reviewer)
        return {d.candidate_id: d.verdict for d in log.read_decisions([path])} if path.exists() else {}

    def replayed(self) -> dict[tuple[str, str], dict[str, Any]]:
        """(candidate, reviewer) -> the line of the logs that counts, read here again from the plain JSON."""
        paths = sorted((self.root / "decisions").glob("*.jsonl"))
        lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
        retracted = {line["retracts"] for line in lines if "retracts" in line}
        left = [line for line in lines if "retracts" not in line and line["id"] not in retracted]
        return {(line["candidate_id"], line["reviewer"]): line for line in left}

    def undone(self, reviewer: str) -> int:
        return log.path_of(self.root, reviewer).read_text().count('"retracts"')

    def exported(self, kind: str) -> dict[tuple[str, str], dict[str, Any]]:
        """Every cell of every row that another tool would read."""
        path = self.root / f"exported.{kind}"
        n = exchange.export_decisions(self.root, path)
        if kind == "csv":
            with path.open(newline="") as f:
                rows: list[dict[str, Any]] = list(csv.DictReader(f))
            for r in rows:
                r |= {"seconds": float(r["seconds"]), "provisional": r["provisional"] == "true"}
        else:
            rows = pq.read_table(path).to_pylist()
        assert len(rows) == n
        plain = [{k: v for k, v in r.items() if k != "corrected"} for r in rows if not r["corrected"]]
        return {(r["candidate_id"], r["reviewer"]): r for r in plain}

    def in_database(self) -> dict[str, dict[str, Any]]:
        """Straight from MongoDB, without FiftyOne: every field of a decision."""
        from pymongo import MongoClient

        with MongoClient(self.mongo.uri) as client:
            db = client["ahp_test"]
            name = db["datasets"].find_one({"name": server.dataset_name(self.root)})["sample_collection_name"]
            return {d["candidate_id"]: {f: d.get(f) for f in FIELDS} for d in db[name].find()}

    def agree(self, reviewer: str, expected: dict[str, str]) -> None:
        """The keys pressed, the log, both exports and the database agree, to the last field."""
        assert self.logged(reviewer) == expected
        lines = self.replayed()
        assert {cid: d["verdict"] for (cid, who), d in lines.items() if who == reviewer} == expected
        assert self.exported("csv") == self.exported("parquet") == lines
        fields = self.fields(lines)
        with suppress(TimeoutError):
            app_server.wait_for(lambda: self.in_database() == fields, 40)
        assert self.in_database() == fields

    def fields(self, lines: dict[tuple[str, str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """The database's fields that follow from the logs; here nobody ever decides on what another has decided."""
        ruled, decided = Candidates(self.root).ruled, {cid: d for (cid, _), d in lines.items()}
        assert len(decided) == len(lines)
        out = {}
        for cid in self.ids:
            d, rule = decided.get(cid), ruled.get(cid)
            verdict, reason = (d["verdict"], d["reason"]) if d else (rule.verdict, rule.reason) if rule else ("", "")
            out[cid] = dict.fromkeys(map(verdict_field, REVIEWERS)) | {
                "verdict": verdict or None,
                "reason": reason or None,
                "provisional": d is None and rule is not None,
                "decided": d is not None,
                "disagreed": False,
                "reviewers": [d["reviewer"]] if d else [],
            }
            if d:
                out[cid][verdict_field(d["reviewer"])] = d["verdict"]
        return out


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with made(tmp_path_factory.mktemp("review"), 520) as world:
        yield world


@contextmanager
def made(folder: Path, people: int, reviewers: tuple[str, ...] = REVIEWERS) -> Iterator[World]:
    """A build, its own database, and a server for each reviewer."""
    ids = tiny_build.write(folder / "build", people)
    mongo = app_server.Mongo(folder / "db").start()
    try:
        env = app_server.environment(mongo, "ahp_test")
        with app_server.serving(folder / "build", list(reviewers), env) as servers:
            yield World(folder / "build", ids, mongo, servers)
    finally:
        mongo.kill()


def work(panel: app_server.Panel, n: int, done: dict[str, str], who: str, undo_every: int = 0) -> None:
    """Decide on ``n`` candidates as `wanted`, with a slip of the finger and its undo now and then."""
    shown = panel.shown
    for k in range(n):
        verdict = wanted(shown, who)
        if undo_every and k % undo_every == undo_every - 1:
            wrong = "preserve" if verdict == "discard" else "discard"
            panel.press(KEYS[wrong])
            assert panel.press("u") == shown
        assert shown not in done
        done[shown] = verdict
        shown = panel.press(KEYS[verdict])


def test_a_scripted_reviewer_with_undo_and_a_reload(world):
    done: dict[str, str] = {}
    with app_server.browsers([world.servers[0].url]) as (panel,):
        work(panel, 105, done, "ann", undo_every=9)
        last = next(reversed(done))
        panel.saved()
        panel.page.reload()
        shown = panel.wait()
        assert shown not in done
        assert panel.press("u") == last  # a decision before the reload can still be taken back
        del done[last]
        work(panel, 105, done, "ann", undo_every=9)
        panel.saved()
    assert len(done) >= 209
    assert world.undone("ann") == 2 * (105 // 9) + 1
    world.agree("ann", done)


def test_two_reviewers_in_two_browsers_at_once(world):
    before = {who: world.logged(who) for who in ("ann", "bob")}

    def one(k: int, who: str) -> dict[str, str]:
        done = dict(before[who])
        with app_server.browsers([world.servers[k].url]) as (panel,):
            work(panel, 40, done, who, undo_every=11)
            panel.saved()
        return done

    with ThreadPoolExecutor(2) as pool:
        ann, bob = pool.map(one, (0, 1), ("ann", "bob"))
    world.agree("ann", ann)
    world.agree("bob", bob)
    assert len(ann) == len(before["ann"]) + 40
    assert not set(ann) & set(bob)  # one shared queue: no candidate comes to two reviewers
    assert len(bob) == 40


def test_the_database_is_killed_and_comes_back_half_way(world):
    done = world.logged("ann")
    old = len(done)
    with app_server.browsers([world.servers[0].url]) as (panel,):
        work(panel, 67, done, "ann")
        world.mongo.kill()
        work(panel, 67, done, "ann", undo_every=7)
        panel.saved()
        assert world.logged("ann") == done  # the log has it all while the database is away
        world.mongo.start()
        work(panel, 67, done, "ann", undo_every=9)
        panel.saved()
    assert len(done) == old + 201
    world.agree("ann", done)
    with app_server.browsers([world.servers[1].url], reload=True) as (panel,):  # MongoDB's own count is off by now
        assert panel.shown


def test_a_decision_names_the_mask_that_the_reviewer_saw(tmp_path):
    with made(tmp_path, 20, ("bob",)) as world, app_server.browsers([world.servers[0].url]) as (panel,):
        cid = panel.shown
        seen = Candidates(world.root).record(cid)
        other = encode(np.roll(seen.mask.decode(), 1, axis=1))
        proposals.propose(world.root, [replace(seen, mask=other, segmenter="sam@1")])  # while bob is looking
        panel.press("p")
        panel.saved()
    d = log.read_decisions([log.path_of(world.root, "bob")])[-1]
    assert (d.candidate_id, d.verdict, d.mask_digest) == (cid, "preserve", seen.mask.digest)
    assert cid in Decisions(world.root).refresh().reopened
