"""The database taken away in the middle: of a reviewer's sitting, and of the first push of all candidates."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.harness.faults.strikes import ERROR, FAILED, SAME

N, WORDS, LIMIT = 24, 8, 90.0


class Database:
    """A MongoDB of our own, a small build, and its dataset. One a process: FiftyOne reads its settings once."""

    def __init__(self, folder: Path, mongo: Any) -> None:
        from annotation.app import server
        from tests.annotation import tiny_build

        self.root, self.mongo, self.app = folder / "build", mongo, server
        shutil.rmtree(self.root, ignore_errors=True)
        tiny_build.write(self.root, N, part=10)
        server.BATCH = 4
        self.name = server.dataset_name(self.root)
        self.dataset = server.push(self.root, self.name)

    def strike(self, seed: int) -> tuple[str, str]:
        """One point: the database is killed at a seeded moment; odd seeds while candidates are pushed."""
        rng = random.Random(f"database/{seed}")
        return self._push(rng, seed) if seed % 2 else self._sitting(rng, seed)

    def _sitting(self, rng: random.Random, seed: int) -> tuple[str, str]:
        from ahp_toolkit.decisions.log import path_of, read_entries
        from annotation.session.session import KeyPress, Session

        session = Session(self.root, f"r{seed}")
        session.on_change = self.app.writer_for(session).put
        ids, at = sorted(session.candidates), rng.randrange(WORDS)
        spoken = rng.sample(ids, WORDS)
        for i, cid in enumerate(spoken):
            if i == at:
                self.mongo.kill()
            session.decide(KeyPress(cid, "discard", "occluded", 1.0))
        words = f"killed before word {at + 1} of {WORDS}"
        said = [e.candidate_id for e in read_entries(path_of(self.root, session.reviewer))]
        self.mongo.start()
        if said != spoken:
            return FAILED, f"{words}: the log holds {len(said)} of {WORDS}"
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            if not self._behind(session, spoken):
                return SAME, f"{words}; the database caught up"
            time.sleep(0.1)
        return FAILED, f"{words}: the database never caught up: {self._behind(session, spoken)}"

    def _behind(self, session: Any, ids: list[str]) -> list[str]:
        try:
            rows = list(self.dataset._sample_collection.find({"candidate_id": {"$in": ids}}))
        except OSError:
            return ids
        field = f"verdict_{session.reviewer}"
        return [r["candidate_id"] for r in rows if r.get(field) != "discard" or r.get("decided") is not True]

    def _push(self, rng: random.Random, seed: int) -> tuple[str, str]:
        from ahp_toolkit.core.errors import UserError

        name, at, batches = f"{self.name}-{seed}", rng.randrange(1, N // self.app.BATCH), 0

        def say(_: str) -> None:
            nonlocal batches
            batches += 1
            if batches == at:
                self.mongo.kill()

        words = f"killed after batch {at} of {N // self.app.BATCH} of the push"
        try:
            self.app.push(self.root, name, say)
            return FAILED, f"{words}: no error"
        except UserError as e:
            if "\n" in str(e):
                return FAILED, f"{words}: {e}"
            said = str(e)
        finally:
            self.mongo.start()
        ids = self.app.push(self.root, name).values("candidate_id")
        return (ERROR, f"{words}: {said}; then whole") if len(ids) == len(set(ids)) == N else (FAILED, words)


@contextmanager
def database(folder: Path) -> Iterator[Database]:
    """A database for the points of this process."""
    from tests.annotation import app_server

    mongo = app_server.Mongo(folder / "db").start()
    os.environ.update(app_server.environment(mongo, "ahp_faults"))
    os.environ["FIFTYONE_DATABASE_URI"] = f"{mongo.uri}/?serverSelectionTimeoutMS=1000"
    try:
        yield Database(folder, mongo)
    finally:
        mongo.kill()
