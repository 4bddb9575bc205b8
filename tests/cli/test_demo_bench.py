"""The demo's leaderboard: the trivial submissions score, models stand beside them, a second call makes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ahp_toolkit.cli import demo_bench
from ahp_toolkit.cli.bench import runs
from ahp_toolkit.storage import files
from benchmark.features.context import Context
from benchmark.grading.submission import Submission, validate
from benchmark.grading.truth import sample_pairs, split_digest
from tests.baselines.training import world


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = world.make(tmp_path_factory.mktemp("demo"))
    mark = {"name": "val", "counts": {}, "dropped": {}, "digest": "made by hand", "key_digest": ""}
    files.write_json(made / "splits" / "val" / "stage.json", mark)
    return made


def test_the_rows_without_training_are_valid_and_score_as_they_must(root: Path):
    split = runs.write_crops(root, "val")
    pairs = sample_pairs(split)
    for job in demo_bench.jobs(root, 0, demo_bench.ENTRIES[:2]):
        folder, _ = runs.predict_once(runs.train_once(job)[0], split, device="cpu")
        assert list(validate(Submission(folder), [i for i, _ in pairs], split_digest(pairs))) == []
        scored, fresh = runs.score_once(folder, split, root / "trivial", Context())
        assert fresh and not runs.score_once(folder, split, root / "trivial", Context())[1]
        found = runs.scores_of(scored)
        if job.model == "initial":
            assert found["iou_invisible"].value == 0 and 0.3 < found["iou_amodal"].value < 1
        else:
            assert found["l1_invisible"].value > 0.01 and "fid" not in found


def test_the_boards_of_a_few_steps_and_a_second_call(root: Path):
    trained = demo_bench.Entry("pcnets", "mask", 1), demo_bench.Entry("pix2pix", "content", 1)
    entries = (*demo_bench.ENTRIES[:2], *trained)
    said: list[str] = []
    page = demo_bench.run_boards(root, 0, 1, said.append, entries)
    assert page == root / "boards" / "index.html"
    html = page.read_text()
    assert "sample world: procedural people; nothing here is a result on people" in html
    for name in ("initial", "nothing", "pcnets", "pix2pix", "nothing trained"):
        assert name in html
    assert "absent: weights not found" in html
    assert any("pcnets/mask 1, pix2pix/content 1" in s for s in said)
    said.clear()
    demo_bench.run_boards(root, 0, 1, said.append, entries)
    assert sum("(up to date)" in s for s in said) == 4 + 4
    board = json.loads((root / "boards" / "leaderboard.json").read_text())["boards"][0]
    assert len(board["rows"]) == 2
    demo_bench.run_boards(root, 0, 1, said.append, entries[::2])  # what is no longer asked for leaves the boards
    assert len(json.loads((root / "boards" / "leaderboard.json").read_text())["boards"]) == 1
