"""Candidates into FiftyOne's database, measured: seconds, and memory of the database and of a reviewer's session."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from tests.review import app_server
from tests.scale.measure import pss_of


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
    from annotation import app
    from annotation.session import Session

    assert mongo.process is not None
    app.connect(root)
    start = time.perf_counter()
    dataset = app.push(root, app.dataset_name(root))
    pushed = time.perf_counter() - start
    app.reconcile(root, dataset, ["ann"])
    reconciled = time.perf_counter() - start - pushed
    stats = dataset._sample_collection.database.command("collStats", dataset._sample_collection_name)
    before = pss_of(os.getpid())
    start = time.perf_counter()
    session = Session(root, "ann")
    opened = time.perf_counter() - start
    start = time.perf_counter()
    session.queue(n=8)
    return {
        "candidates": n,
        "seconds": pushed,
        "reconcile_s": reconciled,
        "open_s": opened,
        "first_queue_s": time.perf_counter() - start,
        "mongo_mb": pss_of(mongo.process.pid) / 1e6,
        "mongo_disk": int(stats["storageSize"]) + int(stats["totalIndexSize"]),
        "mongo_data": int(stats["size"]),
        "mongo_indexes": int(stats["totalIndexSize"]),
        "session_mb": (pss_of(os.getpid()) - before) / 1e6,
    }
