"""A point or two of every cell of the fault table, by fixed seeds; all 50 are tried by ``make faults``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path

import click
import pytest
from segmentation_models_pytorch.encoders import encoders
from timm.models import hrnet, vovnet

from ahp_toolkit.cli.bench import paper_tables
from ahp_toolkit.parsers import PARSERS
from ahp_toolkit.runtime.stage import Job
from ahp_toolkit.segmenters import centermask, deeplab
from tests.harness.faults.cells import Work
from tests.harness.faults.run import Bench, small_disk
from tests.harness.faults.strikes import FAILED, FAULTS, strike

#: Cells that meet every fault in the suite (the rest differs in how long it takes, not in what could go wrong), ...
STAGES = (
    "harvest", "review", "splits", "materialize full", "export cocoa", "decisions", "import masks", "train deeplab",
    "train", "predict", "score",
)  # fmt: skip
#: ... and those that are only killed there, in a worker where they have some.
KILLED = (
    "materialize", "export ahp", "export kins", "review triage", "review export", "import decisions", "compose --write",
    "resegment", "leaderboards", "photos",
)  # fmt: skip

#: Commands without a row, and why (`docs/measurements/faults.md` says the same).
UNSTRUCK = {
    "demo": "runs the rows of build and bench one after the other",
    "bench validate": "makes nothing",
    "convert": "makes all of its files again, each by one rename",
    "bench open": "writes to the database alone, as the App does",
    "doctor": "makes nothing",
}


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
        patch.setattr(paper_tables, name, getattr(paper_tables, name))
    for presets in (deeplab.PRESETS, centermask.PRESETS, PARSERS.get("hrnet").PRESETS):
        patch.setitem(presets, "debug", presets["debug"])
    for known, name in ((vovnet.model_cfgs, "ese_vovnet19b_slim_dw"), (hrnet.cfg_cls, "hrnet_w18_small")):
        patch.setitem(known, name, deepcopy(known[name]))
    patch.setitem(encoders, "tu-test_efficientnet", {"pretrained_settings": {}})


@pytest.mark.parametrize("stage", [*STAGES, *KILLED])
def test_every_fault_ends_with_the_same_digests_or_one_clear_error(bench: Bench, stage: str):
    faults = [f for f in FAULTS if bench.has(stage, f) and (stage in STAGES or f in ("kill", "worker"))]
    ends = {fault: strike(bench.stand(stage), fault, 1) for fault in faults}
    assert not [f"{fault}: {words}" for fault, (end, words) in ends.items() if end == FAILED]


def test_the_points_really_hit(bench: Bench):
    stand = bench.stand("harvest")
    stand.fresh()
    assert stand.run("kill", 1).code == 137 and stand.counted() == 1
    stand.fresh()
    assert stand.run("kill", stand.events + 1).code == 0
    assert Path(stand.work).exists()


def test_every_command_has_a_row_or_a_reason(bench: Bench):
    """Who adds a command that writes adds a cell, or says here and in faults.md why none is needed."""
    from ahp_toolkit.cli.main import ahp

    struck = {_name(ahp, cell.work) for cell in bench.cells.values()}
    assert _commands(ahp) - struck == set(UNSTRUCK)
    assert not struck & set(UNSTRUCK)


def _name(group: click.Group, work: Work) -> str:
    """Which command a cell runs; the one without is a sitting of ``ahp review``."""
    names: list[str] = []
    command: click.Command | None = group
    for word in getattr(work, "argv", ("review",)):
        command = command.get_command(click.Context(command), word) if isinstance(command, click.Group) else None
        if command is None:
            break
        names.append(word)
    return " ".join(names)


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> set[str]:
    found: set[str] = set()
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        own = isinstance(command, click.Group) and command.invoke_without_command
        if own or not isinstance(command, click.Group):
            found.add(" ".join((*path, name)))
        if isinstance(command, click.Group):
            found |= _commands(command, (*path, name))
    return found
