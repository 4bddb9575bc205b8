"""The App of one reviewer over so many candidates, in a real browser: how long until it starts, answers, and shows."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from tests.annotation import app_server
from tests.harness.bench.bench_review import KEY_TO_PAINT, press_keys
from tests.harness.scale.measure import below, pss_of

KEYS = 60
_SHOWN = '[data-cy="ahp-canvas"][data-id]:not([data-id=""])'
_LIMIT_S = 1800


def opened(work: Path, n: int) -> dict[str, Any]:
    """Start `ahp review` on what `review_app.push` left in its database; the tables and the database stay."""
    root = work / "review" / f"{n:g}"
    mongo = app_server.Mongo(work / "review" / f"db-{n}").start()
    try:
        start = time.perf_counter()
        server = app_server.start_server(root, "ann", app_server.environment(mongo, "ahp_scale"))
        try:
            app_server.wait_for(server.ready, _LIMIT_S)
            said = {"candidates": n, "ready_s": time.perf_counter() - start} | _page(server.url)
            assert mongo.process is not None
            said["server_mb"] = sum(map(pss_of, below(server.process.pid))) / 1e6
            return said | {"mongo_mb": pss_of(mongo.process.pid) / 1e6}
        finally:
            server.process.kill()
    finally:
        mongo.kill()


def _page(url: str) -> dict[str, Any]:
    """Seconds to the first candidate, from a key to the next one, and from the tab to the grid of samples."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=app_server.CHROMIUM, args=app_server.FLAGS)
        page = chromium.new_page(viewport={"width": 1280, "height": 800})
        start = time.perf_counter()
        page.goto(url, timeout=_LIMIT_S * 1e3)
        page.wait_for_selector(_SHOWN, timeout=_LIMIT_S * 1e3)
        first = time.perf_counter() - start
        page.evaluate(KEY_TO_PAINT)
        keys = press_keys(app_server.Panel(page), KEYS)
        start = time.perf_counter()
        with page.expect_response(lambda r: "/media" in r.url, timeout=_LIMIT_S * 1e3):
            page.get_by_text("Samples", exact=True).first.click()
        grid = time.perf_counter() - start
        chromium.close()
    return {"first_s": first, "key_ms": statistics.median(keys), "worst_key_ms": max(keys), "grid_s": grid}
