"""A point or two of every cell of the fault table, by fixed seeds; all 50 are tried by ``make faults``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ahp_toolkit.core.pipeline import Job

from .run import Bench, small_disk
from .strikes import FAILED, FAULTS, strike

#: Cells of the suite (the rest differs in how long it takes, not in what could go wrong).
STAGES = ("harvest", "review", "splits", "materialize", "export cocoa", "decisions", "train", "predict", "score")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    home = tmp_path_factory.mktemp("faults")
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Job, "size_of", Job.size_of)  # `warm` makes shards small; later tests of this worker want theirs
        yield Bench(home, stack.enter_context(small_disk(home / "disk")))


@pytest.mark.parametrize("stage", STAGES)
def test_every_fault_ends_with_the_same_digests_or_one_clear_error(bench: Bench, stage: str):
    ends = {fault: strike(bench.stand(stage), fault, 1) for fault in FAULTS if bench.has(stage, fault)}
    assert not [f"{fault}: {words}" for fault, (end, words) in ends.items() if end == FAILED]


def test_the_points_really_hit(bench: Bench):
    stand = bench.stand("harvest")
    stand.fresh()
    assert stand.run("kill", 1).code == 137 and stand.counted() == 1
    stand.fresh()
    assert stand.run("kill", stand.events + 1).code == 0
    assert Path(stand.work).exists()
