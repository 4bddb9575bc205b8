"""Composites proposed again and written: votes stay on what they were for, both ways write one test split."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ahp_toolkit.build import build
from ahp_toolkit.build.config import Config, Synthesis, Training
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.records import Human, Occluder, Sample
from ahp_toolkit.decisions import votes
from ahp_toolkit.decisions.votes import Nudge
from ahp_toolkit.runtime.engines import LocalEngine
from ahp_toolkit.runtime.stage import Result, Step
from ahp_toolkit.stages import composites, synthesize
from ahp_toolkit.storage import files, parquet
from annotation.app import compositions
from annotation.composites import compose
from annotation.composites.commands import compose as command
from tests.annotation.small import rectangle
from tests.annotation.test_compose import human, objects, propose, root  # noqa: F401  a fixture
from tests.build.steps import config


def voted(root) -> dict[str, str]:  # noqa: F811
    """One proposal picked and passed, one nudged, one rejected; the status of each."""
    propose(root)
    passed, nudged, rejected = [v.composite.proposal_id for v in votes.proposals(root, "edit", "ed", 3)]
    votes.act(root, "ed", passed, "pick")
    votes.act(root, "ed", nudged, "nudge", Nudge(1))
    votes.act(root, "ed", rejected, "reject")
    for who in ("v1", "v2"):
        votes.act(root, who, passed, "pass")
    return {passed: "picked", nudged: "picked", rejected: "rejected"}


def vanish(root):  # noqa: F811
    """Nothing can be moved any more, neither of the photos nor of the bank."""
    lamp = [o for o in objects() if o.occluder_id.endswith("lamp")]
    parquet.write_records(root / "harvest/occluders/part-00000.parquet", lamp, Occluder)
    parquet.write_records(root / "bank/test/part-00000.parquet", lamp, Occluder)


@pytest.mark.parametrize("change", ["seed", "ratio", "bank", "left"])
def test_votes_stay_whatever_is_proposed_now(root, change):  # noqa: F811
    before = voted(root)
    stood, table = votes.views(root), votes.read_composites(root)
    if change == "bank":
        vanish(root)
    if change == "left":
        left = [human(0, split="train"), human(1, verdict="refine")]
        parquet.write_records(root / "review/part-00000.parquet", left, Human)
    propose(root, **{"seed": {"seed": 5}, "ratio": {"ratio": (0.3, 0.5)}}.get(change, {}))
    after = votes.views(root)
    assert {i: after[i] for i in before} == {i: stood[i] for i in before}
    assert {i: v.status for i, v in after.items() if v.status != "open"} == before
    now = votes.read_composites(root)
    assert {i: now[i] for i in before} == {i: table[i] for i in before}
    if change in ("bank", "left"):
        assert set(now) == set(before)
    if change == "left":
        assert composites.write_test(root).dropped == {"coco/human_changed": 1}


def test_the_same_settings_propose_the_same_whatever_the_votes(root):  # noqa: F811
    voted(root)
    first = (root / "compose/proposals/part-00000.parquet").read_bytes()
    assert propose(root).fresh  # its key names what is kept now
    assert (root / "compose/proposals/part-00000.parquet").read_bytes() == first
    assert propose(root).fresh is False


def test_who_has_another_mask_is_proposed_for_again_and_no_vote_counts_on_what_nobody_saw(root):  # noqa: F811
    before = voted(root)
    stood = votes.read_composites(root)
    new = encode(rectangle(32, 12, 45, 50))
    parquet.write_records(root / "review/part-00000.parquet", [human(0, mask=new), human(1, mask=new)], Human)
    propose(root)
    now, after = votes.read_composites(root), votes.views(root)
    moved = [i for i in before if i in now and now[i].placement != stood[i].placement]
    assert moved and all(now[i].human.mask == new for i in now)
    assert all(after[i].status == "open" and not after[i].votes for i in moved)
    with pytest.raises(UserError, match="proposed again since you saw it"):
        votes.act(root, "ed", moved[0], "pick", version=votes.version_of(stood[moved[0]]))
    seen = compositions.item(root, after[moved[0]])["made"]
    assert votes.act(root, "ed", moved[0], "pick", version=seen).status == "picked"


def test_the_same_placement_before_another_mask_is_another_sample(root):  # noqa: F811
    voted(root)
    composites.write_test(root)
    new = encode(rectangle(32, 13, 45, 50))
    parquet.write_records(root / "review/part-00000.parquet", [human(0, mask=new), human(1, mask=new)], Human)
    again = [replace(c, human=replace(c.human, mask=new)) for c in votes.read_composites(root).values()]
    parquet.write_records(root / "compose/proposals/part-00000.parquet", again, compose.Composite)
    assert composites.write_test(root).fresh
    assert [h.mask for h in parquet.read_records(root / "splits/test/humans", Human)] == [new]


def test_a_test_split_that_is_made_again_to_the_same_bytes_keeps_its_crops(root):  # noqa: F811
    voted(root)
    composites.write_test(root)
    (root / "splits/test/crops").mkdir()
    out = files.read_json(root / "splits/test/stage.json")
    out.pop("check")
    (root / "splits/test/stage.json").write_bytes(files.sealed(out | {"key_digest": "of another version"}))
    assert composites.write_test(root).fresh and (root / "splits/test/crops").exists()


def test_a_vote_while_others_are_proposed_stays(root, monkeypatch):  # noqa: F811
    propose(root)
    run, pid = compose.Stage.run, next(iter(votes.read_composites(root)))
    stood = votes.read_composites(root)[pid]

    def slow(*args, **kwargs):
        if not votes.begun(root):
            votes.act(root, "ed", pid, "pick")
        return run(*args, **kwargs)

    monkeypatch.setattr(compose.Stage, "run", slow)
    propose(root, ratio=(0.45, 0.5))
    assert votes.views(root)[pid].status == "picked" and votes.read_composites(root)[pid] == stood


def test_the_table_does_not_change_between_the_check_and_the_line_of_a_vote(root, monkeypatch):  # noqa: F811
    propose(root)
    pid = next(iter(votes.read_composites(root)))
    append, writing, there = votes.append_line, compose.writing, threading.Event()

    def arrives(root):
        there.set()
        return writing(root)

    def other():
        try:
            propose(root, ratio=(0.45, 0.5))
        finally:
            there.set()

    def slow(path, line):
        proposing.start()
        there.wait()  # until the other is through, or waits for its turn
        append(path, line)

    proposing = threading.Thread(target=other)
    monkeypatch.setattr(compose, "writing", arrives)
    monkeypatch.setattr(votes, "append_line", slow)
    assert votes.act(root, "ed", pid, "pick").status == "picked"
    proposing.join()
    assert votes.views(root)[pid].status == "picked"


@pytest.mark.parametrize("moment", ["made", "between the two renames"])
def test_a_vote_before_a_kill_stays(root, monkeypatch, moment):  # noqa: F811
    propose(root)
    run, rename, pid = compose.Stage.run, Path.rename, next(iter(votes.read_composites(root)))
    stood = votes.read_composites(root)[pid]

    def slow(*args, **kwargs):
        votes.act(root, "ed", pid, "pick")
        result = run(*args, **kwargs)
        if moment == "made":
            raise KeyboardInterrupt
        return result

    def killed(self, to):
        if self.name == "proposals-next":
            raise KeyboardInterrupt
        return rename(self, to)

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(compose.Stage, "run", slow)
        m.setattr(Path, "rename", killed)
        propose(root, ratio=(0.45, 0.5))
    propose(root, ratio=(0.45, 0.5))
    assert votes.views(root)[pid].status == "picked" and votes.read_composites(root)[pid] == stood
    left = {p.name for p in (root / "compose").iterdir()}
    assert left == {"proposals", "votes.jsonl", ".lock"}


def test_where_nothing_is_proposed_an_action_leaves_nothing_behind(tmp_path):
    with pytest.raises(UserError, match="no composites are proposed yet"):
        votes.act(tmp_path, "ed", "any", "pick")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("killed", ["damaged", "moving"])
def test_a_damaged_table_is_made_again_and_one_that_was_being_moved_is_found(root, capsys, killed):  # noqa: F811
    before = voted(root)
    folder = root / "compose/proposals"
    if killed == "damaged":
        next(folder.glob("part-*")).write_bytes(b"PAR1")
        propose(root)
        assert "damaged; edits and votes" in capsys.readouterr().err
    else:
        folder.rename(folder.parent / ".proposals-replaced")
        propose(root, ratio=(0.45, 0.5))
    assert {i: v.status for i, v in votes.views(root).items() if v.status != "open"} == before


def write(root, *args):  # noqa: F811
    done = CliRunner().invoke(command, ["--root", str(root), "--write", *map(str, args)])
    if done.exception is not None:
        raise done.exception
    return done.output


def build_of(folder: Path, **nodes: Any) -> Config:
    return config(folder, {"coco": folder / "data/coco"}, **nodes)


def composites_of(c: Config) -> Step | None:
    s = c.synthesis
    return build.composites(c, synthesize.Initial(s.initial, s.initial_weights, s.initial_iou, c.training.device))


def frozen_test(c: Config) -> Result:
    step = composites_of(c)
    assert step is not None
    with LocalEngine(1) as engine:
        return step.run(engine, quiet=True)


def test_the_command_writes_what_the_build_writes(root):  # noqa: F811
    voted(root)
    build_json = json.loads((root / "build.json").read_text())
    options = {"initial": "simulated", "initial_weights": None, "initial_iou": 0.6, "device": "cpu"}
    files.write_json(root / "build.json", build_json | {"options": options | {"seed": 7}})
    plain = composites.write_test(root, initial=composites.Initial(), seed=0)
    out = write(root)
    assert "1 test samples" in out and "test: replaces the test of before, 1 of its 1 humans stayed" in out
    (sample,) = parquet.read_records(root / "splits/test", Sample)
    c = build_of(root, synthesis=Synthesis(seed=7, initial_iou=0.6), training=Training(device="cpu"))
    again = frozen_test(c)
    assert again.fresh is False and again.digest != plain.digest
    assert next(parquet.read_records(root / "splits/test", Sample)) == sample
    assert "replaces" not in write(root)


def test_the_build_asks_for_as_many_voters_as_the_command_did(root):  # noqa: F811
    voted(root)
    c = build_of(root)
    with pytest.raises(UserError, match="passed 3 voters"):
        write(root, "--voters", 3)
    assert votes.voters_of(root) == 2  # what could not be written is not asked for later
    one = next(i for i, v in votes.views(root).items() if v.status == "picked" and not v.votes)
    votes.act(root, "v1", one, "pass")
    assert "2 test samples" in write(root, "--voters", 1)
    assert frozen_test(c).counts["out"] == 2
    three = next(i for i, v in votes.views(root).items() if v.passed())
    votes.act(root, "v3", three, "pass")
    assert "1 test samples" in write(root, "--voters", 3)
    assert frozen_test(c).fresh is False
    assert [v.composite.proposal_id for v in votes.proposals(root, "done", "x")] == [three]
    (root / "compose/voters.json").write_text("[]")
    with pytest.raises(UserError, match=r"voters.json: expected a number of voters"):
        write(root)


def test_nothing_proposed_names_the_command_and_a_killed_first_one_stops_no_build(root):  # noqa: F811
    with pytest.raises(UserError, match="no composites are proposed yet; run ahp review compose --root"):
        write(root)
    (root / "compose/.proposals-0123").mkdir(parents=True)
    assert composites_of(build_of(root)) is None
