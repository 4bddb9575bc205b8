"""The review's speed: candidates pushed a second against FiftyOne's own insert of bare samples; key to next candidate.

``python tests/harness/bench/bench_review.py [candidates]``; the browser part needs chromium.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.annotation import app_server, tiny_build

KEY_TO_PAINT = """() => {
  window.__times = [];
  let from = null;
  window.addEventListener('keydown', () => { from = performance.now(); }, true);
  const canvas = document.querySelector('[data-cy=ahp-canvas]');
  new MutationObserver(() => {
    if (from === null || !canvas.dataset.id) return;
    const start = from;
    from = null;
    requestAnimationFrame(() => { const c = new MessageChannel(); c.port1.onmessage = () =>
      window.__times.push(performance.now() - start); c.port2.postMessage(0); });
  }).observe(canvas, { attributes: true, attributeFilter: ['data-id'] });
}"""


def main() -> None:
    """Print the figures."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "build"
        tiny_build.write(root, n, photos=40)
        mongo = app_server.Mongo(Path(folder) / "db").start()
        try:
            _push(root, n, mongo)
            if app_server.CHROMIUM:
                _keys(root, n, mongo)
        finally:
            mongo.kill()


def _push(root: Path, n: int, mongo: app_server.Mongo) -> None:
    os.environ |= app_server.environment(mongo, "ahp_bench")
    from annotation.app import server as app

    fo = app.connect(root)
    start = time.perf_counter()
    bare = fo.Dataset("bare")
    bare.add_samples([fo.Sample(filepath=f"/x/{i}.jpg", i=i) for i in range(n)])
    floor = time.perf_counter() - start
    fo.delete_dataset("bare")
    start = time.perf_counter()
    dataset = app.push(root, app.dataset_name(root))
    took = time.perf_counter() - start
    start = time.perf_counter()
    app.reconcile(root, dataset, ["ann"])
    again = time.perf_counter() - start
    print(f"push: {n} candidates in {took:.1f} s, {n / took:.0f}/s; {took / floor:.2f} x bare samples ({floor:.1f} s)")
    print(f"push: 50,000 would take {took * 50_000 / n:.0f} s (limit 300 s); reconcile {again:.1f} s")


def _keys(root: Path, n: int, mongo: app_server.Mongo) -> None:
    env = app_server.environment(mongo, "ahp_bench")
    with app_server.serving(root, ["ann"], env) as (server,), app_server.browsers([server.url]) as (panel,):
        panel.page.evaluate(KEY_TO_PAINT)
        times = press_keys(panel, 200)
    cut = statistics.quantiles(times, n=20)
    print(f"key to next candidate painted, {n} loaded, {len(times)} keys: median {statistics.median(times):.0f} ms "
          f"(limit 150), 95 % {cut[18]:.0f} ms (limit 300), worst {max(times):.0f} ms")  # fmt: skip


def press_keys(panel: Any, keys: int) -> list[float]:
    """Decide so many candidates; ms from each key to the next candidate's paint (`KEY_TO_PAINT` must run already)."""
    for k in range(keys):
        panel.press("dddpddr"[k % 7])
        time.sleep(0.15)  # a very fast reviewer
    return [float(t) for t in panel.page.evaluate("window.__times")]


if __name__ == "__main__":
    main()
