"""The local engine's share of CPU time in stage functions, and what Ray costs against it, on materialize.

``python -m tests.harness.bench.bench_engines [SCENES | BUILD]`` (default 240 scenes: a minute on two free cores).
One build of
the sample world, or a build that stands (``make scale`` with ``--keep`` leaves one of 10,000 people: minutes a run);
then its splits' whole pictures are written at 2 workers by the local engine and by Ray, starts included. CPU seconds
are those of this process and everything below it (Ray's daemons too), wall seconds by the clock; a busy machine changes
the second only.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ahp_toolkit.build import build
from ahp_toolkit.build.config import Reviewing, Running, read
from ahp_toolkit.runtime import stage
from ahp_toolkit.runtime.engine_options import EngineSettings, make_engine
from ahp_toolkit.runtime.engines import Engine, LocalEngine
from ahp_toolkit.sample_world import write_world
from ahp_toolkit.stages import materialize
from tests.build.steps import config

SOURCES, WORKERS = ("coco", "voc_sbd"), 2


@dataclass(frozen=True)
class Timed:
    """A stage function that leaves, a process a file, CPU seconds: inside itself, and of the whole process so far."""

    fn: Callable[[Sequence[Any]], stage.Output]
    to: str

    def __call__(self, items: Sequence[Any]) -> stage.Output:
        """The stage function's answer."""
        start = time.process_time()
        out = self.fn(items)
        with (Path(self.to) / str(psutil.Process().pid)).open("a") as f:
            f.write(f"{time.process_time() - start} {time.process_time()}\n")
        return out


def _share(folder: Path) -> float:
    """CPU seconds inside the stage function over all CPU seconds of the workers, their imports and writing included."""
    inside = whole = 0.0
    for path in folder.iterdir():
        rows = [[float(v) for v in line.split()] for line in path.read_text().splitlines()]
        inside += sum(r[0] for r in rows)
        whole += rows[-1][1]
    return inside / whole


def _cpu() -> float:
    """CPU seconds of this process and of everything below it that lives."""
    tree = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(p.cpu_times()[:4]) for p in tree)


def _measure(engine: Engine, root: Path, out: Path, times: Path) -> tuple[float, float]:
    """(CPU, wall) seconds of writing all splits' pictures."""
    times.mkdir()
    run = stage.Stage.run

    def timed(step: stage.Stage, *args: Any, **options: Any) -> stage.Result:
        job = replace(step.job, fn=Timed(step.job.fn, str(times)))
        return run(replace(step, job=job), *args, **options)

    stage.Stage.run = timed
    try:
        start, before = time.monotonic(), _cpu()
        with engine:
            materialize.materialize(root, read(root).roots, out, ("train", "val", "test"), "full", engine)
            used = _cpu() - before
        return used, time.monotonic() - start
    finally:
        stage.Stage.run = run


def _build(out: Path, scenes: int) -> Path:
    write_world(out / "world", seed=0, scenes=scenes)
    with LocalEngine(WORKERS) as engine:
        roots = {name: out / "world" / name for name in SOURCES}
        c = config(out / "build", roots, review=Reviewing("oracle"))
        c = replace(c, run=Running(out / "build", stop_after="splits", quiet=True))
        build.build(c, engine, lambda _: None)
    return out / "build"


def main() -> None:
    """Print the share, and CPU and wall seconds of both engines with their ratios."""
    given = sys.argv[1] if len(sys.argv) > 1 else "240"
    with tempfile.TemporaryDirectory() as scratch:
        root = _build(Path(scratch), int(given)) if given.isdigit() else Path(given)
        made = {}
        for name in ("local", "ray"):
            to = Path(scratch) / name
            made[name] = _measure(
                make_engine(EngineSettings(WORKERS, name)), root, to / "pixels", Path(scratch) / f"{name}.times"
            )
            print(f"{name:6s} CPU {made[name][0]:7.1f} s  wall {made[name][1]:7.1f} s", flush=True)
        share = _share(Path(scratch) / "local.times")
    cpu, wall = (made["ray"][i] / made["local"][i] for i in (0, 1))
    print(f"local engine: {share:.1%} of the workers' CPU time in stage functions (target >= 90 %)")
    print(f"ray / local: CPU {cpu:.2f}, wall {wall:.2f}, starts included (target < 1.25)")


if __name__ == "__main__":
    main()
