"""The documented template, installed as a package of its own: one plug-in of each kind, used from the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ahp_toolkit.core.records import Human, Score
from ahp_toolkit.storage import images, parquet
from tests.cli.small import ENV, data, words

TEMPLATE = Path(__file__).parents[2] / "docs" / "template"


@pytest.fixture(scope="module")
def ahp(tmp_path_factory):
    """``ahp`` in an environment where the template is installed."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("plugins")
    shutil.copytree(TEMPLATE, folder / "source")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    made = subprocess.run([*pip, "-t", folder / "site", folder / "source"], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    env = ENV | {"PYTHONPATH": os.pathsep.join([str(folder / "site"), *sys.path])}

    def run(*args: object) -> str:
        command = [sys.executable, "-m", "ahp_toolkit.cli.main", *map(str, args)]
        out = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=300)
        assert out.returncode == 0, out.stderr
        return out.stdout

    return run


def photos(root: Path, count: int = 12) -> Path:
    """``people.csv`` with two people a photo, and the photos."""
    rows = ["file,x0,y0,x1,y1"]
    for n in range(count):
        pixels = np.random.default_rng(n).integers(0, 255, (160, 200, 3), np.uint8)
        images.write_jpeg(root / f"{n}.jpg", pixels)
        rows += [f"{n}.jpg,{20 + n},30,{60 + n},140", f"{n}.jpg,{110 + n},20,{160 + n},150"]
    (root / "people.csv").write_text("\n".join(rows))
    return root


def test_one_plug_in_of_each_kind_from_outside_the_repository(ahp, tmp_path):
    source, out = photos(tmp_path / "mine"), tmp_path / "out"
    build = words(data(tmp_path / "coco", 6), out, "--source", f"mine:box_table={source}")  # occluders need masks
    ahp(*build, "--segmenter", "ellipse", "--parser", "bands")
    people = [h for h in parquet.read_records(out / "review", Human) if h.image.source == "mine"]
    assert len(people) > 12
    assert all(h.parsing is not None and {13, 5, 9} <= set(np.unique(h.parsing.decode())) for h in people)

    model = ("two_layers", "--task", "mask", "--root", out, "--recipe", "debug", "--name", "tiny")
    ahp("bench", "train", *model, "--set", "train.steps=2", "--set", "width=4")
    ahp("bench", "predict", out / "runs" / "tiny", "--split", "val")
    predictions = out / "runs" / "tiny" / "predictions" / "val"
    ahp("bench", "score", predictions, "--split", out / "splits" / "val", "--out", tmp_path / "boards", "--workers", 1)
    (file,) = (tmp_path / "boards").glob("*/scores.parquet")
    assert any(s.metric == "area_error" and s.model == "two_layers" for s in parquet.read_records(file, Score))
