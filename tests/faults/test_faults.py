"""A point or two of every cell of the fault table, by fixed seeds; all 50 are tried by ``make faults``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path

import pytest
from segmentation_models_pytorch.encoders import encoders
from timm.models import hrnet, vovnet

from ahp_toolkit import paper
from ahp_toolkit.core.pipeline import Job
from ahp_toolkit.segmenters import deeplab
from ahp_toolkit.stages import train

from .run import Bench, small_disk
from .strikes import FAILED, FAULTS, strike

#: Cells of the suite (the rest differs in how long it takes, not in what could go wrong).
STAGES = ("harvest", "review", "splits", "materialize", "export cocoa", "decisions", "train", "predict", "score")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    home = tmp_path_factory.mktemp("faults")
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        _keep(patch)
        yield Bench(home, stack.enter_context(small_disk(home / "disk")))


def _keep(patch: pytest.MonkeyPatch) -> None:
    """`warm` makes shards, networks and the paper's tables small: later tests of this worker want theirs."""
    patch.setattr(Job, "size_of", Job.size_of)
    patch.setattr(deeplab, "build", deeplab.build)
    for name in ("TABLE2", "Setup"):
        patch.setattr(paper, name, getattr(paper, name))
    for presets in (train.SEGMENTER, train.CENTERMASK, train.PARSER):
        patch.setitem(presets, "debug", presets["debug"])
    for known, name in ((vovnet.model_cfgs, "ese_vovnet19b_slim_dw"), (hrnet.cfg_cls, "hrnet_w18_small")):
        patch.setitem(known, name, deepcopy(known[name]))
    patch.setitem(encoders, "tu-test_efficientnet", {"pretrained_settings": {}})


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
