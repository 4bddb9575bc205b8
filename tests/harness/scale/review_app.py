"""Candidates into FiftyOne's database, measured: seconds, and memory of the database and of a reviewer's session."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from tests.annotation import app_server
from tests.harness.scale.measure import pss_of


def push(work: Path, n: int) -> dict[str, Any]:
    """Push ``n`` candidates into a database of their own, reconcile, and open one reviewer's session."""
    root = work / "review" / f"{n:g}"
    mongo = app_server.Mongo(work / "review" / f"db-{n}").start()
    try:
        os.environ |= app_server.environment(mongo, "ahp_scale")
        return _figures(root, n, mongo)
    finally:
        mongo.kill()


def _figures(root: Path, n: int, mongo: app_server.Mongo) -> dict[str, Any]:
    from annotation.app import server
    from annotation.session.session import Session

    assert mongo.process is not None
    server.connect(root)
    start = time.perf_counter()
    dataset = server.push(root, server.dataset_name(root))
    pushed = time.perf_counter() - start
    server.reconcile(root, dataset, ["ann"])
    reconciled = time.perf_counter() - start - pushed
    dataset._sample_collection.database.client.admin.command("fsync")  # else the files are behind
    stats = dataset._sample_collection.database.command("collStats", dataset._sample_collection_name)
    before = pss_of(os.getpid())
    start = time.perf_counter()
    session = Session(root, "ann")
    opened = time.perf_counter() - start
    start = time.perf_counter()
    session.queue(n=8)
    first = time.perf_counter() - start
    del session
    return _more(root) | {
        "candidates": n,
        "seconds": pushed,
        "reconcile_s": reconciled,
        "open_s": opened,
        "first_queue_s": first,
        "mongo_mb": pss_of(mongo.process.pid) / 1e6,
        "mongo_disk": int(stats["storageSize"]) + int(stats["totalIndexSize"]),
        "mongo_data": int(stats["size"]),
        "mongo_indexes": int(stats["totalIndexSize"]),
        "session_mb": (pss_of(os.getpid()) - before) / 1e6,
    }


def _more(root: Path) -> dict[str, Any]:
    """What a key costs when half the queue is done, and what a tenth of the build costs a session of its own."""
    from ahp_toolkit.decisions.candidates import Candidates, Slice
    from annotation.session.queue import Plan, Queue
    from annotation.session.session import Session

    ids = list(Candidates(root))
    queue, seen = Queue(root, ids, Plan()), dict.fromkeys(ids[: len(ids) // 2], ("bob",))
    start = time.perf_counter()
    queue.next_for("ann", 4, seen)
    key = time.perf_counter() - start
    before, start = pss_of(os.getpid()), time.perf_counter()
    session = Session(root, "ann", piece=Slice(1, 10))
    opened = time.perf_counter() - start
    said = {"half_done_key_s": key, "slice_candidates": len(session.candidates), "slice_open_s": opened}
    return said | {"slice_session_mb": (pss_of(os.getpid()) - before) / 1e6}
